"""CameraInfo as a Camera."""

from __future__ import annotations

from array import array

import numpy as np
from sensor_msgs.msg import CameraInfo

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import CameraError, FrameError

#: Names that ROS 1 drivers still give the fisheye model.
_MODEL_ALIASES = {'fisheye': 'equidistant'}


def camera_from_info(info: CameraInfo, image_is_rectified: bool) -> Camera | None:
    """The camera that a CameraInfo describes; None where it says that it is not calibrated (K[0] == 0).

    A raw image is described by K and the distortion, a rectified one by P. Binning and a region of
    interest, which K, D and P of the message leave out (they are those of the full sensor), are
    applied, so that the intrinsics are those of the image that is sent.

    :raises CameraError: intrinsics that no camera has, or a distortion model that is not known.
    """
    if info.k[0] == 0.0:
        return None
    projection = info.p if image_is_rectified else info.k
    width = 4 if image_is_rectified else 3
    fx, cx, fy, cy = projection[0], projection[2], projection[width + 1], projection[width + 2]
    if image_is_rectified and fx == 0.0:
        raise CameraError('the image is said to be rectified, but P of its CameraInfo is zero')

    # Pixel centres are at integers, so a window moves them by its offset, and binning by half a bin.
    binning_x, binning_y = max(info.binning_x, 1), max(info.binning_y, 1)
    roi = info.roi
    roi_width, roi_height = roi.width or info.width - roi.x_offset, roi.height or info.height - roi.y_offset
    model, distortion = ('none', ()) if image_is_rectified else _distortion(info)
    return Camera(
        width=roi_width // binning_x,
        height=roi_height // binning_y,
        fx=fx / binning_x,
        fy=fy / binning_y,
        cx=(cx - roi.x_offset - (binning_x - 1) / 2.0) / binning_x,
        cy=(cy - roi.y_offset - (binning_y - 1) / 2.0) / binning_y,
        distortion_model=model,
        distortion=distortion,
    )


def camera_for_image(
    info: CameraInfo | None,
    width: int,
    height: int,
    image_is_rectified: bool,
    fov_deg: float,
    must_fit: bool = False,
) -> tuple[Camera, str]:
    """The camera of an image of this size, and why it is a guess; the reason is empty where it is none.

    ``info`` is the newest CameraInfo; ``fov_deg`` the field of view assumed where it cannot be used.

    :raises FrameError: with ``must_fit``, ``info`` is that of images of another size.
    """
    guess = Camera.from_fov(width, height, fov_deg)
    if info is None:
        return guess, 'no camera_info came'
    try:
        camera = camera_from_info(info, image_is_rectified)
    except CameraError as error:
        return guess, f'camera_info cannot be used: {error}'
    if camera is None:
        return guess, 'camera_info says that the camera is not calibrated (K[0] is 0)'
    if (camera.width, camera.height) != (width, height):
        problem = f'camera_info is of {camera.width}x{camera.height}, the image of {width}x{height}'
        if must_fit:
            raise FrameError(problem)
        return guess, problem
    return camera, ''


def info_from_camera(camera: Camera) -> CameraInfo:
    """The CameraInfo of a camera; its header is the caller's to fill. K[0] == 0 where it is a guess."""
    info = CameraInfo(width=camera.width, height=camera.height)
    if not camera.calibrated:
        return info
    info.distortion_model = 'plumb_bob' if camera.distortion_model == 'none' else camera.distortion_model
    info.d = array('d', camera.distortion or [0.0] * 5)
    info.k = camera.K.reshape(-1)
    info.r = np.eye(3).reshape(-1)
    info.p = np.hstack([camera.K, np.zeros((3, 1))]).reshape(-1)
    return info


def _distortion(info: CameraInfo) -> tuple[str, tuple[float, ...]]:
    if not any(info.d):
        return 'none', ()
    model = _MODEL_ALIASES.get(info.distortion_model, info.distortion_model)
    return model, tuple(float(coefficient) for coefficient in info.d)
