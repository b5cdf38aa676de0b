"""The frames of a hand: one at the wrist, one at each fingertip.

At rest the hand models lie flat with the back of the hand along +y, the fingers along -x on a right
hand and along +x on a left one, and the thumb towards +z.

Hand frame, at the wrist keypoint: x towards the fingers, z out of the back of the hand, y = z cross x,
which points to the thumb on a right hand and away from the thumb on a left one. It turns with
``global_orient``.

Fingertip frame, at the tip keypoint: x along the last bone, out of the tip; z out of the back of the
finger, where the nail is, as far as a right angle to x allows; y = z cross x. It turns with the last
joint of its finger.
"""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.rotations import skew

#: Where the backs of thumb, index, middle, ring and pinky face on the right hand at rest, in model axes.
#: The thumb stands turned against the fingers: its back is where the open model has the thumbnail.
_RIGHT_FINGER_BACKS = np.array([[1.0, 1.0, 2.0], [0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]])


def hand_axes_at_rest(side: Side) -> np.ndarray:
    """Axes of the hand frame at rest, in model axes: rotation matrix (3,3) float64, R_model_hand."""
    fingers = -1.0 if side == 'right' else 1.0
    return np.array([[fingers, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -fingers, 0.0]])


def fingertip_axes_at_rest(side: Side, last_joints: np.ndarray, tips: np.ndarray) -> np.ndarray:
    """Axes of the fingertip frames at rest, in model axes: rotation matrices (5,3,3) float64.

    ``last_joints`` (5,3) and ``tips`` (5,3) are rest positions in metres, thumb to pinky.
    """
    x = _unit(tips - last_joints)
    backs = _RIGHT_FINGER_BACKS * (1.0 if side == 'right' else -1.0, 1.0, 1.0)
    z = _unit(backs - x * np.sum(backs * x, axis=1, keepdims=True))
    return np.stack([x, (skew(z) @ x[:, :, None])[:, :, 0], z], axis=2)


def transforms(rotations: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """Homogeneous transforms (...,4,4) float64 of rotations (...,3,3) and origins (...,3)."""
    matrices = np.zeros((*rotations.shape[:-2], 4, 4))
    matrices[..., :3, :3] = rotations
    matrices[..., :3, 3] = origins
    matrices[..., 3, 3] = 1.0
    return matrices


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(np.sum(vectors * vectors, axis=-1, keepdims=True))
