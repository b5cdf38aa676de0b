"""A network is loaded from its file and run; what is missing is told, with its remedy."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('torch', reason='PyTorch is not installed')
import torch
from maskhand_file import UPRIGHT, write_maskhand

from hand_mesh_ros import Camera, HandMeshEstimator
from hand_mesh_ros.cues import Cues, normalised_world
from hand_mesh_ros.datasets.demo_clip import render_demo_clip
from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.inference.engine import EngineSettings
from hand_mesh_ros.inference.loading import load_hand_network
from hand_mesh_ros.inference.network import HandNetwork, NetworkOutput
from hand_mesh_ros.reconstruction import METHODS, make_reconstructor
from hand_mesh_ros.sources import read_frames

TORCH = EngineSettings('torch')

ABSENT = Cues(
    np.zeros((21, 2), np.float32),
    np.zeros(21, np.float32),
    np.zeros(21, np.float32),
    np.zeros((21, 3), np.float32),
    np.zeros(3, bool),
)


@pytest.fixture(scope='module')
def network(maskhand_weights: Path) -> HandNetwork:
    return load_hand_network(maskhand_weights, 2, TORCH)


def some_cues(seed: int) -> Cues:
    rng = np.random.default_rng(seed)
    return Cues(
        keypoints=rng.uniform(-0.8, 0.8, (21, 2)).astype(np.float32),
        confidence=np.full(21, 0.9, np.float32),
        relative_depth=rng.normal(0.0, 0.2, 21).astype(np.float32),
        world=normalised_world(rng.normal(size=(21, 3))).astype(np.float32),
        present=np.ones(3, bool),
    )


def told(network: HandNetwork, image: np.ndarray, cues: Cues) -> NetworkOutput:
    (output,) = network.infer(image[None], [cues])
    return output


def crop(network: HandNetwork, seed: int = 0) -> np.ndarray:
    shape = (network.image_size, network.image_size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def numbers(output: NetworkOutput) -> np.ndarray:
    return np.concatenate([output.betas, output.confidence])


@pytest.mark.parametrize('cues', [some_cues(0), ABSENT], ids=['cues', 'no cues'])
def test_a_crop_and_cues_give_a_hand(network, cues):
    output = told(network, crop(network), cues)
    # The pose of which the file was made
    np.testing.assert_allclose(output.global_orient, UPRIGHT, atol=1e-4)
    np.testing.assert_allclose(output.hand_pose, np.zeros(45), atol=1e-4)
    assert (output.betas.shape, output.confidence.shape) == ((10,), (21,))
    assert ((output.confidence > 0.0) & (output.confidence < 1.0)).all()
    assert np.isfinite(numbers(output)).all()
    np.testing.assert_array_equal(numbers(told(network, crop(network), cues)), numbers(output))


def test_image_and_cues_both_count_and_the_image_can_be_left_out(network, maskhand_weights):
    first = numbers(told(network, crop(network), some_cues(0)))
    assert np.abs(numbers(told(network, crop(network, 1), some_cues(0))) - first).max() > 1e-5
    assert np.abs(numbers(told(network, crop(network), some_cues(1))) - first).max() > 1e-5
    blind = load_hand_network(maskhand_weights, 2, use_image=False)
    seen = [numbers(told(blind, crop(network, seed), some_cues(0))) for seed in (0, 1)]
    np.testing.assert_array_equal(*seen)


def test_confidence_is_as_the_file_says(tmp_path):
    calibration = {'offset': 2.0, 'slope': 0.0}
    network = load_hand_network(write_maskhand(tmp_path / 'w.safetensors', calibration), 1, TORCH)
    output = told(network, crop(network), some_cues(0))
    np.testing.assert_allclose(output.confidence, 1.0 / (1.0 + np.exp(-2.0)), atol=1e-6)


def test_the_network_says_what_it_is(network, maskhand_weights):
    assert network.weights_hash == hashlib.sha256(maskhand_weights.read_bytes()).hexdigest()
    assert (network.backend, network.hand_model_hash) == ('torch', load_hand_model().sha256)


def test_threads_are_those_asked_for(maskhand_weights):
    before = torch.get_num_threads()
    try:
        load_hand_network(maskhand_weights, 1, EngineSettings('torch', threads=3))
        assert torch.get_num_threads() == 3
        load_hand_network(maskhand_weights, 1, TORCH)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ('steps', 'threads', 'told'), [(0, 0, 'steps'), (17, 0, 'steps'), (5, -1, 'threads')]
)
def test_numbers_that_cannot_be_are_refused(maskhand_weights, steps, threads, told):
    with pytest.raises(ConfigurationError, match=told):
        load_hand_network(maskhand_weights, steps, EngineSettings(threads=threads))


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / 'broken.safetensors').write_bytes(b'no weights')
    for name in ('missing.safetensors', 'broken.safetensors'):
        with pytest.raises(FileFormatError, match=name):
            load_hand_network(tmp_path / name, 1, TORCH)
    half = write_maskhand(tmp_path / 'half.safetensors', {'offset': 1.0})
    with pytest.raises(FileFormatError, match='half.*slope'):
        load_hand_network(half, 1, TORCH)
    no_number = write_maskhand(tmp_path / 'no_number.safetensors', {'offset': float('nan'), 'slope': 1.0})
    with pytest.raises(FileFormatError, match='no_number.*nan'):
        load_hand_network(no_number, 1, TORCH)


def test_missing_weights_are_told_with_the_remedies(monkeypatch, tmp_path):
    monkeypatch.setattr('hand_mesh_ros.inference.loading.MASKHAND_PATH', tmp_path / 'none.safetensors')
    with pytest.raises(ConfigurationError, match='none.safetensors is missing.*--weights.*--method fit'):
        HandMeshEstimator()


@pytest.mark.parametrize('missing', ['torch', 'timm', 'torchvision', 'safetensors'])
def test_missing_packages_are_told_with_the_remedies(missing, maskhand_weights):
    code = (
        f'import sys; sys.modules[{missing!r}] = None\n'
        'from hand_mesh_ros.errors import ConfigurationError\n'
        'from hand_mesh_ros.inference.loading import load_hand_network\n'
        'from pathlib import Path\n'
        f'try: load_hand_network(Path({str(maskhand_weights)!r}), 5)\n'
        'except ConfigurationError as error: print(error)\n'
    )
    told = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True).stdout
    # Of the other engines, too, it is said what is missing
    assert 'hand-mesh-ros[torch]' in told and missing in told and 'hand-mesh export' in told


def test_the_default_method_is_the_learned_one(maskhand_weights):
    assert METHODS[0] == 'maskhand'
    models = {'right': load_hand_model(), 'left': load_hand_model(side='left')}
    with pytest.raises(ConfigurationError, match='maskhand, mask2hand, fit'):
        make_reconstructor('magic', models)


def test_pictures_in_hands_out(maskhand_weights, tmp_path):
    clip = render_demo_clip(tmp_path / 'clip.mp4', seconds=0.2)
    camera = Camera(640, 480, 554.0, 554.0, 319.5, 239.5)
    with HandMeshEstimator(weights=maskhand_weights, streaming=True) as estimator:
        assert (estimator.method, estimator.backend) == ('maskhand', 'torch')
        assert len(estimator.weights_hash) == 64
        estimates = [estimator.estimate(frame.image, camera) for frame in read_frames(clip.video)]
    hands = [hand for estimate in estimates for hand in estimate.hands]
    assert len(hands) >= len(estimates) / 2
    for estimate in estimates:
        times = estimate.timing_ms
        assert times['network'] <= times['reconstruct'] <= times['total']
        assert (times['network'] > 0.0) == bool(estimate.hands)
    for hand in hands:
        assert hand.vertices.shape == (778, 3) and np.isfinite(hand.vertices).all()
        assert 0.1 < hand.transl[2] < 2.0 and 0.0 < hand.score < 1.0
        # Its wrist is below its fingers in the crop, and the crop is upright: the pixels agree roughly
        x0, y0, x1, y1 = hand.bbox_px
        middle = hand.keypoints_2d.mean(0)
        assert x0 < middle[0] < x1 and y0 < middle[1] < y1
