"""Masks of hands from ROS 2 bags, read without ROS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.mask_sources import CameraOf, MaskPicture, Unusable
from hand_mesh_ros.errors import CameraError, ConfigurationError, FileFormatError, FrameError, HandMeshError

#: Endings of the files in which bags keep messages.
_STORAGE_SUFFIXES = ('.mcap', '.db3')

_IMAGE, _CAMERA_INFO = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CameraInfo'

#: The end of the name of the topic on which the node of this package publishes masks.
DEFAULT_TOPIC = 'hand_mask'

#: Encodings of masks: one byte a pixel.
_ENCODINGS = ('mono8', '8UC1')

#: Names that ROS 1 drivers still give the fisheye model.
_MODEL_ALIASES = {'fisheye': 'equidistant'}


def is_bag(source: Path) -> bool:
    """Whether a path is that of a bag: a folder with metadata, or a file of messages."""
    return (source / 'metadata.yaml').is_file() or source.suffix in _STORAGE_SUFFIXES


def masks_in_bag(
    bag: Path, camera_of: CameraOf, topic: str | None = None, use_camera_info: bool = True
) -> Iterator[MaskPicture | Unusable]:
    """The masks of a bag, in the order in which they came.

    Their camera is what CameraInfo says last: of the same frame_id, where there is any, and of images of the
    masks' size. Masks are taken for those of raw images, with the lens's distortion.

    :param camera_of: the camera of masks of which no CameraInfo tells one.
    :param topic: of ``sensor_msgs/Image``, mono8; None for the one whose name ends in ``DEFAULT_TOPIC``.
    :param use_camera_info: False to ask ``camera_of`` alone.
    :raises ConfigurationError: no such topic, or several; CameraInfo of several cameras; ``rosbags`` is
        not installed.
    :raises FileFormatError: a damaged bag.
    """
    with _opened(bag) as (reader, decoded):
        masks = _mask_connections(bag, reader.connections, topic)
        infos = {c.topic: message for c, message in _messages(reader, _of_cameras(reader), decoded)}
        for number, (connection, message) in enumerate(_messages(reader, masks, decoded)):
            name = f'{bag}: message {number} of {connection.topic}'
            try:
                mask = _mask(message)
                camera = _camera(bag, message, infos) if use_camera_info else None
                yield MaskPicture(name, mask, camera or camera_of(bag, message.width, message.height))
            except FrameError as error:
                yield Unusable(f'{name}: {error}')


@contextmanager
def _opened(bag: Path) -> Iterator[tuple[Any, Any]]:
    """A reader of the bag, and what decodes messages of a type."""
    try:
        from rosbags.rosbag2 import Reader
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise ConfigurationError(
            f'{bag}: reading bags needs rosbags: pip install rosbags ({error})'
        ) from error
    try:
        with Reader(bag) as reader:
            yield reader, get_typestore(Stores.ROS2_JAZZY).deserialize_cdr
    except HandMeshError:
        raise
    except Exception as error:  # of a damaged bag each storage has its own kinds
        raise FileFormatError(f'{bag}: cannot be read as a ROS 2 bag; is it complete? ({error!r})') from error


def _messages(reader: Any, connections: list[Any], decoded: Any) -> Iterator[tuple[Any, Any]]:
    if connections:  # none would be all of them to the reader
        for connection, _, data in reader.messages(connections):
            yield connection, decoded(data, connection.msgtype)


def _of_cameras(reader: Any) -> list[Any]:
    return [connection for connection in reader.connections if connection.msgtype == _CAMERA_INFO]


def _mask_connections(bag: Path, connections: list[Any], topic: str | None) -> list[Any]:
    images = [connection for connection in connections if connection.msgtype == _IMAGE]
    there = sorted({connection.topic for connection in images})
    if topic is None:
        wanted = [name for name in there if name.endswith(DEFAULT_TOPIC)]
    else:
        wanted = [name for name in there if name.lstrip('/') == topic.lstrip('/')]
    if len(wanted) != 1:
        what = f'topic {topic}' if topic is not None else f'one topic ending in {DEFAULT_TOPIC}'
        raise ConfigurationError(
            f'{bag}: has {len(wanted)} times {what} of {_IMAGE}: choose with --topic one of '
            f'{", ".join(there) or "(none)"}'
        )
    return [connection for connection in images if connection.topic == wanted[0]]


def _mask(message: Any) -> np.ndarray:
    """Mask (H,W) bool: what is bright, or not 0 where there are 0 and 1 only."""
    height, width, step = message.height, message.width, message.step
    if message.encoding not in _ENCODINGS:
        raise FrameError(f'encoding {message.encoding!r} is none of {", ".join(_ENCODINGS)}')
    if height < 1 or width < 1 or step < width or len(message.data) != step * height:
        raise FrameError(f'{len(message.data)} bytes are no mask of {width}x{height} pixels, step {step}')
    grey = np.asarray(message.data).reshape(height, step)[:, :width]
    return grey > (127 if grey.max() > 1 else 0)


def _camera(bag: Path, mask: Any, infos: dict[str, Any]) -> Camera | None:
    """The camera of a mask; None where no CameraInfo of the bag can be its."""
    fitting = {
        topic: info
        for topic, info in infos.items()
        if (info.width, info.height) == (mask.width, mask.height) and info.k[0] != 0.0
    }
    frame = mask.header.frame_id
    own = {topic: info for topic, info in fitting.items() if info.header.frame_id == frame} or fitting
    try:
        cameras = {_camera_of_info(info) for info in own.values()}
    except CameraError as error:
        raise ConfigurationError(f'{bag}: {" or ".join(own)}: {error}; give --camera') from error
    if len(cameras) > 1:
        raise ConfigurationError(f'{bag}: {", ".join(own)} are of different cameras; give --camera')
    return cameras.pop() if cameras else None


def _camera_of_info(info: Any) -> Camera:
    fx, cx, fy, cy = (float(info.k[i]) for i in (0, 2, 4, 5))
    camera = Camera(int(info.width), int(info.height), fx, fy, cx, cy)
    if not np.any(info.d):
        return camera
    model = _MODEL_ALIASES.get(info.distortion_model, info.distortion_model)
    return replace(camera, distortion_model=model, distortion=tuple(map(float, info.d)))
