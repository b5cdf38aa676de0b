"""The camera model against closed forms and OpenCV."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import CameraError

POINTS = np.random.default_rng(0).uniform([-0.3, -0.2, 0.3], [0.3, 0.2, 1.5], (50, 3))

PLUMB_BOB = Camera(640, 480, 600.0, 590.0, 310.0, 250.0, 'plumb_bob', (-0.2, 0.05, 0.001, -0.002, 0.01))
RATIONAL = Camera(
    640, 480, 600.0, 590.0, 310.0, 250.0, 'rational_polynomial', (0.3, 0.1, 1e-3, -1e-3, 0.02, 0.5, 0.1, 0.03)
)
THIN_PRISM = replace(RATIONAL, distortion=(*RATIONAL.distortion, 0.02, -0.01, -0.03, 0.004))
TILTED = replace(THIN_PRISM, distortion=(*THIN_PRISM.distortion, 0.05, -0.03))
NO_K3 = replace(PLUMB_BOB, distortion=PLUMB_BOB.distortion[:4])
FISHEYE = Camera(640, 480, 300.0, 300.0, 320.0, 240.0, 'equidistant', (0.05, -0.01, 0.003, -0.001))
PINHOLE = Camera(640, 480, 600.0, 590.0, 310.0, 250.0)

# Coefficients as calibrations of real devices give them: a Kinect's colour cameras, and a webcam.
KINECT = Camera(
    *(1280, 720, 605.0, 605.0, 640.0, 365.0, 'rational_polynomial'),
    (0.37, -2.6, 2e-4, -1e-4, 1.46, 0.25, -2.42, 1.39),
)
WIDE_KINECT = Camera(
    *(1280, 720, 500.0, 500.0, 640.0, 365.0, 'rational_polynomial'),
    (5.2, 3.1, 1e-4, -1e-5, 0.17, 5.5, 4.5, 0.9),
)
WEBCAM = Camera(640, 480, 500.0, 500.0, 320.0, 240.0, 'plumb_bob', (-0.35, 0.15, 0.0, 0.0, 0.0))


def test_the_optical_axis_meets_the_principal_point():
    np.testing.assert_allclose(PINHOLE.project(np.array([[0.0, 0.0, 2.0]])), [[310.0, 250.0]])


def test_a_point_to_the_right_and_below_has_larger_pixels():
    np.testing.assert_allclose(PINHOLE.project(np.array([[0.1, 0.2, 2.0]])), [[310.0 + 30.0, 250.0 + 59.0]])


@pytest.mark.parametrize('camera', [PLUMB_BOB, NO_K3, RATIONAL, THIN_PRISM, TILTED])
def test_distortion_is_that_of_opencv(camera):
    expected, _ = cv2.projectPoints(POINTS, np.zeros(3), np.zeros(3), camera.K, np.array(camera.distortion))
    np.testing.assert_allclose(camera.project(POINTS), expected[:, 0], atol=1e-9)


def test_equidistant_follows_its_formula():
    x, y = (POINTS[:, :2] / POINTS[:, 2:]).T
    radius = np.hypot(x, y)
    theta = np.arctan(radius)
    bent = theta * (1 + sum(k * theta ** (2 * i + 2) for i, k in enumerate(FISHEYE.distortion)))
    expected = np.stack([x, y], 1) / radius[:, None] * bent[:, None] * 300.0 + (320.0, 240.0)
    np.testing.assert_allclose(FISHEYE.project(POINTS), expected, atol=1e-6)


@pytest.mark.parametrize('camera', [PINHOLE, PLUMB_BOB, RATIONAL, FISHEYE])
def test_unproject_undoes_project(camera):
    np.testing.assert_allclose(camera.unproject(camera.project(POINTS), POINTS[:, 2]), POINTS, atol=1e-4)


def grid(camera: Camera) -> np.ndarray:
    """Pixels all over the image, its corners among them."""
    columns, rows = np.linspace(0, camera.width - 1, 33), np.linspace(0, camera.height - 1, 25)
    return np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)


@pytest.mark.parametrize('camera', [PLUMB_BOB, RATIONAL, FISHEYE, KINECT, WIDE_KINECT, WEBCAM])
def test_rays_reach_the_corners_of_the_image(camera):
    pixels = grid(camera)
    np.testing.assert_allclose(
        camera.project(camera.unproject(pixels, np.ones(len(pixels)))), pixels, atol=0.01
    )


@pytest.mark.parametrize(
    ('model', 'coefficients', 'fold_px'),
    [
        # r - 0.35 r^3 grows up to r = 0.976, where it is 0.651
        ('plumb_bob', (-0.35, 0.0, 0.0, 0.0), 300.0 * 0.6506),
        # theta - 0.3 theta^3 grows up to theta = 1.054, where it is 0.703
        ('equidistant', (-0.3, 0.0, 0.0, 0.0), 300.0 * 0.7027),
    ],
)
def test_pixels_beyond_the_fold_of_a_lens_have_no_ray(model, coefficients, fold_px):
    camera = Camera(640, 480, 300.0, 300.0, 320.0, 240.0, model, coefficients)
    pixels = grid(camera)
    radius = np.hypot(*(pixels - (320.0, 240.0)).T)
    rays = camera.rays(pixels)
    outside, inside = radius > fold_px + 1.0, radius < fold_px - 5.0
    assert outside.any() and inside.any()
    assert np.isnan(rays[outside]).all()
    np.testing.assert_allclose(
        camera.project(np.hstack([rays[inside], np.ones((inside.sum(), 1))])), pixels[inside], atol=0.01
    )


@pytest.mark.parametrize('camera', [PINHOLE, PLUMB_BOB, FISHEYE])
def test_no_pixels_have_no_rays(camera):
    assert camera.rays(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize('camera', [PINHOLE, PLUMB_BOB])
def test_points_behind_the_camera_have_no_pixel(camera):
    pixels = camera.project(np.array([[0.1, 0.0, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert np.isnan(pixels[:2]).all()
    assert np.isfinite(pixels[2]).all()


def test_field_of_view_spans_the_image_edges_and_is_a_guess():
    camera = Camera.from_fov(640, 480, 90.0)
    left = camera.rays(np.array([[-0.5, 239.5]]))  # the outer edge of the first pixel
    np.testing.assert_allclose(left, [[-1.0, 0.0]], atol=1e-12)
    assert not camera.calibrated


@pytest.mark.parametrize(
    'arguments',
    [
        (0, 480, 600.0, 600.0, 320.0, 240.0),
        (640, 480, 0.0, 600.0, 320.0, 240.0),
        (640, 480, float('nan'), 600.0, 320.0, 240.0),
        (640, 480, 600.0, 600.0, 320.0, 240.0, 'plumb_bob', (0.1,)),
        (640, 480, 600.0, 600.0, 320.0, 240.0, 'thin_prism', ()),
    ],
)
def test_impossible_intrinsics_are_refused(arguments):
    with pytest.raises(CameraError):
        Camera(*arguments)


@pytest.mark.parametrize('angle', [0.0, -10.0, 180.0, float('nan')])
def test_impossible_field_of_view_is_refused(angle):
    with pytest.raises(CameraError):
        Camera.from_fov(640, 480, angle)
