"""MaskHand's context-guided masked transformer: from a hand's crop and cues to tokens of its pose.

Source: arXiv 2412.13393, the second stage. Its depth, width and number of heads are not published. Beyond
the paper, a small network lifts the cues to a first pose: what the transformer predicts is added to the
logits of that pose's tokens.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_JOINTS
from hand_mesh_ros.networks.confidence import ConfidenceHead
from hand_mesh_ros.networks.configuration import MaskHandConfiguration
from hand_mesh_ros.networks.context import ContextEncoder, HandContext, token_joints
from hand_mesh_ros.networks.hand_backbone import HAND_BACKBONE, HandHead
from hand_mesh_ros.networks.lifter import Lifters
from hand_mesh_ros.networks.refinement import RefinementBlock, SynthesizerBlock
from hand_mesh_ros.networks.second_look import DISAGREEMENT, MergedCues, SecondLook
from hand_mesh_ros.networks.shipped import MASKHAND_PATH
from hand_mesh_ros.networks.skeleton_graph import KEYPOINTS, HandCues
from hand_mesh_ros.networks.vq_mano import VqMano, VqManoConfiguration
from hand_mesh_ros.networks.weights import built, load_weights

#: What a file of weights calls this network.
NETWORK_NAME = 'maskhand'


class Decoded(NamedTuple):
    """One pass of the decoder."""

    logits: Tensor  #: (B,N,codes)
    features: Tensor  #: (B,N,C) what the logits were made of
    landmarks: Tensor  #: (B,21,3) keypoints as cues would have them: in the crop, and relative depth


class MaskHandOutput(NamedTuple):
    """A training pass."""

    context: HandContext
    lifted: Tensor  #: (B,16,3,3) rotations that the cues of both looks suggest, before the transformer
    decoded: Decoded
    rotations: Tensor  #: (B,16,3,3), differentiable in the logits


class TokenDecoder(nn.Module):
    """The masked transformer: what each token may be, from the known tokens and the context."""

    def __init__(
        self,
        configuration: MaskHandConfiguration,
        shapes: tuple[tuple[int, int], ...],
        tokens: int,
        codes: int,
        code_dim: int,
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
        #: What the logits say in two parts: a shift of the first pose's embeddings, and anything else.
        self.shift, self.head = nn.Linear(c.width, code_dim), nn.Linear(c.width, codes)
        self.landmarks = nn.Linear(c.width, KEYPOINTS // c.cue_tokens * 3)
        nn.init.normal_(self.embedding.weight, std=0.1)
        for head in (self.shift, self.head, self.landmarks):  # begins with what the cues alone suggest
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    def forward(self, context: HandContext, tokens: Tensor, masked: Tensor) -> Decoded:
        """Logits of tokens (B,N) int64, those where masked (B,N) bool being hidden."""
        pose = self.embedding(tokens.masked_fill(masked, self.codes)) + self.position + context.proposal
        x = torch.cat([context.cue_tokens, pose], dim=1)
        for block in self.refinement:
            x = block(x)
        for block, values in zip(self.synthesizer, context.values, strict=True):
            x = block(x, context.references, values)
        x = self.norm(x)
        cues, features = x.split([context.cue_tokens.shape[1], self.position.shape[0]], dim=1)
        with torch.autocast(x.device.type, enabled=False):  # half precision blurs the probabilities
            features = features.float()
            logits = context.prior.float() + self.shift(features) @ context.codes.T + self.head(features)
            offsets = self.landmarks(cues.float()).reshape(-1, KEYPOINTS, 3)
        places = 2 * context.references[:, : cues.shape[1]].float() - 1
        landmarks = torch.cat([places + offsets[..., :2], offsets[..., 2:]], dim=-1)
        return Decoded(logits, features, landmarks)


class MaskHand(nn.Module):
    """The whole network. The pose autoencoder and the lifter in it are frozen."""

    def __init__(self, configuration: MaskHandConfiguration, vq_mano: VqMano) -> None:
        super().__init__()
        self.configuration = configuration
        self.tokens = vq_mano.configuration.tokens
        codes = vq_mano.configuration.codebook_size
        self.lifter = Lifters(configuration.lifters).requires_grad_(False)
        #: Reads the crop a second time, where the backbone is one that reads hands.
        self.hand_head, self.second_look = None, None
        if configuration.backbone == HAND_BACKBONE:
            self.hand_head, self.second_look = HandHead(), SecondLook()
        self.encoder = ContextEncoder(configuration, self.tokens, vq_mano.configuration.code_dim)
        shapes = self.encoder.image_encoder.shapes
        code_dim = vq_mano.configuration.code_dim
        self.decoder = TokenDecoder(configuration, shapes, self.tokens, codes, code_dim)
        self.confidence = ConfidenceHead(configuration.width, self.tokens, shapes[0])
        #: How sharply the first pose's logits fall with the distance to its codes, before a softplus. It
        #: begins where the cross entropy of those logits alone is lowest.
        self.sharpness = nn.Parameter(torch.tensor(-3.9))
        self.vq_mano = vq_mano.requires_grad_(False)

    def see(self, images: Tensor) -> list[Tensor]:
        """The backbone's maps of images (B,3,S,S) float RGB, 0..1: the same, whatever the cues."""
        return self.encoder.image_encoder.see(images)

    def context(self, images: Tensor | list[Tensor], cues: HandCues, image_present: Tensor) -> HandContext:
        """Context of images (B,3,S,S) float RGB, 0..1, where present (B,) bool, and cues.

        :param images: or what ``see`` says of them.
        """
        return self._context(images, cues, image_present)[0]

    def _context(
        self, images: Tensor | list[Tensor], cues: HandCues, image_present: Tensor
    ) -> tuple[HandContext, Tensor]:
        """The context, and the rotations (B,16,3,3) that the cues of both looks suggest."""
        seen = self.see(images) if isinstance(images, Tensor) else images
        with torch.autocast(image_present.device.type, enabled=False):
            merged = self._merged(seen, cues, image_present)
            lifted = self.lifter(merged.cues).rotations
            embeddings = self.vq_mano.embed(lifted)
            codebook = self.vq_mano.codebook
            half_squares = (codebook * codebook).sum(dim=1) / 2
            closeness = embeddings @ codebook.T - half_squares
            closeness = closeness - closeness.amax(dim=-1, keepdim=True)
            sharpness = nn.functional.softplus(self.sharpness)
            prior, codes = sharpness * closeness, sharpness * codebook
        return self.encoder(seen, merged, image_present, embeddings, prior, codes), lifted

    def _merged(self, seen: list[Tensor], cues: HandCues, image_present: Tensor) -> MergedCues:
        if self.hand_head is None or self.second_look is None:
            return MergedCues(cues, cues.keypoints.new_zeros(*cues.keypoints.shape[:2], DISAGREEMENT))
        return self.second_look(cues, self.hand_head(seen[-1]), image_present)

    def forward(
        self,
        images: Tensor | list[Tensor],
        cues: HandCues,
        image_present: Tensor,
        tokens: Tensor,
        masked: Tensor,
    ) -> MaskHandOutput:
        """A training pass: as ``context``; tokens (B,N) int64, which may be wrong; masked (B,N) bool."""
        context, lifted = self._context(images, cues, image_present)
        decoded = self.decoder(context, tokens, masked)
        return MaskHandOutput(context, lifted, decoded, self.rotations(decoded.logits))

    def rotations(self, logits: Tensor) -> Tensor:
        """Rotations (B,16,3,3) of all tokens' logits (B,N,codes): of the mixtures of codes."""
        with torch.autocast(logits.device.type, enabled=False):
            return self.vq_mano.decode_embeddings(soft_codes(logits.float(), self.vq_mano.codebook))


def soft_codes(logits: Tensor, codebook: Tensor) -> Tensor:
    """Mixtures (...,D) of the rows of a codebook (K,D) by the probabilities of logits (...,K)."""
    return logits.softmax(dim=-1) @ codebook


def describe(network: MaskHand, hand_model: dict[str, str]) -> dict[str, Any]:
    """What a file of weights says of its network; ``load_maskhand`` reads it."""
    return {
        'network': NETWORK_NAME,
        'configuration': asdict(network.configuration),
        'vq_mano': asdict(network.vq_mano.configuration),
        'hand_model': hand_model,
    }


def load_maskhand(path: Path = MASKHAND_PATH) -> tuple[MaskHand, dict[str, Any]]:
    """The network of a file that ``hand-mesh train maskhand`` wrote, on the CPU, for inference.

    With it comes the file's description: ``calibration`` holds the ``offset`` a and ``slope`` b of
    confidence = sigmoid(a - b log_variance); 0 and 1 where the file has none.

    :raises FileFormatError: the file is missing, damaged or holds another network.
    """
    weights, description = load_weights(path)
    try:
        if description['network'] != NETWORK_NAME:
            raise ValueError(f'a {description["network"]} network')
        sizes = dict(description['configuration'])
        sizes['strides'] = tuple(sizes['strides'])
        sizes['lifters'] = tuple(map(tuple, sizes['lifters']))
        configuration, vq_mano = MaskHandConfiguration(**sizes), VqManoConfiguration(**description['vq_mano'])
        network = built(lambda: MaskHand(configuration, VqMano(vq_mano)), weights)
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigurationError) as error:
        raise FileFormatError(f'{path}: not the weights of a MaskHand network: {error}') from error
    description.setdefault('calibration', {'offset': 0.0, 'slope': 1.0})
    return network.eval().requires_grad_(False), description
