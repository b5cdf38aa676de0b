"""Left hands as mirrored right hands, and back: everything mirrors in the model's plane x = 0.

A point keeps its y and z; a rotation R becomes M R M with M = diag(-1, 1, 1), so that an axis-angle
vector keeps its x and changes the signs of its y and z.
"""

from __future__ import annotations

import numpy as np

_POINT_SIGNS = np.array([-1.0, 1.0, 1.0])
_AXIS_ANGLE_SIGNS = np.array([1.0, -1.0, -1.0])

#: How each entry of a rotation matrix, row by row, changes sign in M R M.
_MATRIX_SIGNS = np.outer(_POINT_SIGNS, _POINT_SIGNS).ravel()


def mirrored_points(points: np.ndarray) -> np.ndarray:
    """Points or displacements (...,3), mirrored."""
    return points * _POINT_SIGNS


def mirrored_axis_angles(axis_angles: np.ndarray) -> np.ndarray:
    """Axis-angle vectors, mirrored; the last axis is one or more of them in a row, as (...,45)."""
    return axis_angles * np.tile(_AXIS_ANGLE_SIGNS, axis_angles.shape[-1] // 3)


def mirrored_faces(faces: np.ndarray) -> np.ndarray:
    """Triangles (F,3) wound the other way, so that they still face outwards on the mirrored mesh."""
    return np.ascontiguousarray(faces[:, [0, 2, 1]])


def mirrored_shapedirs(shapedirs: np.ndarray) -> np.ndarray:
    """Shape displacements (V,3,K), mirrored: the same betas give the mirrored shape."""
    return shapedirs * _POINT_SIGNS[:, None]


def mirrored_posedirs(posedirs: np.ndarray) -> np.ndarray:
    """Pose displacements (V,3,9J), mirrored, for the entries of mirrored rotation matrices."""
    joints = posedirs.shape[2] // 9
    return posedirs * _POINT_SIGNS[:, None] * np.tile(_MATRIX_SIGNS, joints)


def mirrored_pose_limits(pose_limits: np.ndarray) -> np.ndarray:
    """Lower and upper limits (45,2) of axis-angle components, mirrored."""
    mirrored = mirrored_axis_angles(pose_limits.T).T
    return np.sort(mirrored, axis=1)
