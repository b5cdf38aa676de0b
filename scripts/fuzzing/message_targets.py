"""Messages as they may come over the network, through what the nodes decode them with."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from fuzzing.mutations import damaged, integer, number, text
from fuzzing.target import Reader, Target, expect
from hand_mesh_ros.bag_labelling.decoding import camera_of_picture, depth_of, mask_of, rgb_of
from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.msg import HandBox, HandBoxArray
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.ros.camera_info import camera_for_image, info_from_camera
from hand_mesh_ros.ros.images import (
    depth_from_message,
    mask_from_message,
    message_from_depth,
    message_from_mask,
    message_from_rgb,
    rgb_from_message,
)
from hand_mesh_ros.ros.messages import boxes_from_message

_ENCODINGS = (
    *('rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16', 'yuv422', 'yuv422_yuy2', 'uyvy', 'yuyv'),
    *('bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8', '16UC1', '32FC1', '8UC1', '8UC3', '8UC4'),
    *('bayer_rggb16', '64FC1', 'nv12', 'RGB8', '8UC-1', '8UC0', '8UC999999999'),
)
_BYTES = {
    'rgb8': 3,
    'bgr8': 3,
    '8UC3': 3,
    'rgba8': 4,
    'bgra8': 4,
    '8UC4': 4,
    '32FC1': 4,
    'mono16': 2,
    '16UC1': 2,
}
_MODELS = (
    'plumb_bob',
    'rational_polynomial',
    'equidistant',
    'fisheye',
    'none',
    '',
    'thin_prism',
    'PLUMB_BOB',
)
_WIDTH, _HEIGHT = 64, 48


def _uint32(random: Random) -> int:
    return integer(random) % 2**32


def _picture(random: Random) -> np.ndarray:
    return np.random.default_rng(random.getrandbits(32)).integers(0, 256, (_HEIGHT, _WIDTH, 3), np.uint8)


def _stamp_header(message: Any, random: Random) -> None:
    if random.random() < 0.2:
        message.header.stamp.sec = integer(random) % 2**32 - 2**31
        message.header.stamp.nanosec = _uint32(random)
        message.header.frame_id = text(random).replace('\ud800', '?').replace('\0', '')


def _consistent_image(random: Random) -> Image:
    """An image of any encoding, size and padding, whose fields agree, so that its pixels are looked at."""
    encoding = random.choice(_ENCODINGS)
    width, height = random.choice(((64, 48), (1, 1), (2, 2), (3, 1), (1, 9), (17, 5), (40_000, 1), (8, 8)))
    step = width * _BYTES.get(encoding, random.choice((1, 2))) + random.choice((0, 0, 1, 13))
    data = random.choice((random.randbytes, bytes, lambda n: b'\xff' * n, lambda n: b'\x7f\x80\xff\xff' * n))
    content = data(step * height)[: step * height]
    return Image(height=height, width=width, encoding=encoding, step=step, data=array('B', content))


def _change_image(message: Image, random: Random) -> None:
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        kind = random.randrange(7)
        if kind == 0:
            message.width = _uint32(random)
        elif kind == 1:
            message.height = _uint32(random)
        elif kind == 2:
            message.step = _uint32(random)
        elif kind == 3:
            message.encoding = random.choice(_ENCODINGS)
        elif kind == 4:
            message.is_bigendian = random.randrange(256)
        elif kind == 5:
            content = message.data.tobytes()
            message.data = array('B', damaged(content, content, random))
        else:
            # Sizes that claim much and agree with each other, but not with the data.
            message.width, message.height = random.choice(
                ((65536, 65536), (2**31, 2), (2**32 - 1, 2**32 - 1))
            )
            message.step = message.width * 3 % 2**32
    _stamp_header(message, random)


def _image(random: Random) -> Image:
    kind = random.randrange(4)
    if kind == 0:
        message = message_from_rgb(_picture(random))
    elif kind == 1:
        message = message_from_depth(_picture(random)[..., 0] / 100.0)
    elif kind == 2:
        message = message_from_mask(_picture(random)[..., 0] > 127)
    else:
        message = _consistent_image(random)
    _change_image(message, random)
    return message


def _read_image(message: Image) -> None:
    """Each as if it came on the topic of colour, of depth and of masks; all are refused or read."""
    size = (message.height, message.width)
    refusal = None
    for decode, kind, shape in (
        (rgb_from_message, np.uint8, (*size, 3)),
        (depth_from_message, np.float32, size),
        (mask_from_message, np.bool_, size),
    ):
        try:
            decoded = decode(message)
        except FrameError as error:
            refusal = error
            continue
        expect(decoded.shape == shape, f'{decode.__name__} gives {decoded.shape}, not {shape}')
        expect(decoded.dtype == kind, f'{decode.__name__} gives {decoded.dtype}')
        _observe(message, decoded)
        return
    assert refusal is not None
    raise refusal


def _observe(message: Image, decoded: np.ndarray) -> None:
    camera = Camera.from_fov(message.width, message.height)
    if decoded.ndim == 3:
        Observation(camera, image=decoded)
    elif decoded.dtype == bool:
        Observation(camera, mask=decoded)
    else:
        expect(
            not (decoded <= 0).any() and not np.isinf(decoded).any(), 'depth that is 0, negative or infinite'
        )
        Observation(camera, depth_m=decoded)


def _pictures(random: Random) -> list[bytes]:
    picture = cv2.GaussianBlur(_picture(random), (9, 9), 0)
    endings = ('.jpg', '.png', '.webp', '.tif', '.bmp', '.ppm', '.jp2', '.hdr', '.sr')
    return [cv2.imencode(ending, picture)[1].tobytes() for ending in endings]


_PICTURES = _pictures(Random(0))


def _compressed(random: Random) -> CompressedImage:
    content = random.choice(
        (_PICTURES[0], _PICTURES[0], _PICTURES[1], _PICTURES[1], random.choice(_PICTURES))
    )
    message = CompressedImage(
        format=random.choice(('rgb8; jpeg compressed bgr8', 'png', 'jpeg', '', 'x' * 999))
    )
    message.data = array('B', damaged(content, random.choice(_PICTURES), random))
    _stamp_header(message, random)
    return message


def _read_compressed(message: CompressedImage) -> None:
    decoded = rgb_from_message(message)
    expect(decoded.dtype == np.uint8 and decoded.ndim == 3 and decoded.shape[2] == 3, f'{decoded.shape}')
    Observation(Camera.from_fov(decoded.shape[1], decoded.shape[0]), image=decoded)


def _info(random: Random) -> CameraInfo:
    lens = random.choice(
        (('none', ()), ('plumb_bob', (0.1, -0.2, 1e-3, 1e-3, 0.0)), ('equidistant', (0.1, 0.0, 0.0, 0.0)))
    )
    info = info_from_camera(Camera(_WIDTH, _HEIGHT, 60.0, 60.0, 31.5, 23.5, *lens))
    for _ in range(random.choice((1, 1, 2, 4))):
        kind = random.randrange(8)
        if kind in (0, 1):
            numbers = getattr(info, random.choice('kpr'))
            for _ in range(random.choice((1, 1, 3, 12))):
                numbers[random.randrange(len(numbers))] = number(random)
        elif kind == 2:
            info.d = array('d', [number(random) for _ in range(random.choice((0, 1, 4, 5, 8, 12, 14, 99)))])
        elif kind == 3:
            info.d = array('d', [random.gauss(0, 1) for _ in range(random.choice((4, 5, 8, 12, 14)))])
        elif kind == 4:
            info.distortion_model = random.choice(_MODELS)
        elif kind == 5:
            setattr(info, random.choice(('width', 'height', 'binning_x', 'binning_y')), _uint32(random))
        elif kind == 6:
            setattr(info.roi, random.choice(('x_offset', 'y_offset', 'width', 'height')), _uint32(random))
        else:
            info.d = array('d', [number(random) for _ in info.d])
    _stamp_header(info, random)
    return info


def _read_info(info: CameraInfo) -> None:
    pixels = np.array([[0.0, 0.0], [_WIDTH - 1, _HEIGHT - 1], [31.5, 23.5]])
    refusal = None
    for rectified in (False, True):
        try:
            camera, why = camera_for_image(info, _WIDTH, _HEIGHT, rectified, 60.0, must_fit=True)
        except FrameError as error:
            refusal = error
            continue
        expect((camera.width, camera.height) == (_WIDTH, _HEIGHT), 'the camera is of another size')
        expect(bool(np.isfinite(camera.K).all()), f'intrinsics {camera.K}')
        expect(bool(why) != camera.calibrated, 'a guess without a reason, or a reason without a guess')
        camera.unproject(pixels, np.ones(3))
        camera.project(np.array([[0.1, 0.0, 0.5], [-0.4, 0.3, 0.1], [0.0, 0.0, 1e-5]]))
    if refusal is not None:
        raise refusal


def _read_bag_image(message: Image | CompressedImage) -> None:
    """As ``hand-mesh bag`` decodes it, without ROS."""
    if isinstance(message, CompressedImage):
        expect(rgb_of(message).dtype == np.uint8, 'a picture that is not uint8')
        return
    refusals = []
    for decode in (rgb_of, depth_of, mask_of):
        try:
            expect(decode(message).shape[:2] == (message.height, message.width), f'{decode.__name__}: size')
        except FrameError as error:
            refusals.append(error)
    if len(refusals) == 3:
        raise refusals[0]


def _read_bag_info(info: CameraInfo) -> None:
    for rectified in (False, True):
        camera, why = camera_of_picture(info, _WIDTH, _HEIGHT, rectified, 60.0)
        expect((camera.width, camera.height) == (_WIDTH, _HEIGHT), 'the camera is of another size')
        expect(bool(why) != camera.calibrated, 'a guess without a reason, or a reason without a guess')


def _boxes(random: Random) -> HandBoxArray:
    message = HandBoxArray()
    for _ in range(random.choice((0, 1, 2, 2, 50))):
        box = HandBox(side=random.choice((0, 1, 2, 3, 255)), score=number(random) % 3e38)
        corners = [10.0, 10.0, 40.0, 40.0]
        if random.random() < 0.5:
            corners[random.randrange(4)] = float(np.clip(number(random), -3e38, 3e38))
        box.bbox_px = np.array(corners, np.float32)
        message.boxes.append(box)
    _stamp_header(message, random)
    return message


def _read_boxes(message: HandBoxArray) -> None:
    for box in boxes_from_message(message):
        x0, y0, x1, y1 = box.bbox_px
        expect(bool(np.isfinite(box.bbox_px).all() and x0 < x1 and y0 < y1), f'box {box.bbox_px}')
        expect(box.side in ('left', 'right'), f'side {box.side}')
        expect(np.isfinite(box.score), f'score {box.score}')


def _of_fields(make: Callable[[Random], Any], read: Callable[[Any], None]) -> Callable[[Path], Reader]:
    """Messages whose fields are changed."""
    return lambda folder: Reader(make, read, serialize_message)


def _of_bytes(
    kind: type, make: Callable[[Random], Any], read: Callable[[Any], None]
) -> Callable[[Path], Reader]:
    """Messages whose serialised bytes are changed."""

    def made(random: Random) -> bytes:
        return damaged(serialize_message(make(random)), serialize_message(make(random)), random)

    def read_bytes(content: bytes) -> None:
        try:
            message = deserialize_message(content, kind)
        except Exception as error:  # ROS's own refusal: such a message reaches no node
            raise FrameError(f'not deserialised: {error}') from error
        read(message)

    return lambda folder: Reader(made, read_bytes)


MESSAGE_TARGETS = (
    Target('image', 'message', 40_000, _of_fields(_image, _read_image)),
    Target('image_bytes', 'message', 15_000, _of_bytes(Image, _image, _read_image)),
    Target('compressed', 'message', 40_000, _of_fields(_compressed, _read_compressed)),
    Target('compressed_bytes', 'message', 5_000, _of_bytes(CompressedImage, _compressed, _read_compressed)),
    Target('camera_info', 'message', 30_000, _of_fields(_info, _read_info)),
    Target('camera_info_bytes', 'message', 10_000, _of_bytes(CameraInfo, _info, _read_info)),
    Target('bag_image', 'message', 15_000, _of_fields(_image, _read_bag_image)),
    Target('bag_compressed', 'message', 15_000, _of_fields(_compressed, _read_bag_image)),
    Target('bag_camera_info', 'message', 15_000, _of_fields(_info, _read_bag_info)),
    Target('hand_boxes', 'message', 15_000, _of_fields(_boxes, _read_boxes)),
    Target('hand_boxes_bytes', 'message', 5_000, _of_bytes(HandBoxArray, _boxes, _read_boxes)),
)
