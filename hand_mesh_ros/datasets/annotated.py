"""Annotated images as samples for evaluation, and the reader of the project's own index format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hand_mesh_ros.datasets.published_files import checked_numbers, projected
from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.hand import Side


@dataclass(frozen=True)
class AnnotatedHand:
    """One hand in one image, with whatever ground truth its data set gives. 21-keypoint order."""

    id: str
    dataset: str
    image: Path
    side: Side | None  #: None where it is not annotated
    intrinsics: tuple[float, float, float, float] | None  #: fx, fy, cx, cy in pixels
    keypoints_3d: np.ndarray | None  #: (21,3) float64, metres, camera optical frame
    keypoints_2d: np.ndarray | None  #: (21,2) float64, pixels
    visible: np.ndarray  #: (21,) bool: which keypoints_2d are annotated
    vertices: np.ndarray | None = None  #: (778,3) float64, metres, camera optical frame, MANO's vertex order
    bbox_px: np.ndarray | None = (
        None  #: (4,) float64 x0, y0, x1, y1 in pixels, where the data set gives a box
    )
    mask: Path | None = None  #: picture of the image's size, bright where this hand is


def read_index(path: Path) -> list[AnnotatedHand]:
    """Read an ``index.json``: an object with ``samples``, each with ``id``, ``set``, ``image`` (relative
    to the file's folder), ``side``, ``K`` [fx, fy, cx, cy], ``j3d`` 21x3 metres, ``j2d`` 21x2 pixels,
    ``vis`` 21, ``mask`` (relative likewise, of the image's size, bright where the hand is); all but ``id``
    and ``image`` may be null or missing. Pixels are projected where only ``j3d`` and ``K`` are given.

    :raises FileFormatError: a file that is not of this form.
    """
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FileFormatError(f'{path}: cannot be read as JSON: {error}') from error
    samples = document.get('samples') if isinstance(document, dict) else None
    if not isinstance(samples, list):
        raise FileFormatError(f'{path}: has no list "samples"')
    return [_read_sample(path, number, sample) for number, sample in enumerate(samples)]


def _read_sample(path: Path, number: int, sample: Any) -> AnnotatedHand:
    try:
        keypoints_2d = _array(sample.get('j2d'), (21, 2))
        keypoints_3d = _array(sample.get('j3d'), (21, 3))
        visible = _array(sample.get('vis'), (21,))
        intrinsics = _array(sample.get('K'), (4,))
        if keypoints_3d is not None and intrinsics is not None and keypoints_2d is None:
            keypoints_2d = projected(keypoints_3d, tuple(intrinsics.tolist()))
        return AnnotatedHand(
            id=str(sample['id']),
            dataset=str(sample.get('set') or path.parent.name),
            image=path.parent / sample['image'],
            side=_side(sample.get('side')),
            intrinsics=None if intrinsics is None else tuple(intrinsics.tolist()),
            keypoints_3d=keypoints_3d,
            keypoints_2d=keypoints_2d,
            visible=np.ones(21, bool) if visible is None else visible > 0,
            mask=None if sample.get('mask') is None else path.parent / sample['mask'],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f'{path}: sample {number} is not of the index format: {error!r}') from error


def _side(value: Any) -> Side | None:
    if value not in ('left', 'right', None):
        raise ValueError(f'side {value!r} where "left", "right" or null is expected')
    return value


def _array(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    return None if value is None else checked_numbers(value, shape)
