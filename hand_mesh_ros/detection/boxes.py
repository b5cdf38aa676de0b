"""Hand boxes from a file, so that a user's own detector can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hand_mesh_ros.detection.detection import HandBox
from hand_mesh_ros.keyed_files import KeyedFile, four_numbers, is_number, load_keyed


def load_boxes(path: Path) -> KeyedFile[list[HandBox]]:
    """Boxes by image: a keyed file of lists of ``{"side": "left" | "right", "bbox": [x0, y0, x1, y1]}``.

    ``bbox`` is in pixels of the image; ``"score"``, 0 to 1, may be added. An image with an empty list
    has no hands.

    :raises FileFormatError: a file or an entry that is not of that form.
    """
    return load_keyed(path, _boxes)


def _boxes(value: Any) -> list[HandBox]:
    if not isinstance(value, list):
        raise ValueError(f'must be a list of boxes, got {value!r}')
    return [_box(entry) for entry in value]


def _box(entry: Any) -> HandBox:
    if not isinstance(entry, dict) or not {'side', 'bbox'} <= set(entry) <= {'side', 'bbox', 'score'}:
        raise ValueError(f'a box is {{"side", "bbox"}} and perhaps "score", got {entry!r}')
    side, score = entry['side'], entry.get('score', 1.0)
    if side not in ('left', 'right'):
        raise ValueError(f'"side" must be "left" or "right", got {side!r}')
    with np.errstate(over='ignore'):
        bbox_px = np.array(four_numbers(entry['bbox'], 'x0, y0, x1, y1'), np.float32)
    # Looked at as float32, which is what is kept of them.
    x0, y0, x1, y1 = bbox_px
    if not (np.isfinite(bbox_px).all() and x0 < x1 and y0 < y1):
        raise ValueError(
            f'"bbox" {entry["bbox"]} is empty, or endless: it is [x0, y0, x1, y1], not [x, y, width, height]'
        )
    if not is_number(score) or not 0.0 <= score <= 1.0:
        raise ValueError(f'"score" must be a number from 0 to 1, got {score!r}')
    return HandBox(side, bbox_px, float(score))
