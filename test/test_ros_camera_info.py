"""A CameraInfo gives the camera that the image was taken with, or says that it cannot."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
from sensor_msgs.msg import CameraInfo, RegionOfInterest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import CameraError, FrameError
from hand_mesh_ros.ros.camera_info import camera_for_image, camera_from_info, info_from_camera

K = [600.0, 0.0, 320.5, 0.0, 610.0, 240.25, 0.0, 0.0, 1.0]
P = [580.0, 0.0, 318.0, 0.0, 0.0, 590.0, 242.0, 0.0, 0.0, 0.0, 1.0, 0.0]
POINTS = np.random.default_rng(1).uniform([-0.3, -0.2, 0.5], [0.3, 0.2, 1.5], (50, 3))


def info(**fields) -> CameraInfo:
    return CameraInfo(
        **{'width': 640, 'height': 480, 'k': K, 'p': P, 'distortion_model': 'plumb_bob', **fields}
    )


def test_raw_images_are_described_by_k_and_rectified_ones_by_p():
    raw = camera_from_info(info(d=[0.1, -0.2, 0.001, 0.002, 0.05]), image_is_rectified=False)
    assert (raw.width, raw.height, raw.fx, raw.fy, raw.cx, raw.cy) == (640, 480, 600.0, 610.0, 320.5, 240.25)
    assert raw.distortion == (0.1, -0.2, 0.001, 0.002, 0.05) and raw.calibrated
    rectified = camera_from_info(info(d=[0.1, -0.2, 0.001, 0.002, 0.05]), image_is_rectified=True)
    assert (rectified.fx, rectified.fy, rectified.cx, rectified.cy) == (580.0, 590.0, 318.0, 242.0)
    assert rectified.distortion == ()


@pytest.mark.parametrize(
    ('model', 'coefficients'),
    [
        ('plumb_bob', [0.1, -0.2, 0.001, 0.002, 0.05]),
        ('rational_polynomial', [0.1, -0.2, 0.001, 0.002, 0.05, 0.2, -0.1, 0.01]),
        ('equidistant', [0.05, -0.01, 0.002, -0.001]),
        ('fisheye', [0.05, -0.01, 0.002, -0.001]),
    ],
)
def test_distortion_models_project_as_opencv_does(model, coefficients):
    camera = camera_from_info(info(distortion_model=model, d=coefficients), image_is_rectified=False)
    matrix, zero = np.reshape(K, (3, 3)), np.zeros(3)
    if model in ('equidistant', 'fisheye'):
        expected, _ = cv2.fisheye.projectPoints(POINTS[:, None], zero, zero, matrix, np.array(coefficients))
    else:
        expected, _ = cv2.projectPoints(POINTS, zero, zero, matrix, np.array(coefficients))
    np.testing.assert_allclose(camera.project(POINTS), expected.reshape(-1, 2), atol=1e-9)


def test_zero_k_means_uncalibrated():
    assert camera_from_info(CameraInfo(width=640, height=480), image_is_rectified=False) is None


def test_region_of_interest_and_binning_give_the_pixels_of_the_image_sent():
    """Each pixel of the image sent is the mean of a block of the window: its centre must project there."""
    roi = RegionOfInterest(x_offset=100, y_offset=60, width=320, height=240)
    full = camera_from_info(info(), image_is_rectified=False)
    sent = camera_from_info(info(roi=roi, binning_x=2, binning_y=4), image_is_rectified=False)
    assert (sent.width, sent.height) == (160, 60)
    # Pixel (3, 5) of the image sent covers columns 106..107 and rows 80..83 of the sensor.
    np.testing.assert_allclose(sent.rays(np.array([[3, 5]])), full.rays(np.array([[106.5, 81.5]])))


@pytest.mark.parametrize('distortion_model', ['plumb_bob', 'equidistant'])
def test_cameras_survive_the_way_there_and_back(distortion_model):
    camera = Camera(640, 480, 600, 610, 320, 240, distortion_model, (0.1, 0.2, 0.01, 0.02))
    assert camera_from_info(info_from_camera(camera), image_is_rectified=False) == camera
    plain = Camera(640, 480, 600, 610, 320, 240)
    assert camera_from_info(info_from_camera(plain), image_is_rectified=False) == plain
    assert camera_from_info(info_from_camera(plain), image_is_rectified=True) == plain
    assert camera_from_info(info_from_camera(Camera.from_fov(640, 480)), image_is_rectified=False) is None


def test_bad_intrinsics_are_camera_errors():
    with pytest.raises(CameraError):
        camera_from_info(info(distortion_model='kaleidoscope', d=[1.0, 2.0]), image_is_rectified=False)
    with pytest.raises(CameraError, match='P'):
        camera_from_info(info(p=[0.0] * 12), image_is_rectified=True)


@pytest.mark.parametrize(
    ('message', 'reason'),
    [
        (None, 'no camera_info'),
        (CameraInfo(width=640, height=480), 'not calibrated'),
        (info(width=1280, height=960), '1280x960'),
        (info(k=[-1.0] * 9), 'focal'),
    ],
)
def test_what_cannot_be_used_becomes_a_guess_with_a_reason(message, reason):
    camera, problem = camera_for_image(message, 640, 480, image_is_rectified=False, fov_deg=70.0)
    assert camera == Camera.from_fov(640, 480, 70.0) and not camera.calibrated
    assert reason in problem


def test_a_good_camera_info_is_no_guess():
    camera, problem = camera_for_image(info(), 640, 480, image_is_rectified=False, fov_deg=70.0)
    assert camera.calibrated and problem == ''


def test_a_mask_must_have_the_size_of_its_camera_info():
    with pytest.raises(FrameError, match='camera_info is of 640x480, the image of 640x240'):
        camera_for_image(info(), 640, 240, image_is_rectified=False, fov_deg=70.0, must_fit=True)
    _, problem = camera_for_image(None, 640, 240, image_is_rectified=False, fov_deg=70.0, must_fit=True)
    assert problem == 'no camera_info came'
