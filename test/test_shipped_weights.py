"""The weights that come with the package: that they are what the model card says, and what they are worth."""

import hashlib
import json

import numpy as np
import pytest
import torch

from hand_mesh_ros import Camera, HandMeshEstimator
from hand_mesh_ros.datasets.demo_clip import render_demo_clip
from hand_mesh_ros.datasets.residuals import ResidualBank
from hand_mesh_ros.datasets.synthetic import SyntheticHands
from hand_mesh_ros.evaluation.calibration import calibrated_confidence, reliability, spearman
from hand_mesh_ros.evaluation.metrics import pa_mpjpe
from hand_mesh_ros.evaluation.synthetic import TEST_LEVELS, TEST_SEED, FitOnCrops, compare_on_synthetic
from hand_mesh_ros.evaluation.synthetic_network import maskhand_rows
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.networks.maskhand import MASKHAND_PATH, load_maskhand
from hand_mesh_ros.networks.prediction import predict
from hand_mesh_ros.networks.vq_mano import VqMano
from hand_mesh_ros.sources import read_frames
from hand_mesh_ros.training.hand_errors import aligned_errors
from hand_mesh_ros.training.samples import samples_of

MODEL = load_hand_model()
COUNT, SIZE = 128, 224


@pytest.fixture(scope='module')
def hands():
    return SyntheticHands(TEST_SEED, SIZE, levels=TEST_LEVELS, residuals=ResidualBank.shipped(), model=MODEL)


def test_the_model_card_is_of_this_file():
    content = MASKHAND_PATH.read_bytes()
    assert len(content) < 40e6
    assert hashlib.sha256(content).hexdigest() in (MASKHAND_PATH.parent / 'MODEL_CARD.md').read_text()


def test_they_are_of_the_open_hand_model():
    _, description = load_maskhand()
    assert description['hand_model']['sha256'] == MODEL.sha256
    assert description['calibration']['slope'] > 0


def test_tokens_tell_poses():
    """Half a millimetre worse than on the 10,000 poses of training's own evaluation would fail."""
    vq_mano: VqMano = load_maskhand()[0].vq_mano
    samples = samples_of(SyntheticHands(TEST_SEED).cue_batch(np.arange(1000)), 128)
    tokens = vq_mano.encode(samples.rotations)
    layer, none = HandLayer(MODEL), torch.zeros(1000, 3)
    made = layer.from_rotations(vq_mano.decode_indices(tokens), samples.betas, none).vertices
    wanted = layer.from_rotations(samples.rotations, samples.betas, none).vertices
    assert (made - wanted).norm(dim=-1).mean().item() < 1.5e-3
    assert len(tokens.unique()) > 512


def test_they_beat_the_fit_on_rendered_hands(hands):
    rows = maskhand_rows(MASKHAND_PATH, MODEL, [1, 5])
    methods = {name: rows[name] for name in ('maskhand-t1', 'maskhand-t5')} | {'fit': FitOnCrops(MODEL)}
    scores = [score for part in compare_on_synthetic(hands, methods, COUNT) for score in part]

    def mean(method, measure):
        return np.mean([s.measures[measure] for s in scores if s.method == method and s.found])

    assert mean('maskhand-t5', 'pa_mpjpe_mm') < 7.0  # 128 hands: half a millimetre of chance
    assert mean('maskhand-t5', 'pa_mpjpe_mm') < mean('maskhand-t1', 'pa_mpjpe_mm') + 0.05
    for measure in ('pa_mpjpe_mm', 'bone_angle_deg', 'root_mpjpe_mm'):
        assert mean('maskhand-t5', measure) < mean('fit', measure)


def test_confidence_is_the_share_of_good_joints(hands):
    network, description = load_maskhand()
    samples = samples_of(hands.batch(np.arange(COUNT)), SIZE)
    found = predict(network, HandLayer(MODEL), samples.images.float() / 255, samples.cues, steps=1)
    errors = aligned_errors(found.keypoints, samples.keypoints).numpy()
    confidence = calibrated_confidence(found.log_variance.numpy(), **description['calibration'])
    assert reliability(confidence, errors).expected_error < 0.08
    assert spearman(confidence, errors) < -0.3


def test_they_are_the_default(tmp_path):
    clip = render_demo_clip(tmp_path / 'clip.mp4', seconds=0.2)
    truth = np.load(clip.truth)['keypoints_3d'][0, 0]  # first frame, right hand
    image = next(iter(read_frames(clip.video))).image
    camera = Camera(
        image.shape[1], image.shape[0], *next(iter(json.loads(clip.cameras.read_text()).values()))
    )
    with HandMeshEstimator() as estimator:
        estimate = estimator.estimate(image, camera)
    assert estimate.timing_ms['network'] > 0
    (right,) = (hand for hand in estimate.hands if hand.side == 'right')
    assert pa_mpjpe(right.keypoints_3d.astype(float), truth) < 0.012
