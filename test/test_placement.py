"""Where a hand is: against known places and OpenCV, with distortion, outliers and hopeless input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand import ScaleSource
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.placement import place, scale_source

PLAIN = Camera(640, 480, 520.0, 510.0, 315.0, 245.0)
CAMERAS = {
    'plain': PLAIN,
    'plumb_bob': Camera(640, 480, 520.0, 510.0, 315.0, 245.0, 'plumb_bob', (-0.31, 0.11, 1e-3, -2e-3, -0.02)),
    'rational': Camera(
        640,
        480,
        520.0,
        510.0,
        315.0,
        245.0,
        'rational_polynomial',
        (0.4, -0.3, 1e-4, 2e-4, 0.1, 0.7, -0.3, 0.05),
    ),
    'fisheye': Camera(640, 480, 330.0, 330.0, 320.0, 240.0, 'equidistant', (-0.02, 0.004, -0.001, 0.0)),
}


def random_hand(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (21,3) of a hand about the origin, and a place (3,) in view."""
    rng = np.random.default_rng(seed)
    pose = load_hand_model().posed(
        rng.normal(size=3), rng.normal(size=45) * 0.3, rng.normal(size=10), np.zeros(3)
    )
    depth = rng.uniform(0.25, 1.2)
    return pose.keypoints, np.array([*(rng.uniform(-0.3, 0.3, 2) * depth), depth])


@pytest.mark.parametrize('name', CAMERAS)
@pytest.mark.parametrize('seed', range(5))
def test_finds_the_place_that_the_pixels_were_made_with(name, seed) -> None:
    points, transl = random_hand(seed)
    pixels = CAMERAS[name].project(points + transl)
    np.testing.assert_allclose(place(points, pixels, CAMERAS[name]), transl, atol=1e-4)


@pytest.mark.parametrize('seed', range(5))
def test_is_as_good_as_opencv_under_pixel_noise(seed) -> None:
    points, transl = random_hand(seed)
    rng = np.random.default_rng(100 + seed)
    pixels = PLAIN.project(points + transl) + rng.normal(size=(21, 2))
    placed = place(points, pixels, PLAIN)
    # solvePnP seeks the rotation as well; with the true one to start from it hardly leaves it
    _, _, reference = cv2.solvePnP(points, pixels, PLAIN.K, None, np.zeros(3), transl.copy(), True)

    def mean_error(at: np.ndarray) -> float:
        return float(np.linalg.norm(PLAIN.project(points + at) - pixels, axis=1).mean())

    assert mean_error(placed) < mean_error(transl) + 1e-9
    assert np.linalg.norm(placed - transl) < np.linalg.norm(reference.ravel() - transl) + 0.02 * transl[2]


@pytest.mark.parametrize('seed', range(10))
def test_shrugs_off_three_wrong_keypoints(seed) -> None:
    points, transl = random_hand(seed)
    rng = np.random.default_rng(seed)
    pixels = PLAIN.project(points + transl)
    wrong = rng.choice(21, 3, replace=False)
    pixels[wrong] += rng.normal(size=(3, 2)) * 0.5 * np.ptp(pixels, axis=0)
    np.testing.assert_allclose(place(points, pixels, PLAIN), transl, atol=0.01 * transl[2])


def test_keypoints_without_weight_do_not_count() -> None:
    points, transl = random_hand(0)
    pixels = PLAIN.project(points + transl)
    pixels[:10] = 0.0
    weights = np.ones(21)
    weights[:10] = 0.0
    np.testing.assert_allclose(place(points, pixels, PLAIN, weights), transl, atol=1e-6)


def test_two_points_have_a_closed_form() -> None:
    points = np.array([[-0.05, 0.0, 0.0], [0.05, 0.0, 0.0]])
    camera = Camera(640, 480, 500.0, 500.0, 320.0, 240.0)
    np.testing.assert_allclose(
        place(points, np.array([[270.0, 240.0], [370.0, 240.0]]), camera), [0.0, 0.0, 0.5], atol=1e-9
    )


def test_scale_of_the_points_is_the_scale_of_the_place() -> None:
    points, transl = random_hand(1)
    pixels = PLAIN.project(points + transl)
    np.testing.assert_allclose(place(points * 1.1, pixels, PLAIN), transl * 1.1, atol=1e-6)


@pytest.mark.parametrize('seed', range(10))
def test_is_what_reweighted_least_squares_find(seed) -> None:
    points, transl = random_hand(seed)
    rng = np.random.default_rng(seed)
    pixels, given = PLAIN.project(points + transl) + rng.normal(size=(21, 2)) * 3.0, rng.uniform(0.1, 2.0, 21)
    rays = PLAIN.rays(pixels)
    centre = given @ rays / given.sum()
    size = np.sqrt(given @ ((rays - centre) ** 2).sum(axis=1) / given.sum())
    # x + tx = u (z + tz), and so for y and v
    left = np.zeros((21, 2, 3))
    left[:, 0, 0] = left[:, 1, 1] = 1.0
    left[:, :, 2] = -rays
    right = rays * points[:, 2:] - points[:, :2]
    trust = np.ones(21)
    for _ in range(20):
        root = np.sqrt(given * trust)[:, None]
        expected = np.linalg.lstsq(
            (left * root[:, :, None]).reshape(42, 3), (right * root).reshape(42), rcond=None
        )[0]
        depth = points[:, 2] + expected[2]
        error = np.linalg.norm(left @ expected - right, axis=1) / (depth * size)
        trust = 1.0 / (np.maximum(error, 0.01) * depth**2)
    np.testing.assert_allclose(place(points, pixels, PLAIN, given), expected, rtol=0, atol=1e-10)


def test_numbers_of_any_size_give_a_place_or_a_frame_error() -> None:
    points, transl = random_hand(3)
    pixels = PLAIN.project(points + transl)
    for scale in 10.0 ** np.arange(-150, 151, 25):
        try:
            found = place(points * scale, pixels, PLAIN)
        except FrameError:
            continue
        np.testing.assert_allclose(found / scale, transl, rtol=0.01, atol=1e-2)


def hopeless() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    points, transl = random_hand(2)
    pixels = PLAIN.project(points + transl)
    ones = np.ones(21)
    nan_pixels, nan_points = pixels.copy(), points.copy()
    nan_pixels[3, 0] = nan_points[5, 2] = np.nan
    upside_down = 2 * pixels.mean(axis=0) - pixels
    return {
        'not finite': (points, nan_pixels, ones),
        'is not finite': (nan_points, pixels, ones),
        'on one pixel': (points, np.full((21, 2), 100.0), ones),
        'fewer than two': (points, pixels, np.eye(21)[0]),
        'behind the camera': (points, upside_down, ones),
    }


@pytest.mark.parametrize('says', list(hopeless()))
def test_hopeless_input_is_a_frame_error(says) -> None:
    points, pixels, weights = hopeless()[says]
    with pytest.raises(FrameError, match=says):
        place(points, pixels, PLAIN, weights)


def test_scale_source_needs_intrinsics_before_a_hand_length() -> None:
    guessed = Camera.from_fov(640, 480)
    assert scale_source(guessed, hand_length_given=False) is ScaleSource.UNKNOWN
    assert scale_source(guessed, hand_length_given=True) is ScaleSource.UNKNOWN
    assert scale_source(PLAIN, hand_length_given=False) is ScaleSource.NOMINAL_HAND
    assert scale_source(PLAIN, hand_length_given=True) is ScaleSource.HAND_LENGTH
