"""What the benchmark looks at: frames of one hand as a camera sends them, and of two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.demo_clip import demo_performers
from hand_mesh_ros.datasets.film import Film, FilmFrame
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.sources import list_sources, read_frames

#: Width and height of all frames, pixels.
SIZE = (640, 480)

_FPS = 30.0
_QUALITY = 95

#: Seconds of the rendered clip at which both of its hands are well in the picture.
_TWO_HANDS_S = (3.7, 6.2)


@dataclass(frozen=True)
class Footage:
    """Encoded pictures of ``SIZE``."""

    name: str
    frames: tuple[bytes, ...]  #: JPEG; one hand, in all of them
    masks: tuple[bytes, ...] = ()  #: PNG of that hand, 255 on it; empty where nobody knows them
    two_hands: tuple[bytes, ...] = ()  #: JPEG; other frames, of two hands

    @property
    def camera(self) -> Camera:
        """That of all frames, as if it were known."""
        return Camera.from_fov(*SIZE)


def rendered_footage(count: int, seed: int = 0) -> Footage:
    """The right hand of the demo's clip, ``count`` frames at 30 Hz; then both. Always the same."""
    alone = Film(demo_performers(seed)[:1], Camera.from_fov(*SIZE), seed, with_depth=True)
    frames, masks = [], []
    for frame in alone.frames([number / _FPS for number in range(count)]):
        assert frame.surfaces is not None
        frames.append(_jpeg(frame.image))
        masks.append(_encoded('.png', frame.surfaces.hand_mask.astype(np.uint8) * 255, []))
    both = Film(demo_performers(seed), Camera.from_fov(*SIZE), seed)
    times = np.arange(_TWO_HANDS_S[0], _TWO_HANDS_S[1], 1.0 / _FPS)[:count]
    pair: Iterable[FilmFrame] = both.frames([float(time) for time in times])
    return Footage('rendered', tuple(frames), tuple(masks), tuple(_jpeg(frame.image) for frame in pair))


def footage_of(source: Path, count: int) -> Footage:
    """The first ``count`` frames of an image, a video or a folder, resized.

    :raises ConfigurationError: a source that is none.
    :raises FileFormatError: a file that cannot be read.
    """
    files = list_sources([source])
    frames = islice((frame.image for file in files for frame in read_frames(file)), count)
    return Footage(
        source.name, tuple(_jpeg(cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)) for image in frames)
    )


def decoded(frames: Sequence[bytes]) -> list[np.ndarray]:
    """Pictures (480,640,3) uint8 RGB of JPEGs."""
    return [cv2.cvtColor(decoded_bgr(frame), cv2.COLOR_BGR2RGB) for frame in frames]


def decoded_bgr(frame: bytes) -> np.ndarray:
    """Picture (480,640,3) uint8 BGR of a JPEG."""
    return cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)


def decoded_masks(masks: Sequence[bytes]) -> list[np.ndarray]:
    """Masks (480,640) bool of PNGs."""
    return [cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_GRAYSCALE) > 127 for mask in masks]


def _jpeg(image: np.ndarray) -> bytes:
    return _encoded('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def _encoded(kind: str, picture: np.ndarray, options: list[int]) -> bytes:
    there, data = cv2.imencode(kind, picture, options)
    if not there:
        raise ConfigurationError(f'OpenCV here writes no {kind}')
    return data.tobytes()
