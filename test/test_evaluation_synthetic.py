"""Methods on rendered hands: that the truth is met by what knows it, and that rows see only what they may."""

import json

import numpy as np
import pytest
from maskhand_file import write_maskhand

from hand_mesh_ros.cues import normalised_world
from hand_mesh_ros.datasets.synthetic import SyntheticHands
from hand_mesh_ros.evaluation import synthetic
from hand_mesh_ros.evaluation.calibration import calibrated_confidence
from hand_mesh_ros.evaluation.scores import UNKNOWN, Points, summarise
from hand_mesh_ros.evaluation.synthetic import (
    TEST_LEVELS,
    TEST_SEED,
    CropHand,
    FitOnCrops,
    WorldLandmarks,
    compare_on_synthetic,
)
from hand_mesh_ros.evaluation.synthetic_network import maskhand_rows
from hand_mesh_ros.networks.weights import load_weights, write_tensors


@pytest.fixture(scope='module')
def hands():
    return SyntheticHands(TEST_SEED, 64, levels=TEST_LEVELS)


@pytest.fixture(scope='module')
def batch(hands):
    return hands.batch(np.arange(24))


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return write_maskhand(tmp_path_factory.mktemp('weights') / 'maskhand.safetensors')


def with_true_cues(batch):
    """The batch, its cues being the truth."""
    size = batch['image'].shape[1]
    share = batch['focal_px'] * 2 / size
    depth = batch['keypoints_3d'][..., 2] / batch['root_depth_m'][:, None] * share[:, None]
    return batch | {
        'cue_keypoints': (batch['keypoints_2d'] - (size - 1) / 2) / (size / 2),
        'cue_confidence': np.ones((len(depth), 21), np.float32),
        'cue_relative_depth': depth.astype(np.float32),
        'cue_world': np.stack([normalised_world(points) for points in batch['keypoints_3d']]),
        'cue_present': np.ones((len(depth), 3), bool),
    }


class Knowing:
    """Returns the truth, mostly."""

    image_size = None

    def __init__(self, model):
        self.model = model

    def reconstruct(self, batch):
        found = []
        for k in range(len(batch['image'])):
            parameters = (batch[name][k] for name in ('global_orient', 'hand_pose', 'betas'))
            hand = self.model.posed(*parameters, np.array([0.1, 0.2, 0.3]))
            root = hand.keypoints[0]
            found.append(CropHand(Points(hand.keypoints - root, hand.vertices - root), UNKNOWN))
        found[0] = None
        return found


def test_what_knows_the_truth_meets_it(hands, monkeypatch):
    monkeypatch.setattr(synthetic, 'BATCH', 4)
    groups = list(compare_on_synthetic(hands, {'all-knowing': Knowing(hands.model)}, 6))
    assert [len(group) for group in groups] == [4, 2]
    scores = [score for group in groups for score in group]
    assert [score.found for score in scores] == [False, True, True, True, False, True]
    (row,) = summarise(scores, ['all-knowing'])
    for name in ('pa_mpjpe_mm', 'root_mpjpe_mm', 'pa_mpvpe_mm', 'root_mpvpe_mm'):
        assert row[name] < 1e-3  # the truth is float32
    assert 'mpjpe_mm' not in row  # places in front of the camera are not compared
    assert all((score.hidden == ~hands.sample(int(score.id)).visible).all() for score in scores)


def test_true_landmarks_are_met_up_to_their_size(batch, hands):
    found = WorldLandmarks(hands.model).reconstruct(with_true_cues(batch))
    for hand, truth in zip(found, batch['keypoints_3d'], strict=True):
        scale = np.linalg.norm(truth[9]) / np.linalg.norm(hand.figure.joints[9])
        assert 0.75 < scale < 1.33
        np.testing.assert_allclose(hand.figure.joints * scale, truth, atol=1e-5)


def test_the_fit_to_true_cues_is_near_the_truth(batch, hands):
    found = FitOnCrops(hands.model).reconstruct(with_true_cues(batch))
    errors = [
        synthetic.aligned_joint_errors(hand.figure.joints, truth).mean()
        for hand, truth in zip(found, batch['keypoints_3d'], strict=True)
    ]
    assert np.median(errors) < 0.004
    # Turned as the truth is, not only alike
    shifted = [hand.figure.joints - truth for hand, truth in zip(found, batch['keypoints_3d'], strict=True)]
    assert np.median(np.linalg.norm(shifted, axis=2)) < 0.012
    assert all(hand.confidence.min() > 0.0 and hand.confidence.max() <= 1.0 for hand in found)


def test_hands_without_keypoints_are_not_fitted(batch, hands):
    present = batch['cue_present'].copy()
    present[3, 0] = False
    few = {name: values[:5] for name, values in (batch | {'cue_present': present}).items()}
    found = FitOnCrops(hands.model).reconstruct(few)
    assert [hand is None for hand in found] == [False, False, False, True, False]


def test_the_rows_of_the_network(batch, hands, weights):
    rows = maskhand_rows(weights, hands.model, (1, 2))
    assert [*rows][:4] == ['maskhand-t1', 'maskhand-t2', 'maskhand-lifter', 'maskhand-no-image']
    assert rows['maskhand-t1'].image_size == 64
    for row in rows.values():
        hand = row.reconstruct(batch)[5]
        assert hand.figure.vertices.shape == (778, 3) and np.allclose(hand.figure.joints[0], 0.0)


@pytest.mark.parametrize(
    ('row', 'unseen'),
    [
        ('maskhand-no-image', ['image']),
        ('maskhand-no-world', ['cue_world']),
        ('maskhand-no-depth', ['cue_relative_depth']),
        ('maskhand-2d-only', ['cue_world', 'cue_relative_depth']),
        ('maskhand-no-cues', ['cue_keypoints', 'cue_confidence', 'cue_world', 'cue_relative_depth']),
    ],
)
def test_a_row_does_not_see_what_it_leaves_out(batch, hands, weights, row, unseen):
    method = calibrated(weights, hands.model)[row]
    other = batch | {name: np.roll(batch[name], 1, axis=0) for name in unseen}
    for first, second in zip(method.reconstruct(batch), method.reconstruct(other), strict=True):
        np.testing.assert_allclose(first.confidence, second.confidence, atol=1e-5)
    seen = calibrated(weights, hands.model)['maskhand-t1']
    apart = [
        np.abs(first.confidence - second.confidence).max()
        for first, second in zip(seen.reconstruct(batch), seen.reconstruct(other), strict=True)
    ]
    assert max(apart) > 1e-4


def calibrated(weights, model, offset=0.3):
    """The rows of the file, with a calibration written into it."""
    tensors, description = load_weights(weights)
    path = weights.with_name('calibrated.safetensors')
    description['calibration'] = {'offset': offset, 'slope': 0.7}
    write_tensors(path, tensors, {'description': json.dumps(description)})
    return maskhand_rows(path, model, (1,))


def test_confidence_is_the_calibrated_one(batch, hands, weights):
    plain, surer = (
        np.stack([hand.confidence for hand in rows['maskhand-t1'].reconstruct(batch)])
        for rows in (calibrated(weights, hands.model), calibrated(weights, hands.model, offset=1.3))
    )
    logits = np.log(plain / (1 - plain))
    np.testing.assert_allclose(surer, calibrated_confidence(-logits - 1.0, 0.0, 1.0), rtol=1e-6)
