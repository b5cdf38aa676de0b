"""Adapting Mask2Hand without labels: what its loss says, that it learns, and the command."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mask2hand_file import write_mask2hand
from training_runs import ALONE, LOOP, assert_resumes, rows_of

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.cli.main import main
from hand_mesh_ros.datasets.masks import SyntheticMasks
from hand_mesh_ros.datasets.pose_sampler import PoseSampler
from hand_mesh_ros.depth_files import write_mask
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import rotation_matrices
from hand_mesh_ros.networks.mask2hand import load_mask2hand
from hand_mesh_ros.networks.weights import load_weights, save_weights
from hand_mesh_ros.rendering.zbuffer import rasterise
from hand_mesh_ros.training.adaptation import (
    AdaptationConfiguration,
    AdaptationLossWeights,
    AdaptationObjective,
    MaskCrops,
    adapt_mask2hand,
)
from hand_mesh_ros.training.adaptation_experiment import Experiment, run_experiment
from hand_mesh_ros.training.configuration import load_configuration
from hand_mesh_ros.training.mask_overlap import overlaps
from hand_mesh_ros.training.silhouette_terms import PosePrior, SilhouetteTerms

ROOT = Path(__file__).resolve().parent.parent
MODEL = load_hand_model()
SIZE = 64
SMALL = AdaptationConfiguration(loop=LOOP, labelled=4, workers=0, held_out_labelled=4)


@pytest.fixture(scope='module')
def fields() -> dict[str, np.ndarray]:
    return SyntheticMasks(seed=11, size=SIZE, model=MODEL).batch(np.arange(24))


@pytest.fixture(scope='module')
def crops(fields) -> MaskCrops:
    return MaskCrops(torch.from_numpy(fields['mask'])[:, None], torch.from_numpy(fields['half_side']))


def true_vertices(fields, count):
    names = ('global_orient', 'hand_pose', 'betas', 'transl')
    hands = [MODEL.posed(*(fields[name][row].astype(float) for name in names)) for row in range(count)]
    return torch.from_numpy(np.stack([hand.vertices for hand in hands])).float()


def hard_mask(vertices, faces, half_side, size=SIZE):
    middle, focal = (size - 1) / 2, half_side * size / 2
    return rasterise(vertices, faces, Camera(size, size, focal, focal, middle, middle)).mask


# What the loss says


def square(middle, half):
    """A square facing the camera at 1 m: vertices (4,3), for half sides of 1."""
    x, y = middle
    corners = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    return np.array([(*corner, 1.0) for corner in corners])


SQUARE_FACES = np.array([[0, 1, 2], [0, 2, 3]])


@pytest.mark.parametrize('shift', [0.0, 0.25, 0.5, 1.5])
def test_overlap_is_that_of_the_shapes(shift):
    mask = hard_mask(square((-0.25, 0.0), 0.5), SQUARE_FACES, 1.0)
    moved = square((-0.25 + shift, 0.0), 0.5)
    common = max(0.0, 1 - shift) * 1.0
    terms = SilhouetteTerms(SQUARE_FACES, SIZE)(
        torch.from_numpy(moved)[None].float(), torch.from_numpy(mask)[None, None].float(), torch.ones(1)
    )
    # What leaves the crop is not seen
    inside = min(1.0, 1 - (-0.25 + shift - 0.5)) * 1.0
    assert terms['overlap'].item() == pytest.approx(1 - common / (1 + inside - common), abs=0.03)


def test_overlap_is_that_of_drawn_hands(fields, crops):
    """At half the resolution, at which a pixel of the mask may be grey; the evaluation counts whole ones."""
    vertices = true_vertices(fields, 6)
    vertices[3:] += torch.tensor([0.01, 0.02, 0.0])
    masks, half_sides = crops.masks[:6], crops.half_sides[:6]
    counted = overlaps(vertices, MODEL.faces, masks, half_sides)
    terms = SilhouetteTerms(MODEL.faces, SIZE)(vertices, masks.float() / 255, half_sides)
    for row in range(6):
        points, half_side = vertices[row].double().numpy(), float(half_sides[row])
        seen, wanted = hard_mask(points, MODEL.faces, half_side), masks[row, 0].numpy() > 127
        assert counted[row].item() == pytest.approx((seen & wanted).sum() / (seen | wanted).sum())
        coarse = hard_mask(points, MODEL.faces, half_side, SIZE // 2)
        grey = masks[row, 0].numpy().reshape(SIZE // 2, 2, SIZE // 2, 2).mean((1, 3)) / 255
        common = (coarse * grey).sum()
        share = common / (coarse.sum() + grey.sum() - common)
        assert 1 - terms['overlap'][row].item() == pytest.approx(share, abs=0.03)
    assert (counted[:3] > 0.93).all() and (counted[3:] < 0.93).all()


def test_the_contour_is_that_of_distances_between_points(fields, crops):
    terms = SilhouetteTerms(MODEL.faces, SIZE)
    true, masks, half_sides = true_vertices(fields, 6), crops.masks[:6].float() / 255, crops.half_sides[:6]
    found = []
    for shift in (0.0, 0.1, 0.3, 0.9):
        moved = true + true[..., 2:] * torch.tensor([shift, 0.0, 0.0]) / half_sides[:, None, None]
        contour = terms(moved, masks, half_sides)['contour']
        for row in range(6):
            seen = moved[row, :, :2] / moved[row, :, 2:] * half_sides[row]
            assert contour[row].item() == pytest.approx(
                brute_contour(seen.numpy(), masks[row, 0].numpy() > 0.5), abs=0.03, rel=0.03
            )
        found.append(contour)
    assert found[0].max() < 0.01
    for nearer, farther in pairwise(found):
        assert (farther > nearer).all()


def brute_contour(points, mask):
    """Mean distance of points (N,2), -1..1, from a mask's pixels, and of those from points beyond 0.04."""
    rows, columns = np.nonzero(mask)
    pixels = (np.column_stack([columns, rows]) + 0.5) * 2 / SIZE - 1
    distances = np.linalg.norm(points[:, None] - pixels, axis=2)
    outside = np.where(np.abs(points[:, None] - pixels).max(2).min(1) < 1 / SIZE, 0.0, distances.min(1))
    return outside.mean() + np.maximum(distances.min(0) - 0.04, 0).mean()


def test_limits_are_zero_inside_and_right_outside():
    prior, (lower, upper) = PosePrior(MODEL), MODEL.pose_limits.T
    poses = np.stack([(lower + upper) / 2, lower, upper, upper, lower])
    poses[3, 7] += 0.2
    poses[4, [7, 30]] -= 0.1
    rotations = rotation_matrices(torch.from_numpy(poses).float().unflatten(1, (15, 3)))
    found = prior(torch.cat([torch.eye(3).expand(5, 1, 3, 3), rotations], dim=1))['limits']
    expected = torch.tensor([0.0, 0.0, 0.0, 0.2 / 45, 2 * 0.1 / 45])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_prior_is_the_squared_distance_in_standard_deviations():
    def numbers(poses):
        rotations = rotation_matrices(torch.from_numpy(poses).unflatten(1, (15, 3))).numpy()
        # Two columns of each joint's rotation
        return rotations, rotations[..., :2]

    known = PoseSampler(MODEL)(np.arange(4096)).hand_pose
    _, columns = numbers(known)
    flat = columns.reshape(len(known), -1)
    mean = flat.mean(0)
    covariance = np.cov(flat.T, bias=True) + 1e-3 * np.eye(90)
    # Any order of the numbers gives the same distance
    poses = np.concatenate([PoseSampler(MODEL, seed=9)(np.arange(20)).hand_pose, np.full((1, 45), 1.0)])
    rotations, columns = numbers(poses)
    off = columns.reshape(len(poses), -1) - mean
    expected = np.einsum('ni,ij,nj->n', off, np.linalg.inv(covariance), off) / 90
    with_wrist = np.concatenate([np.broadcast_to(np.eye(3), (len(poses), 1, 3, 3)), rotations], axis=1)
    found = PosePrior(MODEL)(torch.from_numpy(with_wrist).float())['prior']
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    assert found[:-1].mean() < 2 < found[-1]


# What is learned


@pytest.fixture
def objective(crops, mask2hand_weights) -> AdaptationObjective:
    return AdaptationObjective(SMALL, crops, MODEL, ALONE.device, mask2hand_weights)


@pytest.mark.parametrize('term', list(asdict(AdaptationLossWeights())))
def test_each_term_moves_the_network(crops, mask2hand_weights, term):
    alone = AdaptationLossWeights(**{name: float(name == term) for name in asdict(SMALL.loss)})
    objective = AdaptationObjective(replace(SMALL, loss=alone), crops, MODEL, ALONE.device, mask2hand_weights)
    with torch.no_grad():  # at which the network would only repeat itself, inside all limits
        objective.network.hands.bias.add_(0.2 * torch.randn(objective.network.hands.bias.shape))
    losses = objective.losses(objective.network.train(), next(objective.batches(0, ALONE)))
    assert losses['loss'].item() == pytest.approx(losses[term].item()) and losses['loss'] > 0
    losses['loss'].backward()
    for name in ('hands.weight', 'hands.bias'):
        gradient = dict(objective.network.named_parameters())[name].grad
        assert gradient.isfinite().all() and gradient.abs().max() > 0, name


def test_what_the_network_said_before_is_no_difference_at_first(objective):
    batch = next(objective.batches(0, ALONE))
    assert objective.losses(objective.network.eval(), batch)['before'].item() == pytest.approx(0, abs=1e-6)


def test_batches_depend_on_their_step_alone(objective):
    from_start, later = objective.batches(0, ALONE), objective.batches(2, ALONE)
    next(from_start), next(from_start)
    for _ in range(2):
        one, other = next(from_start), next(later)
        assert torch.equal(one.crops.masks, other.crops.masks)
        assert torch.equal(one.labelled.masks, other.labelled.masks)


def test_a_killed_adaptation_resumes(crops, mask2hand_weights, tmp_path, monkeypatch):
    def adapt(configuration, model, folder, group, resume):
        objective = AdaptationObjective(configuration, crops, model, group.device, mask2hand_weights)
        return adapt_mask2hand(objective, folder, group, resume)

    assert_resumes(adapt, AdaptationObjective, SMALL, tmp_path, monkeypatch)
    again = load_configuration(tmp_path / 'whole' / 'configuration.yaml', AdaptationConfiguration)
    assert again == SMALL
    tensors, description = load_weights(tmp_path / 'whole' / 'best.safetensors')
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16, torch.int64}
    assert description['adapted']['masks'] == 24
    # Of other masks it is another adaptation
    fewer = MaskCrops(*(t[:20] for t in crops))
    objective = AdaptationObjective(SMALL, fewer, MODEL, ALONE.device, mask2hand_weights)
    with pytest.raises(ConfigurationError, match='another folder'):
        adapt_mask2hand(objective, tmp_path / 'whole', ALONE, resume=True)


def test_adapting_raises_the_overlap_of_masks_not_learned_from(crops, tmp_path):
    weights = write_mask2hand(tmp_path / 'one.safetensors', hypotheses=1)
    loop = replace(LOOP, steps=30, batch_size=8, learning_rate=5e-3, evaluate_every=15, log_every=15)
    configuration = replace(SMALL, loop=loop, labelled=0, loss=replace(SMALL.loss, before=0.0))
    objective = AdaptationObjective(configuration, crops, MODEL, ALONE.device, weights)
    assert objective.held_out == 5
    before = objective.judged(weights)
    assert adapt_mask2hand(objective, tmp_path / 'run', ALONE)
    after = objective.judged(tmp_path / 'run' / 'best.safetensors')
    assert set(before) == {'overlap', 'missed'} and before['missed'] == pytest.approx(1 - before['overlap'])
    assert after['overlap'] > before['overlap'] + 0.05
    best = max(float(row['overlap']) for row in rows_of(tmp_path / 'run' / 'evaluation.csv'))
    assert after['overlap'] == pytest.approx(best, abs=0.01)  # half precision changes nothing
    losses = [float(row['loss']) for row in rows_of(tmp_path / 'run' / 'training.csv')]
    assert losses[-1] < losses[0]


def test_the_calibration_of_confidence_is_kept(crops, mask2hand_weights, tmp_path):
    network, description = load_mask2hand(mask2hand_weights)
    path = tmp_path / 'calibrated.safetensors'
    save_weights(path, network, description | {'calibration': {'offset': 0.5, 'slope': 1.5}})
    configuration = replace(SMALL, loop=replace(LOOP, steps=1), labelled=0)
    objective = AdaptationObjective(configuration, crops, MODEL, ALONE.device, path)
    assert adapt_mask2hand(objective, tmp_path / 'run', ALONE)
    _, adapted = load_mask2hand(tmp_path / 'run' / 'best.safetensors')
    assert adapted['calibration'] == {'offset': 0.5, 'slope': 1.5}
    assert adapted['hand_model'] == {'name': MODEL.name, 'sha256': MODEL.sha256}


def test_masks_that_cannot_be_learned_from_are_refused(crops, mask2hand_weights):
    one = MaskCrops(*(t[:1] for t in crops))
    with pytest.raises(ConfigurationError, match='two'):
        AdaptationObjective(SMALL, one, MODEL, ALONE.device, mask2hand_weights)
    small = crops._replace(masks=crops.masks[..., :32, :32])
    with pytest.raises(ConfigurationError, match='side 32'):
        AdaptationObjective(SMALL, small, MODEL, ALONE.device, mask2hand_weights)


def test_the_shipped_configuration_is_the_default():
    path = ROOT / 'config' / 'training' / 'adapt.yaml'
    assert load_configuration(path, AdaptationConfiguration) == AdaptationConfiguration()
    words = path.read_text().split()
    names = [*asdict(AdaptationConfiguration()), *asdict(AdaptationConfiguration().loop)]
    names += asdict(AdaptationLossWeights())
    assert all(f'{name}:' in words for name in names)  # none is left to be guessed


@pytest.mark.parametrize('changes', [{'labelled': -1}, {'workers': -1}, {'held_out_labelled': 0}])
def test_wrong_configurations_are_refused(changes):
    (name,) = changes
    with pytest.raises(ConfigurationError, match=name):
        replace(SMALL, **changes)
    with pytest.raises(ConfigurationError, match='overlap'):
        AdaptationLossWeights(overlap=-1.0)


# The command


@pytest.fixture
def command(tmp_path, mask2hand_weights):
    """A folder of six masks and what adapts the small network to them, but for its output."""
    folder = tmp_path / 'masks'
    folder.mkdir()
    cameras = {}
    drawn = SyntheticMasks(seed=12, worn_share=0.5, model=MODEL).drawn(np.arange(6))
    for number, mask in enumerate(drawn):
        write_mask(folder / f'{number}.png', mask.mask > 127)
        camera = mask.camera
        cameras[f'{number}.png'] = [camera.fx, camera.fy, camera.cx, camera.cy]
    (tmp_path / 'cameras.json').write_text(json.dumps(cameras))
    (tmp_path / 'small.yaml').write_text(json.dumps(asdict(SMALL)))  # which is YAML, too
    return [
        *('adapt', str(folder), '--weights', str(mask2hand_weights)),
        *('--config', str(tmp_path / 'small.yaml')),
    ]


def test_the_command_adapts_resumes_and_says_what_for(command, tmp_path, capsys):
    cameras = ['--cameras', str(tmp_path / 'cameras.json')]
    out = tmp_path / 'adapted'
    assert main([*command, *cameras, '--out', str(out), '--steps', '2']) == 0
    said = capsys.readouterr().out
    assert '6 hands in 6 masks' in said and 'guessed' not in said
    assert 'the 1 masks that were held out' in said
    assert f'hand-mesh run --method mask2hand --weights {out / "best.safetensors"}' in said
    load_mask2hand(out / 'best.safetensors')
    assert main([*command, *cameras, '--out', str(out)]) == 2  # without --resume
    assert '--resume' in capsys.readouterr().err
    assert main([*command, *cameras, '--out', str(out), '--resume']) == 0
    assert rows_of(out / 'training.csv')[-1]['step'] == '4'


def test_the_command_tells_of_masks_that_it_cannot_use(command, tmp_path, capsys):
    folder = tmp_path / 'masks'
    (folder / '0.png').write_bytes(b'no picture')
    cv2.imwrite(str(folder / '1.png'), np.zeros((50, 50), np.uint8))
    out = ['--out', str(tmp_path / 'adapted'), '--side', 'left', '--steps', '1']
    assert main([*command, *out]) == 0
    output = capsys.readouterr()
    assert '4 hands in 5 masks, 1 of them without a hand; 1 could not be read' in output.out
    assert '5 masks without intrinsics' in output.out and '--side left' in output.out
    assert '0.png' in output.err and '1.png: nothing in it looks like a hand' in output.err


def test_the_command_refuses_what_cannot_work(command, tmp_path, capsys):
    out = ['--out', str(tmp_path / 'adapted')]
    (tmp_path / 'empty').mkdir()
    for arguments, complaint in (
        ([command[0], str(tmp_path / 'empty'), *command[2:], *out], 'no image'),
        ([command[0], str(tmp_path / 'none'), *command[2:], *out], 'none'),
        ([*command, *out, '--topic', '/hand_mask'], '--topic'),
        ([*command, *out, '--fov', '500'], 'field of view'),
        ([*command, *out, '--weights', str(tmp_path / 'small.yaml')], 'small.yaml'),
        ([*command, *out, '--config', str(tmp_path / 'none.yaml')], 'none.yaml'),
    ):
        assert main(arguments) == 2
        assert complaint in capsys.readouterr().err
    for number in range(6):
        cv2.imwrite(str(tmp_path / 'masks' / f'{number}.png'), np.zeros((50, 50), np.uint8))
    assert main([*command, *out]) == 2
    assert '0 masks with a hand' in capsys.readouterr().err
    assert not (tmp_path / 'adapted').exists()


def test_the_experiment_compares_before_after_and_without_silhouettes(mask2hand_weights, tmp_path):
    experiment = Experiment(
        mask2hand_weights, steps=1, masks=8, judging_masks=6, configuration=replace(SMALL, labelled=0)
    )
    rows = run_experiment(experiment, [0, 1], tmp_path)
    names = ('before', 'adapted', 'without silhouettes')
    assert [(row['seed'], row['weights']) for row in rows] == [
        (seed, name) for seed in ('0', '1', 'mean') for name in names
    ]
    measured = [name for name in rows[0] if name not in ('seed', 'weights')]
    assert len(measured) == 6
    for name in measured:
        assert rows[6][name] == pytest.approx((rows[0][name] + rows[3][name]) / 2)
    assert all(0 < row['IoU, shifted'] < 1 for row in rows)
    assert rows[0]['IoU, shifted'] != rows[0]['IoU, original']
    again = run_experiment(experiment, [0], tmp_path)
    assert again[:3] == rows[:3]
