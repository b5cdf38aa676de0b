"""Which keypoints are hidden, for hands of which no picture is made."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.datasets.draws import Draws
from hand_mesh_ros.datasets.residuals import Landmarks
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS

_CHILDREN = np.arange(1, 21)
_PARENTS = np.array(KEYPOINT_PARENTS)[_CHILDREN]

#: Flesh around the bones (20), one for each keypoint but the wrist: of palm, thumb and fingers. Metres.
_RADII_M = np.tile([0.015, 0.009, 0.0085, 0.008], 5).astype(np.float32)
_RADII_M[:3] = 0.016, 0.015, 0.010

#: What is hidden must be so much deeper than the flesh before it: that of its own bones, or others. Metres.
_OWN_FLESH_M, _OWN_PALM_M, _OTHERS_NEARER_M = 0.024, 0.032, 0.004

#: Shares of the hands with something before them; of that, shares of bodies, sticks, edges and lone fingers.
_SOMETHING_IN_FRONT = 0.40
_KINDS = np.cumsum([0.45, 0.25, 0.10])
_FINGERS = np.arange(1, 21).reshape(5, 4)


def invented_visibility(truth: Landmarks, half_sides_per_m: np.ndarray, draws: Draws) -> np.ndarray:
    """Which keypoints (N,21) nothing hides, bool, about as often as ``Scene.visible`` says so.

    Parts of the hand itself hide what lies behind their bones; other things are invented.

    :param half_sides_per_m: (N,), the size of things in the crops.
    """
    keypoints = Landmarks(*(values.astype(np.float32) for values in truth))
    seen = ~_behind_own_bones(keypoints, half_sides_per_m.astype(np.float32))
    return seen & ~_behind_things(keypoints, draws)


def _behind_own_bones(truth: Landmarks, half_sides_per_m: np.ndarray) -> np.ndarray:
    """(N,21) bool: bones as capsules, lengths in half sides."""
    points = np.concatenate([truth.keypoints, truth.relative_depth[:, :, None]], axis=2)
    x, y, depth = (points[:, :, k, None] for k in range(3))
    start = points[:, _PARENTS]
    bone = points[:, _CHILDREN] - start
    start_x, start_y, start_depth = (start[:, None, :, k] for k in range(3))
    bone_x, bone_y, bone_depth = (bone[:, None, :, k] for k in range(3))
    from_x, from_y = x - start_x, y - start_y
    along = (from_x * bone_x + from_y * bone_y) / np.maximum(bone_x**2 + bone_y**2, 1e-6)
    np.clip(along, 0.0, 1.0, out=along)
    scale = half_sides_per_m[:, None, None]
    radius = _RADII_M * scale
    inside = radius**2 - (from_x - along * bone_x) ** 2 - (from_y - along * bone_y) ** 2
    nearer = depth - start_depth - along * bone_depth + np.sqrt(np.maximum(inside, 0.0))
    return ((inside > 0.0) & (nearer > _LEAST_NEARER_M * scale)).any(2)


def _behind_things(truth: Landmarks, draws: Draws) -> np.ndarray:
    """(N,21) bool: of some hands, what lies in a disk, a strip or a half plane, or one finger but its root.

    Half of these things stand within the hand and hide only what is deeper.
    """
    uniform = draws.uniform(7)
    about = (21 * uniform[:, 1]).astype(np.int64)
    rows = np.arange(len(about))
    middle = truth.keypoints[rows, about] + 0.1 * draws.normal(2)
    offsets = truth.keypoints - middle[:, None]
    angle = 2.0 * np.pi * uniform[:, 2]
    normal = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    across = (offsets * normal[:, None]).sum(2)
    size = (0.08 + 0.27 * uniform[:, 3])[:, None]
    kind = np.searchsorted(_KINDS, uniform[:, 4])
    covered = np.choose(
        kind[:, None],
        [
            (offsets**2).sum(2) < (1.3 * size) ** 2,
            np.abs(across) < 0.6 * size,
            across > 0.0,
            _ON_FINGER[(5 * uniform[:, 5]).astype(np.int64)],
        ],
    )
    within = (truth.relative_depth[rows, about] - 0.05)[:, None]
    deeper = (truth.relative_depth > within) | (uniform[:, 6:7] < 0.5)
    return covered & deeper & (uniform[:, :1] < _SOMETHING_IN_FRONT)


def _least_nearer_m() -> np.ndarray:
    """(21,20) float32: by how much each bone's flesh must be nearer than each keypoint to hide it."""
    least = np.full((21, 20), _OTHERS_NEARER_M, np.float32)
    for keypoint in range(21):
        near = {keypoint, KEYPOINT_PARENTS[keypoint], *np.flatnonzero(np.array(KEYPOINT_PARENTS) == keypoint)}
        for bone, (parent, child) in enumerate(zip(_PARENTS, _CHILDREN, strict=True)):
            if parent in near or child in near:
                least[keypoint, bone] = _OWN_PALM_M if keypoint % 4 == 1 or keypoint == 0 else _OWN_FLESH_M
    return least


_LEAST_NEARER_M = _least_nearer_m()
_ON_FINGER = np.array([np.isin(np.arange(21), finger[1:]) for finger in _FINGERS])
