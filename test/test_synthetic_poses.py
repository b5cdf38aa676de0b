"""Sampled poses: possible, varied, the same for the same number, and seen upright."""

from __future__ import annotations

import time

import numpy as np
import pytest

from hand_mesh_ros.datasets.counter_random import normals, uniforms
from hand_mesh_ros.datasets.hand_shapes import FINGER_STATES, SHAPES, THUMB_STATES
from hand_mesh_ros.datasets.pose_sampler import MAX_BETA, HandPoses, PoseSampler
from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.hand_model.files import OPEN_HAND_PATH, load_hand_model


@pytest.fixture(scope='module')
def sampler() -> PoseSampler:
    return PoseSampler(load_hand_model(), seed=5)


@pytest.fixture(scope='module')
def poses(sampler: PoseSampler) -> HandPoses:
    return sampler(np.arange(4000))


def test_numbers_are_uniform_and_unrelated():
    numbers = uniforms(3, np.arange(20000), 6)
    assert numbers.min() > 0 and numbers.max() < 1
    for column in numbers.T:
        np.testing.assert_allclose(np.histogram(column, 10, (0, 1))[0], 2000, rtol=0.1)
    columns = np.column_stack([numbers, np.roll(numbers, 1, axis=0), uniforms(4, np.arange(20000), 6)])
    assert np.abs(np.corrcoef(columns.T) - np.eye(18)).max() < 0.04


def test_normal_numbers_are_standard_normal():
    numbers = normals(uniforms(3, np.arange(20000), 4))
    np.testing.assert_allclose(numbers.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(numbers.T), np.eye(4), atol=0.04)


def test_a_hand_depends_on_its_number_alone(sampler: PoseSampler, poses: HandPoses):
    again = PoseSampler(load_hand_model(), seed=5)(np.array([3999, 0, 17]))
    for field, expected in zip(again, poses, strict=True):
        np.testing.assert_array_equal(field, expected[[3999, 0, 17]])
    other_seed = PoseSampler(load_hand_model(), seed=6)(np.arange(5))
    assert (np.abs(other_seed.hand_pose - poses.hand_pose[:5]).max(axis=1) > 0.05).all()


def test_no_hand_bends_further_than_hands_do(poses: HandPoses):
    lower, upper = load_hand_model().pose_limits.T
    assert (poses.hand_pose >= lower).all() and (poses.hand_pose <= upper).all()
    assert np.abs(poses.betas).max() <= MAX_BETA
    np.testing.assert_allclose(poses.betas.std(axis=0), 1.0, atol=0.06)


def test_poses_reach_further_than_the_recorded_ones(poses: HandPoses):
    with np.load(OPEN_HAND_PATH, allow_pickle=False) as arrays:
        recorded = arrays['pose_samples'].astype(np.float64)
    flexion = np.arange(2, 36, 3)  # z of the fingers' joints
    assert (poses.hand_pose[:, flexion].std(0) > 1.1 * recorded[:, flexion].std(0)).mean() > 0.8
    # Fists, flat hands and all between.
    closed = poses.hand_pose[:, flexion].mean(axis=1)
    assert (closed > np.radians(60)).mean() > 0.03
    assert (closed < np.radians(12)).mean() > 0.03


def test_hands_are_seen_upright_and_from_all_sides(poses: HandPoses):
    model = load_hand_model()
    towards_camera = []
    for orient in poses.global_orient[:600]:
        hand = model.posed(orient, np.zeros(45), np.zeros(10), np.zeros(3))
        right, down, _ = hand.keypoints[9] - hand.keypoints[0]
        assert abs(np.degrees(np.arctan2(right, -down))) < 30
        towards_camera.append(-hand.T_camera_hand[2, :3])
    # Fingers, the thumb's side and the back each face the camera, and are turned away from it, often enough.
    towards = np.array(towards_camera)
    assert ((towards > 0.7).mean(axis=0) > 0.06).all()
    assert ((towards < -0.7).mean(axis=0) > 0.06).all()


def test_every_finger_of_a_named_shape_has_a_known_state():
    for thumb, *fingers in SHAPES.values():
        assert thumb in THUMB_STATES and set(fingers) <= set(FINGER_STATES)
    assert len(THUMB_STATES) == len(FINGER_STATES)


def test_thousands_of_poses_take_a_moment(sampler: PoseSampler):
    start = time.process_time()
    sampler(np.arange(20000))
    assert time.process_time() - start < 2.0  # about 0.2 s


def test_a_prior_without_poses_is_refused(tmp_path):
    path = tmp_path / 'prior.npz'
    np.savez(path, pose_samples=np.zeros((4, 44)))
    with pytest.raises(FileFormatError, match='prior.npz'):
        PoseSampler(load_hand_model(), prior=path)
    with pytest.raises(FileFormatError, match='missing.npz'):
        PoseSampler(load_hand_model(), prior=tmp_path / 'missing.npz')


def test_left_hands_are_refused():
    with pytest.raises(ValueError, match='right'):
        PoseSampler(load_hand_model(side='left'))
