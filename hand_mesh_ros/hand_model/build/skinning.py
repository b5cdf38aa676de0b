"""Posing a hand at rest for many poses at once: forward kinematics, linear and dual quaternion skinning."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from hand_mesh_ros.hand_model.keypoints import JOINT_PARENTS


def forward_kinematics(rotations: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joint positions (N, 16, 3) and global rotations (N, 16, 3, 3).

    rotations (N, 15, 3, 3), each relative to the parent; joints (16, 3) at rest.
    """
    count = len(rotations)
    placed = np.tile(joints, (count, 1, 1))
    turned = np.tile(np.eye(3), (count, 16, 1, 1))
    for joint, parent in enumerate(JOINT_PARENTS):
        if parent >= 0:
            placed[:, joint] = placed[:, parent] + turned[:, parent] @ (joints[joint] - joints[parent])
            turned[:, joint] = turned[:, parent] @ rotations[:, joint - 1]
    return placed, turned


def joint_translations(placed: np.ndarray, turned: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """What is added (N, 16, 3) after turning a point about the origin with each joint."""
    return np.asarray(placed - np.einsum('njab,jb->nja', turned, joints))


def skin_linear(
    vertices: np.ndarray, weights: np.ndarray, turned: np.ndarray, translations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, V, 3) by linear blend skinning and the matrices (N, V, 3, 3) that turn each of them.

    vertices (V, 3) or (N, V, 3) at rest, weights (V, 16), turned (N, 16, 3, 3), translations (N, 16, 3).
    """
    matrices = np.einsum('vj,njab->nvab', weights, turned)
    shifts = np.einsum('vj,nja->nva', weights, translations)
    return (matrices @ vertices[..., None])[..., 0] + shifts, matrices


def skin_dual_quaternions(
    vertices: np.ndarray, weights: np.ndarray, turned: np.ndarray, translations: np.ndarray
) -> np.ndarray:
    """Vertices (N, V, 3) by dual quaternion skinning, which keeps volume where linear blending collapses.

    L. Kavan et al., "Geometric skinning with approximate dual quaternion blending", ACM TOG 27(4), 2008.
    """
    count = len(turned)
    # scipy gives (x, y, z, w) with either sign: neighbours in the tree must lie on the same half of the
    # sphere.
    real = Rotation.from_matrix(turned.reshape(-1, 3, 3)).as_quat().reshape(count, 16, 4)
    for joint, parent in enumerate(JOINT_PARENTS):
        if parent >= 0:
            opposite = np.einsum('nq,nq->n', real[:, joint], real[:, parent]) < 0
            real[opposite, joint] *= -1
    dual = 0.5 * _product(np.concatenate([translations, np.zeros((count, 16, 1))], axis=2), real)
    blended_real = np.einsum('vj,njq->nvq', weights, real)
    blended_dual = np.einsum('vj,njq->nvq', weights, dual)
    norm = np.linalg.norm(blended_real, axis=2, keepdims=True)
    blended_real, blended_dual = blended_real / norm, blended_dual / norm
    shifts = 2 * _product(blended_dual, blended_real * (-1, -1, -1, 1))[..., :3]
    matrices = Rotation.from_quat(blended_real.reshape(-1, 4)).as_matrix().reshape(count, -1, 3, 3)
    return np.asarray((matrices @ vertices[..., None])[..., 0] + shifts)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product of quaternions (x, y, z, w) in the last axis."""
    a_vector, a_scalar = a[..., :3], a[..., 3:]
    b_vector, b_scalar = b[..., :3], b[..., 3:]
    vector = a_scalar * b_vector + b_scalar * a_vector + np.cross(a_vector, b_vector)
    scalar = a_scalar * b_scalar - (a_vector * b_vector).sum(-1, keepdims=True)
    return np.concatenate([vector, scalar], axis=-1)
