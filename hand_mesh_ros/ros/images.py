"""Image messages as arrays, whatever their encoding, row padding and byte order."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from hand_mesh_ros.depth_files import millimetres
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.picture_headers import decoded_rgb

#: The most pixels a frame may have: twice 8K. More is taken for a damaged header.
MAX_PIXELS = 2 * 7680 * 4320

#: Bytes a pixel takes, for each encoding that shows colours or grey levels.
_COLOUR_ENCODINGS = {
    'rgb8': 3,
    'bgr8': 3,
    'rgba8': 4,
    'bgra8': 4,
    'mono8': 1,
    'mono16': 2,
    'yuv422': 2,
    'yuv422_yuy2': 2,
    'bayer_rggb8': 1,
    'bayer_bggr8': 1,
    'bayer_gbrg8': 1,
    'bayer_grbg8': 1,
}
_DEPTH_ENCODINGS = {'16UC1': 2, '32FC1': 4}
_BYTES_PER_PIXEL = _COLOUR_ENCODINGS | _DEPTH_ENCODINGS
#: Bytes of one number, where it is more than one byte and byte order matters.
_ITEM_SIZES = {'mono16': 2, '16UC1': 2, '32FC1': 4}
#: Names of some encodings that one of the conversion libraries does not know.
_ALIASES = {'uyvy': 'yuv422', 'yuyv': 'yuv422_yuy2', '8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8'}


def _load_converter() -> Callable[[Image, str], np.ndarray]:
    """The function that turns a tidy message into an array of the encoding named."""
    try:
        from cv_bridge import CvBridge
    except ImportError:  # cv_bridge comes with ROS only
        from rosbags.image import message_to_cvimage

        return message_to_cvimage
    return CvBridge().imgmsg_to_cv2


_convert = _load_converter()


def rgb_from_message(message: Image | CompressedImage) -> np.ndarray:
    """The image of a message as (H,W,3) uint8 RGB. It may share the message's memory.

    mono16 is scaled so that 65535 becomes 255; alpha is dropped; pictures in a CompressedImage are
    turned as their EXIF orientation says, as image_transport does.

    :raises FrameError: a message that holds no such image.
    """
    if isinstance(message, CompressedImage):
        return _decompressed(message)
    tidy = _tidy(message, _COLOUR_ENCODINGS)
    if tidy.encoding == 'mono16':
        # Scaled here because the two libraries round differently.
        grey = cv2.convertScaleAbs(_converted(tidy, 'mono16'), alpha=255.0 / 65535.0)
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    return _converted(tidy, 'rgb8')


def depth_from_message(message: Image) -> np.ndarray:
    """The depth image of a message as (H,W) float32 metres; NaN where nothing was measured.

    The encoding decides: 16UC1 holds millimetres, 0 where nothing was measured; 32FC1 holds metres,
    NaN or infinite where nothing was measured or it lies outside the range (REP-117, REP-118).

    :raises FrameError: a message that holds no depth image.
    """
    tidy = _tidy(message, _DEPTH_ENCODINGS)
    raw = _converted(tidy, tidy.encoding)
    depth_m = raw.astype(np.float32)
    if tidy.encoding == '16UC1':
        depth_m /= 1000
    depth_m[~np.isfinite(depth_m) | (depth_m <= 0)] = np.nan
    return depth_m


def mask_from_message(message: Image) -> np.ndarray:
    """The mask of a message as (H,W) bool: what is bright, or not 0 where there are 0 and 1 only.

    :raises FrameError: a message that holds no picture of mono8 or 8UC1.
    """
    tidy = _tidy(message, {'mono8': 1})
    grey = np.frombuffer(tidy.data, np.uint8).reshape(tidy.height, tidy.width)
    return grey > (127 if grey.max() > 1 else 0)


def message_from_rgb(image: np.ndarray) -> Image:
    """An rgb8 message of an image (H,W,3) uint8 RGB; its header is the caller's to fill."""
    height, width, _ = image.shape
    return _message(height, width, 'rgb8', 3 * width, np.ascontiguousarray(image, np.uint8))


def message_from_depth(depth_m: np.ndarray) -> Image:
    """A 16UC1 message, in millimetres, of depth (H,W) float in metres; its header is the caller's to fill."""
    height, width = depth_m.shape
    return _message(height, width, '16UC1', 2 * width, millimetres(depth_m))


def message_from_mask(mask: np.ndarray) -> Image:
    """A mono8 message, 0 or 255, of a mask (H,W) of bool, or of numbers that are not 0 where it holds.

    Its header is the caller's to fill.
    """
    height, width = mask.shape
    return _message(height, width, 'mono8', width, np.where(mask, np.uint8(255), np.uint8(0)))


def jpeg_from_rgb(image: np.ndarray, quality: int = 90) -> CompressedImage:
    """A JPEG message of an image (H,W,3) uint8 RGB; its header is the caller's to fill."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = CompressedImage(format='rgb8; jpeg compressed bgr8')
    message.data.frombytes(encoded.data)
    return message


def _message(height: int, width: int, encoding: str, step: int, rows: np.ndarray) -> Image:
    # An array.array is the one type that rclpy takes over without looking at every byte.
    data = array('B')
    data.frombytes(rows.reshape(-1).view(np.uint8).data)
    return Image(height=height, width=width, encoding=encoding, step=step, data=data)


def _tidy(message: Image, encodings: dict[str, int]) -> Image:
    """The message checked and put in the form that every library reads right.

    That is: no padding behind the rows (rosbags-image ignores ``step``), the byte order of this
    machine (cv_bridge's swap needs NumPy 1), a common name of the encoding.
    """
    encoding = _ALIASES.get(message.encoding, message.encoding)
    if encoding not in encodings:
        raise FrameError(f'encoding {message.encoding!r} is none of {", ".join(encodings)}')
    height, width, step = message.height, message.width, message.step
    if height < 1 or width < 1:
        raise FrameError(f'image of size {width}x{height} is empty')
    if height * width > MAX_PIXELS:
        raise FrameError(f'image of size {width}x{height} has more than {MAX_PIXELS} pixels')
    row = width * _BYTES_PER_PIXEL[encoding]
    if step < row:
        raise FrameError(f'step of {step} bytes is too small for {width} pixels of {encoding}: {row} bytes')
    if len(message.data) != step * height:
        raise FrameError(f'{len(message.data)} bytes of data where step x height is {step * height}')
    if encoding.startswith('yuv422') and width % 2:
        raise FrameError(f'{encoding} image has an odd width of {width}')

    item_size = _ITEM_SIZES.get(encoding, 1)
    foreign_order = item_size > 1 and bool(message.is_bigendian) != (sys.byteorder == 'big')
    if step == row and not foreign_order:
        return Image(height=height, width=width, encoding=encoding, step=step, data=message.data)
    rows = np.frombuffer(message.data, np.uint8).reshape(height, step)[:, :row]
    rows = np.ascontiguousarray(rows)
    if foreign_order:
        rows = rows.view(f'u{item_size}').byteswap()
    return _message(height, width, encoding, row, rows)


def _converted(tidy: Image, encoding: str) -> np.ndarray:
    try:
        return _convert(tidy, encoding)
    except Exception as error:  # each library has its own kinds
        size = f'{tidy.width}x{tidy.height}'
        raise FrameError(f'{tidy.encoding} image of size {size} cannot be converted: {error}') from error


def _decompressed(message: CompressedImage) -> np.ndarray:
    # Not left to the libraries: both take a grey JPEG's single channel for three.
    return decoded_rgb(np.frombuffer(message.data, np.uint8).tobytes(), message.format, MAX_PIXELS)
