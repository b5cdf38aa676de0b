"""Messages of a bag, as ``rosbags`` gives them, as pictures and cameras; nothing here needs ROS."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import CameraError, FrameError
from hand_mesh_ros.picture_headers import decoded_rgb

#: The most pixels a frame may have: twice 8K. More is taken for a damaged header.
_MAX_PIXELS = 2 * 7680 * 4320

#: Of each encoding that shows colours or grey levels: bytes a pixel, and what OpenCV calls its way to RGB.
_TO_RGB: dict[str, tuple[int, int | None]] = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
    'mono16': (2, cv2.COLOR_GRAY2RGB),
    'yuv422': (2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (2, cv2.COLOR_YUV2RGB_YUYV),
    'bayer_rggb8': (1, cv2.COLOR_BAYER_BG2RGB),
    'bayer_bggr8': (1, cv2.COLOR_BAYER_RG2RGB),
    'bayer_gbrg8': (1, cv2.COLOR_BAYER_GR2RGB),
    'bayer_grbg8': (1, cv2.COLOR_BAYER_GB2RGB),
}
_DEPTH = {'16UC1': 2, '32FC1': 4}
_ALIASES = {'uyvy': 'yuv422', 'yuyv': 'yuv422_yuy2', '8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8'}

#: Names that ROS 1 drivers still give the fisheye model.
_MODEL_ALIASES = {'fisheye': 'equidistant'}


@dataclass(frozen=True)
class Header:
    """std_msgs/Header, with which every message begins that has a stamp."""

    sec: int
    nanosec: int
    frame_id: str

    @property
    def stamp(self) -> tuple[int, int]:
        """Seconds and nanoseconds."""
        return self.sec, self.nanosec

    @property
    def seconds(self) -> float:
        """The stamp as one number."""
        return self.sec + 1e-9 * self.nanosec


def header_of(data: bytes) -> Header | None:
    """The header of a serialized message, read without the rest; None where there is none to be read."""
    if len(data) < 16 or data[0] != 0 or data[1] not in (0, 1):  # plain CDR, big or little endian
        return None
    sec, nanosec, length = struct.unpack_from('<iII' if data[1] else '>iII', data, 4)
    name = bytes(data[16 : 16 + length])
    if len(name) != length or nanosec >= 10**9:
        return None
    return Header(sec, nanosec, name.rstrip(b'\0').decode('utf-8', 'replace'))


def rgb_of(message: Any) -> np.ndarray:
    """The picture of an Image or a CompressedImage as (H,W,3) uint8 RGB.

    mono16 is scaled so that 65535 becomes 255; compressed pictures are turned as their EXIF says.

    :raises FrameError: a message that holds no such picture.
    """
    if not hasattr(message, 'encoding'):
        return _decompressed(message)
    encoding = _ALIASES.get(message.encoding, message.encoding)
    if encoding not in _TO_RGB:
        raise FrameError(f'encoding {message.encoding!r} is none of {", ".join(_TO_RGB)}')
    size, code = _TO_RGB[encoding]
    rows = _rows(message, size)
    if encoding == 'mono16':
        pixels = cv2.convertScaleAbs(_numbers(message, rows, 'u2'), alpha=255.0 / 65535.0)
    else:
        pixels = rows.reshape(message.height, message.width, size)
    if code is None:
        return pixels
    try:
        return cv2.cvtColor(pixels, code)
    except cv2.error as error:  # such as YUV of an odd width
        described = f'{encoding} image of size {message.width}x{message.height}'
        raise FrameError(f'{described} cannot be converted: {error}') from error


def depth_of(message: Any) -> np.ndarray:
    """The depth image of an Image as (H,W) float32 metres; NaN where nothing was measured.

    :raises FrameError: a message that is neither 16UC1, millimetres, nor 32FC1, metres.
    """
    if message.encoding not in _DEPTH:
        raise FrameError(f'depth of encoding {message.encoding!r} is none of {", ".join(_DEPTH)}')
    size = _DEPTH[message.encoding]
    depth_m = _numbers(message, _rows(message, size), 'u2' if size == 2 else 'f4').astype(np.float32)
    if size == 2:
        depth_m /= 1000
    depth_m[~np.isfinite(depth_m) | (depth_m <= 0)] = np.nan
    return depth_m


def mask_of(message: Any) -> np.ndarray:
    """The mask of an Image as (H,W) bool: what is bright, or not 0 where there are 0 and 1 only.

    :raises FrameError: a message that is neither mono8 nor 8UC1.
    """
    if _ALIASES.get(message.encoding, message.encoding) != 'mono8':
        raise FrameError(f'mask of encoding {message.encoding!r} is neither mono8 nor 8UC1')
    grey = _rows(message, 1)
    return grey > (127 if grey.max() > 1 else 0)


def camera_of(info: Any, rectified: bool) -> Camera | None:
    """The camera of a CameraInfo; None where it is not calibrated (K[0] is 0).

    A raw image is described by K and the distortion, a rectified one by P; binning and a region of interest
    are applied.

    :raises CameraError: intrinsics that no camera has.
    """
    if info.k[0] == 0.0:
        return None
    numbers, width = (info.p, 4) if rectified else (info.k, 3)
    fx, cx, fy, cy = (float(numbers[i]) for i in (0, 2, width + 1, width + 2))
    # Pixel centres are at integers, so a window moves them by its offset, and binning by half a bin.
    across, down = max(info.binning_x, 1), max(info.binning_y, 1)
    roi = info.roi
    has_lens = not rectified and bool(np.any(info.d))
    model = _MODEL_ALIASES.get(info.distortion_model, info.distortion_model)
    return Camera(
        width=(roi.width or info.width - roi.x_offset) // across,
        height=(roi.height or info.height - roi.y_offset) // down,
        fx=fx / across,
        fy=fy / down,
        cx=(cx - roi.x_offset - (across - 1) / 2.0) / across,
        cy=(cy - roi.y_offset - (down - 1) / 2.0) / down,
        distortion_model=model if has_lens else 'none',
        distortion=tuple(map(float, info.d)) if has_lens else (),
    )


def camera_of_picture(
    info: Any | None, width: int, height: int, rectified: bool, fov_deg: float
) -> tuple[Camera, str]:
    """The camera of a picture of this size, and why it is a guess; the reason is empty where it is none."""
    guess = Camera.from_fov(width, height, fov_deg)
    if info is None:
        return guess, 'the bag has no camera_info of it'
    try:
        camera = camera_of(info, rectified)
    except CameraError as error:
        return guess, f'camera_info cannot be used: {error}'
    if camera is None:
        return guess, 'camera_info says that the camera is not calibrated (K[0] is 0)'
    if (camera.width, camera.height) != (width, height):
        return guess, f'camera_info is of {camera.width}x{camera.height}, the image of {width}x{height}'
    return camera, ''


def _rows(message: Any, pixel_bytes: int) -> np.ndarray:
    """Bytes (H,W*pixel_bytes) of the pixels, without padding."""
    height, width, step = message.height, message.width, message.step
    if height < 1 or width < 1:
        raise FrameError(f'image of size {width}x{height} is empty')
    if height * width > _MAX_PIXELS:
        raise FrameError(f'image of size {width}x{height} has more than {_MAX_PIXELS} pixels')
    row = width * pixel_bytes
    if step < row:
        raise FrameError(f'step of {step} bytes is too small for {width} pixels: {row} bytes')
    if len(message.data) != step * height:
        raise FrameError(f'{len(message.data)} bytes of data where step x height is {step * height}')
    return np.ascontiguousarray(np.asarray(message.data, np.uint8).reshape(height, step)[:, :row])


def _numbers(message: Any, rows: np.ndarray, kind: str) -> np.ndarray:
    """Rows as numbers of this machine's byte order."""
    return rows.view(('>' if message.is_bigendian else '<') + kind).astype(kind)


def _decompressed(message: Any) -> np.ndarray:
    return decoded_rgb(np.asarray(message.data, np.uint8).tobytes(), message.format, _MAX_PIXELS)
