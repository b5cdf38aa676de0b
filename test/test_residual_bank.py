"""MediaPipe's errors on rendered hands: the bank of the package, and the tool that writes such banks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hand_mesh_ros.crop_view import RMS_SHARE
from hand_mesh_ros.datasets import residual_bank
from hand_mesh_ros.datasets.residual_bank import detected_hand, statistics, write_residual_bank
from hand_mesh_ros.datasets.residuals import SHIPPED_PATH, Landmarks, ResidualBank
from hand_mesh_ros.errors import ConfigurationError


@pytest.fixture(scope='module')
def shipped() -> ResidualBank:
    return ResidualBank.shipped()


def detected(bank: ResidualBank) -> Landmarks:
    return Landmarks(*(true + error for true, error in zip(bank.truth, bank.residuals, strict=True)))


def test_the_shipped_bank_is_of_thousands_of_hands_and_small(shipped: ResidualBank):
    assert len(shipped) >= 4000
    assert SHIPPED_PATH.stat().st_size < 3e6


def test_both_sides_of_the_bank_are_cues_of_a_crop(shipped: ResidualBank):
    sizes = np.sqrt((shipped.truth.keypoints**2).sum(2).mean(1))
    np.testing.assert_allclose(sizes, 2 * RMS_SHARE, atol=2e-3)
    for landmarks in (shipped.truth, detected(shipped)):
        np.testing.assert_allclose(landmarks.relative_depth[:, 0], 0.0, atol=1e-6)
        np.testing.assert_allclose(landmarks.world[:, 0], 0.0, atol=1e-6)
        spread = landmarks.world - landmarks.world.mean(1, keepdims=True)
        np.testing.assert_allclose(np.sqrt((spread**2).sum(2).mean(1)), 1.0, atol=2e-3)


def test_the_detector_of_the_shipped_bank_is_as_good_as_mediapipe_is(shipped: ResidualBank):
    worth = statistics(shipped.truth, detected(shipped))
    assert 0.05 < worth['keypoint_error'] < 0.16
    assert 0.5 < worth['depth_correlation'] < 0.95
    assert 0.3 < worth['depth_gain'] < 0.9
    assert 0.2 < worth['world_error'] < 1.0


def test_the_shipped_errors_have_no_common_direction(shipped: ResidualBank):
    errors = shipped.residuals.keypoints
    assert np.linalg.norm(errors.mean(1), axis=1).mean() > 4 * np.linalg.norm(errors.mean((0, 1)))
    # World landmarks are not turned in the picture: sum of the cross products of where they are and belong.
    true, said = shipped.truth.world[..., :2], detected(shipped).world[..., :2]
    turns = np.arctan2(
        (true[..., 0] * said[..., 1] - true[..., 1] * said[..., 0]).sum(1), (true * said).sum((1, 2))
    )
    assert abs(np.median(turns)) < np.radians(2.0)


def test_the_tool_writes_a_bank_that_can_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / 'bank.of.three'
    residual_bank.main(['--out', str(path), '--count', '3'])
    printed = dict(line.split(': ') for line in capsys.readouterr().out.splitlines())
    assert 0 < float(printed['share_found']) <= 1
    bank = ResidualBank.load(path)
    assert len(bank) == 3
    assert statistics(bank.truth, detected(bank))['keypoint_error'] == pytest.approx(
        float(printed['keypoint_error']), abs=2e-3
    )
    with np.load(path) as arrays:
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}


def test_interrupted_it_writes_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted_after_ten(hands, index, detector):
        if index == 10:
            raise KeyboardInterrupt
        return detected_hand(hands, index, detector)

    monkeypatch.setattr(residual_bank, 'detected_hand', interrupted_after_ten)
    path = tmp_path / 'bank.npz'
    write_residual_bank(path, 1000)
    assert 1 <= len(ResidualBank.load(path)) <= 10


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path):
    with pytest.raises(ConfigurationError, match='count'):
        write_residual_bank(tmp_path / 'bank.npz', 0)
    with pytest.raises(ConfigurationError, match='no folder'):
        write_residual_bank(tmp_path / 'nowhere' / 'bank.npz', 3)
