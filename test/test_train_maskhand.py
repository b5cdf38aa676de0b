"""Training of MaskHand and of its lifter: that runs resume, learn, and spread over processes."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import ALONE, LOOP, assert_resumes, rows_of, small_maskhand_training

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.evaluation.metrics import pa_mpjpe
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.networks.maskhand import load_maskhand
from hand_mesh_ros.networks.prediction import camera_translation
from hand_mesh_ros.training.configuration import load_configuration
from hand_mesh_ros.training.hand_errors import aligned_errors
from hand_mesh_ros.training.lifter import (
    LifterObjective,
    LifterTrainingConfiguration,
    load_lifter,
    train_lifter,
)
from hand_mesh_ros.training.maskhand import (
    CorruptionConfiguration,
    MaskHandObjective,
    MaskHandTrainingConfiguration,
    build_network,
    train_maskhand,
)
from hand_mesh_ros.training.samples import SampleMaker, batches

ROOT = Path(__file__).resolve().parent.parent
MODEL = load_hand_model()

LIFTER = LifterTrainingConfiguration(width=24, depth=1, loop=LOOP, workers=0, held_out_samples=8)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    return small_maskhand_training(tmp_path_factory.mktemp('parts'))


def test_a_killed_lifter_resumes(tmp_path, monkeypatch):
    assert_resumes(train_lifter, LifterObjective, LIFTER, tmp_path, monkeypatch)
    assert load_lifter(tmp_path / 'whole' / 'best.safetensors').entry.out_features == 24


def test_a_killed_maskhand_resumes(small, tmp_path, monkeypatch):
    assert_resumes(train_maskhand, MaskHandObjective, small, tmp_path, monkeypatch)
    network, description = load_maskhand(tmp_path / 'whole' / 'best.safetensors')
    assert network.configuration == small.network
    assert set(description['figures']) >= {'aligned_mm', 'aligned_mm_one_step', 'aligned_mm_no_image'}
    again = load_configuration(tmp_path / 'whole' / 'configuration.yaml', MaskHandTrainingConfiguration)
    assert again == small


def test_the_lifter_learns_to_lift(tmp_path):
    loop = replace(LOOP, steps=120, batch_size=128, learning_rate=3e-3, evaluate_every=60, log_every=60)
    configuration = replace(LIFTER, width=64, loop=loop, held_out_samples=200)
    assert train_lifter(configuration, MODEL, tmp_path, ALONE, resume=False)
    first, last = (float(row['aligned_mm']) for row in rows_of(tmp_path / 'evaluation.csv'))
    assert last < first < 27 and last < 24  # an untrained one is 33 mm off


def test_maskhand_learns_on_a_batch(small, tmp_path):
    objective = MaskHandObjective(small, MODEL, ALONE.device, tmp_path)
    optimizer = torch.optim.Adam([p for p in objective.network.parameters() if p.requires_grad], 3e-3)
    batch = next(objective.batches(0, ALONE))
    before = {name: tensor.clone() for name, tensor in objective.network.state_dict().items()}
    losses = []
    for _ in range(25):
        torch.manual_seed(0)
        terms = objective.losses(objective.network.train(), batch)
        optimizer.zero_grad()
        terms['loss'].backward()
        optimizer.step()
        losses.append({name: value.item() for name, value in terms.items()})
    for name in ('loss', 'projection', 'landmarks', 'betas', 'joints'):
        assert losses[-1][name] < losses[0][name], name
    after = objective.network.state_dict()
    still = ('vq_mano.', 'lifter.', 'encoder.image_encoder.backbone.')
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) or not name.startswith(still), name


def test_samples_agree_with_themselves():
    """Crop, camera, rotations and keypoints of a batch are of the same hands."""
    samples = SampleMaker(MODEL, 3, 64, residuals=False, pictures=True)[np.arange(6)]
    layer = HandLayer(MODEL)
    posed = layer.from_rotations(samples.rotations, samples.betas, torch.zeros(6, 3)).keypoints
    keypoints = posed - posed[:, :1]
    torch.testing.assert_close(keypoints, samples.keypoints, atol=2e-5, rtol=0)
    points = samples.keypoints.clone()
    root = samples.landmarks[:, 0, :2] * (samples.root_depth_m / samples.focal_share)[:, None]
    points += torch.cat([root, samples.root_depth_m[:, None]], dim=1)[:, None]
    seen = points[..., :2] / points[..., 2:] * samples.focal_share[:, None, None]
    torch.testing.assert_close(seen, samples.landmarks[..., :2], atol=1e-4, rtol=0)
    # A camera that says where the crop shows them gives their place back, but for perspective
    spread = (seen - seen.mean(dim=1, keepdim=True)).square().sum(dim=-1).mean(dim=1).sqrt()
    camera = torch.cat([(0.42 / spread).log()[:, None], seen.mean(dim=1)], dim=1)
    found = camera_translation(camera, samples.keypoints, samples.focal_share)
    assert ((found[:, 2] / points[:, 0, 2] - 1).abs() < 0.15).all()


def test_hands_seen_by_a_landmark_network_count_less(small, tmp_path):
    """In the losses of the pose; what is learned of the image and of confidence is learned from all hands."""
    nothing_wrong = CorruptionConfiguration(all_masked=1.0, wrong_tokens=0.0, no_image=0.0, no_cues=0.0)
    objective = MaskHandObjective(
        replace(small, corruption=nothing_wrong, looked_weight=0.2), MODEL, ALONE.device, tmp_path
    )
    batch = next(objective.batches(0, ALONE))

    @torch.no_grad()
    def terms(samples):
        losses = objective.losses(objective.network, samples)
        return {name: value.item() for name, value in losses.items()}

    each = [terms(batch.part(i, i + 1)) for i in range(4)]
    looked = [terms(batch.part(i, i + 1)._replace(in_the_loop=torch.tensor([True]))) for i in range(4)]
    for hand, other in zip(each, looked, strict=True):  # alone in its batch, it is all there is to learn from
        assert other == pytest.approx(hand, rel=1e-5)
    every, some = torch.ones(4), torch.tensor([1.0, 0.2, 1.0, 0.2])
    for weights in (every, some):
        found = terms(batch._replace(in_the_loop=weights < 1))
        for name in ('tokens', 'pose', 'lifted', 'joints', 'vertices', 'projection', 'landmarks', 'betas'):
            values = torch.tensor([hand[name] for hand in each])
            wanted = (weights * values).sum() / weights.sum()
            assert found[name] == pytest.approx(wanted.item(), rel=1e-4), name
        wanted = np.mean([hand['confidence'] for hand in each])
        assert found['confidence'] == pytest.approx(wanted, rel=1e-4)


def test_aligned_errors_are_those_of_the_evaluation():
    points, truth = torch.randn(5, 21, 3), torch.randn(5, 21, 3)
    truth[0] = 3 * points[0].flip(1) + 1
    points[1] = truth[1] * torch.tensor([1.0, 1.0, -1.0])  # a mirrored hand is no hand turned
    expected = [pa_mpjpe(p.double().numpy(), t.double().numpy()) for p, t in zip(points, truth, strict=True)]
    np.testing.assert_allclose(aligned_errors(points, truth).mean(dim=1), expected, rtol=1e-5)
    assert expected[1] > 0.1


def test_another_process_makes_the_same_batches(small):
    maker = SampleMaker(MODEL, 1, 64, residuals=True, pictures=True)
    here, there = (batches(maker, 5, 2, ALONE, workers) for workers in (0, 1))
    for _ in range(2):
        one, other = next(here), next(there)
        assert torch.equal(one.images, other.images)
        assert all(torch.equal(a, b) for a, b in zip(one.cues, other.cues, strict=True))


def test_the_backbone_begins_with_what_it_learned_on_photographs(small):
    backbone = build_network(small).encoder.image_encoder.backbone
    ours = build_network(replace(small, pretrained=False, frozen_stages=0)).encoder.image_encoder.backbone
    weight, untrained = (net.blocks[5][0].conv_dw.weight for net in (backbone, ours))
    assert not torch.equal(weight, untrained)
    assert not any(p.requires_grad for p in backbone.parameters())
    # Normalisation layers whose statistics are of these very weights leave about unit deviations behind
    activations = []
    hook = backbone.blocks[3][0].bn1.register_forward_hook(lambda *call: activations.append(call[2]))
    noise = torch.nn.functional.interpolate(torch.randn(8, 3, 16, 16), size=128, mode='bilinear')
    backbone.eval()(noise)
    hook.remove()
    assert 0.3 < activations[0].std() < 3


def test_a_run_goes_on_from_weights(small, tmp_path):
    assert train_maskhand(small, MODEL, tmp_path / 'first', ALONE, resume=False)
    path = tmp_path / 'first' / 'best.safetensors'
    begun, _ = load_maskhand(path)
    network = build_network(replace(small, begin_with=str(path)))
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), begun.state_dict().values(), strict=True)
    )
    assert (
        network.decoder.head.weight.requires_grad and not network.vq_mano.decoder.entry.weight.requires_grad
    )
    other = replace(small.network, width=32)
    with pytest.raises(ConfigurationError, match='begin_with'):
        build_network(replace(small, begin_with=str(path), network=other))


def test_two_processes_train_as_one_with_the_double_batch(small, tmp_path):
    """With nothing left to chance but the samples, which are the same."""
    fixed = CorruptionConfiguration(all_masked=1.0, wrong_tokens=0.0, no_image=0.0, no_cues=0.0)
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    train = ['-m', 'hand_mesh_ros.cli.main', 'train', 'maskhand', '--out']
    for name, batch, launcher in (
        ('two', 4, ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']),
        ('one', 8, []),
    ):
        configuration = replace(small, corruption=fixed, loop=replace(LOOP, batch_size=batch))
        path = tmp_path / f'{name}.yaml'
        path.write_text(json.dumps(asdict(configuration)))
        done = subprocess.run(
            [sys.executable, *launcher, *train, str(tmp_path / name), '--config', str(path)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
    two, one = (rows_of(tmp_path / name / 'training.csv') for name in ('two', 'one'))
    assert len(two) == len(one) == LOOP.steps
    for row, other in zip(two, one, strict=True):
        for term in ('loss', 'tokens', 'pose', 'joints', 'projection', 'landmarks'):
            assert float(row[term]) == pytest.approx(float(other[term]), rel=2e-2), term


@pytest.mark.parametrize(
    ('name', 'kind'),
    [('lifter', LifterTrainingConfiguration), ('maskhand', MaskHandTrainingConfiguration)],
)
def test_shipped_configurations_are_valid(name, kind):
    paths = sorted((ROOT / 'config' / 'training').glob(f'{name}*.yaml'))
    assert paths and all(load_configuration(path, kind) for path in paths)
