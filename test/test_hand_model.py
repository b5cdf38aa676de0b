"""The NumPy hand model: its mesh against smplx, its frames, sides and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from scipy.optimize import minimize

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import OPEN_HAND_PATH, load_hand_model
from hand_mesh_ros.hand_model.keypoints import JOINT_PARENTS, KEYPOINT_NAMES, TIP_KEYPOINTS
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles, mirrored_points
from hand_mesh_ros.hand_model.model import HandModel, PosedHand
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices

SIDES = ('right', 'left')
LAST_JOINTS = [15, 3, 6, 12, 9]
ZERO = {'global_orient': np.zeros(3), 'hand_pose': np.zeros(45), 'betas': np.zeros(10), 'transl': np.zeros(3)}


@pytest.fixture(scope='module')
def models() -> dict[str, HandModel]:
    return {'right': load_hand_model(), 'left': load_hand_model(side='left')}


def random_parameters(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        'global_orient': rng.normal(size=3) * 1.5,
        'hand_pose': rng.normal(size=45) * 0.4,
        'betas': rng.normal(size=10),
        'transl': rng.normal(size=3),
    }


def mirrored(parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        'global_orient': mirrored_axis_angles(parameters['global_orient']),
        'hand_pose': mirrored_axis_angles(parameters['hand_pose']),
        'betas': parameters['betas'],
        'transl': mirrored_points(parameters['transl']),
    }


def test_vertices_and_joints_are_those_of_smplx(models: dict[str, HandModel], tmp_path: Path) -> None:
    (tmp_path / 'MANO_RIGHT.npz').symlink_to(OPEN_HAND_PATH)
    # smplx adds 1e-8 to every angle, so that more digits than these cannot be asked for
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 2e-8)):
        reference = smplx.create(
            str(tmp_path / 'MANO_RIGHT.npz'),
            model_type='mano',
            ext='npz',
            use_pca=False,
            flat_hand_mean=True,
            dtype=dtype,
        )
        for seed in range(20):
            parameters = random_parameters(seed)
            expected = reference(**{k: torch.tensor(v[None], dtype=dtype) for k, v in parameters.items()})
            posed = models['right'].posed(**parameters)
            np.testing.assert_allclose(posed.vertices, expected.vertices[0].detach(), rtol=0, atol=tolerance)
            np.testing.assert_allclose(posed.joints, expected.joints[0].detach(), rtol=0, atol=tolerance)


@pytest.mark.parametrize('side', SIDES)
def test_zero_pose_is_the_template(models: dict[str, HandModel], side: str) -> None:
    model = models[side]
    posed = model.posed(**ZERO)
    np.testing.assert_allclose(posed.vertices, model.v_template, atol=1e-15)
    np.testing.assert_allclose(posed.joints, model.joint_regressor @ model.v_template, atol=1e-15)
    np.testing.assert_allclose(posed.keypoints, model.rest(np.zeros(10)).keypoints, atol=1e-15)
    np.testing.assert_allclose(posed.joint_rotations, np.tile(np.eye(3), (16, 1, 1)), atol=1e-15)


def test_a_quarter_turn_about_the_wrist(models: dict[str, HandModel]) -> None:
    model = models['right']
    posed = model.posed(**ZERO | {'global_orient': np.array([0, 0, np.pi / 2])})
    wrist = (model.joint_regressor @ model.v_template)[0]
    x, y, z = (model.v_template - wrist).T
    np.testing.assert_allclose(posed.vertices, np.column_stack([-y, x, z]) + wrist, atol=1e-15)


def test_transl_shifts_everything(models: dict[str, HandModel]) -> None:
    parameters = random_parameters(3)
    shift = np.array([0.3, -0.2, 0.7])
    here = models['left'].posed(**parameters)
    there = models['left'].posed(**parameters | {'transl': parameters['transl'] + shift})
    np.testing.assert_allclose(there.vertices, here.vertices + shift, atol=1e-15)
    np.testing.assert_allclose(there.joints, here.joints + shift, atol=1e-15)
    np.testing.assert_allclose(there.keypoints, here.keypoints + shift, atol=1e-15)
    np.testing.assert_allclose(there.T_camera_hand[:3, 3], here.T_camera_hand[:3, 3] + shift, atol=1e-15)
    np.testing.assert_allclose(
        there.T_camera_fingertips[:, :3, 3], here.T_camera_fingertips[:, :3, 3] + shift, atol=1e-15
    )


@pytest.mark.parametrize('joint', range(1, 16))
def test_a_bent_joint_moves_what_hangs_on_it_only(models: dict[str, HandModel], joint: int) -> None:
    pose = np.zeros((15, 3))
    pose[joint - 1] = [0.1, 0.2, 0.6]
    rest = models['right'].posed(**ZERO)
    bent = models['right'].posed(**ZERO | {'hand_pose': pose.ravel()})
    chain = [joint]
    while chain[-1] < 15 and JOINT_PARENTS[chain[-1] + 1] == chain[-1]:
        chain.append(chain[-1] + 1)
    turned = [j for j in range(16) if not np.allclose(bent.joint_rotations[j], np.eye(3))]
    moved = [j for j in range(16) if np.linalg.norm(bent.joints[j] - rest.joints[j]) > 1e-12]
    assert turned == chain
    assert moved == chain[1:]


def test_positive_rotation_about_z_bends_a_right_finger_towards_the_palm(
    models: dict[str, HandModel],
) -> None:
    pose = np.zeros((15, 3))
    pose[0] = [0, 0, np.pi / 2]
    tip = KEYPOINT_NAMES.index('index_tip')
    rest, bent = models['right'].posed(**ZERO), models['right'].posed(**ZERO | {'hand_pose': pose.ravel()})
    assert bent.keypoints[tip, 1] < rest.keypoints[tip, 1] - 0.04


@pytest.mark.parametrize('seed', range(5))
def test_mirrored_parameters_give_the_mirrored_hand(models: dict[str, HandModel], seed: int) -> None:
    right = models['right'].posed(**random_parameters(seed))
    left = models['left'].posed(**mirrored(random_parameters(seed)))
    for name in ('vertices', 'joints', 'keypoints'):
        np.testing.assert_allclose(getattr(left, name), mirrored_points(getattr(right, name)), atol=1e-14)


def test_mirroring_twice_changes_nothing(models: dict[str, HandModel]) -> None:
    again = models['left'].mirrored()
    assert again.side == 'right'
    for name in (
        'v_template',
        'faces',
        'shapedirs',
        'posedirs',
        'hands_mean',
        'hands_components',
        'pose_limits',
    ):
        np.testing.assert_array_equal(getattr(again, name), getattr(models['right'], name))


@pytest.mark.parametrize('side', SIDES)
def test_faces_look_outwards(models: dict[str, HandModel], side: str) -> None:
    model = models[side]
    a, b, c = model.v_template[model.faces].transpose(1, 0, 2)
    centre = model.v_template.mean(axis=0)
    signed_volume = np.einsum('fi,fi->f', a - centre, np.cross(b - centre, c - centre)).sum() / 6
    assert 1e-4 < signed_volume < 6e-4


def test_left_limits_allow_what_right_limits_allow(models: dict[str, HandModel]) -> None:
    low, high = models['right'].pose_limits.T
    pose = np.random.default_rng(0).uniform(low, high)
    left_low, left_high = models['left'].pose_limits.T
    assert (left_low <= mirrored_axis_angles(pose)).all()
    assert (mirrored_axis_angles(pose) <= left_high).all()
    np.testing.assert_allclose(left_high - left_low, high - low)


def test_keypoints_are_tip_vertices_and_points_rigid_with_their_joints(models: dict[str, HandModel]) -> None:
    model = models['right']
    parameters = random_parameters(7)
    posed, rest = model.posed(**parameters), model.rest(parameters['betas'])
    np.testing.assert_array_equal(posed.keypoints[list(TIP_KEYPOINTS)], posed.vertices[model.tip_vertices])
    for keypoint in set(range(21)) - set(TIP_KEYPOINTS):
        joint = model.keypoint_joints[keypoint]
        offset = posed.joint_rotations[joint].T @ (posed.keypoints[keypoint] - posed.joints[joint])
        np.testing.assert_allclose(offset, rest.keypoints[keypoint] - rest.joints[joint], atol=1e-14)


def frames_of(posed: PosedHand) -> np.ndarray:
    return np.concatenate([posed.T_camera_hand[None], posed.T_camera_fingertips])


@pytest.mark.parametrize('side', SIDES)
def test_frames_are_right_handed_and_sit_on_their_keypoints(models: dict[str, HandModel], side: str) -> None:
    posed = models[side].posed(**random_parameters(11))
    frames = frames_of(posed)
    np.testing.assert_allclose(frames[:, :3, 3], posed.keypoints[[0, *TIP_KEYPOINTS]], atol=1e-15)
    np.testing.assert_allclose(frames[:, 3], np.tile([0, 0, 0, 1], (6, 1)))
    axes = frames[:, :3, :3]
    np.testing.assert_allclose(axes.transpose(0, 2, 1) @ axes, np.tile(np.eye(3), (6, 1, 1)), atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(axes), 1.0)


@pytest.mark.parametrize('side', SIDES)
def test_hand_frame_points_to_the_fingers_and_out_of_the_back(
    models: dict[str, HandModel], side: str
) -> None:
    posed = models[side].posed(**ZERO)
    local = (posed.keypoints - posed.keypoints[0]) @ posed.T_camera_hand[:3, :3]
    middle, index, pinky = (
        local[KEYPOINT_NAMES.index(f'{name}_mcp')] for name in ('middle', 'index', 'pinky')
    )
    assert middle[0] > 0.07
    assert np.sign(index[1] - pinky[1]) == (1 if side == 'right' else -1)
    bent = models[side].posed(**ZERO | {'hand_pose': flexion(side)})
    bent_tip = bent.keypoints[KEYPOINT_NAMES.index('middle_tip')] - bent.keypoints[0]
    assert bent_tip @ bent.T_camera_hand[:3, 2] < -0.03


def flexion(side: str) -> np.ndarray:
    """(45,): every finger joint bent by 45 degrees towards the palm."""
    pose = np.zeros((15, 3))
    pose[:12, 2] = np.pi / 4
    return pose.ravel() if side == 'right' else mirrored_axis_angles(pose.ravel())


@pytest.mark.parametrize('side', SIDES)
def test_fingertip_frames_point_along_the_bone_and_out_of_the_nail(
    models: dict[str, HandModel], side: str
) -> None:
    model = models[side]
    posed = model.posed(**ZERO)
    bones = posed.keypoints[list(TIP_KEYPOINTS)] - posed.joints[LAST_JOINTS]
    bones /= np.linalg.norm(bones, axis=1, keepdims=True)
    np.testing.assert_allclose(posed.T_camera_fingertips[:, :3, 0], bones, atol=1e-14)
    nails = nail_normals(model)
    angles = np.degrees(np.arccos(np.sum(posed.T_camera_fingertips[:, :3, 2] * nails, axis=1)))
    assert (angles < 35).all(), angles


def nail_normals(model: HandModel) -> np.ndarray:
    """(5,3): where the nails of the open model face at rest, thumb to pinky."""
    with np.load(OPEN_HAND_PATH) as file:
        nail = file['nail'].astype(np.float64)
    a, b, c = model.v_template[model.faces].transpose(1, 0, 2)
    of_finger = model.weights[:, LAST_JOINTS] * nail[:, None]
    normals = of_finger[model.faces].mean(axis=1).T @ np.cross(b - a, c - a)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


@pytest.mark.parametrize('side', SIDES)
def test_turning_the_hand_turns_all_its_frames(models: dict[str, HandModel], side: str) -> None:
    model = models[side]
    parameters = random_parameters(13)
    turn = rotation_matrices(np.array([0.3, -1.1, 0.8]))
    turned_orient = axis_angles(turn @ rotation_matrices(parameters['global_orient']))
    wrist = model.rest(parameters['betas']).joints[0]
    here = model.posed(**parameters)
    there = model.posed(**parameters | {'global_orient': turned_orient})
    motion = np.eye(4)
    motion[:3, :3] = turn
    centre = wrist + parameters['transl']
    motion[:3, 3] = centre - turn @ centre
    np.testing.assert_allclose(frames_of(there), motion @ frames_of(here), atol=1e-13)
    np.testing.assert_allclose(there.vertices, here.vertices @ turn.T + motion[:3, 3], atol=1e-13)


@pytest.mark.parametrize('side', SIDES)
def test_fingertip_frame_turns_with_the_last_joint(models: dict[str, HandModel], side: str) -> None:
    parameters = random_parameters(17)
    rest = models[side].posed(**ZERO | {'betas': parameters['betas']})
    posed = models[side].posed(**parameters)
    expected = posed.joint_rotations[LAST_JOINTS] @ rest.T_camera_fingertips[:, :3, :3]
    np.testing.assert_allclose(posed.T_camera_fingertips[:, :3, :3], expected, atol=1e-14)


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('length_m', [0.160, 0.1804, 0.195, 0.205])
def test_betas_for_a_length_have_that_length(
    models: dict[str, HandModel], side: str, length_m: float
) -> None:
    betas = models[side].betas_for_length(length_m)
    assert models[side].hand_length(betas) == pytest.approx(length_m, abs=1e-12)
    rest = models[side].rest(betas)
    assert np.linalg.norm(rest.keypoints[12] - rest.keypoints[0]) == pytest.approx(length_m, abs=1e-12)


@pytest.mark.parametrize('length_m', [0.165, 0.2])
def test_betas_for_a_length_are_the_smallest_such(models: dict[str, HandModel], length_m: float) -> None:
    model = models['right']
    smallest = minimize(
        lambda betas: betas @ betas,
        np.full(10, 0.1),
        method='SLSQP',
        constraints={'type': 'eq', 'fun': lambda betas: 10 * (model.hand_length(betas) - length_m)},
        options={'ftol': 1e-9},
    )
    assert smallest.success
    np.testing.assert_allclose(model.betas_for_length(length_m), smallest.x, atol=1e-4)


@pytest.mark.parametrize('length_m', [0.0, -0.18, 0.08, 0.4, np.nan, np.inf])
def test_no_betas_for_a_length_that_no_hand_has(models: dict[str, HandModel], length_m: float) -> None:
    with pytest.raises(ConfigurationError, match='m long'):
        models['right'].betas_for_length(length_m)
