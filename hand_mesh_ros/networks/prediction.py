"""Crops and cues to hands: everything between a network's input and what is made of its output."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hand_mesh_ros.crop_view import RMS_SHARE
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.networks.context import HandContext
from hand_mesh_ros.networks.maskhand import MaskHand
from hand_mesh_ros.networks.sampling import SampledTokens, repeated_context, sample_tokens
from hand_mesh_ros.networks.skeleton_graph import HandCues

#: Metres; no hand's keypoints lie closer together than this.
_SMALLEST_SPREAD = 1e-3


class HandPrediction(NamedTuple):
    """Right hands as the network sees them, in their crops' cameras; M hypotheses of each of B hands."""

    rotations: Tensor  #: (B*M,16,3,3) each joint against its parent, the wrist's against the camera first
    betas: Tensor  #: (B*M,10)
    keypoints: Tensor  #: (B*M,21,3) metres, from the wrist
    log_variance: Tensor  #: (B*M,21) of each keypoint's aligned error, square centimetres; not calibrated
    camera: Tensor  #: (B*M,3): see ``camera_translation``
    landmarks: Tensor  #: (B*M,21,2) where the image shows the keypoints, -1..1 over the crop
    seen_keypoints: Tensor  #: (B*M,21,2) where cues and second look together say that they are
    vertices: Tensor  #: (B*M,V,3) metres, from the wrist's keypoint
    tokens: Tensor  #: (B*M,N) int64


@torch.no_grad()
def predict(
    network: MaskHand,
    layer: HandLayer,
    images: Tensor | list[Tensor],
    cues: HandCues,
    *,
    steps: int = 5,
    hypotheses: int = 1,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
    use_image: bool = True,
) -> HandPrediction:
    """Hands of images (B,3,S,S) float RGB, 0..1, or of what ``MaskHand.see`` says of them, and cues.

    :param layer: of the right hand's model.
    :param steps: iterations of the sampling.
    :param hypotheses: M; they differ only at a temperature above zero.
    :param temperature: of the drawing of tokens; 0 takes the mixtures of codes that the logits say.
    :param use_image: False switches the image branch off.
    """
    present = torch.full((len(cues.present),), use_image, device=cues.present.device)
    context = network.context(images, cues, present)
    return decode(
        network,
        layer,
        context,
        steps=steps,
        hypotheses=hypotheses,
        temperature=temperature,
        generator=generator,
    )


@torch.no_grad()
def decode(
    network: MaskHand,
    layer: HandLayer,
    context: HandContext,
    *,
    steps: int,
    hypotheses: int = 1,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> HandPrediction:
    """The second half of ``predict``: hands of their context."""
    sampled = sample_tokens(network.decoder, context, steps, hypotheses, temperature, generator)
    sampled = SampledTokens(*(t.flatten(0, 1) for t in sampled))
    if temperature == 0.0:
        rotations = network.rotations(sampled.logits)
    else:
        rotations = network.vq_mano.decode_indices(sampled.tokens)
    context = repeated_context(context, hypotheses)
    keypoints, vertices = points_from_wrist(layer, rotations, context.betas)
    projected = weak_projection(context.camera, keypoints)
    return HandPrediction(
        rotations=rotations,
        betas=context.betas,
        keypoints=keypoints,
        log_variance=network.confidence(sampled.logits, sampled.features, context, projected, keypoints),
        camera=context.camera,
        landmarks=sampled.landmarks[..., :2],
        seen_keypoints=context.cues.keypoints,
        vertices=vertices,
        tokens=sampled.tokens,
    )


def points_from_wrist(layer: HandLayer, rotations: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """Keypoints (B,21,3) and vertices (B,V,3), metres, from the wrist's keypoint, of rotations (B,16,3,3) and
    betas (B,10)."""
    posed = layer.from_rotations(rotations, betas, torch.zeros_like(betas[:, :3]))
    wrist = posed.keypoints[:, :1]
    return posed.keypoints - wrist, posed.vertices - wrist


def camera_translation(camera: Tensor, keypoints: Tensor, focal_share: Tensor) -> Tensor:
    """Translation (B,3), metres, of keypoints (B,21,3), so that the crop shows them where ``camera`` says.

    ``camera`` (B,3) holds the logarithm of the distance, against that at which a crop shows a hand in its
    usual size, and the place x, y of the keypoints' mean, -1..1 over the crop.

    :param focal_share: (B,) focal length of the crop's camera over half its side.
    """
    mean = keypoints.mean(dim=1)
    depth = camera[:, 0].exp() * focal_share * _spread(keypoints) / (2 * RMS_SHARE)
    centre = torch.cat([camera[:, 1:] * (depth / focal_share)[:, None], depth[:, None]], dim=1)
    return centre - mean


def weak_projection(camera: Tensor, keypoints: Tensor) -> Tensor:
    """Where the crop shows keypoints (B,21,3), -1..1 over it: (B,21,2), without perspective."""
    offsets = keypoints[..., :2] - keypoints[..., :2].mean(dim=1, keepdim=True)
    scale = (2 * RMS_SHARE) * (-camera[:, 0]).exp() / _spread(keypoints)
    return camera[:, None, 1:] + offsets * scale[:, None, None]


def _spread(keypoints: Tensor) -> Tensor:
    """(B,) root mean square distance of keypoints (B,21,3) from their mean, across the optical axis."""
    offsets = keypoints[..., :2] - keypoints[..., :2].mean(dim=1, keepdim=True)
    return offsets.square().sum(dim=-1).mean(dim=1).sqrt().clamp(min=_SMALLEST_SPREAD)
