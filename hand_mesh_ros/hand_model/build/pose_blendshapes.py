"""Pose blend shapes: vertex offsets, linear in the rotations, that repair linear blend skinning."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from hand_mesh_ros.hand_model.build.skinning import (
    forward_kinematics,
    joint_translations,
    skin_dual_quaternions,
    skin_linear,
)

#: How far to go from linear towards dual quaternion skinning, which bulges at strongly bent joints.
_TOWARDS_DUAL_QUATERNIONS = 0.7

#: Ridge on the regression, in units of squared rotation matrix entries.
_RIDGE = 0.3

#: A joint with less weight than this has no say in a vertex.
_SMALLEST_WEIGHT = 0.004


def regress_posedirs(
    vertices: np.ndarray, weights: np.ndarray, joints: np.ndarray, poses: np.ndarray
) -> np.ndarray:
    """Offsets (V, 3, 135) per entry of the 15 local rotations, fitted to dual quaternion skinning.

    vertices (V, 3), weights (V, 16) and joints (16, 3) at rest; poses (N, 45) axis-angles. A vertex depends
    only on the joints that hold it.
    """
    rotations = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, 15, 3, 3)
    placed, turned = forward_kinematics(rotations, joints)
    translations = joint_translations(placed, turned, joints)
    linear, matrices = skin_linear(vertices, weights, turned, translations)
    dual = skin_dual_quaternions(vertices, weights, turned, translations)
    # Offsets are added at rest, before skinning.
    offsets = np.linalg.solve(matrices, _TOWARDS_DUAL_QUATERNIONS * (dual - linear)[..., None])[..., 0]
    features = (rotations - np.eye(3)).reshape(len(poses), 135)

    posedirs = np.zeros((len(vertices), 3, 135))
    supports, support_of = np.unique(weights[:, 1:] > _SMALLEST_WEIGHT, axis=0, return_inverse=True)
    for number, support in enumerate(supports):
        if not support.any():
            continue
        rows = np.nonzero(support_of.ravel() == number)[0]
        columns = np.nonzero(np.repeat(support, 9))[0]
        used = features[:, columns]
        targets = offsets[:, rows].reshape(len(poses), -1)
        solution = np.linalg.solve(used.T @ used + _RIDGE * np.eye(len(columns)), used.T @ targets)
        posedirs[np.ix_(rows, np.arange(3), columns)] = solution.T.reshape(len(rows), 3, -1)
    return posedirs
