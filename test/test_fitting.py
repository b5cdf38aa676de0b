"""Fitting the hand model: exact where the truth is known, robust where a detector errs, never a NaN."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand_model.files import OPEN_HAND_PATH, load_hand_model
from hand_mesh_ros.hand_model.fitting import HandFit, fit_hand, fit_points, joint_confidence
from hand_mesh_ros.hand_model.initial_pose import aligning_rotation, initial_pose
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles, mirrored_points
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import rotation_matrices

CAMERA = Camera(640, 480, 520.0, 520.0, 319.5, 239.5)
SIDES = ('right', 'left')


@dataclass(frozen=True)
class Truth:
    """A hand, where it is, and what a perfect detector would say of it."""

    parameters: dict[str, np.ndarray]
    keypoints_3d: np.ndarray
    keypoints_px: np.ndarray
    keypoints_depth: np.ndarray
    landmarks_world: np.ndarray


@pytest.fixture(scope='module')
def models() -> dict[str, HandModel]:
    return {side: load_hand_model(side=side) for side in SIDES}


@pytest.fixture(scope='module')
def poses() -> np.ndarray:
    """Poses (N,45) of the right hand from the prior that the open model brings."""
    return np.load(OPEN_HAND_PATH, allow_pickle=False)['pose_samples'].astype(np.float64)


def random_parameters(model: HandModel, poses: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A pose of the prior with up to 20 degrees of noise on every joint, any shape, any orientation."""
    pose = poses[rng.integers(len(poses))]
    if model.side == 'left':
        pose = mirrored_axis_angles(pose)
    pose = pose + rng.normal(size=45) * np.radians(rng.uniform(0.0, 20.0))
    axis = rng.normal(size=3)
    return {
        'global_orient': axis / np.linalg.norm(axis) * rng.uniform(0.0, np.pi),
        'hand_pose': np.clip(pose, *model.pose_limits.T),
        'betas': rng.normal(size=10),
        'transl': rng.normal(size=3),
    }


def truth(model: HandModel, poses: np.ndarray, seed: int, camera: Camera = CAMERA) -> Truth:
    """A random hand of mean shape about half a metre away, seen without error."""
    rng = np.random.default_rng(seed)
    parameters = random_parameters(model, poses, rng) | {'betas': np.zeros(10)}
    parameters['transl'] = np.array([*rng.uniform(-0.1, 0.1, 2), rng.uniform(0.4, 0.7)])
    keypoints = model.posed(**parameters).keypoints
    pixels = camera.project(keypoints)
    # A detector of landmarks looks at the crop, as if straight at the hand
    ray = np.append(camera.rays(pixels).mean(axis=0), 1.0)
    ray /= np.linalg.norm(ray)
    axis = np.cross([0.0, 0.0, 1.0], ray)
    turn = rotation_matrices(axis / np.linalg.norm(axis) * np.arccos(ray[2]))
    landmarks = (keypoints - keypoints.mean(axis=0)) @ turn
    depth = (landmarks[:, 2] - landmarks[0, 2]) * camera.fx / keypoints[:, 2].mean()
    return Truth(parameters, keypoints, pixels, depth, landmarks)


def posed_keypoints(model: HandModel, fit: HandFit) -> np.ndarray:
    return model.posed(fit.global_orient, fit.hand_pose, fit.betas, fit.transl).keypoints


def mean_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b, axis=-1).mean())


def test_initial_pose_is_exact_where_bones_only_swing(models: dict[str, HandModel]) -> None:
    model = models['right']
    pose = np.zeros((15, 3))
    pose[[0, 1, 2, 3, 6, 9], 2] = [0.9, 0.7, 0.4, 0.3, 0.5, 1.2]
    orient = np.array([0.5, -1.0, 2.0])
    keypoints = model.posed(orient, pose.reshape(45), np.zeros(10), np.zeros(3)).keypoints
    rest = model.rest(np.zeros(10)).keypoints
    orientation, hand_pose = initial_pose(rest, 3.0 * keypoints + 5.0, model.pose_limits)
    np.testing.assert_allclose(orientation, rotation_matrices(orient), atol=1e-9)
    start = model.posed(orient, hand_pose, np.zeros(10), np.zeros(3)).keypoints
    assert mean_distance(start, keypoints) < 0.001  # the skinned tips do not quite follow their bones


def test_alignment_is_a_rotation_even_for_mirrored_points() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    assert np.linalg.det(aligning_rotation(points, points * [-1.0, 1.0, 1.0])) == pytest.approx(1.0)


@pytest.mark.parametrize('fit_shape', [False, True])
def test_known_keypoints_are_reproduced(
    models: dict[str, HandModel], poses: np.ndarray, fit_shape: bool
) -> None:
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(500):
        parameters = random_parameters(models['right'], poses, rng)
        keypoints = models['right'].posed(**parameters).keypoints
        betas = None if fit_shape else parameters['betas']
        fit = fit_points(models['right'], keypoints, betas, fit_shape)
        errors.append(mean_distance(posed_keypoints(models['right'], fit), keypoints))
    assert np.mean(errors) < 0.0002
    assert np.max(errors) < 0.002


def test_left_hand_is_fitted_as_the_mirrored_right_one(
    models: dict[str, HandModel], poses: np.ndarray
) -> None:
    parameters = random_parameters(models['right'], poses, np.random.default_rng(2))
    keypoints = models['right'].posed(**parameters).keypoints
    right = fit_points(models['right'], keypoints, parameters['betas'])
    left = fit_points(models['right'].mirrored(), mirrored_points(keypoints), parameters['betas'])
    np.testing.assert_allclose(left.hand_pose, mirrored_axis_angles(right.hand_pose), atol=1e-5)
    np.testing.assert_allclose(left.global_orient, mirrored_axis_angles(right.global_orient), atol=1e-5)
    np.testing.assert_allclose(left.keypoints_3d, mirrored_points(right.keypoints_3d), atol=1e-6)


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('seed', range(10))
def test_perfect_detection_gives_the_hand_back(
    models: dict[str, HandModel], poses: np.ndarray, side: str, seed: int
) -> None:
    seen = truth(models[side], poses, seed)
    # A detector does not know the size of the hand
    fit = fit_hand(models[side], seen.keypoints_px, 0.8 * seen.landmarks_world + 1.0, CAMERA)
    np.testing.assert_allclose(posed_keypoints(models[side], fit), fit.keypoints_3d, atol=1e-9)
    assert mean_distance(CAMERA.project(fit.keypoints_3d), seen.keypoints_px) < 3.0
    centred = fit.keypoints_3d - fit.keypoints_3d.mean(axis=0)
    assert mean_distance(centred, seen.keypoints_3d - seen.keypoints_3d.mean(axis=0)) < 0.005
    assert abs(fit.keypoints_3d[0, 2] - seen.keypoints_3d[0, 2]) < 0.03 * seen.keypoints_3d[0, 2]


def test_distorted_pixels_mean_the_same_hand(models: dict[str, HandModel], poses: np.ndarray) -> None:
    fisheye = replace(CAMERA, distortion_model='equidistant', distortion=(-0.2, 0.04, -0.01, 0.0))
    model = models['right']
    plain, bent = truth(model, poses, 3), truth(model, poses, 3, fisheye)
    assert mean_distance(plain.keypoints_px, bent.keypoints_px) > 0.5
    fits = [
        fit_hand(model, seen.keypoints_px, plain.landmarks_world, camera)
        for seen, camera in ((plain, CAMERA), (bent, fisheye))
    ]
    np.testing.assert_allclose(fits[1].keypoints_3d, fits[0].keypoints_3d, atol=0.002)
    assert fits[1].residual_px is not None
    assert fits[1].residual_px == pytest.approx(
        np.linalg.norm(fisheye.project(fits[1].keypoints_3d) - bent.keypoints_px, axis=1), abs=1e-9
    )


def test_one_wrong_landmark_and_one_wrong_pixel_do_little(
    models: dict[str, HandModel], poses: np.ndarray
) -> None:
    model = models['right']
    changes = []
    for seed in range(30):
        seen = truth(model, poses, seed)
        rng = np.random.default_rng(seed)
        landmarks = seen.landmarks_world + rng.normal(size=(21, 3)) * 0.003
        pixels = seen.keypoints_px + rng.normal(size=(21, 2)) * 2.0
        without = fit_hand(model, pixels, landmarks, CAMERA)
        landmark, pixel = rng.choice(21, 2, replace=False)
        landmarks[landmark] += [0.08, -0.05, 0.06]
        pixels[pixel] += 150.0
        fit = fit_hand(model, pixels, landmarks, CAMERA)
        others = np.setdiff1d(np.arange(21), [landmark, pixel])
        changes.append(mean_distance(fit.keypoints_3d[others], without.keypoints_3d[others]))
        assert joint_confidence(fit, 1.0)[pixel] < joint_confidence(fit, 1.0)[others].min()
    # 150 pixels are several times the size of the smallest of these hands: one in ten may go wrong
    assert np.quantile(changes, 0.9) < 0.01


@pytest.mark.parametrize('seed', range(10))
def test_one_of_the_two_figures_may_be_hopeless(
    models: dict[str, HandModel], poses: np.ndarray, seed: int
) -> None:
    model = models['right']
    seen = truth(model, poses, seed)
    scrambled = np.random.default_rng(seed).permutation(21)
    good = fit_hand(
        model, seen.keypoints_px, seen.landmarks_world, CAMERA, keypoints_depth=seen.keypoints_depth
    )
    for landmarks, depth in (
        (seen.landmarks_world[scrambled], seen.keypoints_depth),
        (seen.landmarks_world, seen.keypoints_depth[scrambled]),
    ):
        fit = fit_hand(model, seen.keypoints_px, landmarks, CAMERA, keypoints_depth=depth)
        centred = fit.keypoints_3d - fit.keypoints_3d.mean(axis=0)
        assert mean_distance(centred, seen.keypoints_3d - seen.keypoints_3d.mean(axis=0)) < 0.025
        assert joint_confidence(fit, 1.0).mean() < 0.8 * joint_confidence(good, 1.0).mean()


def test_depths_tell_near_from_far_where_there_are_no_landmarks(
    models: dict[str, HandModel], poses: np.ndarray
) -> None:
    model = models['right']
    errors: dict[str, list[float]] = {'pixels': [], 'depths': []}
    for seed in range(10):
        seen = truth(model, poses, seed)
        for name, depth in (('pixels', None), ('depths', seen.keypoints_depth)):
            fit = fit_hand(model, seen.keypoints_px, None, CAMERA, keypoints_depth=depth)
            centred = fit.keypoints_3d - fit.keypoints_3d.mean(axis=0)
            errors[name].append(mean_distance(centred, seen.keypoints_3d - seen.keypoints_3d.mean(axis=0)))
    assert np.mean(errors['depths']) < 0.5 * np.mean(errors['pixels'])
    assert np.mean(errors['depths']) < 0.01


def test_pixels_alone_are_fitted_too(models: dict[str, HandModel], poses: np.ndarray) -> None:
    seen = truth(models['right'], poses, 4)
    fit = fit_hand(models['right'], seen.keypoints_px, None, CAMERA)
    assert fit.residual_m is None
    assert mean_distance(CAMERA.project(fit.keypoints_3d), seen.keypoints_px) < 5.0


@pytest.mark.parametrize('seed', range(10))
def test_pose_stays_within_its_limits(models: dict[str, HandModel], seed: int) -> None:
    model = models['right']
    rng = np.random.default_rng(seed)
    landmarks = model.rest(np.zeros(10)).keypoints + rng.normal(size=(21, 3)) * 0.03
    fit = fit_hand(model, CAMERA.project(landmarks + [0.0, 0.0, 0.6]), landmarks, CAMERA)
    lower, upper = model.pose_limits.T
    assert np.max(np.maximum(lower - fit.hand_pose, fit.hand_pose - upper)) < np.radians(8.0)


def test_shape_adapts_and_the_hands_length_stays(models: dict[str, HandModel], poses: np.ndarray) -> None:
    model = models['right']
    seen = truth(model, poses, 5)
    betas = model.betas_for_length(0.2)
    adapted = fit_hand(model, seen.keypoints_px * [1.0, 1.1], seen.landmarks_world, CAMERA, betas=betas)
    fixed = fit_hand(
        model, seen.keypoints_px * [1.0, 1.1], seen.landmarks_world, CAMERA, betas=betas, fit_shape=False
    )
    np.testing.assert_array_equal(fixed.betas, betas)
    assert np.linalg.norm(adapted.betas - betas) > 0.05
    assert model.hand_length(adapted.betas) == pytest.approx(0.2, abs=0.002)


def test_larger_hand_is_further_away(models: dict[str, HandModel], poses: np.ndarray) -> None:
    model = models['right']
    seen = truth(model, poses, 6)
    depths = [
        fit_hand(
            model, seen.keypoints_px, seen.landmarks_world, CAMERA, betas=model.betas_for_length(length)
        ).transl[2]
        for length in (0.17, 0.2)
    ]
    assert depths[1] / depths[0] == pytest.approx(0.2 / 0.17, rel=0.05)


def test_keypoints_without_weight_do_not_count(models: dict[str, HandModel], poses: np.ndarray) -> None:
    model = models['right']
    seen = truth(model, poses, 7)
    weights = np.ones(21)
    weights[[8, 20]] = 0.0
    pixels = seen.keypoints_px.copy()
    pixels[[8, 20]] += 100.0
    fits = [
        fit_hand(model, px, seen.landmarks_world, CAMERA, weights=weights)
        for px in (seen.keypoints_px, pixels)
    ]
    np.testing.assert_allclose(fits[0].keypoints_3d, fits[1].keypoints_3d, atol=0.004)


HOPELESS = {
    'keypoints hold a number that is not finite': lambda given: given['keypoints_px'].__setitem__(3, np.nan),
    'landmarks hold a number that is not finite': lambda given: given['landmarks_world'].__setitem__(
        3, np.inf
    ),
    'depths hold a number that is not finite': lambda given: given['keypoints_depth'].fill(np.nan),
    'on one pixel': lambda given: given['keypoints_px'].fill(100.0),
    'at one place': lambda given: given['landmarks_world'].fill(0.1),
    r'keypoints must have the shape \(21, 2\)': lambda given: given.update(keypoints_px=np.zeros((20, 2))),
    'weights must not be negative': lambda given: given.update(weights=-np.ones(21)),
    'at least four': lambda given: given.update(weights=np.eye(21)[0]),
}


@pytest.mark.parametrize('says', HOPELESS)
def test_hopeless_input_is_a_frame_error(models: dict[str, HandModel], poses: np.ndarray, says: str) -> None:
    seen = truth(models['right'], poses, 8)
    given = {
        'keypoints_px': seen.keypoints_px,
        'landmarks_world': seen.landmarks_world,
        'keypoints_depth': seen.keypoints_depth,
        'camera': CAMERA,
    }
    HOPELESS[says](given)
    with pytest.raises(FrameError, match=says):
        fit_hand(models['right'], **given)


def test_known_keypoints_must_be_a_figure(models: dict[str, HandModel]) -> None:
    with pytest.raises(FrameError, match='at one place'):
        fit_points(models['right'], np.zeros((21, 3)))
    with pytest.raises(FrameError, match='not finite'):
        fit_points(models['right'], np.full((21, 3), np.nan))


@pytest.mark.parametrize('seed', range(30))
def test_garbage_gives_numbers_or_a_frame_error(models: dict[str, HandModel], seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0.0, 640.0, (21, 2)) * 10.0 ** rng.uniform(-4.0, 4.0)
    landmarks = rng.normal(size=(21, 3)) * 10.0 ** rng.uniform(-4.0, 4.0)
    try:
        fit = fit_hand(models['right'], pixels, landmarks, CAMERA)
    except FrameError:
        return
    for values in (fit.global_orient, fit.hand_pose, fit.betas, fit.transl, fit.residual_px, fit.residual_m):
        assert np.isfinite(values).all()
    assert fit.keypoints_3d[:, 2].min() > 0.0
    assert np.all((joint_confidence(fit, 1.0) >= 0.0) & (joint_confidence(fit, 1.0) <= 1.0))


def test_confidence_is_the_detections_where_all_agree() -> None:
    zeros = np.zeros(21)
    fit = HandFit(zeros[:3], np.zeros(45), zeros[:10], zeros[:3], np.zeros((21, 3)), zeros, 50.0, zeros, 1)
    np.testing.assert_array_equal(joint_confidence(fit, 0.9), np.full(21, 0.9))
    # One keypoint a tenth of the hand's size off: d = 1 there, mean(d) = 1/21
    one_off = joint_confidence(replace(fit, residual_px=np.eye(21)[4] * 5.0), 0.9)
    assert one_off[4] == pytest.approx(0.9 / (1.0 + (1.0 + 1.0 / 21.0) / 2.0))
    assert one_off[0] == pytest.approx(0.9 / (1.0 + 1.0 / 42.0))


def test_pixels_that_the_lens_does_not_see_are_a_frame_error(models: dict[str, HandModel]) -> None:
    # Barrel distortion this strong folds before the corner: no ray leads there.
    camera = Camera(640, 480, 300.0, 300.0, 319.5, 239.5, 'plumb_bob', (-0.35, 0.0, 0.0, 0.0))
    pixels = np.random.default_rng(0).uniform(-60.0, 0.0, (21, 2))
    assert np.isnan(camera.rays(pixels)).any()
    with pytest.raises(FrameError, match='lens'):
        fit_hand(models['right'], pixels, np.random.default_rng(1).normal(0.0, 0.05, (21, 3)), camera)
