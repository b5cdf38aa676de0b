"""Backgrounds drawn by rule: rooms, shapes, stripes, clouds and gradients, to be cropped at random."""

from __future__ import annotations

import cv2
import numpy as np

from hand_mesh_ros.datasets.scenery import cluttered_room

_SIDE = 320


class TextureBank:
    """Pictures made once, of which any number of different patches can be cut."""

    def __init__(self, seed: int, count: int = 64) -> None:
        """Draw ``count`` pictures, which ``seed`` decides."""
        painters = (_room, _shapes, _shapes, _stripes, _clouds, _gradient)
        self._pictures = [
            painters[k % len(painters)](np.random.default_rng([seed, 2, k])) for k in range(count)
        ]

    def patch(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """A patch (size,size,3) uint8 sRGB: any part of any picture, turned, tinted, blurred or not."""
        picture = self._pictures[rng.integers(len(self._pictures))]
        extent = _SIDE * float(np.exp(rng.uniform(np.log(0.2), np.log(0.9))))
        angle = float(rng.uniform(0, 2 * np.pi))
        cos, sin = np.cos(angle) * extent / size, np.sin(angle) * extent / size
        linear = np.array([[cos, -sin], [sin, cos]])
        offset = rng.uniform(0.25, 0.75, 2) * _SIDE - linear @ (size / 2.0, size / 2.0)
        patch = cv2.warpAffine(
            picture,
            np.column_stack([linear, offset]),
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        gain, shift = rng.uniform(0.55, 1.25) * rng.uniform(0.85, 1.15, 3), rng.uniform(-30, 30)
        patch = cv2.LUT(patch, _tables(gain, shift))
        if rng.random() < 0.5:  # out of focus behind a near hand
            patch = cv2.GaussianBlur(patch, (0, 0), float(rng.uniform(0.6, 4.0)))
        return patch


def _tables(gain: np.ndarray, shift: float) -> np.ndarray:
    values = np.arange(256)[None, :, None] * gain + shift
    return np.clip(values, 0, 255).astype(np.uint8)


def _room(rng: np.random.Generator) -> np.ndarray:
    left = int(rng.integers(0, 160))
    return np.ascontiguousarray(cluttered_room(480, _SIDE, int(rng.integers(2**31)))[:, left : left + _SIDE])


def _shapes(rng: np.random.Generator) -> np.ndarray:
    """Overlapping boxes, ellipses, bars and polygons, some as warm as skin and some as long as fingers."""
    picture = _gradient(rng)
    for _ in range(int(rng.integers(12, 70))):
        colour, centre = _colour(rng), rng.uniform(0, _SIDE, 2)
        kind = rng.integers(4)
        if kind == 0:
            box = (centre.tolist(), rng.uniform(8, 130, 2).tolist(), float(rng.uniform(0, 180)))
            cv2.fillConvexPoly(picture, cv2.boxPoints(box).astype(np.int32), colour, cv2.LINE_AA)
        elif kind == 1:
            axes = rng.uniform(4, 70, 2).astype(int).tolist()
            cv2.ellipse(
                picture,
                centre.astype(int).tolist(),
                axes,
                float(rng.uniform(0, 180)),
                0,
                360,
                colour,
                cv2.FILLED,
                cv2.LINE_AA,
            )
        elif kind == 2:
            end = (centre + rng.uniform(-120, 120, 2)).astype(int).tolist()
            cv2.line(picture, centre.astype(int).tolist(), end, colour, int(rng.integers(2, 26)), cv2.LINE_AA)
        else:
            corners = centre + rng.uniform(-60, 60, (int(rng.integers(3, 7)), 2))
            cv2.fillPoly(picture, [corners.astype(np.int32)], colour, cv2.LINE_AA)
    return _grained(picture, rng)


def _stripes(rng: np.random.Generator) -> np.ndarray:
    """Stripes, checks or wood: waves across waves."""
    y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    bend = cv2.GaussianBlur(rng.normal(0, 400, (_SIDE, _SIDE)).astype(np.float32), (0, 0), 20)
    wave = np.sin((along + bend * rng.uniform(0, 1)) * rng.uniform(0.03, 0.6))
    if rng.random() < 0.5:
        wave = wave * np.sin(across * rng.uniform(0.03, 0.6))
    share = 1.0 / (1.0 + np.exp(-wave * rng.uniform(1, 12)))
    first, second = np.array(_colour(rng)), np.array(_colour(rng))
    picture = share[..., None] * first + (1.0 - share[..., None]) * second
    return _grained(picture.astype(np.uint8), rng)


def _clouds(rng: np.random.Generator) -> np.ndarray:
    """Noise of many sizes in a few colours: foliage, stone, cloth."""
    fields = np.zeros((_SIDE, _SIDE, 3), np.float32)
    for octave in range(2, 8):
        coarse = rng.normal(0, rng.uniform(0.4, 1.0) * 0.62**octave, (2**octave, 2**octave, 3))
        fields += cv2.resize(coarse.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
    # Mostly brighter and darker, a little of other colours.
    mixing = (rng.normal(0, 0.3, (3, 3)) + np.eye(3)[0][:, None]) * rng.uniform(20, 110)
    return np.clip(np.array(_colour(rng)) + fields @ mixing.astype(np.float32), 0, 255).astype(np.uint8)


def _gradient(rng: np.random.Generator) -> np.ndarray:
    corners = np.array([[_colour(rng), _colour(rng)], [_colour(rng), _colour(rng)]], np.float32)
    # Walls and tables are mostly of one colour; light changes over them.
    corners += (corners.mean((0, 1)) - corners) * rng.uniform(0.3, 0.95)
    return cv2.resize(corners, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _grained(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    grain = rng.normal(0, rng.uniform(0, 10), picture.shape)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    """Any colour, greyish ones and skin-like ones more often."""
    kind = rng.random()
    if kind < 0.25:
        r, g, b = np.array([205.0, 155.0, 125.0]) * rng.uniform(0.25, 1.15) + rng.uniform(-15, 15, 3)
    elif kind < 0.65:
        r, g, b = rng.uniform(10, 245) + rng.uniform(-18, 18, 3)
    else:
        r, g, b = rng.uniform(0, 255, 3)
    return int(np.clip(r, 0, 255)), int(np.clip(g, 0, 255)), int(np.clip(b, 0, 255))
