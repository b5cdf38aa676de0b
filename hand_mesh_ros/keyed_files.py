"""JSON files that say something of each image of a run, found by the image's name.

Such a file is an object whose keys are base names of images, ``"0001.jpg"``, or parent folder and base
name, ``"left/0001.jpg"``, where base names repeat.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, Generic, TypeVar

from hand_mesh_ros.errors import FileFormatError

Value = TypeVar('Value')


class KeyedFile(Generic[Value]):
    """The values of a keyed file."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)

    def get(self, image: PurePath, default: Value | None = None) -> Value | None:
        """The value for the image at that path: of key ``folder/name`` if there is one, else of ``name``.

        The folder of a bare file name is the current one; links are not followed.
        """
        folder = PurePath(os.path.abspath(image)).parent.name
        for key in (f'{folder}/{image.name}', image.name):
            if key in self._values:
                return self._values[key]
        return default

    def __len__(self) -> int:
        return len(self._values)


def load_keyed(path: Path, parse: Callable[[Any], Value]) -> KeyedFile[Value]:
    """Read a keyed file, each value through ``parse``, which raises ValueError for one it cannot use.

    :raises FileFormatError: a file that is missing, no such JSON, or has a key or value that is wrong.
    """
    try:
        content = json.loads(
            path.read_text(encoding='utf-8-sig'), object_pairs_hook=_without_repeats, parse_constant=_refused
        )
    except OSError as error:
        raise FileFormatError(f'{path}: cannot be read: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f'{path}: not a JSON object by file name: {error}') from error
    if not isinstance(content, dict):
        raise FileFormatError(
            f'{path}: holds {type(content).__name__}, must be one object {{file name: value}}'
        )
    values = {}
    for key, value in content.items():
        if not all(key.split('/')) or key.count('/') > 1:
            raise FileFormatError(f'{path}: key {key!r} must be "name" or "folder/name" of an image')
        try:
            values[key] = parse(value)
        except ValueError as error:
            raise FileFormatError(f'{path}: key {key!r}: {error}') from error
    return KeyedFile(values)


def load_cameras(path: Path) -> KeyedFile[tuple[float, float, float, float]]:
    """Intrinsics by image: a keyed file of ``[fx, fy, cx, cy]`` in pixels.

    :raises FileFormatError: a file or an entry that is not of that form.
    """
    return load_keyed(path, _intrinsics)


def four_numbers(value: Any, names: str) -> tuple[float, float, float, float]:
    """The value as four finite numbers; ``names`` says which, for the ValueError."""
    numbers = value if isinstance(value, list) else []
    if len(numbers) != 4 or not all(is_number(n) for n in numbers):
        raise ValueError(f'{value!r} must be four numbers [{names}]')
    a, b, c, d = (float(n) for n in numbers)
    return a, b, c, d


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a number that a float can hold; true and false are none."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    )


def _intrinsics(value: Any) -> tuple[float, float, float, float]:
    fx, fy, cx, cy = four_numbers(value, 'fx, fy, cx, cy')
    if fx <= 0.0 or fy <= 0.0:
        raise ValueError(f'focal lengths must be positive, got fx={fx:g}, fy={fy:g}')
    return fx, fy, cx, cy


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'key {next(k for k in keys if keys.count(k) > 1)!r} is there more than once')
    return content


def _refused(constant: str) -> Any:
    raise ValueError(f'{constant} is not a number')
