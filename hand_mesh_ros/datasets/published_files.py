"""What the readers of data sets share: checked numbers, long JSON lists, pinhole projection."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hand_mesh_ros.errors import FileFormatError

#: What may stand before an element of a JSON list, after the first and before it.
_SEPARATOR = re.compile(r'\s*,\s*')
_OPENING, _CLOSING = re.compile(r'\s*\[\s*'), re.compile(r'\s*\]\s*')


def checked_numbers(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """``value`` as a float64 array of this shape.

    :raises ValueError: another shape, or a number that is not finite.
    :raises TypeError: something else than numbers.
    """
    array = np.asarray(value, np.float64)
    if array.shape != shape:
        raise ValueError(f'shape {array.shape} where {shape} is expected')
    if not np.isfinite(array).all():
        raise ValueError('a number that is not finite')
    return array


def read_json_arrays(path: Path, shape: tuple[int, ...], remedy: str) -> list[np.ndarray]:
    """The elements, each a float64 array of this shape, of the list that the JSON file at ``path`` is.

    :param remedy: what to do about a file that is missing or of another form, for the message.
    :raises FileFormatError: such a file.
    """
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f'{path}: cannot be read ({error}); {remedy}') from error
    arrays: list[np.ndarray] = []
    try:
        for element in _elements(text):
            arrays.append(checked_numbers(element, shape))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise FileFormatError(
            f'{path}: element {len(arrays)} is not as expected ({error}); {remedy}'
        ) from error
    return arrays


def _elements(text: str) -> Iterator[Any]:
    """The elements of a JSON list one by one: as Python's objects a whole list of meshes fills gigabytes."""
    decoder = json.JSONDecoder()
    opening = _OPENING.match(text)
    if opening is None:
        raise ValueError('the file is no JSON list')
    place = opening.end()
    closing = _CLOSING.match(text, place)
    while closing is None:
        element, place = decoder.raw_decode(text, place)
        yield element
        separator, closing = _SEPARATOR.match(text, place), _CLOSING.match(text, place)
        if separator is not None:
            place = separator.end()
        elif closing is None:
            raise ValueError('the list breaks off')
    if closing.end() != len(text):
        raise ValueError('there is more after the list')


def pinhole(K: Any) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels of an intrinsic matrix (3,3).

    :raises ValueError: no such matrix.
    """
    matrix = checked_numbers(K, (3, 3))
    fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    if fx <= 0.0 or fy <= 0.0:
        raise ValueError(f'focal lengths {fx} and {fy} px')
    return fx, fy, cx, cy


def projected(points: np.ndarray, intrinsics: tuple[float, float, float, float]) -> np.ndarray:
    """Pixels (N,2) of points (N,3) in the camera optical frame.

    :raises ValueError: a point that does not lie before the camera.
    """
    if (points[:, 2] <= 0.0).any():
        raise ValueError('a point that does not lie before the camera')
    fx, fy, cx, cy = intrinsics
    return points[:, :2] / points[:, 2:] * (fx, fy) + (cx, cy)


def file_names(folder: Path, remedy: str) -> set[str]:
    """The names of what is in ``folder``.

    :param remedy: what to do where there is no such folder, for the message.
    :raises FileFormatError: no such folder.
    """
    try:
        return {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise FileFormatError(f'{folder}: cannot be listed ({error.strerror}); {remedy}') from error
