"""Axis-angle vectors and rotation matrices in NumPy, for any number of them at once.

Formulas: J. Solà et al., "A micro Lie theory for state estimation in robotics", 2018 (exponential,
logarithm and right Jacobian of SO(3)); S. Sarabandi, F. Thomas, "Accurate computation of quaternions
from rotation matrices", 2018 (choosing the largest component).
"""

from __future__ import annotations

import numpy as np

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
    vectors = np.asarray(vectors, np.float64)
    a, b, _ = _coefficients(vectors)
    cross = skew(vectors)
    return np.eye(3) + a * cross + b * (cross @ cross)


def axis_angles(matrices: np.ndarray) -> np.ndarray:
    """Axis-angle vectors (...,3) float64, angles 0 to pi, of rotation matrices (...,3,3).

    Goes through the unit quaternion, computed from its largest component, so that it is exact near
    zero and near pi alike. At pi exactly either sign of the axis may come back.
    """
    matrices = np.asarray(matrices, np.float64)
    m00, m11, m22 = (matrices[..., i, i] for i in range(3))
    m01, m02, m12 = matrices[..., 0, 1], matrices[..., 0, 2], matrices[..., 1, 2]
    m10, m20, m21 = matrices[..., 1, 0], matrices[..., 2, 0], matrices[..., 2, 1]
    # Row k is 4 q_k times the quaternion (w, x, y, z): every row says the same, the longest one best.
    products = np.stack(
        [
            np.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], -1),
            np.stack([m21 - m12, 1 + m00 - m11 - m22, m10 + m01, m02 + m20], -1),
            np.stack([m02 - m20, m10 + m01, 1 - m00 + m11 - m22, m21 + m12], -1),
            np.stack([m10 - m01, m02 + m20, m21 + m12, 1 - m00 - m11 + m22], -1),
        ],
        -2,
    )
    largest = np.argmax(np.einsum('...kk->...k', products), -1)
    quaternions = np.take_along_axis(products, largest[..., None, None], -2)[..., 0, :]
    quaternions = quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)
    quaternions = np.where(quaternions[..., :1] < 0, -quaternions, quaternions)
    w, xyz = quaternions[..., 0], quaternions[..., 1:]
    sine = np.linalg.norm(xyz, axis=-1)
    safe_sine = np.where(sine > 0, sine, 1.0)
    # angle / sin(angle / 2), which tends to 2 at the identity
    scale = np.where(sine > 0, 2 * np.arctan2(sine, w) / safe_sine, 2.0)
    return xyz * scale[..., None]


def right_jacobian(vectors: np.ndarray) -> np.ndarray:
    """Right Jacobians (...,3,3) at axis-angles (...,3): ``R(a + d) = R(a) @ R(J @ d)``, d being small."""
    vectors = np.asarray(vectors, np.float64)
    _, b, c = _coefficients(vectors)
    cross = skew(vectors)
    return np.eye(3) - b * cross + c * (cross @ cross)


def _coefficients(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sin(t)/t, (1-cos(t))/t^2 and (t-sin(t))/t^3 of the angles t, each (...,1,1)."""
    squared = np.einsum('...i,...i->...', vectors, vectors)[..., None, None]
    small = squared < _SMALL_SQUARED_ANGLE
    safe = np.where(small, 1.0, squared)
    angle = np.sqrt(safe)
    sine = np.sin(angle)
    a = np.where(small, 1 - squared / 6 * (1 - squared / 20 * (1 - squared / 42)), sine / angle)
    # 2 sin^2(t/2) is 1 - cos(t) without its cancellation
    b_closed = 2 * np.sin(angle / 2) ** 2 / safe
    b = np.where(small, (1 - squared / 12 * (1 - squared / 30 * (1 - squared / 56))) / 2, b_closed)
    c_closed = (angle - sine) / (safe * angle)
    c = np.where(small, (1 - squared / 20 * (1 - squared / 42 * (1 - squared / 72))) / 6, c_closed)
    return a, b, c
