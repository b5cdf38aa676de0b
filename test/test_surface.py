"""A hand without metres comes to lie on its measured surface; depth that shows no hand is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.hand_figure import HandFigures, Sleeve
from hand_mesh_ros.datasets.pose_sampler import PoseSampler
from hand_mesh_ros.detection.detection import Detection
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.evaluation.metrics import pa_mpjpe
from hand_mesh_ros.hand import Hand, ScaleSource
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.fit_terms import HandState
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles, mirrored_points
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.hand_model.vertex_kinematics import COLUMNS, LENGTH, VertexKinematics
from hand_mesh_ros.placement import place
from hand_mesh_ros.reconstruction.assembly import assemble_hand, changed_hand
from hand_mesh_ros.reconstruction.surface import SurfaceFit
from hand_mesh_ros.rendering.depth_camera import camera_depth
from hand_mesh_ros.rendering.masks import silhouette_overlap
from hand_mesh_ros.rendering.zbuffer import rasterise

RIGHT, LEFT = load_hand_model(), load_hand_model(side='left')
CAMERA = Camera(640, 480, 600.0, 600.0, 319.5, 239.5)
MEAN_LENGTH = RIGHT.hand_length(np.zeros(10))
SAMPLER, FIGURES, FIT = PoseSampler(RIGHT, 5), HandFigures(RIGHT, 0), SurfaceFit(RIGHT)
WRIST_AND_TIPS = [0, 4, 8, 12, 16, 20]


class Case(NamedTuple):
    truth: Hand
    guess: Hand  #: as a network of silhouettes might have it
    depth_m: np.ndarray  #: of hand, forearm and a wall behind them, measured
    mask: np.ndarray  #: of the hand


def hand_of(orient, pose, betas, transl, model=RIGHT, scale=ScaleSource.NOMINAL_HAND) -> Hand:
    detection = Detection(model.side, 0.9, 1.0, np.array([1, 2, 3, 4], np.float32), None, None, None)
    parameters = {'global_orient': orient, 'hand_pose': pose, 'betas': betas, 'transl': transl}
    return assemble_hand(
        model, CAMERA, detection, **parameters, confidence=np.linspace(0.4, 0.9, 21), scale=scale
    )


def case(index: int) -> Case:
    """A hand 0.4 to 0.8 m away, and one turned by 20 degrees, bent, of another size, at another distance."""
    rng = np.random.default_rng(index)
    orient, pose, betas = (values[0] for values in SAMPLER(np.array([index])))
    centre = np.array([*rng.uniform(-0.15, 0.15, 2), 1.0]) * rng.uniform(0.4, 0.8)
    transl = centre - RIGHT.posed(orient, pose, betas, np.zeros(3)).keypoints.mean(axis=0)
    truth = hand_of(orient, pose, betas, transl)
    depth, mask = measured(truth, rng)

    axis = rng.normal(size=3)
    turn = rotation_matrices(axis / np.linalg.norm(axis) * np.radians(20.0))
    bent = np.clip(pose + 0.1 * np.ptp(RIGHT.pose_limits, axis=1) * rng.normal(size=45), *RIGHT.pose_limits.T)
    turned, size = axis_angles(turn @ rotation_matrices(orient)), rng.uniform(0.88, 1.12)
    shape = RIGHT.betas_for_length(MEAN_LENGTH * size)
    around = RIGHT.posed(turned, bent, shape, np.zeros(3)).keypoints
    there = place(around, truth.keypoints_2d + rng.normal(size=2) * 5.0, CAMERA)
    return Case(truth, hand_of(turned, bent, shape, there), depth, mask)


def measured(hand: Hand, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    posed = RIGHT.posed(hand.global_orient, hand.hand_pose, hand.betas, hand.transl)
    vertices = FIGURES.coarse_vertices(posed, np.zeros(3), Sleeve(1.0, 1.0, np.zeros(3)))
    raster = rasterise(vertices, FIGURES.coarse_faces, CAMERA)
    depth = np.where(raster.mask, raster.depth, raster.depth.max() + np.float32(0.2))
    return camera_depth(depth, CAMERA, rng), raster.mask & (raster.face_index < len(RIGHT.faces))


CASES = [case(index) for index in range(16)]


def errors_mm(hand: Hand, truth: Hand) -> np.ndarray:
    return 1e3 * np.linalg.norm((hand.keypoints_3d - truth.keypoints_3d)[WRIST_AND_TIPS], axis=1)


@pytest.mark.parametrize('masked', [True, False])
def test_wrist_and_fingertips_come_to_within_a_centimetre(masked):
    before, after = [], []
    for one in CASES:
        found = FIT.fitted(one.guess, one.depth_m, one.mask if masked else None, CAMERA)
        if found is None:  # one seen from its fingertips on is not recognised
            continue
        before.append(errors_mm(one.guess, one.truth))
        after.append(errors_mm(found, one.truth))
    assert len(after) >= len(CASES) - 1
    assert np.median(before) > 30.0
    assert np.median(after) < 8.0
    assert np.percentile(after, 80) < 25.0


def test_distance_and_size_of_the_guess_do_not_matter():
    errors, lengths = [], []
    for one in CASES:
        far = changed(
            one.guess, transl=one.guess.transl * 1.3, betas=RIGHT.betas_for_length(1.2 * MEAN_LENGTH)
        )
        found = FIT.fitted(far, one.depth_m, one.mask, CAMERA)
        if found is None:
            continue
        errors.append(errors_mm(found, one.truth))
        lengths.append(RIGHT.hand_length(found.betas) / RIGHT.hand_length(one.truth.betas))
    assert len(errors) >= len(CASES) - 1
    assert np.median(errors) < 12.0
    assert np.median(np.abs(np.array(lengths) - 1.0)) < 0.08


def changed(hand: Hand, **parameters) -> Hand:
    kept = {name: getattr(hand, name) for name in ('global_orient', 'hand_pose', 'betas', 'transl')}
    return changed_hand(RIGHT, CAMERA, hand, **(kept | parameters), scale=hand.scale_source)


def test_what_is_published_fits_together():
    one = CASES[0]
    found = FIT.fitted(replace(one.guess, track_id=7), one.depth_m, one.mask, CAMERA)
    assert found is not None
    assert found.scale_source == ScaleSource.DEPTH
    posed = RIGHT.posed(found.global_orient, found.hand_pose, found.betas, found.transl)
    np.testing.assert_array_equal(found.vertices, posed.vertices.astype(np.float32))
    np.testing.assert_array_equal(found.keypoints_3d, posed.keypoints.astype(np.float32))
    np.testing.assert_allclose(found.keypoints_2d, CAMERA.project(posed.keypoints), atol=1e-3)
    np.testing.assert_array_equal(found.T_camera_hand, posed.T_camera_hand)
    np.testing.assert_array_equal(found.T_camera_fingertips, posed.T_camera_fingertips)
    assert (found.track_id, found.side, found.score) == (7, 'right', one.guess.score)
    np.testing.assert_array_equal(found.joint_confidence, one.guess.joint_confidence)


def test_a_length_that_the_user_gave_stays():
    for one in (CASES[0], CASES[2], CASES[3]):
        betas = RIGHT.betas_for_length(1.1 * MEAN_LENGTH)
        given = replace(changed(one.guess, betas=betas), scale_source=ScaleSource.HAND_LENGTH)
        found = FIT.fitted(given, one.depth_m, one.mask, CAMERA)
        assert found is not None
        assert RIGHT.hand_length(found.betas) == pytest.approx(1.1 * MEAN_LENGTH, rel=0.01)


def test_left_hands_are_fitted_as_their_mirror_images_are():
    def mirrored(hand: Hand) -> Hand:
        return hand_of(
            mirrored_axis_angles(hand.global_orient),
            mirrored_axis_angles(hand.hand_pose),
            hand.betas,
            mirrored_points(hand.transl),
            LEFT,
        )

    one = CASES[2]
    found = SurfaceFit(LEFT).fitted(mirrored(one.guess), one.depth_m[:, ::-1], one.mask[:, ::-1], CAMERA)
    assert found is not None
    assert np.median(errors_mm(found, mirrored(one.truth))) < 12.0


def test_the_hand_is_found_through_a_lens_that_distorts():
    bent = replace(CAMERA, distortion_model='plumb_bob', distortion=(-0.2, 0.05, 0.0, 0.0, 0.0))
    one = CASES[3]
    raster = rasterise(one.truth.vertices, RIGHT.faces, bent)
    guess = replace(one.guess, keypoints_2d=bent.project(one.guess.keypoints_3d).astype(np.float32))
    found = FIT.fitted(guess, raster.depth, raster.mask, bent)
    assert found is not None
    assert np.median(errors_mm(found, one.truth)) < 10.0


def nothing(truth: Hand) -> np.ndarray:
    return np.zeros((480, 640), np.float32)


def not_numbers(truth: Hand) -> np.ndarray:
    return np.resize(np.array([np.nan, np.inf, -1.0], np.float32), (480, 640))


def board_in_front(truth: Hand) -> np.ndarray:
    return np.full((480, 640), truth.vertices[:, 2].min() - 0.02, np.float32)


def board_close_to_the_camera(truth: Hand) -> np.ndarray:
    return np.full((480, 640), 0.15, np.float32)


def wall_behind(truth: Hand) -> np.ndarray:
    return np.full((480, 640), 3.0, np.float32)


def slanting_floor(truth: Hand) -> np.ndarray:
    rows = np.arange(480.0)[:, None] / 480.0
    return np.broadcast_to(truth.transl[2] / (0.6 + 0.8 * rows), (480, 640)).astype(np.float32)


@pytest.mark.parametrize(
    'scene', [nothing, not_numbers, board_in_front, board_close_to_the_camera, wall_behind, slanting_floor]
)
def test_depth_that_shows_no_hand_says_nothing(scene):
    refused = 0
    for one in CASES[:8]:
        found = FIT.fitted(one.guess, camera_or_raw(scene(one.truth)), None, CAMERA)
        assert found is None or np.isfinite(found.vertices).all()
        refused += found is None
    assert refused >= 7


def camera_or_raw(depth: np.ndarray) -> np.ndarray:
    usable = np.isfinite(depth).all() and (depth > 0).any()
    return camera_depth(depth, CAMERA, np.random.default_rng(0)) if usable else depth


@pytest.mark.parametrize('shift', [[5.0, 0.0, 0.0], [0.0, 0.0, -2.0], [0.0, 0.0, 60.0], [np.nan, 0.0, 0.0]])
@pytest.mark.parametrize('masked', [True, False])
def test_a_hand_out_of_sight_is_refused(shift, masked):
    one = CASES[0]
    away = changed(one.guess, transl=one.guess.transl + np.array(shift))
    assert FIT.fitted(away, one.depth_m, one.mask if masked else None, CAMERA) is None
    assert FIT.outlined(away, one.mask, CAMERA) is not None


def test_an_empty_mask_leaves_nothing_to_fit():
    one = CASES[0]
    empty = np.zeros_like(one.mask)
    assert FIT.fitted(one.guess, one.depth_m, empty, CAMERA) is None
    assert FIT.outlined(one.guess, empty, CAMERA) is one.guess


def test_images_of_another_size_are_refused():
    one = CASES[0]
    with pytest.raises(FrameError, match='depth'):
        FIT.fitted(one.guess, one.depth_m[:-1], one.mask, CAMERA)
    with pytest.raises(FrameError, match='mask'):
        FIT.fitted(one.guess, one.depth_m, one.mask[:, 1:], CAMERA)
    with pytest.raises(FrameError, match='mask'):
        FIT.outlined(one.guess, one.mask[:, 1:], CAMERA)


def overlap(hand, mask):
    return silhouette_overlap(hand.vertices, RIGHT.faces, CAMERA, mask)


def test_an_outline_alone_brings_the_hand_into_the_mask():
    before, after, shape_before, shape_after = [], [], [], []
    for one in CASES:
        found = FIT.outlined(one.guess, one.mask, CAMERA)
        before.append(overlap(one.guess, one.mask))
        after.append(overlap(found, one.mask))
        assert after[-1] >= before[-1] - 0.01, 'the fit compares in fewer pixels'
        shape_before.append(pa_mpjpe(one.guess.keypoints_3d, one.truth.keypoints_3d))
        shape_after.append(pa_mpjpe(found.keypoints_3d, one.truth.keypoints_3d))
        assert found.scale_source == one.guess.scale_source
        assert found.transl[2] == pytest.approx(one.guess.transl[2], rel=0.02)
        assert RIGHT.hand_length(found.betas) == pytest.approx(RIGHT.hand_length(one.guess.betas), rel=0.01)
    assert np.median(after) > np.median(before) + 0.1
    assert np.median(shape_after) < np.median(shape_before) + 0.0005


def test_points_of_the_mesh_move_as_their_rates_say():
    rng = np.random.default_rng(0)
    kinematics, hand = VertexKinematics(RIGHT), CASES[0].truth
    state = HandState(rotation_matrices(hand.global_orient), hand.hand_pose, hand.betas, hand.transl)
    posed = RIGHT.posed(hand.global_orient, hand.hand_pose, hand.betas, hand.transl)
    moving = kinematics.at(state)
    np.testing.assert_allclose(moving.vertices, posed.vertices, atol=1e-6)
    np.testing.assert_allclose(moving.keypoints, posed.keypoints, atol=1e-6)

    corners, shares = RIGHT.faces[rng.integers(len(RIGHT.faces), size=200)], rng.dirichlet(np.ones(3), 200)
    directions = rng.normal(size=(200, 3))

    def along(step: np.ndarray) -> np.ndarray:
        full = np.concatenate([step[:LENGTH], step[LENGTH] * kinematics.lengthening])
        points = kinematics.at(state.moved(full)).vertices[corners]
        return np.einsum('nk,nkc,nc->n', shares, points, directions)

    rates = moving.rates(corners, shares, directions)
    for column, small in enumerate(1e-5 * np.eye(COLUMNS)):
        numeric = (along(small) - along(-small)) / 2e-5
        # Joints turn the pose corrections, too, which the rates leave out
        np.testing.assert_allclose(rates[:, column], numeric, atol=0.02 if 3 <= column < 48 else 1e-6)
