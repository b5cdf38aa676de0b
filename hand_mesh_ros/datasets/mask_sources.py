"""A user's own masks of hands as crops: nothing is known of the hands, but a network can adapt to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_image import crop_image
from hand_mesh_ros.depth_files import read_mask
from hand_mesh_ros.detection.masks import hands_in_mask
from hand_mesh_ros.errors import CameraError, FileFormatError, FrameError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.mask_view import view_of_mask
from hand_mesh_ros.sources import list_sources

#: The camera of a file's picture, from the file, its width and its height in pixels.
CameraOf = Callable[[Path, int, int], Camera]


@dataclass(frozen=True, eq=False)
class MaskPicture:
    """One mask, of one or several hands."""

    name: str  #: for messages
    mask: np.ndarray  #: (H,W) bool
    camera: Camera  #: of H by W pixels


@dataclass(frozen=True)
class Unusable:
    """In place of a mask that could not be read."""

    problem: str  #: names the file or message


@dataclass(frozen=True, eq=False)
class CollectedMasks:
    """Crops of masks, all as of right hands, and what became of the others."""

    crops: np.ndarray  #: (N,S,S) uint8 0..255
    half_sides: np.ndarray  #: (N,) float32: focal length of each crop's camera over half the side
    pictures: int  #: that were read
    guessed: int  #: of those, how many have a camera of which only a field of view is assumed
    handless: tuple[str, ...]  #: names of pictures in which nothing looks like a hand
    unusable: tuple[str, ...]  #: why others could not be read


def masks_in_folder(
    source: Path, camera_of: CameraOf, left_out: Collection[Path] = ()
) -> Iterator[MaskPicture | Unusable]:
    """The masks of a folder's pictures, at any depth, in the order of their names; or that of one file.

    :param left_out: folders that are not searched.
    :raises ConfigurationError: no such folder, or no pictures in it. At once, not at the first mask.
    """
    return _each(list_sources([source], left_out), camera_of)


def _each(files: list[Path], camera_of: CameraOf) -> Iterator[MaskPicture | Unusable]:
    for file in files:
        try:
            mask = read_mask(file)
            yield MaskPicture(str(file), mask, camera_of(file, mask.shape[1], mask.shape[0]))
        except FileFormatError as error:
            yield Unusable(str(error))
        except CameraError as error:
            yield Unusable(f'{file}: {error}')


def collect_masks(
    pictures: Iterable[MaskPicture | Unusable], size: int, side: Side = 'right', max_hands: int = 2
) -> CollectedMasks:
    """Crop the hands of all pictures: each blob of a mask that is large enough is one.

    :param size: S, side of the crops in pixels.
    :param side: of all the hands; left ones are mirrored.
    :param max_hands: the most to take of one picture, largest first.
    """
    crops: list[np.ndarray] = []
    half_sides: list[float] = []
    handless, unusable = [], []
    count = guessed = 0
    for picture in pictures:
        if isinstance(picture, Unusable):
            unusable.append(picture.problem)
            continue
        count += 1
        guessed += not picture.camera.calibrated
        before = len(crops)
        for crop, half_side in _hands(picture, size, max_hands):
            crops.append(crop if side == 'right' else crop[:, ::-1])
            half_sides.append(half_side)
        if len(crops) == before:
            handless.append(picture.name)
    return CollectedMasks(
        crops=np.stack(crops) if crops else np.zeros((0, size, size), np.uint8),
        half_sides=np.array(half_sides, np.float32),
        pictures=count,
        guessed=guessed,
        handless=tuple(handless),
        unusable=tuple(unusable),
    )


def _hands(picture: MaskPicture, size: int, max_hands: int) -> Iterator[tuple[np.ndarray, float]]:
    """Crops (S,S) uint8 of a picture's hands, and the focal lengths of their cameras in half sides."""
    for detection in hands_in_mask(picture.mask, max_hands=max_hands):
        if detection.mask is None:
            continue
        try:
            view = view_of_mask(detection.mask, picture.camera, size)
        except FrameError:  # not where a camera sees anything
            continue
        pixels = detection.mask.astype(np.uint8) * 255
        crop = crop_image(pixels, picture.camera, view, border=cv2.BORDER_CONSTANT)
        yield crop, view.focal_px * 2.0 / size
