"""Images, folders and videos on disk as frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hand_mesh_ros.errors import ConfigurationError, FileFormatError

IMAGE_SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm'})
VIDEO_SUFFIXES = frozenset({'.mp4', '.mov', '.avi', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg'})


@dataclass(frozen=True)
class Frame:
    """One image of a source."""

    source: Path  #: the file it comes from
    index: int  #: 0, 1, ... within that file
    stamp: float  #: seconds since the first frame of that file
    image: np.ndarray  #: (H,W,3) uint8 RGB


def is_video(path: Path) -> bool:
    """Whether the file's name says video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def list_sources(paths: Iterable[Path]) -> list[Path]:
    """Image and video files: those named, and those in the folders named, at any depth, sorted.

    :raises ConfigurationError: a path that is not there or is neither image, video nor folder of such.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob('*') if p.is_file() and _is_readable_kind(p))
            if not found:
                raise ConfigurationError(f'{path}: no image and no video in this folder')
            files += found
        elif not path.exists():
            raise ConfigurationError(f'{path}: no such file or folder')
        elif not _is_readable_kind(path):
            kinds = ' '.join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
            raise ConfigurationError(f'{path}: neither image nor video; known endings are {kinds}')
        else:
            files.append(path)
    return files


def count_frames(path: Path) -> int:
    """How many frames a file is said to hold; a video's own claim, 0 where it makes none."""
    if not is_video(path):
        return 1
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    return max(count, 0)


def frame_rate(path: Path) -> float:
    """Frames a second of a video; 30 where it does not say."""
    video = cv2.VideoCapture(str(path))
    rate = float(video.get(cv2.CAP_PROP_FPS))
    video.release()
    return rate if 0.1 < rate < 1000.0 else 30.0


def read_image(path: Path) -> np.ndarray:
    """Read an image file as (H,W,3) uint8 RGB, turned as its EXIF orientation says.

    :raises FileFormatError: a file that holds no image.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileFormatError(f'{path}: cannot be read as an image; is the file complete?')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_frames(path: Path) -> Iterator[Frame]:
    """Frames of one image or video file, in order.

    :raises FileFormatError: a file that holds no image.
    """
    if not is_video(path):
        yield Frame(path, 0, 0.0, read_image(path))
        return
    rate = frame_rate(path)
    video = cv2.VideoCapture(str(path))
    try:
        index = 0
        while True:
            there, image = video.read()
            if not there:
                break
            yield Frame(path, index, index / rate, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            index += 1
    finally:
        video.release()
    if index == 0:
        raise FileFormatError(f'{path}: cannot be read as a video; is the file complete, its codec common?')


def _is_readable_kind(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES or is_video(path)
