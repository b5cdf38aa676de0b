"""A first guess at a hand's pose from 3D keypoints, in closed form."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.hand_model.keypoints import KEYPOINT_JOINTS
from hand_mesh_ros.hand_model.rotations import rotation_matrices

#: The keypoints that the palm carries: the wrist and the roots of index, middle, ring and pinky.
PALM_KEYPOINTS = np.array([0, 5, 9, 13, 17])

#: Keypoints of each finger from root to tip, (5,4), and the joints that turn its three bones, (5,3).
_FINGER_KEYPOINTS = np.arange(1, 21).reshape(5, 4)
_FINGER_JOINTS = np.array(KEYPOINT_JOINTS)[_FINGER_KEYPOINTS[:, :3]]


def aligning_rotation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotation (3,3) that best turns the centred points ``source`` (N,3) onto ``target`` (N,3).

    Least squares; W. Kabsch, "A solution for the best rotation to relate two sets of vectors", 1976.
    """
    u, _, vt = np.linalg.svd((source - source.mean(axis=0)).T @ (target - target.mean(axis=0)))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return vt.T @ (signs[:, None] * u.T)


def initial_pose(
    rest_keypoints: np.ndarray, keypoints: np.ndarray, pose_limits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Orientation (3,3) and hand_pose (45,) that bring ``rest_keypoints`` (21,3) into ``keypoints`` (21,3).

    Where ``keypoints`` are and how large does not matter. The palm is aligned rigidly; each bone then takes
    its direction by the smallest turn that does it, as far as ``pose_limits`` (45,2) allow.
    """
    orientation = aligning_rotation(rest_keypoints[PALM_KEYPOINTS], keypoints[PALM_KEYPOINTS])
    bones_at_rest = np.diff(rest_keypoints[_FINGER_KEYPOINTS], axis=1)
    bones = np.diff(keypoints[_FINGER_KEYPOINTS], axis=1)
    lower, upper = pose_limits.T.reshape(2, 15, 3)
    angles = np.zeros((15, 3))
    rotations = np.broadcast_to(orientation, (5, 3, 3))
    for level in range(3):
        joints = _FINGER_JOINTS[:, level] - 1
        seen_from_parent = np.einsum('fba,fb->fa', rotations, bones[:, level])
        turns = _smallest_turns(bones_at_rest[:, level], seen_from_parent)
        angles[joints] = np.clip(turns, lower[joints], upper[joints])
        rotations = rotations @ rotation_matrices(angles[joints])
    return orientation, angles.reshape(45)


def _smallest_turns(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Axis-angle vectors (N,3) that turn the directions ``source`` (N,3) into those of ``target`` (N,3)."""
    cross = np.cross(source, target)
    sine = np.linalg.norm(cross, axis=1, keepdims=True)
    cosine = np.sum(source * target, axis=1, keepdims=True)
    return cross / np.maximum(sine, 1e-12) * np.arctan2(sine, cosine)
