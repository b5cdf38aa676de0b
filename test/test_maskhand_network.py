"""The masked transformer: its sampling of images and of tokens, its cues, and that it exports."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from small_maskhand import (
    CODE_DIM,
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
from torch import Tensor, nn

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.networks.confidence import ConfidenceHead
from hand_mesh_ros.networks.configuration import MaskHandConfiguration
from hand_mesh_ros.networks.context import HandContext
from hand_mesh_ros.networks.lifter import Lifters
from hand_mesh_ros.networks.maskhand import Decoded, MaskHand, TokenDecoder, describe, load_maskhand
from hand_mesh_ros.networks.prediction import predict
from hand_mesh_ros.networks.sampling import masked_counts, random_masks, sample_tokens
from hand_mesh_ros.networks.skeleton_graph import HandCues, SkeletonGraph
from hand_mesh_ros.networks.vq_mano import VqMano, VqManoConfiguration
from hand_mesh_ros.networks.weights import save_weights
from hand_mesh_ros.training.hand_errors import angles_between

SHAPES = ((8, 8), (4, 4), (2, 2))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope='module')
def network() -> MaskHand:
    return small_network()


def _fake_context(hands: int) -> HandContext:
    width, area = SMALL.width // SMALL.heads, sum(h * w for h, w in SHAPES)
    return HandContext(
        cues=random_cues(hands),
        disagreement=torch.zeros(hands, 21, 9),
        cue_tokens=torch.randn(hands, 21, SMALL.width),
        proposal=torch.randn(hands, TOKENS, SMALL.width),
        prior=torch.randn(hands, TOKENS, CODES),
        codes=torch.randn(CODES, CODE_DIM),
        references=torch.rand(hands, 21 + TOKENS, 2),
        values=tuple(torch.randn(hands, SMALL.heads, area, width) for _ in range(SMALL.synthesizer_blocks)),
        finest_map=torch.randn(hands, 64, SMALL.width),
        heatmaps=torch.zeros(hands, 21, 64),
        betas=torch.zeros(hands, 10),
        camera=torch.zeros(hands, 3),
    )


def _decoder() -> TokenDecoder:
    decoder = TokenDecoder(SMALL, SHAPES, TOKENS, CODES, CODE_DIM).eval()
    nn.init.normal_(decoder.head.weight, std=0.2)  # as built, it repeats the prior
    return decoder


# Skeleton and cues


@pytest.mark.parametrize('missing', [(0,), (1,), (2,), (0, 1, 2)])
def test_nothing_behind_a_missing_flag_matters(missing: tuple[int, ...]) -> None:
    graph = SkeletonGraph(width=16, layers=2).eval()
    cues = random_cues(2)
    cues.present[:, missing] = False
    nodes = graph(cues)
    assert nodes.isfinite().all()
    changed = rubbish_behind(cues)
    assert torch.equal(graph(changed), nodes)
    assert not torch.allclose(graph(random_cues(2)), nodes)


def test_a_single_missing_keypoint_does_not_matter() -> None:
    graph = SkeletonGraph(width=16, layers=2).eval()
    cues = random_cues(1)
    cues.confidence[0, 7] = 0.0
    moved = cues._replace(keypoints=cues.keypoints.clone())
    moved.keypoints[0, 7] = torch.nan
    assert torch.equal(graph(moved), graph(cues))


def test_all_cues_missing_still_gives_a_hand(network: MaskHand) -> None:
    cues = random_cues(1)
    cues.present[:] = False
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        context, same = (network.context(images, c, all_seen(1)) for c in (cues, rubbish_behind(cues)))
        for ours, theirs in zip(tensors_of(context), tensors_of(same), strict=True):
            assert torch.equal(ours, theirs) and ours.isfinite().all()
        sampled = sample_tokens(network.decoder, context, steps=2)
        assert network.rotations(sampled.logits[:, 0]).isfinite().all()


# Masks and sampling of tokens


def test_schedule_ends_with_nothing_masked() -> None:
    assert masked_counts(64, 1) == [0]
    # cos(pi/10) = .951, cos(pi/5) = .809, cos(3 pi/10) = .588, cos(2 pi/5) = .309
    assert masked_counts(64, 5) == [60, 51, 37, 19, 0]
    with pytest.raises(ValueError, match='at least 1'):
        masked_counts(64, 0)


def test_training_masks_follow_the_cosine() -> None:
    masks = random_masks(4000, 64, torch.Generator().manual_seed(0))
    counts = masks.sum(dim=1).float()
    assert counts.min() >= 1 and counts.max() == 64
    assert counts.mean() / 64 == pytest.approx(2 / np.pi, abs=0.02)  # mean of the cosine over a quarter turn
    assert masks.float().mean(dim=0).std() < 0.02  # no token is preferred
    assert torch.equal(masks, random_masks(4000, 64, torch.Generator().manual_seed(0)))


def test_sampling_keeps_the_most_confident_tokens() -> None:
    decoder, context = _decoder(), _fake_context(2)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def watched(context: HandContext, tokens: Tensor, masked: Tensor) -> Decoded:
        decoded = decoder(context, tokens, masked)
        seen.append((tokens.clone(), masked.clone(), decoded.logits))
        return decoded

    sampled = sample_tokens(watched, context, steps=4)
    assert [int(masked[0].sum()) for _, masked, _ in seen] == [TOKENS, *masked_counts(TOKENS, 4)[:-1]]
    for (_, before, logits), (tokens, after, _) in pairwise(seen):
        assert not (after & ~before).any()  # what is kept stays
        top = logits.softmax(-1).amax(-1)
        for hand in range(2):
            kept = before[hand] & ~after[hand]
            assert torch.equal(tokens[hand, kept], logits[hand, kept].argmax(-1))
            assert torch.equal(sampled.tokens[hand, 0, kept], tokens[hand, kept])
            assert top[hand, kept].min() >= top[hand, after[hand]].max()
            torch.testing.assert_close(sampled.probabilities[hand, 0, kept], top[hand, kept])
    assert torch.equal(sampled.logits.argmax(-1), sampled.tokens)


def test_temperature_zero_is_deterministic_and_hypotheses_differ_above() -> None:
    decoder, context = _decoder(), _fake_context(2)
    cold = sample_tokens(decoder, context, steps=3, hypotheses=2)
    assert cold.tokens.shape == (2, 2, TOKENS)
    assert torch.equal(cold.tokens[:, 0], cold.tokens[:, 1])
    assert torch.equal(cold.tokens, sample_tokens(decoder, context, steps=3, hypotheses=2).tokens)
    warm, again = (
        sample_tokens(decoder, context, 3, 2, 1.0, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(warm.tokens, again.tokens)
    assert (warm.tokens[:, 0] != warm.tokens[:, 1]).any()


def test_draws_follow_the_tempered_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0])

    def constant(context: HandContext, tokens: Tensor, masked: Tensor) -> Decoded:
        return Decoded(
            logits.expand(*tokens.shape, 3), torch.zeros(*tokens.shape, 1), torch.zeros(len(tokens), 21, 3)
        )

    context = _fake_context(1)
    tokens = sample_tokens(constant, context, 1, 2000, 2.0, torch.Generator().manual_seed(0)).tokens
    shares = torch.bincount(tokens.flatten(), minlength=3) / tokens.numel()
    torch.testing.assert_close(shares, (logits / 2).softmax(0), rtol=0, atol=0.01)


# The whole network


def test_masked_tokens_are_hidden_and_known_ones_are_seen() -> None:
    decoder, context = _decoder(), _fake_context(1)
    tokens = torch.randint(CODES, (1, TOKENS))
    masked = torch.arange(TOKENS)[None] < 10
    other = tokens.clone()
    other[0, 3] = (tokens[0, 3] + 1) % CODES
    logits = decoder(context, tokens, masked).logits
    assert torch.equal(decoder(context, other, masked).logits, logits)
    other[0, 20] = (tokens[0, 20] + 1) % CODES
    assert not torch.allclose(decoder(context, other, masked).logits, logits)


def test_gradients_reach_the_logits_through_the_codes(network: MaskHand) -> None:
    tokens = torch.randint(CODES, (2, TOKENS))
    masked = torch.arange(TOKENS) % 2 == torch.arange(2)[:, None]
    output = network(torch.rand(2, 3, 64, 64), random_cues(2), all_seen(2), tokens, masked)
    assert output.rotations.shape == (2, 16, 3, 3)
    (gradient,) = torch.autograd.grad(
        output.rotations.square().mul(torch.rand(3)).sum(), output.decoded.logits
    )
    assert (gradient.abs().amax(dim=-1) > 0).all()
    assert not any(p.requires_grad for part in (network.vq_mano, network.lifter) for p in part.parameters())


def test_every_part_learns(network: MaskHand) -> None:
    tokens, cues = torch.randint(CODES, (2, TOKENS)), random_cues(2)
    cues.present[1, 0] = False
    masked = torch.arange(TOKENS).expand(2, -1) < 20
    present = torch.tensor([True, False])
    output = network(torch.rand(2, 3, 64, 64), cues, present, tokens, masked)
    context, decoded = output.context, output.decoded
    places, points = torch.zeros(2, 21, 2), torch.randn(2, 21, 3)
    errors = network.confidence(decoded.logits, decoded.features, context, places, points)
    made = (decoded.landmarks, context.betas, context.camera, errors, output.rotations)
    network.zero_grad(set_to_none=True)
    sum((part.sum() for part in made), decoded.logits.square().sum()).backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_an_untrained_network_says_what_the_cues_suggest(network: MaskHand) -> None:
    cues, images = random_cues(2), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        suggested = network.vq_mano.embed(network.lifter(cues).rotations)
        prior = network.context(images, cues, all_seen(2)).prior
    nearest = network.vq_mano.nearest_codes(suggested)
    assert torch.equal(prior.argmax(dim=-1), nearest)


def test_several_lifters_say_the_mean_of_what_each_says() -> None:
    lifters, cues = Lifters(((16, 1), (24, 2))), random_cues(4)
    both = lifters(cues)
    one, other = (member(cues) for member in lifters.members)
    torch.testing.assert_close(both.betas, (one.betas + other.betas) / 2)
    # As far from each as they are from each other, halved
    whole = angles_between(one.rotations, other.rotations)
    for member in (one, other):
        torch.testing.assert_close(
            angles_between(both.rotations, member.rotations), whole / 2, atol=0.02, rtol=0.1
        )


def test_without_its_image_a_hand_is_the_same_whatever_the_picture(network: MaskHand) -> None:
    cues, images = random_cues(2), torch.rand(2, 3, 64, 64)
    present = torch.tensor([True, False])
    with torch.no_grad():
        first, second = (network.context(i, cues, present) for i in (images, images.flip(3)))
    assert torch.equal(first.finest_map[1], second.finest_map[1])
    assert not torch.equal(first.finest_map[0], second.finest_map[0])


def test_a_saved_network_predicts_the_same_after_loading(network: MaskHand, tmp_path: Path) -> None:
    path, layer = tmp_path / 'maskhand.safetensors', HandLayer(load_hand_model())
    save_weights(path, network, describe(network, {'name': 'open', 'sha256': '0'}))
    loaded, description = load_maskhand(path)
    assert loaded.configuration == SMALL and description['hand_model']['name'] == 'open'
    cues, images = random_cues(3), torch.rand(3, 3, 64, 64)
    ours, theirs = (predict(n, layer, images, cues, steps=2) for n in (network, loaded))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(other, one)
    assert ours.keypoints.shape == (3, 21, 3) and ours.keypoints[:, 0].abs().max() == 0
    vq_mano = tmp_path / 'other.safetensors'
    save_weights(vq_mano, network.vq_mano, {'network': 'vq_mano'})
    with pytest.raises(FileFormatError, match='not the weights of a MaskHand'):
        load_maskhand(vq_mano)


def test_a_batch_of_two_is_two_batches_of_one(network: MaskHand) -> None:
    images, cues = torch.rand(2, 3, 64, 64), random_cues(2)
    cues.present[1] = torch.tensor([False, True, False])
    with torch.no_grad():
        both_context = network.context(images, cues, all_seen(2))
        both = sample_tokens(network.decoder, both_context, steps=3)
        for i in range(2):
            one = HandCues(*(t[i : i + 1] for t in cues))
            context = network.context(images[i : i + 1], one, all_seen(1))
            for together, alone in zip(tensors_of(both_context), tensors_of(context), strict=True):
                its = together if together is both_context.codes else together[i : i + 1]  # of all hands
                torch.testing.assert_close(its, alone, rtol=1e-4, atol=1e-4)
            sampled = sample_tokens(network.decoder, context, steps=3)
            torch.testing.assert_close(both.logits[i : i + 1], sampled.logits, rtol=1e-3, atol=1e-3)


def test_confidence_head_leaves_the_hand_alone_and_heeds_only_present_cues() -> None:
    head = ConfidenceHead(SMALL.width, TOKENS, (8, 8)).eval()
    logits = torch.randn(2, TOKENS, CODES, requires_grad=True)
    features = torch.randn(2, TOKENS, SMALL.width, requires_grad=True)
    maps, projected = torch.randn(2, 64, SMALL.width, requires_grad=True), torch.rand(2, 21, 2) * 2 - 1
    keypoints, cues = torch.randn(2, 21, 3) * 0.05, random_cues(2)
    cues.present[1] = False
    context = _fake_context(2)._replace(cues=cues, finest_map=maps)
    errors = head(logits, features, context, projected, keypoints)
    assert errors.shape == (2, 21) and errors.isfinite().all()
    errors.sum().backward()
    assert logits.grad is None and features.grad is None and maps.grad is None
    same = context._replace(cues=rubbish_behind(cues))
    assert torch.equal(head(logits, features, same, projected, keypoints), errors)
    moved = head(logits, features, context, projected + 0.3, keypoints)
    assert (moved[0] != errors[0]).any()
    apart = context._replace(disagreement=torch.ones(2, 21, 9))
    assert (head(logits, features, apart, projected, keypoints) != errors).any(dim=1).all()


@pytest.mark.parametrize('like_paper', [False, True])
def test_encoder_and_decoder_export(network: MaskHand, like_paper: bool) -> None:
    vit = replace(SMALL, backbone='vit_tiny_patch16_224', strides=(4, 8, 16), cue_tokens=1)
    exported = small_network(vit) if like_paper else network
    images, cues = torch.rand(1, 3, 64, 64), random_cues(1)
    tokens, masked = torch.randint(CODES, (1, TOKENS)), torch.rand(1, TOKENS) < 0.5
    with torch.no_grad():
        arguments = (images, cues, all_seen(1))
        context = exported.context(*arguments)
        encoder = torch.export.export(ContextOf(exported), arguments).module()
        for ours, theirs in zip(tensors_of(context), tensors_of(encoder(*arguments)), strict=True):
            torch.testing.assert_close(theirs, ours)
        decoder = torch.export.export(exported.decoder, (context, tokens, masked)).module()
        new_mask = ~masked
        torch.testing.assert_close(
            decoder(context, tokens, new_mask).logits, exported.decoder(context, tokens, new_mask).logits
        )


@pytest.mark.parametrize(
    'changes',
    [
        {'cue_tokens': 5},
        {'width': 50, 'heads': 4},
        {'strides': (16, 8)},
        {'image_size': 100},
        {'image_size': 128},  # the default backbone reads hands in crops of 224 pixels
        {'strides': (8, 16)},
        {'sampling_points': 0},
    ],
)
def test_sizes_that_make_no_network_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        MaskHandConfiguration(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('backbone', 'strides'),
    [('no_such_net', (8,)), ('mobilenetv4_conv_small', (64,)), ('vit_tiny_patch16_224', (2,))],
)
def test_backbones_without_such_maps_are_refused(
    backbone: str, strides: tuple[int, ...], network: MaskHand
) -> None:
    with pytest.raises(ConfigurationError, match='backbone|strides'):
        MaskHand(MaskHandConfiguration(image_size=128, backbone=backbone, strides=strides), network.vq_mano)


def test_the_default_fits_a_package(network: MaskHand) -> None:
    whole = MaskHand(MaskHandConfiguration(), VqMano(VqManoConfiguration()))
    assert sum(tensor.numel() for tensor in whole.state_dict().values()) * 2 < 35e6  # bytes in half precision
    assert whole.encoder.image_encoder.shapes == ((14, 14), (7, 7))
