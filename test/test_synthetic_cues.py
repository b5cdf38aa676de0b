"""Invented cues: of the errors and gaps that they are asked to have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from hand_mesh_ros.crop_view import RMS_SHARE, view_of_hand, views_of_hands
from hand_mesh_ros.cues import Cues, normalised_world
from hand_mesh_ros.datasets.cue_noise import (
    NoiseLevels,
    cues_with_gaps,
    detected_landmarks,
    in_other_views,
    true_landmarks,
)
from hand_mesh_ros.datasets.draws import Draws
from hand_mesh_ros.datasets.residuals import Landmarks, ResidualBank
from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.hand_model.files import load_hand_model

NEVER_MISSING = NoiseLevels(
    keypoint_missing_rate=0, keypoints_missing_rate=0, depth_missing_rate=0, world_missing_rate=0
)
SILENT = replace(
    NEVER_MISSING,
    **dict.fromkeys(
        ('shift', 'scale', 'roll_rad', 'finger_drift', 'finger_length', 'depth_shear', 'jitter', 'occluded'),
        0.0,
    ),
    outlier_rate=0.0,
    confused_finger_rate=0.0,
)


class Truth(NamedTuple):
    """One hand as its crop has it."""

    landmarks: Landmarks
    points: np.ndarray  #: (21,3) metres, in the crop's camera

    @property
    def unit(self) -> np.ndarray:
        return self.landmarks.keypoints[0]

    @property
    def depth(self) -> np.ndarray:
        return self.landmarks.relative_depth[0]

    def times(self, count: int) -> Landmarks:
        return Landmarks(*(np.repeat(values, count, axis=0) for values in self.landmarks))


@pytest.fixture(scope='module')
def hand() -> Truth:
    model = load_hand_model()
    pose = 0.6 * model.hands_mean
    posed = model.posed(np.array([1.0, 0.4, -1.2]), pose, np.zeros(10), np.array([0.1, 0.0, 0.6]))
    views = views_of_hands(posed.keypoints[None], 128)
    return Truth(true_landmarks(posed.keypoints[None], views), posed.keypoints @ views[0].R_crop_camera.T)


def cues_of(
    hand: Truth,
    levels: NoiseLevels,
    count: int,
    visible: np.ndarray | None = None,
    bank: ResidualBank | None = None,
) -> Cues:
    """Cues of the same hand ``count`` times, each with errors of its own."""
    seen = np.broadcast_to(np.ones(21, bool) if visible is None else visible, (count, 21))
    truth, draws = hand.times(count), Draws(0, 1, np.arange(count))
    detected = detected_landmarks(truth, seen, levels, draws, bank)
    return cues_with_gaps(detected, truth.keypoints, seen, levels, draws)


def test_the_view_is_centred_upright_and_of_one_scale(hand):
    unit = hand.unit
    np.testing.assert_allclose(unit.mean(0), 0, atol=0.02)
    assert unit[9, 1] < unit[0, 1] and unit[9, 0] == pytest.approx(unit[0, 0], abs=1e-9)
    assert np.sqrt((unit**2).sum(1).mean()) == pytest.approx(2 * RMS_SHARE)


def test_rays_lead_back_to_where_they_were_seen(hand):
    points = hand.points
    view = view_of_hand(points + (0.2, 0.1, 0.0), 128)
    there = view.to_unit(points)
    rays = view.rays(there)
    np.testing.assert_allclose(np.cross(rays, points), 0, atol=1e-9)
    np.testing.assert_allclose(view.R_crop_camera @ view.R_crop_camera.T, np.eye(3), atol=1e-12)
    pixels = view.camera().project(points @ view.R_crop_camera.T)
    np.testing.assert_allclose((pixels - 63.5) / 64, there, atol=1e-9)


def test_many_views_are_those_of_each_hand(hand):
    points = hand.points + np.random.default_rng(0).normal(0.0, 0.05, (5, 1, 3))
    views = views_of_hands(points, 128)
    unit = views.to_unit(points)
    changed = views.turned(np.full(5, 0.2), np.tile([0.1, -0.2], (5, 1)), np.full(5, 1.3))
    for row in range(5):
        view = view_of_hand(points[row], 128)
        np.testing.assert_allclose(unit[row], view.to_unit(points[row]), atol=1e-12)
        np.testing.assert_allclose(views.rays(unit)[row], view.rays(unit[row]), atol=1e-12)
        turned = view.turned(0.2, 0.1, -0.2, 1.3)
        np.testing.assert_allclose(changed[row].R_crop_camera, turned.R_crop_camera, atol=1e-12)
        assert changed[row].focal_px == pytest.approx(turned.focal_px)


def test_the_truth_is_that_of_the_cues(hand):
    points, landmarks = hand.points, hand.landmarks
    np.testing.assert_allclose(landmarks.world[0], normalised_world(points), atol=1e-12)
    focal = view_of_hand(points, 128).focal_px
    expected = (points[:, 2] - points[0, 2]) / points[0, 2] * focal / 64
    np.testing.assert_allclose(landmarks.relative_depth[0], expected, atol=1e-12)


def test_landmarks_move_with_the_view(hand):
    points = hand.points[None]
    views = views_of_hands(points, 128)
    # Rolled and enlarged, a view has just what the truth is there.
    others = views.turned(np.array([0.7]), np.zeros((1, 2)), np.array([1.4]))
    moved = in_other_views(hand.landmarks, views, others)
    for actual, expected in zip(moved, true_landmarks(points, others), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-9)


def test_without_noise_keypoints_are_the_true_ones(hand):
    np.testing.assert_allclose(cues_of(hand, SILENT, 3).keypoints, hand.times(3).keypoints, atol=1e-6)


def test_a_sample_has_the_same_errors_in_any_batch(hand):
    levels = NoiseLevels()
    some = np.array([2, 117, 9])
    alike = hand.times(3)
    for bank in (None, bank_of(hand, np.full((9, 21, 2), 0.1))):
        together = detected_landmarks(
            hand.times(300), np.ones((300, 21), bool), levels, Draws(5, 1, np.arange(300)), bank
        )
        few = detected_landmarks(alike, np.ones((3, 21), bool), levels, Draws(5, 1, some), bank)
        for expected, actual in zip(together, few, strict=True):
            np.testing.assert_array_equal(expected[some], actual)


def test_errors_are_those_of_a_detector(hand):
    errors = cues_of(hand, NEVER_MISSING, 2000).keypoints - hand.unit
    box = np.ptp(hand.unit, axis=0).max()
    sizes = np.linalg.norm(errors, axis=2) / box
    assert 0.03 < sizes.mean() < 0.09  # MediaPipe: 0.03 on easy photographs, 0.11 with objects in hand
    assert sizes[:, 8].mean() > 1.2 * sizes[:, 5].mean()  # tips are worse than roots
    along = errors[:, [7, 8], 0]
    assert np.corrcoef(along.T)[0, 1] > 0.7  # a finger errs as a whole


def test_what_is_hidden_is_guessed(hand):
    hidden = np.ones(21, bool)
    hidden[5:9] = False
    with_hidden = cues_of(hand, NEVER_MISSING, 500, hidden)
    without = cues_of(hand, NEVER_MISSING, 500)

    def error(cues: Cues) -> float:
        return float(np.linalg.norm((cues.keypoints - hand.unit)[:, 5:9], axis=2).mean())

    assert error(with_hidden) > 1.2 * error(without)
    assert with_hidden.confidence[:, 5:9].mean() < with_hidden.confidence[:, 9:].mean() - 0.05


def test_a_confused_finger_lies_on_its_neighbour(hand):
    levels = replace(SILENT, confused_finger_rate=1.0)
    keypoints = cues_of(hand, levels, 400).keypoints
    fingers, truth = (values.reshape(-1, 5, 4, 2) for values in (keypoints[:, 1:], hand.unit[None, 1:]))
    moved = np.abs(fingers - truth).max((2, 3)) > 1e-6
    assert (moved.sum(1) == 1).all() and not moved[:, 0].any()
    which = moved.argmax(1)
    assert set(which) == {1, 2, 3, 4}
    for row, finger in enumerate(which):
        beside = [n for n in (finger - 1, finger + 1) if 0 < n < 5]
        assert any(np.allclose(fingers[row, finger, 1:], truth[0, n, 1:], atol=1e-6) for n in beside)


def test_relative_depth_is_half_the_true_one_and_correlates_with_it(hand):
    depths = cues_of(hand, NEVER_MISSING, 500).relative_depth
    correlations = [np.corrcoef(depth, hand.depth)[0, 1] for depth in depths]
    assert 0.7 < np.median(correlations) < 0.9
    gains = depths @ hand.depth / (hand.depth @ hand.depth)
    assert 0.4 < np.median(gains) < 0.6
    assert not depths[:, 0].any()


def test_world_landmarks_start_at_the_wrist_and_have_unit_size(hand):
    world = cues_of(hand, NEVER_MISSING, 200).world
    np.testing.assert_allclose(world[:, 0], 0, atol=1e-6)
    sizes = np.sqrt(((world - world.mean(1, keepdims=True)) ** 2).sum(2).mean(1))
    np.testing.assert_allclose(sizes, 1.0, atol=1e-5)
    errors = np.linalg.norm(world - hand.landmarks.world, axis=2).mean(1)
    assert errors.min() > 0.02 and errors.max() < 0.8


@pytest.mark.parametrize(
    ('rate', 'place', 'fields'),
    [
        ('keypoints_missing_rate', 0, ('keypoints', 'confidence')),
        ('depth_missing_rate', 1, ('relative_depth',)),
        ('world_missing_rate', 2, ('world',)),
    ],
)
def test_an_absent_cue_is_flagged_and_empty(hand, rate: str, place: int, fields: tuple[str, ...]):
    cues = cues_of(hand, replace(NEVER_MISSING, **{rate: 1.0}), 1)
    assert cues.present[0].tolist() == [k != place for k in range(3)]
    for field in ('keypoints', 'confidence', 'relative_depth', 'world'):
        assert getattr(cues, field).any() == (field not in fields)


def test_a_missing_keypoint_has_no_confidence_and_no_place(hand):
    cues = cues_of(hand, replace(NEVER_MISSING, keypoint_missing_rate=0.5), 100)
    missing = cues.confidence == 0
    assert 0.45 < missing.mean() < 0.55
    assert not cues.keypoints[missing].any() and cues.keypoints[~missing].all()


def bank_of(hand: Truth, keypoint_errors: np.ndarray) -> ResidualBank:
    """Errors (N,21,2) on hands much like this one, a quarter of them in depth and as large in the world."""
    truth = hand.times(len(keypoint_errors))
    world = np.concatenate([keypoint_errors, keypoint_errors[:, :, :1]], axis=2)
    world[:, 0] = 0.0
    depth = 0.25 * keypoint_errors[:, :, 0]
    depth[:, 0] = 0.0
    return ResidualBank(
        truth,
        Landmarks(truth.keypoints + keypoint_errors, truth.relative_depth + depth, truth.world + world),
    )


def test_residuals_of_all_cues_come_from_one_hand_of_the_bank(hand):
    rng = np.random.default_rng(0)
    errors = rng.normal(0.0, 0.1, (6, 21, 2))
    errors[:, 0] = 0.0
    bank = bank_of(hand, errors)
    levels = replace(SILENT, bank_rate=1.0)
    cues = cues_of(hand, levels, 400, bank=bank)
    moved, deepened = cues.keypoints - hand.unit, cues.relative_depth - hand.depth
    chosen, scales = [], []
    for row in range(400):
        found = [
            (k, moved[row].ravel() @ e.ravel() / (e**2).sum(), deepened[row] @ e[:, 0] / (e[:, 0] ** 2).sum())
            for k, e in enumerate(errors)
            if np.corrcoef(moved[row].ravel(), e.ravel())[0, 1] > 0.999
        ]
        ((which, scale, depth_scale),) = found
        np.testing.assert_allclose(deepened[row], depth_scale * errors[which, :, 0], atol=1e-5)
        assert 4.0 * depth_scale == pytest.approx(scale, rel=1e-3)
        world = hand.landmarks.world[0] + scale * bank.residuals.world[which]
        np.testing.assert_allclose(cues.world[row], normalised_world(world), atol=1e-4)
        chosen.append(which)
        scales.append(scale)
    assert set(chosen) == set(range(6))
    assert 0.149 < min(scales) < 0.2 and 1.05 < max(scales) < 1.101


def test_residuals_of_the_most_similar_hands_are_transplanted(hand):
    rng = np.random.default_rng(0)
    near, far = hand.times(16), hand.times(200)
    near = near._replace(keypoints=near.keypoints + rng.normal(0, 0.01, (16, 21, 2)))
    far = far._replace(
        keypoints=far.keypoints * rng.choice([-1.0, 0.3], (200, 1, 1)),
        relative_depth=far.relative_depth + rng.normal(0.0, 0.5, (200, 21)),
    )
    truth = Landmarks(*(np.concatenate(pair) for pair in zip(near, far, strict=True)))
    bank = ResidualBank(truth, truth)
    found = bank.nearest(hand.times(300), rng.random(300))
    assert found.max() < 16 and len(set(found)) == 8
    # Keypoints alike, the depth tells which.
    behind = hand.landmarks._replace(relative_depth=-hand.landmarks.relative_depth)
    pair = Landmarks(*(np.concatenate(two) for two in zip(hand.landmarks, behind, strict=True)))
    both = Landmarks(*(np.repeat(values, 8, axis=0) for values in pair))
    bank = ResidualBank(both, both)
    assert (bank.nearest(behind, np.array([0.6])) >= 8).all()


def test_some_hands_take_residuals_of_the_bank_and_others_invented_ones(hand):
    bank = bank_of(hand, np.zeros((9, 21, 2)))
    levels = replace(NEVER_MISSING, occluded=0.0, outlier_rate=0.0, confused_finger_rate=0.0)
    cues = cues_of(hand, levels, 2000, bank=bank)
    taken = np.abs(cues.keypoints - hand.unit).max((1, 2)) < 1e-6
    assert taken.mean() == pytest.approx(levels.bank_rate, abs=0.04)
    np.testing.assert_array_equal(taken, np.abs(cues.relative_depth - hand.depth).max(1) < 1e-6)
    np.testing.assert_array_equal(taken, np.abs(cues.world - hand.landmarks.world).max((1, 2)) < 1e-5)


def write_bank(path: Path, count: int = 3, **changes: np.ndarray) -> Path:
    arrays = {
        'keypoints': np.zeros((count, 21, 2), np.float16),
        'relative_depth': np.zeros((count, 21), np.float16),
        'world': np.zeros((count, 21, 3), np.float16),
    }
    arrays |= {f'detected_{name}': values + np.float16(0.5) for name, values in arrays.items()}
    np.savez(path, **(arrays | changes))
    return path


def test_a_bank_is_read_from_its_file(tmp_path: Path):
    bank = ResidualBank.load(write_bank(tmp_path / 'bank.npz'))
    assert len(bank) == 3
    for residuals in bank.residuals_of(np.array([2, 0])):
        assert len(residuals) == 2 and (residuals == 0.5).all() and residuals.dtype == np.float32


def test_the_bank_of_the_package_holds_what_mediapipe_says_of_rendered_hands():
    bank = ResidualBank.shipped()
    assert len(bank) > 1000
    box = np.ptp(bank.truth.keypoints, axis=1).max(1)
    errors = np.linalg.norm(bank.residuals.keypoints, axis=2).mean(1) / box
    assert 0.03 < errors.mean() < 0.15


@pytest.mark.parametrize(
    ('count', 'changes'),
    [
        (3, {'keypoints': np.zeros((3, 20, 2))}),
        (3, {'detected_world': np.zeros((2, 21, 3))}),
        (3, {'relative_depth': np.zeros(())}),
        (3, {'keypoints': np.zeros(())}),
        (0, {}),
        (1, {'detected_relative_depth': np.full((1, 21), np.nan)}),
        (1, {'world': np.array([{}], object)}),
    ],
)
def test_a_bank_of_another_form_is_refused(tmp_path: Path, count: int, changes: dict[str, np.ndarray]):
    with pytest.raises(FileFormatError, match='bank.npz'):
        ResidualBank.load(write_bank(tmp_path / 'bank.npz', count, **changes))


@pytest.mark.parametrize('contents', [b'', b'not an archive', b'PK\x03\x04 cut off'])
def test_a_bank_that_is_no_archive_is_refused(tmp_path: Path, contents: bytes):
    (tmp_path / 'bank.npz').write_bytes(contents)
    with pytest.raises(FileFormatError, match='bank.npz'):
        ResidualBank.load(tmp_path / 'bank.npz')


def test_a_missing_bank_is_refused(tmp_path: Path):
    with pytest.raises(FileFormatError, match='missing.npz'):
        ResidualBank.load(tmp_path / 'missing.npz')
