"""Axis-angle vectors and rotation matrices in compiled loops, for any number of them at once.

Formulas: J. Solà et al., "A micro Lie theory for state estimation in robotics", 2018 (exponential,
logarithm and right Jacobian of SO(3)); S. Sarabandi, F. Thomas, "Accurate computation of quaternions
from rotation matrices", 2018 (choosing the largest component).
"""

from __future__ import annotations

import math

import numpy as np

from hand_mesh_ros.compiled import compiled

#: Squared angle below which the Taylor series are exact to float64 and the closed forms are not.
_SMALL_SQUARED_ANGLE = 1e-3


def skew(vectors: np.ndarray) -> np.ndarray:
    """Cross product matrices (...,3,3) of vectors (...,3): ``skew(a) @ b == cross(a, b)``."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    matrices = np.zeros((*vectors.shape[:-1], 3, 3))
    matrices[..., 0, 1], matrices[..., 0, 2], matrices[..., 1, 2] = -z, y, -x
    matrices[..., 1, 0], matrices[..., 2, 0], matrices[..., 2, 1] = z, -y, x
    return matrices


def rotation_matrices(vectors: np.ndarray) -> np.ndarray:
    """Rotation matrices (...,3,3) float64 of axis-angle vectors (...,3) in radians (Rodrigues)."""
    rows, shape = _rows(vectors, 3)
    return _exponentials(rows, True).reshape(*shape[:-1], 3, 3)


def axis_angles(matrices: np.ndarray) -> np.ndarray:
    """Axis-angle vectors (...,3) float64, angles 0 to pi, of rotation matrices (...,3,3).

    Goes through the unit quaternion, computed from its largest component, so that it is exact near
    zero and near pi alike. At pi exactly either sign of the axis may come back.
    """
    rows, shape = _rows(matrices, 9)
    return _logarithms(rows).reshape(shape[:-1])


def right_jacobian(vectors: np.ndarray) -> np.ndarray:
    """Right Jacobians (...,3,3) at axis-angles (...,3): ``R(a + d) = R(a) @ R(J @ d)``, d being small."""
    rows, shape = _rows(vectors, 3)
    return _exponentials(rows, False).reshape(*shape[:-1], 3, 3)


def _rows(values: np.ndarray, length: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The values as rows (N,length) float64, and the shape that they had."""
    values = np.ascontiguousarray(values, np.float64)
    return values.reshape(-1, length), values.shape


@compiled
def _exponentials(vectors, rotations):  # type: ignore[no-untyped-def]
    """Rotation matrices (N,9) of axis-angles (N,3), or else their right Jacobians."""
    matrices = np.empty((len(vectors), 9))
    for n in range(len(vectors)):
        x, y, z = vectors[n, 0], vectors[n, 1], vectors[n, 2]
        squared = x * x + y * y + z * z
        small = squared < _SMALL_SQUARED_ANGLE
        angle = math.sqrt(squared)
        # 1 + p K + q K^2, K being the cross product matrix
        if small:
            q = (1 - squared / 12 * (1 - squared / 30 * (1 - squared / 56))) / 2
        else:
            # 2 sin^2(t/2) is 1 - cos(t) without its cancellation
            q = 2 * math.sin(angle / 2) ** 2 / squared
        if rotations and small:
            p = 1 - squared / 6 * (1 - squared / 20 * (1 - squared / 42))
        elif rotations:
            p = math.sin(angle) / angle
        else:
            p = -q
            if small:
                q = (1 - squared / 20 * (1 - squared / 42 * (1 - squared / 72))) / 6
            else:
                q = (angle - math.sin(angle)) / (squared * angle)
        matrix = matrices[n]
        matrix[0], matrix[4], matrix[8] = (
            1 - q * (y * y + z * z),
            1 - q * (x * x + z * z),
            1 - q * (x * x + y * y),
        )
        matrix[1], matrix[3] = q * x * y - p * z, q * x * y + p * z
        matrix[2], matrix[6] = q * x * z + p * y, q * x * z - p * y
        matrix[5], matrix[7] = q * y * z - p * x, q * y * z + p * x
    return matrices


@compiled
def _logarithms(matrices):  # type: ignore[no-untyped-def]
    """Axis-angles (N,3) of rotation matrices (N,9)."""
    vectors = np.empty((len(matrices), 3))
    for n in range(len(matrices)):
        m00, m01, m02, m10, m11, m12, m20, m21, m22 = matrices[n]
        # Squares of the quaternion's w, x, y, z, four times each; the largest tells the others best.
        ww, xx, yy, zz = 1 + m00 + m11 + m22, 1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22
        largest = max(ww, xx, yy, zz)
        if ww == largest:
            w, x, y, z = ww, m21 - m12, m02 - m20, m10 - m01
        elif xx == largest:
            w, x, y, z = m21 - m12, xx, m10 + m01, m02 + m20
        elif yy == largest:
            w, x, y, z = m02 - m20, m10 + m01, yy, m21 + m12
        else:
            w, x, y, z = m10 - m01, m02 + m20, m21 + m12, zz
        length = math.sqrt(w * w + x * x + y * y + z * z)
        if w < 0:
            length = -length
        w, x, y, z = w / length, x / length, y / length, z / length
        sine = math.sqrt(x * x + y * y + z * z)
        # angle / sin(angle / 2), which tends to 2 at the identity
        scale = 2 * math.atan2(sine, w) / sine if sine > 0 else 2.0
        vectors[n, 0], vectors[n, 1], vectors[n, 2] = x * scale, y * scale, z * scale
    return vectors
