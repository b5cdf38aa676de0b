"""Images, folders and videos on disk as frames.

JPEG, PNG and TIFF images are turned as their EXIF orientation says; OpenCV does not read that of WebP.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.picture_headers import is_cut_png

IMAGE_SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm'})
VIDEO_SUFFIXES = frozenset({'.mp4', '.mov', '.avi', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg'})

#: How far a video's clock may be off its even rate by rounding: containers count milliseconds or finer.
_CLOCK_ROUNDING_S = 0.001

#: A video may claim a few frames more than it holds: its sound may outlast its pictures.
_CLAIM_SLACK_FRAMES, _CLAIM_SLACK_S = 2, 0.25


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


def is_utf8(path: Path) -> bool:
    """Whether the path's bytes are UTF-8; OpenCV crashes on any other."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def list_sources(paths: Iterable[Path], outputs: Collection[Path] = ()) -> list[Path]:
    """Image and video files: those named, and those in the folders named, at any depth, sorted.

    A folder is searched without what is hidden in it (names that begin with a dot), and through links.
    Of several names of one file the first counts.

    :param outputs: folders that will be written to. No source may lie there; a search leaves them out.
    :raises ConfigurationError: a path that is not there, is neither image, video nor folder of such, or lies
        in one of ``outputs``.
    """
    written = [folder.resolve() for folder in outputs]
    names: dict[Path, Path] = {}  # by the file's real path
    for path in paths:
        if not path.exists():
            raise ConfigurationError(f'{path}: no such file or folder')
        if any(path.resolve().is_relative_to(folder) for folder in written):
            raise ConfigurationError(f'{path}: lies where the output goes; choose another place for either')
        if path.is_dir():
            found = _search(path, written)
            if not found:
                raise ConfigurationError(f'{path}: no image and no video in this folder')
        elif _is_readable_kind(path):
            found = [path]
        else:
            kinds = ' '.join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
            raise ConfigurationError(f'{path}: neither image nor video; known endings are {kinds}')
        for file in found:
            names.setdefault(file.resolve(), file)
    return list(names.values())


def count_frames(path: Path) -> int:
    """How many frames a file is said to hold; a video's own claim, 0 where it makes none."""
    if not is_video(path):
        return 1
    video = _open_video(path)
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    return max(count, 0)


def frame_rate(path: Path) -> float:
    """Frames a second of a video; 30 where it does not say."""
    video = _open_video(path)
    rate = float(video.get(cv2.CAP_PROP_FPS))
    video.release()
    return rate if 0.1 < rate < 1000.0 else 30.0


def missing_frames(last: Frame) -> int:
    """How many frames a video claims to hold after its last one; 0 where it makes no such claim.

    A few frames are within the precision of such claims and do not count. Frames of uneven length may be
    fewer than the claim, which then comes from duration and rate: they are measured by their time.
    """
    if not is_video(last.source):
        return 0
    claimed, rate = count_frames(last.source), frame_rate(last.source)
    missing = claimed - 1 - max(last.index, round(last.stamp * rate))
    return missing if missing > max(_CLAIM_SLACK_FRAMES, _CLAIM_SLACK_S * rate) else 0


def read_image(path: Path) -> np.ndarray:
    """Read an image file as (H,W,3) uint8 RGB, turned as its EXIF orientation says (not that of WebP).

    :raises FileFormatError: a file that cannot be read, holds no image, or one too large for OpenCV.
    """
    return cv2.cvtColor(decoded_file(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def decoded_file(path: Path, flags: int) -> np.ndarray:
    """An image file as OpenCV decodes it with ``flags``, IMREAD_COLOR for one: (H,W) or (H,W,C), BGR.

    :raises FileFormatError: a file that cannot be read, holds no image, or one too large for OpenCV.
    """
    try:
        content = path.read_bytes()
        # Not imread: it crashes on a name that is not UTF-8.
        image = None if is_cut_png(content) else cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except OSError as error:
        raise FileFormatError(f'{path}: cannot be read: {error.strerror}') from error
    except cv2.error as error:
        raise FileFormatError(
            f'{path}: cannot be read as an image; is the file complete, and not huge? (OpenCV: {error.err})'
        ) from error
    if image is None:
        raise FileFormatError(f'{path}: cannot be read as an image; is the file complete?')
    return image


def read_frames(path: Path) -> Iterator[Frame]:
    """Frames of one image or video file, in order.

    :raises FileFormatError: a file that cannot be read or holds no image.
    """
    if not is_video(path):
        yield Frame(path, 0, 0.0, read_image(path))
        return
    rate = frame_rate(path)
    video = _open_video(path)
    try:
        index, start, stamp = 0, 0.0, 0.0
        while True:
            there, image = video.read()
            if not there:
                break
            clock = video.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            if index == 0:
                start = clock
            else:
                stamp = _stamp(clock - start, index, rate, stamp)
            yield Frame(path, index, stamp, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            index += 1
    finally:
        video.release()
    if index == 0:
        raise FileFormatError(
            f'{path}: cannot be read as a video; is the file complete, its codec common, its path UTF-8?'
        )


def _stamp(clock: float, index: int, rate: float, before: float) -> float:
    """Seconds from the first frame to a later one: by the even rate, or the video's clock where that differs.

    :param clock: what the container says; of no use when it does not go on from ``before``.
    :param before: stamp of the frame before.
    """
    even = index / rate
    if abs(clock - even) <= _CLOCK_ROUNDING_S:
        return even
    return clock if clock > before else before + 1.0 / rate


def _open_video(path: Path) -> cv2.VideoCapture:
    """The video, not opened where that fails."""
    return cv2.VideoCapture(str(path)) if is_utf8(path) else cv2.VideoCapture()


def _search(folder: Path, left_out: Collection[Path]) -> list[Path]:
    """Images and videos in a folder at any depth, sorted; ``left_out`` are resolved folders within."""
    found: list[Path] = []
    searched = set(left_out)  # links may lead in circles
    for name, folders, files in os.walk(folder, followlinks=True):
        here = Path(name)
        if here.resolve() in searched:
            folders.clear()
            continue
        searched.add(here.resolve())
        folders[:] = sorted(f for f in folders if not f.startswith('.'))
        found += (here / f for f in files if not f.startswith('.'))
    return sorted(file for file in found if _is_readable_kind(file) and file.is_file())


def _is_readable_kind(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES or is_video(path)
