"""A small MaskHand that has learned nothing, its inputs, and what its context is made of."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from hand_mesh_ros.networks.configuration import MaskHandConfiguration
from hand_mesh_ros.networks.context import HandContext
from hand_mesh_ros.networks.deformable_attention import DeformableAttention
from hand_mesh_ros.networks.maskhand import MaskHand
from hand_mesh_ros.networks.skeleton_graph import HandCues
from hand_mesh_ros.networks.vq_mano import VqMano, VqManoConfiguration

TOKENS, CODES, CODE_DIM = 32, 48, 8
SMALL = MaskHandConfiguration(
    image_size=64,
    backbone='mobilenetv4_conv_small',
    strides=(8, 16, 32),
    width=48,
    heads=3,
    synthesizer_blocks=2,
    lifters=((32, 1),),
)


def small_network(configuration: MaskHandConfiguration = SMALL) -> MaskHand:
    """The same weights for the same configuration."""
    # Not importorskip: next to some builds of torch a plain import of timm fails, which the encoder mends
    if find_spec('timm') is None:
        pytest.skip('the image encoder needs timm')
    torch.manual_seed(1)
    vq_mano = VqMano(
        VqManoConfiguration(tokens=TOKENS, codebook_size=CODES, code_dim=CODE_DIM, width=16, depth=1)
    )
    network = MaskHand(configuration, vq_mano).eval()
    # As built, the attention looks at the same places for every query; a trained one does not
    for module in network.modules():
        if isinstance(module, DeformableAttention):
            nn.init.normal_(module.offsets.weight, std=0.2)
            nn.init.normal_(module.weights.weight, std=0.2)
    return network


def random_cues(hands: int) -> HandCues:
    """Cues that lack nothing."""
    return HandCues(
        keypoints=torch.rand(hands, 21, 2) * 2 - 1,
        confidence=torch.rand(hands, 21) * 0.9 + 0.1,
        relative_depth=torch.randn(hands, 21) * 0.2,
        world=torch.randn(hands, 21, 3),
        present=torch.ones(hands, 3, dtype=torch.bool),
    )


def rubbish_behind(cues: HandCues) -> HandCues:
    """The same cues as far as the flags say: behind a missing one there is no number, or none that counts."""
    no_keypoint = ~cues.keypoint_present
    absent = ~cues.present
    return HandCues(
        keypoints=cues.keypoints.masked_fill(no_keypoint[..., None], torch.nan),
        confidence=cues.confidence.masked_fill(absent[:, :1], 7.0),
        relative_depth=cues.relative_depth.masked_fill(absent[:, 1:2], torch.inf),
        world=cues.world.masked_fill(absent[:, 2, None, None], torch.nan),
        present=cues.present,
    )


def all_seen(hands: int) -> Tensor:
    """That every hand has its image."""
    return torch.ones(hands, dtype=torch.bool)


def tensors_of(context: HandContext) -> list[Tensor]:
    """All that a context says, the cues as far as they are there."""
    fields = context._replace(cues=context.cues.features())  # type: ignore[arg-type]
    return [t for field in fields for t in (field if isinstance(field, tuple) else (field,))]


class ContextOf(nn.Module):
    """The first half of a network as a module, for the exporter."""

    def __init__(self, network: MaskHand) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, cues: HandCues, image_present: Tensor) -> HandContext:
        """See ``MaskHand.context``."""
        return self.network.context(images, cues, image_present)
