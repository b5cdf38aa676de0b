"""Named hand shapes, given as anatomical joint angles and turned into MANO poses."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices

#: Degrees. A finger: flexion of its three joints, spreading at the root (towards the thumb is positive).
#: The thumb: flexion of its three joints, lift of the root out of the palm, twist of the root.
GESTURES: dict[str, dict[str, tuple[float, ...]]] = {
    'open': {
        'index': (2, 6, 4, 1),
        'middle': (0, 6, 4, 0),
        'ring': (2, 7, 5, -1),
        'pinky': (3, 8, 5, -3),
        'thumb': (-6, 4, 4, 10, -5),
    },
    'spread': {
        'index': (-6, 3, 2, 6),
        'middle': (-6, 3, 2, 0),
        'ring': (-5, 3, 2, -6),
        'pinky': (-4, 4, 2, -11),
        'thumb': (-12, 0, -6, 4, 0),
    },
    'relaxed': {
        'index': (16, 24, 12, 0),
        'middle': (20, 28, 14, 0),
        'ring': (23, 30, 14, 0),
        'pinky': (25, 30, 14, 1),
        'thumb': (4, 10, 12, 20, -12),
    },
    'fist': {
        'index': (74, 92, 55, 0),
        'middle': (78, 95, 56, 0),
        'ring': (80, 95, 56, 4),
        'pinky': (78, 92, 54, 10),
        'thumb': (22, 19, 32, 38, -45),
    },
    'point': {
        'index': (2, 5, 3, 0),
        'middle': (78, 95, 56, 0),
        'ring': (80, 95, 56, 4),
        'pinky': (78, 92, 54, 10),
        'thumb': (32, 15, 28, 36, -45),
    },
    'pinch': {
        'index': (61, 45, 9, 0),
        'middle': (28, 30, 15, 0),
        'ring': (22, 26, 14, 0),
        'pinky': (18, 22, 12, 0),
        'thumb': (12, 10, -9, 38, -32),
    },
    'victory': {
        'index': (0, 4, 2, 5),
        'middle': (0, 4, 2, -7),
        'ring': (76, 92, 54, 0),
        'pinky': (76, 90, 52, 2),
        'thumb': (28, 20, 35, 40, -42),
    },
}

#: First MANO joint of each finger.
_ROOTS = {'index': 1, 'middle': 4, 'pinky': 7, 'ring': 10, 'thumb': 13}

#: Where the ball of the right thumb faces at rest: at its root and beyond.
_THUMB_PALMAR = np.array([[0.0, -0.50, -0.87], [-0.28, -0.26, -0.88], [-0.28, -0.26, -0.88]])


def gesture_angles(name: str) -> np.ndarray:
    """Joint angles (5,5) float64 in radians of a gesture, rows in ``_ROOTS`` order; they may be blended."""
    angles = np.zeros((5, 5))
    for row, finger in enumerate(_ROOTS):
        values = GESTURES[name][finger]
        angles[row, : len(values)] = np.radians(values)
    return angles


class GesturePoser:
    """Turns joint angles into ``hand_pose`` of one hand model, about axes taken from its resting bones."""

    def __init__(self, model: HandModel) -> None:
        """Find the axes of a right or left ``model``."""
        self._mirror = model.side == 'left'
        rest = (model.mirrored() if self._mirror else model).rest(np.zeros(model.shapedirs.shape[2]))
        tips = dict(zip(('thumb', 'index', 'middle', 'ring', 'pinky'), rest.keypoints[4::4], strict=True))
        palmar = np.array([0.0, -1.0, 0.0])
        self._bones, self._flexion = np.zeros((15, 3)), np.zeros((15, 3))
        for finger, root in _ROOTS.items():
            chain = np.vstack([rest.joints[root : root + 3], tips[finger]])
            bones = _unit(np.diff(chain, axis=0))
            self._bones[root - 1 : root + 2] = bones
            towards = _THUMB_PALMAR if finger == 'thumb' else palmar
            self._flexion[root - 1 : root + 2] = _unit(np.cross(bones, towards))
        self._thumb_lift = _unit(np.cross(self._bones[_ROOTS['thumb'] - 1], palmar))

    def hand_pose(self, angles: np.ndarray) -> np.ndarray:
        """Pose (45,) float64 in radians, axis-angle in MANO order, of joint angles (5,5) in radians."""
        pose = np.zeros((15, 3))
        for row, (finger, root) in enumerate(_ROOTS.items()):
            joints = slice(root - 1, root + 2)
            pose[joints] = self._flexion[joints] * angles[row, :3, None]
            if finger == 'thumb':
                lift, twist = self._thumb_lift * angles[row, 3], self._bones[root - 1] * angles[row, 4]
            else:
                lift, twist = np.zeros(3), np.array([0.0, angles[row, 3], 0.0])
            first, second, third = rotation_matrices(np.array([lift, pose[root - 1], twist]))
            pose[root - 1] = axis_angles(first @ second @ third)
        return mirrored_axis_angles(pose.ravel()) if self._mirror else pose.ravel()


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
