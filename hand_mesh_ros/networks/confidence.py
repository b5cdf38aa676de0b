"""How far off each keypoint of a reconstructed hand may be."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hand_mesh_ros.hand_model.keypoints import KEYPOINT_JOINTS
from hand_mesh_ros.networks.context import HandContext
from hand_mesh_ros.networks.deformable_attention import sample_bilinear
from hand_mesh_ros.networks.second_look import DISAGREEMENT
from hand_mesh_ros.networks.skeleton_graph import CUE_FEATURES, KEYPOINTS, HandCues
from hand_mesh_ros.networks.vq_mano import JOINTS

#: Top probability and entropy; residuals in the image (2) and of the world landmarks (3), and their lengths.
_DISTRIBUTION, _RESIDUALS = 2, 7

#: Metres; a set of keypoints smaller than this is no hand.
_SMALLEST_SPREAD = 1e-4


class ConfidenceHead(nn.Module):
    """Predicts the error of each keypoint, from all that might betray one.

    That is: how sure the tokens are; the cues, and how far the two looks are apart; how far the
    reconstruction is from the cues, in the image and in space; the image where each keypoint comes to lie.
    Its loss trains this head alone, never what it looks at. Log-variances still need calibration on held-out
    data.
    """

    joints: Tensor

    def __init__(self, width: int, tokens: int, map_shape: tuple[int, int]) -> None:
        super().__init__()
        self.tokens_of_joint = tokens // JOINTS
        self.map_shape = map_shape
        self.register_buffer('joints', torch.tensor(KEYPOINT_JOINTS), persistent=False)
        self.image, self.pose = nn.Linear(width, width // 2), nn.Linear(width, width // 2)
        inputs = 2 * (width // 2) + _DISTRIBUTION + CUE_FEATURES + DISAGREEMENT + _RESIDUALS
        self.keypoint = nn.Parameter(torch.randn(KEYPOINTS, inputs) * 0.02)
        self.each = nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, width), nn.GELU())
        self.all = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(
        self,
        logits: Tensor,
        features: Tensor,
        context: HandContext,
        projected: Tensor,
        keypoints: Tensor,
    ) -> Tensor:
        """Log-variance (B,21) of each keypoint's error, the hand being aligned, in square centimetres.

        :param logits: (B,N,codes), with features (B,N,C), of the pose's tokens.
        :param projected: (B,21,2) the reconstruction's keypoints in the crop, -1..1 over it.
        :param keypoints: (B,21,3) the same in space, from the wrist, metres, crop camera's axes.
        """
        cues = HandCues(*(t.detach() for t in context.cues))
        logits, features, finest_map, projected, keypoints = (
            t.detach() for t in (logits, features, context.finest_map.float(), projected, keypoints)
        )
        image = self.image(sample_bilinear(finest_map, self.map_shape, (projected + 1) / 2))
        distribution, pose = (self._of_keypoints(t) for t in (_certainty(logits), self.pose(features)))
        of_cues = [cues.features(), context.disagreement, _residuals(cues, projected, keypoints)]
        each = self.each(torch.cat([image, pose, distribution, *of_cues], dim=-1) + self.keypoint)
        hand = each.mean(dim=1, keepdim=True).expand_as(each)
        return self.all(torch.cat([each, hand], dim=-1)).squeeze(-1)

    def _of_keypoints(self, of_tokens: Tensor) -> Tensor:
        """(B,21,C): means over the tokens (B,N,C) of the joint that each keypoint moves with."""
        of_joints = of_tokens.unflatten(1, (JOINTS, self.tokens_of_joint)).mean(dim=2)
        return of_joints.index_select(1, self.joints)


def _certainty(logits: Tensor) -> Tensor:
    """(B,N,2): the highest probability, and the entropy in nats."""
    log_probabilities = logits.log_softmax(dim=-1)
    probabilities = log_probabilities.exp()
    entropy = -(probabilities * log_probabilities).sum(dim=-1)
    return torch.stack([probabilities.amax(dim=-1), entropy], dim=-1)


def _residuals(cues: HandCues, projected: Tensor, keypoints: Tensor) -> Tensor:
    """(B,21,7): reconstruction less cues, in the image and in space, and how long; zero without a cue."""
    centred = keypoints - keypoints.mean(dim=1, keepdim=True)
    spread = centred.square().sum(dim=-1).mean(dim=1).sqrt().clamp(min=_SMALLEST_SPREAD)
    image = (projected - cues.keypoints).where(cues.keypoint_present[..., None], 0.0)
    space = (keypoints / spread[:, None, None] - cues.world).where(cues.present[:, 2, None, None], 0.0)
    lengths = [residual.norm(dim=-1, keepdim=True) for residual in (image, space)]
    return torch.cat([image, space, *lengths], dim=-1)
