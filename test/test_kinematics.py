"""The fit's keypoints and their derivatives, against the mesh and against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.kinematics import PARAMETERS, KeypointKinematics
from hand_mesh_ros.hand_model.rotations import rotation_matrices

STEP = 1e-6


@pytest.mark.parametrize('side', ['right', 'left'])
@pytest.mark.parametrize('seed', range(5))
def test_keypoints_are_those_of_the_mesh_and_jacobian_those_of_finite_differences(side, seed) -> None:
    model = load_hand_model(side=side)
    kinematics = KeypointKinematics(model)
    rng = np.random.default_rng(seed)
    orient, pose, betas, transl = (
        rng.normal(size=3),
        rng.normal(size=45) * 0.5,
        rng.normal(size=10),
        rng.normal(size=3),
    )
    orientation = rotation_matrices(orient)

    keypoints, jacobian = kinematics.keypoints(orientation, pose, betas, transl)
    np.testing.assert_allclose(keypoints, model.posed(orient, pose, betas, transl).keypoints, atol=1e-12)

    def moved(step: np.ndarray) -> np.ndarray:
        turned = orientation @ rotation_matrices(step[:3])
        return kinematics.keypoints(turned, pose + step[3:48], betas + step[51:], transl + step[48:51])[0]

    steps = np.eye(PARAMETERS) * STEP
    differences = np.stack([(moved(step) - moved(-step)) / (2 * STEP) for step in steps], axis=-1)
    np.testing.assert_allclose(jacobian, differences, atol=1e-8)


def test_jacobian_is_finite_and_right_at_zero_pose() -> None:
    model = load_hand_model()
    kinematics = KeypointKinematics(model)
    keypoints, jacobian = kinematics.keypoints(np.eye(3), np.zeros(45), np.zeros(10), np.zeros(3))
    rest = model.rest(np.zeros(10))
    np.testing.assert_allclose(keypoints, rest.keypoints, atol=1e-12)
    # The first joint of the index finger turns that finger's next keypoint about itself, and no other finger
    lever = rest.keypoints[6] - rest.joints[1]
    np.testing.assert_allclose(jacobian[6, :, 3:6], np.cross(np.eye(3), lever).T, atol=1e-12)
    assert not jacobian[9:, :, 3:6].any()


def test_hand_length_is_the_models_and_its_derivative_that_of_finite_differences() -> None:
    model = load_hand_model()
    kinematics = KeypointKinematics(model)
    betas = np.random.default_rng(0).normal(size=10)
    length, by_betas = kinematics.hand_length(betas)
    assert length == pytest.approx(model.hand_length(betas), abs=1e-12)
    differences = [
        (model.hand_length(betas + step) - model.hand_length(betas - step)) / (2 * STEP)
        for step in np.eye(10) * STEP
    ]
    np.testing.assert_allclose(by_betas, differences, atol=1e-8)
