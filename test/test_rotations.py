"""Rotations against scipy, also where the formulas are delicate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hand_mesh_ros.hand_model.rotations import axis_angles, right_jacobian, rotation_matrices, skew

RNG = np.random.default_rng(0)
AXES = RNG.normal(size=(50, 3))
AXES /= np.linalg.norm(AXES, axis=1, keepdims=True)
ANGLES = [0.0, 1e-300, 1e-12, 1e-8, 1e-4, 0.03, 0.0317, 0.5, 2.0, np.pi - 1e-3, np.pi - 1e-9, np.pi]


@pytest.mark.parametrize('angle', [*ANGLES, 4.0, 7.0])
def test_matrices_are_those_of_scipy(angle: float) -> None:
    expected = Rotation.from_rotvec(AXES * angle).as_matrix()
    np.testing.assert_allclose(rotation_matrices(AXES * angle), expected, atol=1e-15)


@pytest.mark.parametrize('angle', ANGLES)
def test_axis_angles_come_back(angle: float) -> None:
    vectors = axis_angles(rotation_matrices(AXES * angle))
    np.testing.assert_allclose(rotation_matrices(vectors), rotation_matrices(AXES * angle), atol=2e-15)
    if angle < np.pi - 1e-6:
        np.testing.assert_allclose(vectors, AXES * angle, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize('axis', np.eye(3))
def test_half_turns_about_the_axes(axis: np.ndarray) -> None:
    half_turn = 2 * np.outer(axis, axis) - np.eye(3)
    np.testing.assert_allclose(np.abs(axis_angles(half_turn)), np.pi * axis, atol=1e-15)


def test_any_leading_shape() -> None:
    vectors = RNG.uniform(-1.5, 1.5, size=(2, 3, 4, 3))
    matrices = rotation_matrices(vectors)
    assert matrices.shape == (2, 3, 4, 3, 3)
    np.testing.assert_allclose(axis_angles(matrices), vectors, atol=1e-12)
    assert rotation_matrices(np.zeros(3)).shape == (3, 3)
    assert axis_angles(np.eye(3)).shape == (3,)


def test_skew_is_the_cross_product() -> None:
    a, b = RNG.normal(size=(2, 10, 3))
    np.testing.assert_allclose((skew(a) @ b[:, :, None])[:, :, 0], np.cross(a, b), atol=1e-15)


@pytest.mark.parametrize('angle', [1e-9, 1e-3, 0.0316, 0.0317, 1.0, 3.0, 5.0])
def test_right_jacobian_is_the_derivative(angle: float) -> None:
    vectors = AXES[:5] * angle
    step = 1e-6
    numeric = np.empty((5, 3, 3))
    for k, delta in enumerate(np.eye(3) * step):
        forward = Rotation.from_rotvec(vectors - delta).inv() * Rotation.from_rotvec(vectors + delta)
        numeric[:, :, k] = forward.as_rotvec() / (2 * step)
    np.testing.assert_allclose(right_jacobian(vectors), numeric, atol=1e-8)
