"""Mask2Hand's network: what it says of masks, where its hands are, and its files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.inference.weights_file import NetworkFile
from hand_mesh_ros.networks.mask2hand import (
    Hypotheses,
    Mask2Hand,
    Mask2HandConfiguration,
    describe,
    load_mask2hand,
    posed_hands,
    wrist_position,
)
from hand_mesh_ros.networks.weights import save_weights

MODEL = load_hand_model()
SMALL = Mask2HandConfiguration(
    image_size=64, channels=(8, 12, 16, 24), map_width=16, width=32, blocks=1, hypotheses=3
)
HALF_SIDES = torch.tensor([3.0, 6.0, 9.0, 12.0])


@pytest.fixture
def network() -> Mask2Hand:
    torch.manual_seed(0)
    return Mask2Hand(SMALL).eval()


@pytest.fixture
def hands(network) -> Hypotheses:
    masks = (torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    with torch.no_grad():
        return network(masks, HALF_SIDES)


def test_what_is_said_of_masks(hands):
    shapes = {
        'rotations': (4, 3, 16, 3, 3),
        'betas': (4, 3, 10),
        'place': (4, 3, 3),
        'scores': (4, 3),
        'log_variance': (4, 3, 21),
        'landmarks': (4, 21, 3),
    }
    for name, shape in shapes.items():
        values = getattr(hands, name)
        assert values.shape == shape, name
        assert values.isfinite().all(), name
    turned = hands.rotations @ hands.rotations.transpose(-1, -2)
    torch.testing.assert_close(turned, torch.eye(3).expand_as(turned), atol=1e-5, rtol=0)
    assert hands.landmarks[..., :2].abs().max() <= 1
    # Hypotheses differ from the start, or none would ever be better than the others
    assert (hands.rotations[:, 0] - hands.rotations[:, 1]).abs().max() > 1e-3


def test_a_mask_is_seen_alone_and_with_its_camera(network, hands):
    masks = (torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    with torch.no_grad():
        alone, nearer = network(masks[2:3], HALF_SIDES[2:3]), network(masks[2:3], HALF_SIDES[:1])
    torch.testing.assert_close(alone.place, hands.place[2:3], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(nearer.place, alone.place, atol=1e-6)


def test_choosing_one_hypothesis_each(hands):
    which = torch.tensor([2, 0, 1, 2])
    chosen = hands.chosen(which)
    for row, number in enumerate(which):
        for name in ('rotations', 'betas', 'place', 'scores', 'log_variance'):
            assert torch.equal(getattr(chosen, name)[row, 0], getattr(hands, name)[row, number]), name
    assert torch.equal(chosen.landmarks, hands.landmarks)


def test_hands_are_where_the_network_says(hands):
    posed = posed_hands(HandLayer(MODEL), hands, HALF_SIDES)
    assert posed.keypoints.shape == (12, 21, 3)
    wrists = posed.keypoints[:, 0].unflatten(0, (4, 3))
    torch.testing.assert_close(wrists, wrist_position(hands.place, HALF_SIDES[:, None]), atol=1e-6, rtol=1e-5)
    # Its x and y are those of the crop, -1..1
    seen = wrists[..., :2] / wrists[..., 2:] * HALF_SIDES[:, None, None]
    torch.testing.assert_close(seen, hands.place[..., :2], atol=1e-5, rtol=1e-4)
    # And the hand is posed as it says
    layer = HandLayer(MODEL)
    rotations, betas = hands.rotations[1, 2:], hands.betas[1, 2:]
    alone = layer.from_rotations(rotations, betas, torch.zeros(1, 3)).vertices
    moved = posed.vertices[5] - alone[0]
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-5, rtol=0)


def test_a_hand_of_any_place_is_in_front_of_the_camera():
    place = torch.tensor([[0.0, 0.0, -50.0], [5.0, -5.0, 50.0]])
    wrists = wrist_position(place, torch.tensor([2.0, 20.0]))
    assert wrists.isfinite().all() and (wrists[:, 2] > 0).all()


def test_gradients_reach_what_the_hands_depend_on(network):
    network.train()
    hands = network((torch.rand(4, 1, 64, 64) > 0.5).float(), HALF_SIDES)
    posed = posed_hands(HandLayer(MODEL), hands, HALF_SIDES)
    (posed.vertices.square().mean() + hands.scores.square().mean()).backward()
    for name in ('backbone.conv1.weight', 'keypoint_maps.weight', 'entry.weight', 'hands.weight'):
        gradient = dict(network.named_parameters())[name].grad
        assert gradient is not None and gradient.abs().max() > 0, name


def test_the_shipped_size_is_small():
    network = Mask2Hand(Mask2HandConfiguration())
    assert sum(2 * tensor.numel() for tensor in network.state_dict().values()) < 25e6


@pytest.mark.parametrize(
    'changes',
    [
        {'image_size': 80},
        {'image_size': 0},
        {'channels': (8, 8, 8)},
        {'map_width': 7},
        {'width': 0},
        {'hypotheses': 0},
    ],
)
def test_sizes_that_make_no_network_are_refused(changes):
    (name,) = changes
    with pytest.raises(ConfigurationError, match=name):
        replace(SMALL, **changes)


# Files


@pytest.fixture
def file(network, tmp_path):
    path = tmp_path / 'weights.safetensors'
    save_weights(path, network, describe(network, {'name': MODEL.name, 'sha256': MODEL.sha256}))
    return path


def test_a_file_gives_the_network_back(network, file):
    loaded, description = load_mask2hand(file)
    assert loaded.configuration == SMALL
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert description['hand_model'] == {'name': MODEL.name, 'sha256': MODEL.sha256}
    assert description['calibration'] == {'offset': 0.0, 'slope': 1.0}


def test_a_file_of_half_precision_gives_a_network_of_single(network, file):
    save_weights(file, network.half(), describe(network, {}))
    loaded, _ = load_mask2hand(file)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def rewritten(path, change):
    """Write the file again with its description changed."""
    with safe_open(path, 'pt') as opened:
        description = json.loads(opened.metadata()['description'])
    change(description)
    save_file(load_file(path), path, metadata={'description': json.dumps(description)})


@pytest.mark.parametrize(
    'change',
    [
        lambda d: d.update(network='maskhand'),
        lambda d: d.pop('network'),
        lambda d: d.pop('configuration'),
        lambda d: d['configuration'].update(width=48),
        lambda d: d['configuration'].update(width='wide'),
        lambda d: d['configuration'].update(depth=3),
        lambda d: d['configuration'].update(image_size=65),
        lambda d: d['configuration'].update(channels=8),
    ],
)
def test_files_of_other_networks_are_named(file, change):
    rewritten(file, change)
    with pytest.raises(FileFormatError, match='weights.safetensors'):
        load_mask2hand(file)


def test_damaged_and_missing_files_are_named(file, tmp_path):
    content = file.read_bytes()
    for damaged in (b'', content[: len(content) // 2], b'\0' * 100, b'{}'):
        file.write_bytes(damaged)
        with pytest.raises(FileFormatError, match='weights.safetensors'):
            load_mask2hand(file)
    with pytest.raises(FileFormatError, match='none.safetensors'):
        load_mask2hand(tmp_path / 'none.safetensors')


@pytest.mark.parametrize(
    'sizes',
    [{'blocks': 2**40}, {'width': 60_000}, {'channels': [20_000] * 4}, {'image_size': 2**20}],
)
def test_a_description_that_asks_for_a_huge_network_is_refused_before_it_is_built(file, sizes):
    rewritten(file, lambda description: description['configuration'].update(sizes))
    with pytest.raises(FileFormatError, match='weights.safetensors'):
        load_mask2hand(file)


def test_descriptions_that_no_json_reader_finishes_and_sizes_that_are_none_are_named(file):
    save_file(load_file(file), file, metadata={'description': '[' * 100_000})
    with pytest.raises(FileFormatError, match='weights.safetensors'):
        load_mask2hand(file)
    for size in (float('inf'), 10**9, 0):
        with pytest.raises(FileFormatError, match='image_size|infinity'):
            NetworkFile.described(
                file, {'configuration': {'image_size': size}, 'hand_model': {'sha256': 'a'}}
            )
