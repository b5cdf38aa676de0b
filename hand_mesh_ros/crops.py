"""Square, turned, scaled crops of an image, and the way back to its pixels.

Pixel centres lie at integer coordinates, in the image and in the crop alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

#: What a crop shows beyond the image: black, or the image's edge pixels drawn out.
Border = Literal['black', 'edge']

_BORDER_MODES = {'black': cv2.BORDER_CONSTANT, 'edge': cv2.BORDER_REPLICATE}


@dataclass(frozen=True)
class Square:
    """A square region of an image, turned in its plane.

    Its x axis points along (cos turn, sin turn) of the image, whose y points down: seen on the
    screen, a positive turn is clockwise.
    """

    center_px: tuple[float, float]  #: x, y in pixels of the image
    side_px: float  #: length of a side, in pixels of the image
    turn_rad: float = 0.0

    def __post_init__(self) -> None:
        numbers = (*self.center_px, self.side_px, self.turn_rad)
        if not all(math.isfinite(n) for n in numbers) or self.side_px <= 0:
            raise ValueError(
                f'not a square: centre {self.center_px}, side {self.side_px}, turn {self.turn_rad}'
            )

    @classmethod
    def around_image(cls, width: int, height: int, turn_rad: float = 0.0) -> Square:
        """The square of the image's longer side about its middle."""
        return cls(((width - 1) / 2.0, (height - 1) / 2.0), float(max(width, height)), turn_rad)

    @classmethod
    def around_box(cls, bbox_px: np.ndarray, turn_rad: float = 0.0) -> Square:
        """The square of the longer side of the box (4,), x0, y0, x1, y1 in pixels, about its middle."""
        x0, y0, x1, y1 = (float(n) for n in bbox_px)
        return cls(((x0 + x1) / 2.0, (y0 + y1) / 2.0), max(x1 - x0, y1 - y0), turn_rad)

    @classmethod
    def around_points(cls, points_px: np.ndarray, turn_rad: float = 0.0) -> Square:
        """The smallest square of that turn about the middle of the turned bounding box of (N,2) pixels."""
        directions = axes(turn_rad)
        along = np.asarray(points_px, np.float64) @ directions
        low, high = along.min(axis=0), along.max(axis=0)
        x, y = directions @ ((low + high) / 2.0)
        return cls((float(x), float(y)), float((high - low).max()), turn_rad)

    def scaled(self, factor: float) -> Square:
        """The same square, its side multiplied by ``factor``."""
        return Square(self.center_px, self.side_px * factor, self.turn_rad)

    def shifted(self, right: float, down: float) -> Square:
        """The square moved along its own axes, by fractions of its side."""
        x, y = self.center_px + axes(self.turn_rad) @ (right * self.side_px, down * self.side_px)
        return Square((float(x), float(y)), self.side_px, self.turn_rad)


@dataclass(frozen=True)
class Crop:
    """Pixels of a square of an image, and where they come from."""

    pixels: np.ndarray  #: (S,S,3) uint8 RGB
    T_crop_image: np.ndarray  #: (3,3) float64: homogeneous similarity from image pixels to crop pixels

    @property
    def T_image_crop(self) -> np.ndarray:
        """(3,3) float64: from crop pixels to image pixels."""
        return np.linalg.inv(self.T_crop_image)

    @property
    def scale(self) -> float:
        """Crop pixels to one image pixel."""
        return float(math.hypot(self.T_crop_image[0, 0], self.T_crop_image[1, 0]))

    @property
    def turn_rad(self) -> float:
        """The turn of the square that was cropped."""
        return math.atan2(self.T_crop_image[0, 1], self.T_crop_image[0, 0])

    def to_crop(self, points_px: np.ndarray) -> np.ndarray:
        """Crop pixels (N,2) float64 of image pixels (N,2)."""
        return _mapped(self.T_crop_image, points_px)

    def to_image(self, points_px: np.ndarray) -> np.ndarray:
        """Image pixels (N,2) float64 of crop pixels (N,2)."""
        return _mapped(self.T_image_crop, points_px)


def crop_square(image: np.ndarray, square: Square, size: int, border: Border = 'black') -> Crop:
    """The pixels of ``square`` in ``image`` (H,W,3) uint8 RGB, resampled bilinearly to ``size`` x ``size``.

    The areas correspond: the outer edges of the square become the outer edges of the crop's pixels,
    so that the square around a square image, at its own size, gives that image unchanged.
    """
    T_crop_image = crop_transform(square, size)
    pixels = cv2.warpAffine(
        image, T_crop_image[:2], (size, size), flags=cv2.INTER_LINEAR, borderMode=_BORDER_MODES[border]
    )
    return Crop(pixels, T_crop_image)


def crop_transform(square: Square, size: int) -> np.ndarray:
    """(3,3) float64: from pixels of the image to those of a crop of ``size`` x ``size`` of ``square``."""
    linear = axes(square.turn_rad).T * (size / square.side_px)
    T_crop_image = np.eye(3)
    T_crop_image[:2, :2] = linear
    T_crop_image[:2, 2] = (size - 1) / 2.0 - linear @ square.center_px
    return T_crop_image


def axes(turn_rad: float) -> np.ndarray:
    """(2,2) float64: the x and y axes of a square of that turn, as columns, in the image."""
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    return np.array([[cos, -sin], [sin, cos]])


def upright_turn(below_px: np.ndarray, above_px: np.ndarray) -> float:
    """The turn of a square in which the pixel ``above_px`` (2,) lies straight above ``below_px`` (2,)."""
    right, down = (float(n) for n in np.subtract(above_px, below_px))
    return math.atan2(right, -down)


def _mapped(transform: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    return np.asarray(points_px, np.float64) @ transform[:2, :2].T + transform[:2, 2]
