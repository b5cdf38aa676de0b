"""MaskHand's context-guided masked transformer: from a hand's crop and cues to tokens of its pose.

Source: arXiv 2412.13393, the second stage. Its depth, width and number of heads are not published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_JOINTS
from hand_mesh_ros.networks.confidence import ConfidenceHead
from hand_mesh_ros.networks.encoder import ImageEncoder
from hand_mesh_ros.networks.refinement import Attention, FeedForward, RefinementBlock, SynthesizerBlock
from hand_mesh_ros.networks.skeleton_graph import KEYPOINTS, HandCues, SkeletonGraph
from hand_mesh_ros.networks.vq_mano import JOINTS, VqMano

BETAS, CAMERA = 10, 3

#: Keypoint that stands for the place of the whole hand: the middle finger's knuckle.
_HAND_CENTRE = 9


@dataclass(frozen=True)
class MaskHandConfiguration:
    """Size of a MaskHand network. The defaults serve a hand in real time on a CPU.

    :raises ConfigurationError: sizes that make no network.
    """

    image_size: int = 128  #: side of the crop, pixels
    backbone: str = 'mobilenetv4_conv_small'  #: of timm
    strides: tuple[int, ...] = (8, 16, 32)  #: of the maps that the pose attends to
    width: int = 160
    heads: int = 5
    refinement_blocks: int = 2
    synthesizer_blocks: int = 4
    sampling_points: int = 2  #: of each head, query and map
    cue_tokens: int = KEYPOINTS  #: 21, one per keypoint, or 1 for the hand
    graph_width: int = 64
    graph_layers: int = 3

    def __post_init__(self) -> None:
        if self.cue_tokens not in (1, KEYPOINTS):
            raise ConfigurationError(f'cue_tokens is {self.cue_tokens}, must be 1 or {KEYPOINTS}')
        if self.heads < 1 or self.width % self.heads:
            raise ConfigurationError(f'width {self.width} does not split into {self.heads} heads')
        if not self.strides or list(self.strides) != sorted(set(self.strides)) or self.strides[0] < 1:
            raise ConfigurationError(f'strides are {self.strides}, must be positive and grow')
        if self.image_size < 1 or any(self.image_size % stride for stride in self.strides):
            raise ConfigurationError(f'image_size {self.image_size} is no multiple of {self.strides}')
        for name in ('sampling_points', 'graph_width'):
            if getattr(self, name) < 1:
                raise ConfigurationError(f'{name} is {getattr(self, name)}, must be at least 1')

    @classmethod
    def paper(cls) -> MaskHandConfiguration:
        """The paper's ViT-H/16 and one cue token; depth and width are this project's choice."""
        return cls(
            image_size=256,
            backbone='vit_huge_patch16_gap_448',
            strides=(4, 8, 16),
            width=512,
            heads=8,
            sampling_points=4,
            synthesizer_blocks=8,
            cue_tokens=1,
        )


class HandContext(NamedTuple):
    """All that image and cues say: made once per hand, used by every iteration of the sampling."""

    cue_tokens: Tensor  #: (B,K,C)
    references: Tensor  #: (B,K+N,2) where each token looks in the crop, x, y in 0..1 over it
    values: tuple[Tensor, ...]  #: one per synthesizer block: (B,heads,P,C/heads), P over the maps' pixels
    finest_map: Tensor  #: (B,H*W,C), row by row
    betas: Tensor  #: (B,10)
    camera: Tensor  #: (B,3): for the loss to give a meaning


class Decoded(NamedTuple):
    """One pass of the decoder."""

    logits: Tensor  #: (B,N,codes)
    features: Tensor  #: (B,N,C) what the logits were made of


class MaskHandOutput(NamedTuple):
    """A training pass."""

    context: HandContext
    decoded: Decoded
    rotations: Tensor  #: (B,16,3,3), differentiable in the logits of the masked tokens


class ContextEncoder(nn.Module):
    """Image and cues to the context of the pose; shape and camera besides."""

    def __init__(self, configuration: MaskHandConfiguration, tokens: int) -> None:
        super().__init__()
        c = configuration
        self.configuration = c
        self.image_encoder = ImageEncoder(c.backbone, c.image_size, c.strides, c.width)
        areas = [height * width for height, width in self.image_encoder.shapes]
        self.finest_area, self.coarsest_area = areas[0], areas[-1]
        self.pixel_position = nn.Parameter(torch.randn(sum(areas), c.width) * 0.02)
        self.map_norm = nn.LayerNorm(c.width)
        self.values = nn.Linear(c.width, c.synthesizer_blocks * c.width)
        self.skeleton = SkeletonGraph(c.graph_width, c.graph_layers)
        nodes_of_token = KEYPOINTS // c.cue_tokens
        self.cue_token = nn.Linear(nodes_of_token * c.graph_width, c.width)
        #: Where keypoints without a cue are looked for; through a sigmoid, so the crop's middle at first.
        self.unseen_place = nn.Parameter(torch.zeros(KEYPOINTS, 2))
        cue_keypoints = range(KEYPOINTS) if c.cue_tokens == KEYPOINTS else (_HAND_CENTRE,)
        token_keypoints = (KEYPOINT_JOINTS.index(joint) for joint in token_joints(tokens))
        self.reference_keypoints = [*cue_keypoints, *token_keypoints]
        self.shape_camera = ShapeCameraHead(c.width, c.heads)

    def forward(self, images: Tensor, cues: HandCues) -> HandContext:
        """Context of images (B,3,S,S) float RGB, 0..1, and cues."""
        maps = [m.flatten(2).transpose(1, 2) for m in self.image_encoder(images)]
        pyramid = self.map_norm(torch.cat(maps, dim=1) + self.pixel_position)
        nodes = self.skeleton(cues)
        cue_tokens = self.cue_token(nodes.reshape(nodes.shape[0], self.configuration.cue_tokens, -1))
        betas, camera = self.shape_camera(torch.cat([pyramid[:, -self.coarsest_area :], cue_tokens], dim=1))
        return HandContext(
            cue_tokens=cue_tokens,
            references=self._places(cues)[:, self.reference_keypoints],
            values=self._split_values(pyramid),
            finest_map=pyramid[:, : self.finest_area],
            betas=betas,
            camera=camera,
        )

    def _places(self, cues: HandCues) -> Tensor:
        """(B,21,2) in 0..1: the keypoints in the crop, or where they usually are."""
        seen = (cues.keypoints + 1) / 2
        places = torch.where(cues.keypoint_present[..., None], seen, self.unseen_place.sigmoid())
        return places.clamp(0, 1)

    def _split_values(self, pyramid: Tensor) -> tuple[Tensor, ...]:
        c = self.configuration
        values = self.values(pyramid).unflatten(-1, (c.synthesizer_blocks, c.heads, -1))
        return values.permute(2, 0, 3, 1, 4).contiguous().unbind()


class ShapeCameraHead(nn.Module):
    """Shape and camera, by two learned queries over the coarsest map and the cues."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 2, width) * 0.1)
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.betas, self.camera = nn.Linear(width, BETAS), nn.Linear(width, CAMERA)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Betas (B,10) and camera (B,3) of a context (B,S,C)."""
        queries = self.queries.expand(context.shape[0], -1, -1)
        found = queries + self.attention(queries, context)
        shape, camera = (found + self.feed_forward(self.norm(found))).unbind(dim=1)
        return self.betas(shape), self.camera(camera)


class TokenDecoder(nn.Module):
    """The masked transformer: what each token may be, from the known tokens and the context."""

    def __init__(
        self,
        configuration: MaskHandConfiguration,
        shapes: tuple[tuple[int, int], ...],
        tokens: int,
        codes: int,
    ) -> None:
        super().__init__()
        c = configuration
        self.codes = codes
        self.embedding = nn.Embedding(codes + 1, c.width)  # the last is the masked token's
        self.position = nn.Parameter(torch.randn(tokens, c.width) * 0.1)
        cue_joints = KEYPOINT_JOINTS if c.cue_tokens == KEYPOINTS else (0,)
        joints = [*cue_joints, *token_joints(tokens)]
        self.refinement = nn.ModuleList(
            RefinementBlock(c.width, c.heads, joints) for _ in range(c.refinement_blocks)
        )
        self.synthesizer = nn.ModuleList(
            SynthesizerBlock(c.width, c.heads, shapes, c.sampling_points) for _ in range(c.synthesizer_blocks)
        )
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, codes)
        nn.init.normal_(self.embedding.weight, std=0.1)

    def forward(self, context: HandContext, tokens: Tensor, masked: Tensor) -> Decoded:
        """Logits of tokens (B,N) int64, those where masked (B,N) bool being hidden."""
        pose = self.embedding(tokens.masked_fill(masked, self.codes)) + self.position
        x = torch.cat([context.cue_tokens, pose], dim=1)
        for block in self.refinement:
            x = block(x)
        for block, values in zip(self.synthesizer, context.values, strict=True):
            x = block(x, context.references, values)
        features = self.norm(x[:, context.cue_tokens.shape[1] :])
        return Decoded(self.head(features), features)


class MaskHand(nn.Module):
    """The whole network. The pose autoencoder in it is frozen."""

    def __init__(self, configuration: MaskHandConfiguration, vq_mano: VqMano) -> None:
        super().__init__()
        self.configuration = configuration
        self.tokens = vq_mano.configuration.tokens
        codes = vq_mano.configuration.codebook_size
        self.encoder = ContextEncoder(configuration, self.tokens)
        shapes = self.encoder.image_encoder.shapes
        self.decoder = TokenDecoder(configuration, shapes, self.tokens, codes)
        self.confidence = ConfidenceHead(configuration.width, self.tokens, shapes[0])
        self.vq_mano = vq_mano.requires_grad_(False)

    def forward(self, images: Tensor, cues: HandCues, tokens: Tensor, masked: Tensor) -> MaskHandOutput:
        """A training pass: images (B,3,S,S) float RGB, 0..1; tokens (B,N) int64; masked (B,N) bool.

        Known tokens go into the rotations as they are, masked ones as mixtures of codes.
        """
        context = self.encoder(images, cues)
        decoded = self.decoder(context, tokens, masked)
        known = embedding(tokens, self.vq_mano.codebook)
        soft = soft_codes(decoded.logits, self.vq_mano.codebook)
        codes = torch.where(masked[..., None], soft, known.to(soft.dtype))
        return MaskHandOutput(context, decoded, self.vq_mano.decode_embeddings(codes))

    def rotations(self, logits: Tensor) -> Tensor:
        """Rotations (B,16,3,3) of all tokens' logits (B,N,codes)."""
        return self.vq_mano.decode_embeddings(soft_codes(logits, self.vq_mano.codebook))


def soft_codes(logits: Tensor, codebook: Tensor) -> Tensor:
    """Mixtures (...,D) of the rows of a codebook (K,D) by the probabilities of logits (...,K)."""
    return logits.softmax(dim=-1) @ codebook


def token_joints(tokens: int) -> list[int]:
    """The hand model's joint that each token of a pose tells of."""
    return [token * JOINTS // tokens for token in range(tokens)]
