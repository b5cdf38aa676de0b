"""Invented cues: of the errors and gaps that they are asked to have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hand_mesh_ros.crop_view import RMS_SHARE, view_of_hand
from hand_mesh_ros.cues import Cues, normalised_world
from hand_mesh_ros.datasets.cue_noise import (
    NoiseLevels,
    ResidualBank,
    detector_cues,
    noisy_keypoints,
)
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


@pytest.fixture(scope='module')
def hand() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints (21,2) over the crop, (21,3) metres in its camera, and their relative depths (21,)."""
    model = load_hand_model()
    pose = 0.6 * model.hands_mean
    posed = model.posed(np.array([1.0, 0.4, -1.2]), pose, np.zeros(10), np.array([0.1, 0.0, 0.6]))
    view = view_of_hand(posed.keypoints, 128)
    points = posed.keypoints @ view.R_crop_camera.T
    depth = (points[:, 2] - points[0, 2]) / points[0, 2] * view.focal_px / 64
    return view.to_unit(posed.keypoints), points, depth


def cues_of(hand, levels: NoiseLevels, seed: int, visible: np.ndarray | None = None) -> Cues:
    unit, points, depth = hand
    rng = np.random.default_rng(seed)
    seen = np.ones(21, bool) if visible is None else visible
    noisy = noisy_keypoints(unit, depth, seen, levels, rng)
    return detector_cues(noisy, unit, points, depth, seen, levels, rng)


def test_the_view_is_centred_upright_and_of_one_scale(hand):
    unit, _, _ = hand
    np.testing.assert_allclose(unit.mean(0), 0, atol=0.02)
    assert unit[9, 1] < unit[0, 1] and unit[9, 0] == pytest.approx(unit[0, 0], abs=1e-9)
    assert np.sqrt((unit**2).sum(1).mean()) == pytest.approx(2 * RMS_SHARE)


def test_rays_lead_back_to_where_they_were_seen(hand):
    points = hand[1]
    view = view_of_hand(points + (0.2, 0.1, 0.0), 128)
    there = view.to_unit(points)
    rays = view.rays(there)
    np.testing.assert_allclose(np.cross(rays, points), 0, atol=1e-9)
    np.testing.assert_allclose(view.R_crop_camera @ view.R_crop_camera.T, np.eye(3), atol=1e-12)
    pixels = view.camera().project(points @ view.R_crop_camera.T)
    np.testing.assert_allclose((pixels - 63.5) / 64, there, atol=1e-9)


def test_without_noise_keypoints_are_the_true_ones(hand):
    np.testing.assert_allclose(cues_of(hand, SILENT, 0).keypoints, hand[0], atol=1e-6)


def test_errors_are_those_of_a_detector(hand):
    errors = np.array([cues_of(hand, NEVER_MISSING, k).keypoints - hand[0] for k in range(300)])
    box = np.ptp(hand[0], axis=0).max()
    sizes = np.linalg.norm(errors, axis=2) / box
    assert 0.03 < sizes.mean() < 0.09  # MediaPipe: 0.03 on easy photographs, 0.11 with objects in hand
    assert sizes[:, 8].mean() > 1.2 * sizes[:, 5].mean()  # tips are worse than roots
    along = errors[:, [7, 8], 0]
    assert np.corrcoef(along.T)[0, 1] > 0.7  # a finger errs as a whole


def test_what_is_hidden_is_guessed(hand):
    hidden = np.ones(21, bool)
    hidden[5:9] = False
    with_hidden = [cues_of(hand, NEVER_MISSING, k, hidden) for k in range(200)]
    without = [cues_of(hand, NEVER_MISSING, k) for k in range(200)]

    def error(cues: list[Cues], keypoints: slice) -> float:
        return float(np.mean([np.linalg.norm((c.keypoints - hand[0])[keypoints], axis=1) for c in cues]))

    assert error(with_hidden, slice(5, 9)) > 1.2 * error(without, slice(5, 9))
    confidence = np.array([c.confidence for c in with_hidden])
    assert confidence[:, 5:9].mean() < confidence[:, 9:].mean() - 0.05


def test_relative_depth_is_half_the_true_one_and_correlates_with_it(hand):
    depths = [cues_of(hand, NEVER_MISSING, k).relative_depth for k in range(300)]
    correlations = [np.corrcoef(depth, hand[2])[0, 1] for depth in depths]
    assert 0.7 < np.median(correlations) < 0.9
    gains = [depth @ hand[2] / (hand[2] @ hand[2]) for depth in depths]
    assert 0.4 < np.median(gains) < 0.6
    assert all(depth[0] == 0 for depth in depths)


def test_world_landmarks_start_at_the_wrist_and_have_unit_size(hand):
    truth = normalised_world(hand[1])
    for k in range(50):
        world = cues_of(hand, NEVER_MISSING, k).world
        np.testing.assert_allclose(world[0], 0, atol=1e-6)
        assert np.sqrt(((world - world.mean(0)) ** 2).sum(1).mean()) == pytest.approx(1.0, abs=1e-5)
        assert 0.02 < np.linalg.norm(world - truth, axis=1).mean() < 0.8


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
    assert cues.present.tolist() == [k != place for k in range(3)]
    for field in ('keypoints', 'confidence', 'relative_depth', 'world'):
        assert getattr(cues, field).any() == (field not in fields)


def test_a_missing_keypoint_has_no_confidence_and_no_place(hand):
    cues = cues_of(hand, replace(NEVER_MISSING, keypoint_missing_rate=0.5), 2)
    missing = cues.confidence == 0
    assert 3 < missing.sum() < 18
    assert not cues.keypoints[missing].any() and cues.keypoints[~missing].all()


def write_bank(path: Path, keypoints: np.ndarray, residuals: np.ndarray) -> Path:
    np.savez(path, keypoints=keypoints, residuals=residuals)
    return path


def test_residuals_of_the_most_similar_hands_are_transplanted(hand, tmp_path: Path):
    near = hand[0] + np.random.default_rng(0).normal(0, 0.01, (8, 21, 2))
    far = np.zeros((50, 21, 2))
    residuals = np.concatenate([np.full((8, 21, 2), 0.1), np.full((50, 21, 2), -0.9)])
    bank = ResidualBank.load(write_bank(tmp_path / 'bank.npz', np.concatenate([near, far]), residuals))
    levels = replace(SILENT, bank_rate=1.0)
    seen = np.ones(21, bool)
    for k in range(20):
        noisy = noisy_keypoints(hand[0], hand[2], seen, levels, np.random.default_rng(k), bank)
        moved = noisy - hand[0]
        assert moved == pytest.approx(np.full((21, 2), moved[0, 0]))
        assert 0.15 * 0.1 - 1e-6 <= moved[0, 0] <= 1.1 * 0.1 + 1e-6


@pytest.mark.parametrize(
    ('keypoints', 'residuals'),
    [
        (np.zeros((3, 20, 2)), np.zeros((3, 20, 2))),
        (np.zeros((3, 21, 2)), np.zeros((2, 21, 2))),
        (np.zeros((0, 21, 2)), np.zeros((0, 21, 2))),
        (np.zeros((1, 21, 2)), np.full((1, 21, 2), np.nan)),
    ],
)
def test_a_bank_of_another_form_is_refused(tmp_path: Path, keypoints: np.ndarray, residuals: np.ndarray):
    with pytest.raises(FileFormatError, match='bank.npz'):
        ResidualBank.load(write_bank(tmp_path / 'bank.npz', keypoints, residuals))


def test_a_bank_that_is_no_archive_is_refused(tmp_path: Path):
    (tmp_path / 'bank.npz').write_bytes(b'not an archive')
    with pytest.raises(FileFormatError, match='bank.npz'):
        ResidualBank.load(tmp_path / 'bank.npz')
