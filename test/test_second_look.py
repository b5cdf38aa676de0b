"""The second look at a crop: what cues and image say together, and the network that reads hands itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_maskhand import (
    CODES,
    SMALL,
    TOKENS,
    ContextOf,
    all_seen,
    random_cues,
    rubbish_behind,
    small_network,
    tensors_of,
)
from torch import nn
from training_runs import ALONE, small_maskhand_training

from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.networks.configuration import MaskHandConfiguration
from hand_mesh_ros.networks.hand_backbone import HandLook
from hand_mesh_ros.networks.maskhand import MaskHand, load_maskhand
from hand_mesh_ros.networks.prediction import predict
from hand_mesh_ros.networks.second_look import SecondLook
from hand_mesh_ros.training.maskhand import build_network, train_maskhand

#: The default's backbone, and with it its crops; all else is small.
READING = MaskHandConfiguration(
    width=SMALL.width,
    heads=SMALL.heads,
    synthesizer_blocks=SMALL.synthesizer_blocks,
    lifters=SMALL.lifters,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope='module')
def network() -> MaskHand:
    return small_network(READING)


def _look(hands: int) -> HandLook:
    return HandLook(
        features=torch.zeros(hands, 1152),
        keypoints=torch.rand(hands, 21, 2) * 2 - 1,
        relative_depth=torch.randn(hands, 21) * 0.2,
        world=torch.randn(hands, 21, 3),
        presence=torch.randn(hands),
        handedness=torch.randn(hands),
    )


def _learned() -> SecondLook:
    """One that weighs keypoints and hands differently, unlike as it is built."""
    second_look = SecondLook()
    last = second_look.all[-1]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, std=0.5)
    nn.init.normal_(last.bias)
    return second_look


# The mean of both


def test_it_begins_with_the_mean_of_both() -> None:
    cues, look = random_cues(2), _look(2)
    merged = SecondLook()(cues, look, all_seen(2)).cues
    torch.testing.assert_close(merged.keypoints, (cues.keypoints + look.keypoints) / 2)
    torch.testing.assert_close(merged.relative_depth, (cues.relative_depth + look.relative_depth) / 2)
    torch.testing.assert_close(merged.world, (cues.world + look.world) / 2)
    torch.testing.assert_close(merged.confidence, (cues.confidence + look.presence.sigmoid()[:, None]) / 2)


def test_what_it_says_lies_between_both() -> None:
    cues, look = random_cues(4), _look(4)
    merged = _learned()(cues, look, all_seen(4)).cues
    share = (merged.keypoints - cues.keypoints) / (look.keypoints - cues.keypoints)
    torch.testing.assert_close(
        share[..., 0], share[..., 1], rtol=1e-2, atol=1e-2
    )  # on the line, not beside it
    assert (share > 0).all() and (share < 1).all() and share[..., 0].std() > 0.05


def test_without_an_image_cues_stay_as_they_are() -> None:
    cues, look = random_cues(3), _look(3)
    cues.present[1, 0] = False
    cues.confidence[2, 5] = 0.0
    rubbish = HandLook(*(torch.full_like(t, torch.nan) for t in look))
    merged, disagreement = _learned()(rubbish_behind(cues), rubbish, torch.zeros(3, dtype=torch.bool))
    assert torch.equal(merged.features(), cues.features())
    assert torch.equal(merged.present, cues.present)
    assert not disagreement.any()


def test_a_hand_without_keypoints_is_what_the_look_says() -> None:
    cues, look = random_cues(3), _look(3)
    cues.present[:] = torch.tensor([[0, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)
    merged, disagreement = _learned()(cues, look, all_seen(3))
    assert merged.present.all() and merged.keypoint_present.all()
    torch.testing.assert_close(merged.keypoints, look.keypoints)
    torch.testing.assert_close(merged.confidence, look.presence.sigmoid()[:, None].expand(-1, 21))
    for hand in (0, 2):
        torch.testing.assert_close(merged.relative_depth[hand], look.relative_depth[hand])
    torch.testing.assert_close(merged.world[0], look.world[0])
    assert not disagreement[0, :, :8].any()  # with nothing to disagree with


def test_what_else_is_missing_stays_missing_but_for_single_keypoints() -> None:
    cues, look = random_cues(3), _look(3)
    cues.present[:2] = torch.tensor([[1, 0, 1], [1, 1, 0]], dtype=torch.bool)
    cues.confidence[2, 7] = 0.0
    merged = _learned()(cues, look, all_seen(3)).cues
    assert torch.equal(merged.present, cues.present) and merged.keypoint_present.all()
    torch.testing.assert_close(merged.keypoints[2, 7], look.keypoints[2, 7])
    others = torch.arange(21) != 7
    assert (merged.keypoints[2, others] != look.keypoints[2, others]).all()


def test_nothing_behind_a_missing_flag_matters() -> None:
    cues, second_look = random_cues(5), _learned()
    cues.present[:4] = torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0]], dtype=torch.bool)
    cues.confidence[4, 7] = 0.0
    look, present = _look(5), torch.tensor([True, True, True, True, False])
    (merged, apart), (same, as_far_apart) = (
        second_look(c, look, present) for c in (cues, rubbish_behind(cues))
    )
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(merged, same, strict=True))
    assert torch.equal(apart, as_far_apart)
    assert all(t.isfinite().all() for t in (*merged, apart))
    sum(t.sum() for t in same[:4]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in second_look.parameters())


def test_it_says_how_far_the_looks_are_apart() -> None:
    cues, look = random_cues(2), _look(2)
    disagreement = SecondLook()(cues, look, all_seen(2)).disagreement
    shift = look.keypoints - cues.keypoints
    torch.testing.assert_close(disagreement[..., :2], shift)
    torch.testing.assert_close(disagreement[..., 6], shift.norm(dim=-1))
    torch.testing.assert_close(disagreement[..., 7], (look.world - cues.world).norm(dim=-1))
    torch.testing.assert_close(disagreement[..., 8], look.presence[:, None].expand(2, 21))


def test_hands_do_not_depend_on_others_in_the_batch() -> None:
    cues, look, present = random_cues(3), _look(3), torch.tensor([True, False, True])
    cues.present[2, 1] = False
    second_look = _learned()
    together = second_look(cues, look, present)
    for i in range(3):
        one = (type(t)(*(field[i : i + 1] for field in t)) for t in (cues, look))
        alone = second_look(*one, present[i : i + 1])
        torch.testing.assert_close(alone.cues.features(), together.cues.features()[i : i + 1])
        torch.testing.assert_close(alone.disagreement, together.disagreement[i : i + 1])


def test_whom_to_believe_can_be_learned() -> None:
    """Keypoints that the look has right and the cues wrong, and depths the other way round."""
    second_look = SecondLook()
    optimizer = torch.optim.Adam(second_look.parameters(), 1e-2)
    for _ in range(60):
        cues, look = random_cues(16), _look(16)
        merged = second_look(cues, look, all_seen(16)).cues
        places = (merged.keypoints - look.keypoints).abs().mean()
        depths = (merged.relative_depth - cues.relative_depth).abs().mean()
        optimizer.zero_grad()
        (places + depths).backward()
        optimizer.step()
    cues, look = random_cues(16), _look(16)
    merged = second_look(cues, look, all_seen(16)).cues
    assert (merged.keypoints - look.keypoints).abs().mean() < 0.1 * (
        cues.keypoints - look.keypoints
    ).abs().mean()
    apart = (cues.relative_depth - look.relative_depth).abs().mean()
    assert (merged.relative_depth - cues.relative_depth).abs().mean() < 0.1 * apart


# The network that reads hands itself


def test_without_its_image_a_hand_is_what_the_cues_alone_say(network: MaskHand) -> None:
    cues, images = random_cues(2), torch.rand(2, 3, 224, 224)
    cues.present[0, 2] = False
    present = torch.tensor([False, True])
    tokens, masked = torch.randint(CODES, (2, TOKENS)), torch.rand(2, TOKENS) < 0.5
    with torch.no_grad():
        output = network(images, cues, present, tokens, masked)
        lifted = network.lifter(cues).rotations
        mirrored = network(images.flip(3), cues, present, tokens, masked)
    assert output.rotations.shape == (2, 16, 3, 3) and output.rotations.isfinite().all()
    torch.testing.assert_close(output.lifted[0], lifted[0])
    assert (output.lifted[1] - lifted[1]).abs().max() > 1e-4
    torch.testing.assert_close(mirrored.rotations[0], output.rotations[0])
    assert not torch.equal(mirrored.lifted[1], output.lifted[1])


def test_images_and_what_was_seen_of_them_say_the_same(network: MaskHand) -> None:
    cues, images, layer = random_cues(2), torch.rand(2, 3, 224, 224), HandLayer(load_hand_model())
    with torch.no_grad():
        seen = network.see(images)
    assert [tuple(m.shape[1:]) for m in seen] == [(112, 14, 14), (192, 7, 7)]
    ours, theirs = (predict(network, layer, given, cues, steps=2, hypotheses=2) for given in (images, seen))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(other, one)
    assert ours.seen_keypoints.shape == (4, 21, 2)
    with torch.no_grad():
        context = network.context(seen, cues, all_seen(2))
    torch.testing.assert_close(ours.seen_keypoints[::2], context.cues.keypoints)
    blind = predict(network, layer, seen, cues, steps=1, use_image=False)
    torch.testing.assert_close(blind.seen_keypoints, cues.keypoints)


def test_the_look_is_learned_from_through_the_lifted_pose(network: MaskHand) -> None:
    network.requires_grad_(True)
    network.lifter.requires_grad_(False)
    network.zero_grad(set_to_none=True)
    tokens, masked = torch.zeros(1, TOKENS, dtype=torch.int64), torch.ones(1, TOKENS, dtype=torch.bool)
    output = network(torch.rand(1, 3, 224, 224), random_cues(1), all_seen(1), tokens, masked)
    (output.lifted * torch.rand(16, 3, 3)).sum().backward()
    assert network.second_look is not None and network.hand_head is not None
    last = network.second_look.all[-1]
    assert isinstance(last, nn.Linear) and (last.weight.grad.abs().amax(dim=1) > 0).all()
    assert network.hand_head.landmarks.weight.grad.abs().max() > 0
    network.zero_grad(set_to_none=True)


def test_its_context_exports(network: MaskHand) -> None:
    arguments = (torch.rand(1, 3, 224, 224), random_cues(1), all_seen(1))
    with torch.no_grad():
        context = network.context(*arguments)
        exported = torch.export.export(ContextOf(network), arguments).module()
        blind = (*arguments[:2], ~arguments[2])
        for given, wanted in ((arguments, context), (blind, network.context(*blind))):
            for ours, theirs in zip(tensors_of(wanted), tensors_of(exported(*given)), strict=True):
                torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_a_training_leaves_the_reader_alone_and_learns_whom_to_believe(tmp_path: Path) -> None:
    """As the shipped configuration does it, but for the sizes."""
    small = small_maskhand_training(tmp_path)
    configuration = replace(
        small,
        network=replace(READING, lifters=((24, 1),)),
        frozen_stages=7,
        looked_share=0.5,
        kept_samples=4,
        held_out_samples=2,
        loop=replace(small.loop, steps=2, evaluate_every=2),
    )
    assert train_maskhand(configuration, load_hand_model(), tmp_path / 'run', ALONE, resume=False)
    trained, description = load_maskhand(tmp_path / 'run' / 'best.safetensors')
    assert {'keypoint_mm', 'keypoint_mm_looked', 'keypoint_mm_looked_no_image'} <= set(description['figures'])
    begun = build_network(configuration)
    before, after = begun.state_dict(), trained.state_dict()
    for name in ('hand_head.landmarks.weight', 'encoder.image_encoder.backbone.conv_stem.weight'):
        torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-3)  # in half precision
    assert not torch.allclose(after['second_look.all.2.bias'], before['second_look.all.2.bias'], atol=1e-5)
