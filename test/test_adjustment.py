"""A reconstructed hand comes nearer to its keypoints in the picture, and stays the hand that it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand_model.files import OPEN_HAND_PATH, load_hand_model
from hand_mesh_ros.hand_model.fit_terms import HandState
from hand_mesh_ros.hand_model.kinematics import KeypointKinematics
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles, mirrored_points
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.reconstruction.adjustment import Adjuster

RIGHT, LEFT = load_hand_model(), load_hand_model(side='left')
CAMERA = Camera(640, 480, 520.0, 520.0, 319.5, 239.5)
POSES = np.load(OPEN_HAND_PATH, allow_pickle=False)['pose_samples'].astype(np.float64)


def true_hand(rng: np.random.Generator) -> HandState:
    """A pose of the prior, any shape, any orientation, 40 to 60 cm in front of the camera."""
    return HandState(
        orientation=rotation_matrices(rng.normal(size=3)),
        hand_pose=np.clip(POSES[rng.integers(len(POSES))], *RIGHT.pose_limits.T),
        betas=rng.normal(size=10),
        transl=np.array([0.0, 0.0, rng.uniform(0.4, 0.6)]) + rng.normal(size=3) * [0.03, 0.03, 0.0],
    )


def bent(hand: HandState, rng: np.random.Generator) -> HandState:
    """The same hand with an error of every joint's that grows with its range."""
    half_range = np.ptp(RIGHT.pose_limits, axis=1) / 2.0
    return replace(hand, hand_pose=hand.hand_pose + 0.1 * half_range * rng.normal(size=45))


def keypoints_3d(hand: HandState, model: HandModel = RIGHT) -> np.ndarray:
    return model.posed(axis_angles(hand.orientation), hand.hand_pose, hand.betas, hand.transl).keypoints


def keypoints_px(hand: HandState, model: HandModel = RIGHT) -> np.ndarray:
    return CAMERA.project(keypoints_3d(hand, model))


def farthest(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first - second, axis=1).max())


def mean(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first - second, axis=1).mean())


def test_a_hand_that_appears_where_it_is_seen_stays():
    for seed in range(10):
        hand = true_hand(np.random.default_rng(seed))
        found = Adjuster(RIGHT).adjusted(hand, keypoints_px(hand), CAMERA)
        assert farthest(keypoints_3d(found), keypoints_3d(hand)) < 1e-6


def test_exact_keypoints_bring_the_hand_nearer_in_the_picture_and_in_space():
    before, after, before_3d, after_3d = [], [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        hand = true_hand(rng)
        start = bent(hand, rng)
        seen = keypoints_px(hand)
        found = Adjuster(RIGHT).adjusted(start, seen, CAMERA)
        before.append(mean(keypoints_px(start), seen))
        after.append(mean(keypoints_px(found), seen))
        before_3d.append(mean(keypoints_3d(start), keypoints_3d(hand)))
        after_3d.append(mean(keypoints_3d(found), keypoints_3d(hand)))
        assert after[-1] < before[-1]
    assert np.mean(after) < 0.5 * np.mean(before)
    assert np.mean(after_3d) < 0.8 * np.mean(before_3d)


def test_orientation_distance_and_length_stay_nearly_as_they_were():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        start = true_hand(rng)
        seen = keypoints_px(bent(start, rng)) + rng.normal(size=(21, 2)) * 3.0
        found = Adjuster(RIGHT).adjusted(start, seen, CAMERA)
        assert np.linalg.norm(axis_angles(start.orientation.T @ found.orientation)) < np.radians(2.0)
        assert found.transl[2] == pytest.approx(start.transl[2], rel=0.01)
        assert RIGHT.hand_length(found.betas) == pytest.approx(RIGHT.hand_length(start.betas), abs=0.002)


def test_a_joint_that_cannot_bend_keeps_none_of_the_others_from_it():
    limits = RIGHT.pose_limits.copy()
    limits[5] = 0.0
    stiff, rng = replace(RIGHT, pose_limits=limits), np.random.default_rng(0)
    hand = true_hand(rng)
    start = bent(hand, rng)
    found = Adjuster(stiff).adjusted(start, keypoints_px(hand), CAMERA)
    assert mean(keypoints_px(found), keypoints_px(hand)) < 0.7 * mean(keypoints_px(start), keypoints_px(hand))
    assert found.hand_pose[5] == pytest.approx(start.hand_pose[5], abs=1e-3)


def test_a_keypoint_that_is_far_off_hardly_moves_the_hand():
    for seed in range(10):
        hand = true_hand(np.random.default_rng(seed))
        seen = keypoints_px(hand)
        seen[8] += 200.0
        found = Adjuster(RIGHT).adjusted(hand, seen, CAMERA)
        assert farthest(keypoints_3d(found), keypoints_3d(hand)) < 0.004


def test_left_hands_are_adjusted_as_their_mirror_images_are():
    rng = np.random.default_rng(3)
    hand = true_hand(rng)
    start = bent(hand, rng)
    found = Adjuster(RIGHT).adjusted(start, keypoints_px(hand), CAMERA)
    mirror = np.diag([-1.0, 1.0, 1.0])

    def mirrored(state: HandState) -> HandState:
        return HandState(
            mirror @ state.orientation @ mirror,
            mirrored_axis_angles(state.hand_pose),
            state.betas,
            mirrored_points(state.transl),
        )

    left = Adjuster(LEFT).adjusted(mirrored(start), keypoints_px(mirrored(hand), LEFT), CAMERA)
    assert farthest(keypoints_3d(left, LEFT), mirrored_points(keypoints_3d(found))) < 1e-5


def adjusted_by_the_formulas(start: HandState, seen_px: np.ndarray) -> HandState:
    """What ``Adjuster`` is to find, written down plainly: whole matrices, and NumPy's own solver."""
    kinematics = KeypointKinematics(RIGHT)
    focal = np.array([CAMERA.fx, CAMERA.fy])
    spread = np.linalg.norm(seen_px - np.median(seen_px, axis=0), axis=1)
    sigma_px = 0.07 * np.median(spread)
    half_range = np.ptp(RIGHT.pose_limits, axis=1) / 2.0
    sigma = np.concatenate([np.full(3, 0.01), 0.05 * half_range, [0.002 * start.transl[2]]])

    def linearised(hand: HandState) -> tuple[float, np.ndarray, np.ndarray]:
        points, rates = kinematics.keypoints(hand.orientation, hand.hand_pose, hand.betas, hand.transl)
        x, y, z = points.T
        pixels = np.stack([x / z, y / z], axis=1) * focal + (CAMERA.cx, CAMERA.cy)
        errors = (pixels - seen_px) / sigma_px
        by_point = np.zeros((21, 2, 3))
        by_point[:, 0, 0] = by_point[:, 1, 1] = 1.0 / z
        by_point[:, 0, 2], by_point[:, 1, 2] = -x / z**2, -y / z**2
        rows = by_point * focal[:, None] @ rates[:, :, :51] / sigma_px
        squared = (errors**2).sum(axis=1)
        trust = 1.0 / (1.0 + squared / 25.0)
        stayed = np.concatenate(
            [
                axis_angles(start.orientation.T @ hand.orientation),
                hand.hand_pose - start.hand_pose,
                hand.transl[2:] - start.transl[2:],
            ]
        )
        staying = np.eye(51)[[*range(48), 50]] / sigma[:, None]
        cost = (squared * trust).sum() + ((stayed / sigma) ** 2).sum()
        residuals = np.concatenate([(errors * trust[:, None]).ravel(), stayed / sigma])
        jacobian = np.concatenate([(rows * trust[:, None, None]).reshape(42, 51), staying])
        return cost, residuals, jacobian

    hand, (cost, residuals, jacobian) = start, linearised(start)
    damping = 1e-2
    for _ in range(30):
        curvature = jacobian.T @ jacobian
        curvature += damping * np.diag(np.diag(curvature))
        step = np.linalg.solve(curvature, -jacobian.T @ residuals)
        ahead = HandState(
            hand.orientation @ rotation_matrices(step[:3]),
            hand.hand_pose + step[3:48],
            hand.betas,
            hand.transl + step[48:],
        )
        tried = linearised(ahead)
        if not tried[0] < cost:
            damping *= 10.0
            continue
        saved = 1.0 - tried[0] / cost
        hand, (cost, residuals, jacobian) = ahead, tried
        if saved < 1e-2:
            break
        damping = max(damping / 5.0, 1e-6)
    return hand


def test_levenberg_and_marquardts_steps_are_those_of_the_formulas():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        hand = true_hand(rng)
        start = bent(hand, rng)
        seen = keypoints_px(hand) + rng.normal(size=(21, 2)) * 2.0
        seen[rng.integers(21)] += rng.choice([0.0, 60.0])
        found, expected = Adjuster(RIGHT).adjusted(start, seen, CAMERA), adjusted_by_the_formulas(start, seen)
        np.testing.assert_allclose(found.hand_pose, expected.hand_pose, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.orientation, expected.orientation, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.transl, expected.transl, rtol=0, atol=1e-9)


@pytest.mark.parametrize('wrong', [np.nan, np.inf])
def test_keypoints_that_are_not_finite_are_refused(wrong):
    hand = true_hand(np.random.default_rng(0))
    seen = keypoints_px(hand)
    seen[5, 1] = wrong
    with pytest.raises(FrameError):
        Adjuster(RIGHT).adjusted(hand, seen, CAMERA)


def test_keypoints_on_one_pixel_are_refused():
    hand = true_hand(np.random.default_rng(0))
    with pytest.raises(FrameError):
        Adjuster(RIGHT).adjusted(hand, np.full((21, 2), 100.0), CAMERA)
