"""Anatomical angles of a hand and their joint rotations: axes, limits and named hand shapes.

A hand shape is 21 angles in degrees. The thumb has (CMC flexion, MCP flexion, IP flexion, CMC palmar
abduction, CMC twist), then index, middle, ring and pinky have (MCP flexion, PIP flexion, DIP flexion,
abduction towards the thumb) each. All zero is the flat rest pose, in which the fingers fan out over 34
degrees.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from hand_mesh_ros.hand_model.build.rig import FINGER_JOINTS
from hand_mesh_ros.hand_model.keypoints import FINGERS

ANGLES = 21

#: Where the angles of each finger are.
ANGLES_OF = {
    finger: slice(0, 5) if finger == 'thumb' else slice(1 + 4 * number, 5 + 4 * number)
    for number, finger in enumerate(FINGERS)
}

#: Range of each angle.
LOWEST = np.array([-20, -8, -15, -8, -45] + 4 * [-20, -3, -5, -20], dtype=float)
HIGHEST = np.array([42, 50, 75, 58, 10] + 4 * [92, 108, 75, 20], dtype=float)

#: Real hands go beyond the ranges above; this much is allowed on each side of an axis-angle component.
_LIMIT_MARGIN_DEG = 15.0

#: Where the thumb's pad faces when its CMC, and its two other joints, flex.
_THUMB_CMC_PAD = np.array([0.0, -0.50, -0.87])
_THUMB_PAD = np.array([-0.28, -0.26, -0.88])

_DORSAL = np.array([0.0, 1.0, 0.0])

_STRAIGHT = (0, 4, 2)

#: Index, middle, ring and pinky of a fist, without the abduction.
_INDEX, _MIDDLE, _RING, _PINKY = (80, 98, 52), (82, 98, 48), (84, 96, 42), (82, 94, 44)

#: Thumb, index, middle, ring, pinky. The thumbs of fist, point and pinch make contact: they were found by a
#: search that lays the end of the thumb on middle phalanges, or on the end of the index.
_SHAPES: dict[str, tuple[tuple[float, ...], ...]] = {
    'flat': ((0, 0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0)),
    'relaxed': ((8, 12, 15, 22, -12), (22, 32, 16, -4), (27, 36, 18, 0), (30, 38, 18, 3), (32, 36, 17, 5)),
    'spread': ((-12, 0, -5, 0, 0), (-5, 4, 2, 10), (-5, 4, 2, 2), (-5, 4, 2, -8), (-5, 4, 2, -14)),
    'together': ((12, 5, 5, 5, -5), (2, 4, 2, -9), (0, 3, 2, 1), (2, 4, 2, 8), (3, 5, 3, 13)),
    'hook': ((10, 15, 25, 20, -10), (5, 85, 50, -5), (5, 88, 52, 0), (5, 88, 52, 5), (5, 85, 50, 8)),
    'cylinder': ((5, 18, 22, 48, -32), (45, 50, 25, 0), (50, 52, 27, 0), (52, 54, 27, 0), (54, 52, 27, 0)),
    'claw': ((0, 20, 30, 30, -20), (-5, 55, 30, 5), (-5, 55, 30, 0), (-5, 55, 30, -5), (-5, 55, 30, -9)),
    'thumbs_up': ((-15, -2, -8, -2, 0), (*_INDEX, 0), (*_MIDDLE, 0), (*_RING, 2), (*_PINKY, 5)),
    'victory': ((28, 20, 35, 40, -42), (*_STRAIGHT, 8), (*_STRAIGHT, -4), (*_RING, 0), (*_PINKY, 0)),
    'tripod': ((12, 14, 8, 44, -34), (48, 42, 20, 3), (52, 40, 18, 0), (60, 60, 30, 0), (62, 60, 30, 0)),
    'horns': ((30, 18, 30, 38, -42), (*_STRAIGHT, 4), (*_MIDDLE, 0), (*_RING, 0), (*_STRAIGHT, -8)),
    'gun': ((-12, 0, -5, 5, 0), (*_STRAIGHT, 0), (60, 85, 48, 0), (75, 95, 50, 0), (75, 92, 48, 0)),
    'fist': ((18, 31, 35, 54, -43), (*_INDEX, 0), (*_MIDDLE, 0), (*_RING, 4), (*_PINKY, 12)),
    'point': ((32, 17, 31, 32, -43), (2, 5, 3, 0), (*_MIDDLE, 0), (*_RING, 4), (*_PINKY, 12)),
    'pinch': ((13, 11, -9, 38, -32), (61, 45, 9, 0), (28, 30, 15, 0), (22, 26, 14, 0), (18, 22, 12, 0)),
}  # fmt: skip

#: Angles (21,) of each named hand shape, degrees.
NAMED_SHAPES: dict[str, np.ndarray] = {
    name: np.array([angle for finger in shape for angle in finger], dtype=float)
    for name, shape in _SHAPES.items()
}


class PoseSpace:
    """Turns angles into rotations, for a hand whose flat rest pose has given joints and tips."""

    def __init__(self, joints: np.ndarray, tips: np.ndarray) -> None:
        """joints (16, 3) and tips (5, 3), thumb to pinky, at rest in the axes of the model, metres."""
        self._along = np.zeros((16, 3))
        self._flexion = np.zeros((16, 3))
        for finger, chain in FINGER_JOINTS.items():
            ends = (joints[chain[1]], joints[chain[2]], tips[FINGERS.index(finger)])
            for joint, end in zip(chain, ends, strict=True):
                pad = -_DORSAL
                if finger == 'thumb':
                    pad = _THUMB_CMC_PAD if joint == chain[0] else _THUMB_PAD
                self._along[joint] = _normalised(end - joints[joint])
                self._flexion[joint] = _normalised(np.cross(self._along[joint], pad))

    def rotations(self, angles: np.ndarray) -> np.ndarray:
        """Local rotations (N, 15, 3, 3) of hand shapes ``angles`` (N, 21), degrees; MANO's order."""
        rotations = np.empty((len(angles), 15, 3, 3))
        for finger, (root, middle, last) in FINGER_JOINTS.items():
            flexion, middle_flexion, last_flexion, *others = angles[:, ANGLES_OF[finger]].T
            if finger == 'thumb':
                palmar_abduction, twist = others
                abduction_axis = _normalised(np.cross(self._along[root], -_DORSAL))
                turned = (
                    _about(abduction_axis, palmar_abduction)
                    * _about(self._flexion[root], flexion)
                    * _about(self._along[root], twist)
                )
            else:
                turned = _about(self._flexion[root], flexion) * _about(_DORSAL, others[0])
            rotations[:, root - 1] = turned.as_matrix()
            rotations[:, middle - 1] = _about(self._flexion[middle], middle_flexion).as_matrix()
            rotations[:, last - 1] = _about(self._flexion[last], last_flexion).as_matrix()
        return rotations

    def hand_pose(self, angles: np.ndarray) -> np.ndarray:
        """Axis-angles (N, 45), radians, of hand shapes ``angles`` (N, 21), degrees."""
        matrices = self.rotations(angles).reshape(-1, 3, 3)
        return Rotation.from_matrix(matrices).as_rotvec().reshape(len(angles), 45)

    def limits(self, seed: int) -> np.ndarray:
        """Lowest and highest axis-angle components (45, 2), radians: all angles in range, and a margin."""
        draws = np.random.default_rng(seed).uniform(-0.25, 1.25, (50_000, ANGLES)).clip(0, 1)
        poses = self.hand_pose(LOWEST + draws * (HIGHEST - LOWEST))
        margin = np.radians(_LIMIT_MARGIN_DEG)
        return np.stack([poses.min(0) - margin, poses.max(0) + margin], axis=1)


def _about(axis: np.ndarray, degrees: np.ndarray) -> Rotation:
    return Rotation.from_rotvec(np.radians(degrees)[:, None] * axis)


def _normalised(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))
