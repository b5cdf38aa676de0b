"""Metrics against SciPy and against cases worked out by hand."""

import numpy as np
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from hand_mesh_ros.evaluation.metrics import (
    bone_angle_deg,
    box_size,
    mpjpe,
    pa_mpjpe,
    root_relative_mpjpe,
    similarity,
)
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS

RNG = np.random.default_rng(1)
HAND = RNG.normal(0.0, 0.05, (21, 3))


def test_a_similarity_is_recovered():
    rotation = Rotation.random(random_state=3).as_matrix()
    scale, found, shift = similarity(HAND, 1.7 * HAND @ rotation.T + [0.1, -0.2, 0.5])
    np.testing.assert_allclose(scale, 1.7)
    np.testing.assert_allclose(found, rotation, atol=1e-12)
    np.testing.assert_allclose(shift, [0.1, -0.2, 0.5], atol=1e-12)


def test_alignment_never_mirrors():
    _, rotation, _ = similarity(HAND, HAND * [-1.0, 1.0, 1.0])
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0)


def test_aligned_error_is_scipys_where_no_mirroring_helps():
    noisy = (
        2.0 * HAND @ Rotation.random(random_state=5).as_matrix().T + 1.0 + RNG.normal(0.0, 0.005, HAND.shape)
    )
    truth, aligned, _ = procrustes(HAND, noisy)
    # scipy scales its reference to unit Frobenius norm about the mean
    unit = np.linalg.norm(HAND - HAND.mean(0))
    np.testing.assert_allclose(pa_mpjpe(noisy, HAND), unit * mpjpe(aligned, truth), rtol=1e-9)


def test_root_relative_error_ignores_position_only():
    assert root_relative_mpjpe(HAND + [0.3, 0.0, 1.0], HAND) < 1e-12
    moved = HAND.copy()
    moved[8] += [0.0, 0.0, 0.021]
    np.testing.assert_allclose(root_relative_mpjpe(moved, HAND), 0.001)


def test_bone_angle_is_zero_for_a_turned_and_scaled_hand():
    turned = 1.3 * HAND @ Rotation.random(random_state=1).as_matrix() + [0.0, 0.1, 0.7]
    assert bone_angle_deg(turned, HAND) < 1e-4


def test_bone_angle_after_scipys_alignment():
    other = HAND + RNG.normal(0.0, 0.02, HAND.shape)
    rotation, _ = Rotation.align_vectors(HAND - HAND.mean(0), other - other.mean(0))
    angles = []
    for child, parent in enumerate(KEYPOINT_PARENTS[1:], start=1):
        a, b = rotation.apply(other[child] - other[parent]), HAND[child] - HAND[parent]
        angles.append(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))
    np.testing.assert_allclose(bone_angle_deg(other, HAND), np.mean(angles), rtol=1e-6)


def test_box_size_is_the_larger_side():
    assert box_size(np.array([[0.0, 5.0], [10.0, 7.0], [4.0, 30.0]])) == 25.0
