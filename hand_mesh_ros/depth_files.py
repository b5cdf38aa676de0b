"""Depth images and hand masks on disk, and which of them belongs to which image."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.sources import decoded_file, is_video

DEPTH_SUFFIXES = ('.png', '.npy')
MASK_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.pgm')

#: Depth of this much is given in millimetres by mistake.
_UNLIKELY_M = 100.0


class CompanionFiles:
    """Files of a folder that belong to images by their base names, whatever the endings.

    ``left/0001.jpg`` has ``left/0001.png`` of the folder, else ``0001.png``. Frame 12 of ``clip.mp4`` has
    ``clip_000012.png``.
    """

    def __init__(self, folder: Path, suffixes: Sequence[str], left_out: Collection[Path] = ()) -> None:
        """List the files of ``folder`` and its subfolders that end in ``suffixes``; the first one goes first.

        :param left_out: folders whose files are none of these, such as those of the output.

        :raises ConfigurationError: a folder that is not there, or without any such file.
        """
        if not folder.is_dir():
            raise ConfigurationError(f'{folder}: no such folder')
        self._folder, self._suffixes = folder, tuple(suffixes)
        written = {path.resolve() for path in left_out}
        self._files: dict[tuple[str, str], Path] = {}  # by subfolder and base name
        for suffix in suffixes:
            for file in sorted([*folder.glob('*'), *folder.glob('*/*')]):
                if file.suffix.lower() == suffix and _is_one(file, written):
                    subfolder = '' if file.parent == folder else file.parent.name
                    self._files.setdefault((subfolder, file.stem), file)
        if not self._files:
            raise ConfigurationError(f'{folder}: no file in it ends in {" or ".join(suffixes)}')

    @property
    def files(self) -> list[Path]:
        """All of them, sorted; of several that would belong to one image the one that does."""
        return sorted(self._files.values())

    def find(self, source: Path, index: int = 0) -> Path | None:
        """The file that belongs to an image, or to frame ``index`` of a video; None if there is none."""
        name = _base_name(source, index)
        return self._files.get((source.absolute().parent.name, name)) or self._files.get(('', name))

    def of(self, source: Path, index: int = 0) -> Path:
        """The file that belongs to an image, or to frame ``index`` of a video.

        :raises FileFormatError: there is none.
        """
        file = self.find(source, index)
        if file is None:
            frame = f'frame {index} of ' if is_video(source) else ''
            names = ' or '.join(_base_name(source, index) + suffix for suffix in self._suffixes)
            raise FileFormatError(f'{self._folder}: has no {names} for {frame}{source}')
        return file


def _is_one(file: Path, left_out: Collection[Path]) -> bool:
    return not file.name.startswith('.') and file.is_file() and file.parent.resolve() not in left_out


def _base_name(source: Path, index: int) -> str:
    return f'{source.stem}_{index:06d}' if is_video(source) else source.stem


def read_depth(path: Path) -> np.ndarray:
    """Depth image (H,W) float32 in metres, 0 where nothing was measured.

    A .png holds 16-bit millimetres, a .npy floating point metres, in which NaN, infinite and negative
    numbers stand for nothing too.

    :raises FileFormatError: a file that cannot be read, or is not of that kind.
    """
    if path.suffix.lower() == '.npy':
        return _read_metres(path)
    picture = decoded_file(path, cv2.IMREAD_UNCHANGED)
    if picture.dtype != np.uint16 or picture.ndim != 2:
        raise FileFormatError(
            f'{path}: {_described(picture)}; depth must be 16-bit greyscale in millimetres, or .npy in metres'
        )
    return picture.astype(np.float32) / np.float32(1000.0)


def read_mask(path: Path) -> np.ndarray:
    """Mask (H,W) bool: what is bright in a picture with 8 bits a channel, or not 0 in one of 0 and 1.

    :raises FileFormatError: a file that cannot be read or is no such picture.
    """
    picture = decoded_file(path, cv2.IMREAD_UNCHANGED)
    if picture.dtype != np.uint8:
        raise FileFormatError(f'{path}: {_described(picture)}; a mask must have 8 bits a channel')
    if picture.ndim == 3:
        picture = picture[..., :3].max(axis=2)  # what lies behind alpha is no brightness
    return picture > (127 if picture.max() > 1 else 0)


def millimetres(depth_m: np.ndarray) -> np.ndarray:
    """Depth (H,W) in metres as uint16 millimetres; what is nothing or does not fit becomes 0."""
    rounded = np.rint(np.asarray(depth_m, np.float32) * np.float32(1000.0))
    fits = (rounded > 0) & (rounded <= np.iinfo(np.uint16).max)  # NaN does not
    return np.where(fits, rounded, 0).astype(np.uint16)


def write_depth(path: Path, depth_m: np.ndarray) -> None:
    """Write depth (H,W) in metres as a 16-bit PNG in :func:`millimetres`.

    :raises ConfigurationError: the file cannot be written.
    """
    write_picture(path, millimetres(depth_m))


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask (H,W) bool as a PNG of 0 and 255.

    :raises ConfigurationError: the file cannot be written.
    """
    write_picture(path, np.where(mask, 255, 0).astype(np.uint8))


def write_picture(path: Path, picture: np.ndarray, quality: int = 95) -> None:
    """Write a picture as its ending says: (H,W) uint8 or uint16, or (H,W,3) uint8 in OpenCV's BGR.

    :param quality: of a JPEG.
    :raises ConfigurationError: the file cannot be written.
    """
    try:
        # Not imwrite: it crashes on a name that is not UTF-8, and does not say what went wrong.
        flags = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == '.jpg' else []
        path.write_bytes(cv2.imencode(path.suffix, picture, flags)[1].tobytes())
    except OSError as error:
        raise ConfigurationError(f'{path}: cannot be written: {error.strerror}') from error


def _read_metres(path: Path) -> np.ndarray:
    try:
        # Mapped, so that a header that claims more than the file holds is refused before memory is taken.
        stored = np.load(path, mmap_mode='r', allow_pickle=False)
    except OSError as error:
        raise FileFormatError(f'{path}: cannot be read: {error.strerror or error}') from error
    except Exception as error:  # a damaged header, which is Python, makes NumPy raise nearly anything
        raise FileFormatError(
            f'{path}: cannot be read as an array; is the file complete? ({error})'
        ) from error
    if not isinstance(stored, np.ndarray):
        stored.close()
        raise FileFormatError(f'{path}: is an archive of arrays, must be one array (H,W)')
    if stored.ndim != 2 or stored.size == 0 or not np.issubdtype(stored.dtype, np.floating):
        raise FileFormatError(f'{path}: {_described(stored)}; depth in .npy must be (H,W) float, in metres')
    with np.errstate(over='ignore'):
        depth_m = np.array(stored, np.float32)
    depth_m[~np.isfinite(depth_m) | (depth_m < 0)] = 0.0
    if depth_m.any() and np.median(depth_m[depth_m > 0]) > _UNLIKELY_M:
        raise FileFormatError(f'{path}: depths of more than {_UNLIKELY_M:g} m; a .npy must be in metres')
    return depth_m


def _described(array: np.ndarray) -> str:
    return f'holds {"x".join(map(str, array.shape))} numbers of type {array.dtype}'
