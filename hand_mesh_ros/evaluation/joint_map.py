"""What data sets mean by a joint: constant offsets between their keypoints and a method's.

Data sets put the same joint millimetres apart; a knuckle may be its centre of rotation or a mark on the skin.
No pose can make up for that. A map holds one offset for each joint, in a frame that goes with the joint, so
that it moves as the hand does. It also takes up what a method always gets wrong, and what is special about
the few people of a data set, so that it comes beside the plain figure and never instead of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.evaluation.metrics import bone_angle_deg, pa_mpjpe, similarity
from hand_mesh_ros.evaluation.scores import Score
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS

#: Fewer hands than this in a half give no map.
_LEAST_HANDS = 8

_ROUNDS = 5

_WRIST, _INDEX, _MIDDLE, _PINKY = 0, 5, 9, 17

#: Joints that the palm carries; the others go with the bone that ends at them.
_OF_PALM = (0, 1, 5, 9, 13, 17)

#: Offsets (21,3) by data set and method.
JointMaps = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class MappedPair:
    """One method's joints beside the true ones. Metres."""

    dataset: str
    id: str
    method: str
    side: Side  #: as the method has it
    joints: np.ndarray  #: (21,3)
    truth: np.ndarray  #: (21,3), in a frame of its own


def joint_frames(joints: np.ndarray, side: Side) -> tuple[np.ndarray, float]:
    """Frame of each joint, its axes in the columns of (21,3,3), and the unit of length in metres.

    x along the bone that ends at the joint, or along the palm; z towards the index finger's side as near
    as may be; y out of the palm, of left hands too. The unit is the distance from the wrist to the
    middle finger's knuckle.
    """
    along = joints - joints[[max(parent, 0) for parent in KEYPOINT_PARENTS]]
    along[list(_OF_PALM)] = joints[_MIDDLE] - joints[_WRIST]
    x = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    lateral = joints[_INDEX] - joints[_PINKY]
    z = lateral - (x @ lateral)[:, None] * x
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-9)
    y = np.cross(z, x) * (1.0 if side == 'right' else -1.0)
    return np.stack([x, y, z], axis=2), float(np.linalg.norm(joints[_MIDDLE] - joints[_WRIST]))


def mapped(joints: np.ndarray, side: Side, offsets: np.ndarray) -> np.ndarray:
    """Joints (21,3) moved by offsets (21,3) in their frames."""
    frames, unit = joint_frames(joints, side)
    return joints + unit * np.einsum('kab,kb->ka', frames, offsets)


def fit_offsets(pairs: Sequence[MappedPair]) -> np.ndarray:
    """The offsets (21,3) that bring a method's joints nearest to the true ones, each hand being aligned."""
    offsets = np.zeros((21, 3))
    for _ in range(_ROUNDS):
        wanted = []
        for pair in pairs:
            moved = mapped(pair.joints, pair.side, offsets)
            scale, rotation, shift = similarity(moved, pair.truth)
            truth = (pair.truth - shift) @ rotation / scale
            frames, unit = joint_frames(pair.joints, pair.side)
            wanted.append(np.einsum('kab,ka->kb', frames, truth - pair.joints) / unit)
        offsets = np.mean(wanted, axis=0)
    return offsets


def fit_maps(pairs: Sequence[MappedPair]) -> JointMaps:
    """Offsets by data set and method, from all pairs; none where there are too few."""
    maps: JointMaps = {}
    for group in _groups(pairs):
        if len(group) >= _LEAST_HANDS:
            maps.setdefault(group[0].dataset, {})[group[0].method] = fit_offsets(group)
    return maps


def with_maps(scores: list[Score], pairs: Sequence[MappedPair], maps: JointMaps) -> list[Score]:
    """The scores, with the measures ``pa_mapped_mm`` and ``bone_mapped_deg`` where there is a map."""
    offsets = [maps.get(pair.dataset, {}).get(pair.method) for pair in pairs]
    return _measured(scores, zip(pairs, offsets, strict=True))


def with_cross_fitted_maps(scores: list[Score], pairs: Sequence[MappedPair]) -> list[Score]:
    """The same, each half of a data set measured with offsets that the other half gave.

    Halves are the first and the last hands, not every other one: neighbours in a film are nearly the same.
    """
    cross: list[tuple[MappedPair, np.ndarray | None]] = []
    for group in _groups(pairs):
        halves = group[: len(group) // 2], group[len(group) // 2 :]
        if len(halves[0]) >= _LEAST_HANDS:
            for half, other in (halves, halves[::-1]):
                found = fit_offsets(other)
                cross += [(pair, found) for pair in half]
    return _measured(scores, cross)


def write_maps(path: Path, maps: JointMaps) -> None:
    """Write maps as JSON: data set, method, then 21 offsets x, y, z (see ``joint_frames``)."""
    document = {
        dataset: {method: np.round(offsets, 5).tolist() for method, offsets in by_method.items()}
        for dataset, by_method in maps.items()
    }
    try:
        path.write_text(json.dumps(document) + '\n', encoding='utf-8')
    except OSError as error:
        raise ConfigurationError(f'{path}: cannot be written: {error.strerror}') from error


def read_maps(path: Path) -> JointMaps:
    """Read what ``write_maps`` wrote.

    :raises FileFormatError: a file that is not of this form.
    """
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
        maps = {
            dataset: {method: np.asarray(offsets, np.float64) for method, offsets in by_method.items()}
            for dataset, by_method in document.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise FileFormatError(f'{path}: no joint map; write one with --fit-joint-map: {error}') from error
    for by_method in maps.values():
        for offsets in by_method.values():
            if offsets.shape != (21, 3) or not np.isfinite(offsets).all():
                raise FileFormatError(f'{path}: offsets must be 21 times x, y, z, all finite')
    return maps


def _groups(pairs: Sequence[MappedPair]) -> list[list[MappedPair]]:
    """Pairs of one data set and method together, in their order."""
    groups: dict[tuple[str, str], list[MappedPair]] = {}
    for pair in pairs:
        groups.setdefault((pair.dataset, pair.method), []).append(pair)
    return [*groups.values()]


def _measured(scores: list[Score], pairs: Iterable[tuple[MappedPair, np.ndarray | None]]) -> list[Score]:
    measures = {}
    for pair, offsets in pairs:
        if offsets is not None:
            joints = mapped(pair.joints, pair.side, offsets)
            measures[pair.dataset, pair.id, pair.method] = {
                'pa_mapped_mm': 1e3 * pa_mpjpe(joints, pair.truth),
                'bone_mapped_deg': bone_angle_deg(joints, pair.truth),
            }
    return [
        replace(s, measures={**s.measures, **measures.get((s.dataset, s.id, s.method), {})}) for s in scores
    ]
