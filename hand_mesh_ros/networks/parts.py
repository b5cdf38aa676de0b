"""The networks as graphs are made of them: modules of plain arrays in and plain arrays out.

Pixels come in as bytes and what goes out is all that a caller wants to know, so that nothing is left to do
between an image and a hand but copies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.networks.context import HandContext
from hand_mesh_ros.networks.mask2hand import Mask2Hand, wrist_position
from hand_mesh_ros.networks.maskhand import MaskHand
from hand_mesh_ros.networks.prediction import decode
from hand_mesh_ros.networks.refine_net import RefineNet
from hand_mesh_ros.networks.rotations import axis_angles
from hand_mesh_ros.networks.skeleton_graph import HandCues


class Part(nn.Module):
    """A part of a network that runs as a whole. Its tensors go by the order of these names."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class MaskHandEncoder(Part):
    """From crops (B,S,S,3) uint8 RGB and cues to the context of the pose, once for each hand."""

    inputs = ('images', 'keypoints', 'confidence', 'relative_depth', 'world', 'present')

    def __init__(self, network: MaskHand, use_image: bool = True) -> None:
        """``use_image``: False lets the network do with the cues."""
        super().__init__()
        self.network, self.use_image = network, use_image
        self.outputs = _context_names(network)

    def forward(self, images: Tensor, *cues: Tensor) -> tuple[Tensor, ...]:
        """What ``MaskHandDecoder`` takes."""
        # Bytes become floats first: TensorRT 8.6 moves no bytes about
        pixels = images.float().permute(0, 3, 1, 2) / 255.0
        present = torch.full((images.shape[0],), self.use_image, device=images.device)
        c = self.network.context(pixels, HandCues(*cues), present)
        rest = (c.disagreement, c.cue_tokens, c.proposal, c.prior, c.references, c.finest_map, c.betas)
        cues_of_both = (cue.clone() for cue in c.cues)  # an input cannot be an output
        return (*cues_of_both, *rest, c.camera, *c.values)


class MaskHandDecoder(Part):
    """The iterations of the sampling, and the hand that comes of them."""

    outputs = (
        'global_orient',
        'hand_pose',
        'betas',
        'confidence',
        'presence',
        'keypoints_2d',
        'keypoints_3d',
        'vertices',
        'tokens',
    )

    def __init__(
        self, network: MaskHand, layer: HandLayer, steps: int, calibration: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        """Of ``steps`` iterations.

        :param layer: of the right hand's model.
        :param calibration: offset a and slope b of confidence = sigmoid(a - b log_variance).
        """
        super().__init__()
        self.network, self.layer, self.steps, self.calibration = network, layer, steps, calibration
        self.inputs = _context_names(network)

    def forward(self, *context: Tensor) -> tuple[Tensor, ...]:
        """Axis-angles (B,3) and (B,45), betas (B,10), confidences (B,21), presence (B,), keypoints in the
        crop (B,21,2) and in space (B,21,3), vertices (B,V,3), tokens (B,N): see ``network.NetworkOutput``."""
        cues, (disagreement, cue_tokens, proposal, prior, references, finest_map, betas, camera) = (
            context[: len(_CUES)],
            context[len(_CUES) : -self.network.configuration.synthesizer_blocks],
        )
        known = HandContext(
            cues=HandCues(*cues),
            disagreement=disagreement,
            cue_tokens=cue_tokens,
            proposal=proposal,
            prior=prior,
            codes=softplus(self.network.sharpness) * self.network.vq_mano.codebook,
            references=references,
            values=context[-self.network.configuration.synthesizer_blocks :],
            finest_map=finest_map,
            heatmaps=finest_map,  # nothing that decodes looks at them
            betas=betas,
            camera=camera,
        )
        hand = decode(self.network, self.layer, known, steps=self.steps)
        angles = axis_angles(hand.rotations)
        offset, slope = self.calibration
        return (
            angles[:, 0],
            angles[:, 1:].flatten(1),
            hand.betas.clone(),  # an input cannot be an output
            torch.sigmoid(offset - slope * hand.log_variance),
            torch.sigmoid(disagreement[:, 0, -1]),
            hand.seen_keypoints.clone(),
            hand.keypoints,
            hand.vertices,
            hand.tokens,
        )


class Mask2HandPart(Part):
    """From crops of masks to hypotheses of the hands in them."""

    inputs = ('crops', 'half_sides')
    outputs = ('global_orient', 'hand_pose', 'betas', 'wrist', 'confidence', 'score')

    def __init__(self, network: Mask2Hand, calibration: tuple[float, float] = (0.0, 1.0)) -> None:
        """``calibration``: offset a and slope b of confidence = sigmoid(a - b log_variance)."""
        super().__init__()
        self.network, self.calibration = network, calibration

    def forward(self, crops: Tensor, half_sides: Tensor) -> tuple[Tensor, ...]:
        """Of crops (B,S,S) uint8 and (B,): axis-angles (B,K,3) and (B,K,45), betas (B,K,10), wrists (B,K,3),
        confidences (B,K,21), scores (B,K): see ``network.SilhouetteHand``."""
        hands = self.network(crops.float()[:, None] / 255.0, half_sides)
        angles = axis_angles(hands.rotations)
        offset, slope = self.calibration
        return (
            angles[:, :, 0],
            angles[:, :, 1:].flatten(2),
            hands.betas,
            wrist_position(hands.place, half_sides[:, None]),
            torch.sigmoid(offset - slope * hands.log_variance),
            hands.scores.softmax(dim=1),
        )


class RefineNetPart(Part):
    """From crops of masks, and the hands that were told of them, to how far their vertices move."""

    inputs = ('crops', 'drawn', 'vertices', 'half_sides')
    outputs = ('offsets',)

    def __init__(self, network: RefineNet) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, crops: Tensor, drawn: Tensor, vertices: Tensor, half_sides: Tensor
    ) -> tuple[Tensor, ...]:
        """Metres (B,V,3), of crops (B,S,S) uint8, silhouettes (B,S,S) float, vertices (B,V,3) and (B,)."""
        return (self.network(crops.float()[:, None] / 255.0, drawn[:, None], vertices, half_sides),)


_CUES = ('cue_keypoints', 'cue_confidence', 'cue_relative_depth', 'cue_world', 'cue_present')

_CONTEXT: tuple[str, ...] = (
    'disagreement',
    'cue_tokens',
    'proposal',
    'prior',
    'references',
    'finest_map',
    'shape',
    'camera',
)


def _context_names(network: MaskHand) -> tuple[str, ...]:
    """What of a context goes from the encoder to the decoder."""
    values = (f'values_{block}' for block in range(network.configuration.synthesizer_blocks))
    return (*_CUES, *_CONTEXT, *values)
