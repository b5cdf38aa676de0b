"""What a hand's crop and cues tell of it: the context that its pose is predicted in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hand_mesh_ros.hand_model.keypoints import KEYPOINT_JOINTS
from hand_mesh_ros.networks.configuration import MaskHandConfiguration
from hand_mesh_ros.networks.encoder import ImageEncoder
from hand_mesh_ros.networks.lifter import BETAS
from hand_mesh_ros.networks.refinement import Attention, FeedForward
from hand_mesh_ros.networks.second_look import DISAGREEMENT, MergedCues
from hand_mesh_ros.networks.skeleton_graph import KEYPOINTS, HandCues, SkeletonGraph
from hand_mesh_ros.networks.vq_mano import JOINTS

CAMERA = 3

#: Numbers that ``_image_features`` gives for each keypoint.
_IMAGE_FEATURES = 6 + DISAGREEMENT

#: Keypoint that stands for the place of the whole hand: the middle finger's knuckle.
_HAND_CENTRE = 9


class HandContext(NamedTuple):
    """All that image and cues say: made once per hand, used by every iteration of the sampling."""

    cues: HandCues  #: of both looks
    disagreement: Tensor  #: (B,21,9) see ``second_look.MergedCues``
    cue_tokens: Tensor  #: (B,K,C)
    proposal: Tensor  #: (B,N,C) the pose that the cues suggest, token by token
    prior: Tensor  #: (B,N,codes) logits of that pose
    codes: Tensor  #: (codes,D), the same for all hands: what the logits change by where embeddings do
    references: Tensor  #: (B,K+N,2) where each token looks in the crop, x, y in 0..1 over it
    values: tuple[Tensor, ...]  #: one per synthesizer block: (B,heads,P,C/heads), P over the maps' pixels
    finest_map: Tensor  #: (B,H*W,C), row by row
    heatmaps: Tensor  #: (B,21,H*W) logits of where in the finest map each keypoint is
    betas: Tensor  #: (B,10)
    camera: Tensor  #: (B,3): see ``prediction.camera_translation``


class ContextEncoder(nn.Module):
    """Image and cues to the context of the pose; shape and camera besides."""

    centres: Tensor
    reference_keypoints: Tensor

    def __init__(self, configuration: MaskHandConfiguration, tokens: int, code_dim: int) -> None:
        """Build it with random weights.

        :param tokens: N, of a pose.
        :param code_dim: D, of the codebook.
        """
        super().__init__()
        c = configuration
        self.configuration = c
        self.image_encoder = ImageEncoder(c.backbone, c.image_size, c.strides, c.width)
        areas = [height * width for height, width in self.image_encoder.shapes]
        self.finest_area, self.coarsest_area = areas[0], areas[-1]
        self.pixel_position = nn.Parameter(torch.randn(sum(areas), c.width) * 0.02)
        #: What every pixel of the maps shows where there is no image.
        self.no_image = nn.Parameter(torch.randn(c.width) * 0.1)
        self.map_norm = nn.LayerNorm(c.width)
        self.values = nn.Linear(c.width, c.synthesizer_blocks * c.width)
        self.skeleton = SkeletonGraph(c.graph_width, c.graph_layers)
        nodes_of_token = KEYPOINTS // c.cue_tokens
        self.cue_token = nn.Linear(nodes_of_token * c.graph_width, c.width)
        self.proposal = nn.Linear(code_dim, c.width)
        self.heatmaps = nn.Linear(c.width, KEYPOINTS)
        self.image_token = nn.Linear(nodes_of_token * _IMAGE_FEATURES, c.width)
        self.register_buffer('centres', _pixel_centres(*self.image_encoder.shapes[0]), persistent=False)
        cue_keypoints = range(KEYPOINTS) if c.cue_tokens == KEYPOINTS else (_HAND_CENTRE,)
        token_keypoints = (KEYPOINT_JOINTS.index(joint) for joint in token_joints(tokens))
        self.register_buffer(
            'reference_keypoints', torch.tensor([*cue_keypoints, *token_keypoints]), persistent=False
        )
        self.shape_camera = ShapeCameraHead(c.width, c.heads)

    def forward(
        self,
        seen: list[Tensor],
        merged: MergedCues,
        image_present: Tensor,
        embeddings: Tensor,
        prior: Tensor,
        codes: Tensor,
    ) -> HandContext:
        """Context of images and cues.

        :param seen: what the backbone's maps show, see ``ImageEncoder.see``.
        :param image_present: (B,) bool: the image branch is off where this is False.
        :param embeddings: (B,N,D) of the pose that the cues suggest, with ``prior`` (B,N,codes) its logits.
        :param codes: (codes,D): what those logits change by where the embeddings do.
        """
        cues = merged.cues
        maps = [m.flatten(2).transpose(1, 2) for m in self.image_encoder(seen)]
        shown = torch.where(image_present[:, None, None], torch.cat(maps, dim=1), self.no_image)
        pyramid = self.map_norm(shown + self.pixel_position)
        nodes = self.skeleton(cues)
        tokens = (nodes.shape[0], self.configuration.cue_tokens, -1)
        finest_map = pyramid[:, : self.finest_area]
        heatmaps = self.heatmaps(finest_map).transpose(1, 2)
        in_image = image_keypoints(heatmaps, self.centres)
        image_features = torch.cat([_image_features(heatmaps, in_image, cues), merged.disagreement], dim=-1)
        cue_tokens = self.cue_token(nodes.reshape(tokens))
        cue_tokens = cue_tokens + self.image_token(image_features.reshape(tokens))
        betas, camera = self.shape_camera(torch.cat([pyramid[:, -self.coarsest_area :], cue_tokens], dim=1))
        return HandContext(
            cues=cues,
            disagreement=merged.disagreement,
            cue_tokens=cue_tokens,
            proposal=self.proposal(embeddings),
            prior=prior,
            codes=codes,
            references=_places(cues, in_image).index_select(1, self.reference_keypoints),
            values=self._split_values(pyramid),
            finest_map=finest_map,
            heatmaps=heatmaps,
            betas=betas,
            camera=camera,
        )

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
        for head in (self.betas, self.camera):  # both begin at zero: the mean hand, in the crop's middle
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Betas (B,10) and camera (B,3) of a context (B,S,C)."""
        queries = self.queries.expand(context.shape[0], -1, -1)
        found = queries + self.attention(queries, context)
        shape, camera = (found + self.feed_forward(self.norm(found))).unbind(dim=1)
        return self.betas(shape), self.camera(camera)


def image_keypoints(heatmaps: Tensor, centres: Tensor) -> Tensor:
    """Keypoints (B,21,2), -1..1 over the crop: means of the heatmaps (B,21,P) over pixels at centres (P,2).

    Source: X. Sun et al., "Integral human pose regression", 2018.
    """
    with torch.autocast(heatmaps.device.type, enabled=False):  # half precision would be off by a tenth pixel
        return heatmaps.float().softmax(dim=-1) @ centres


def _image_features(heatmaps: Tensor, in_image: Tensor, cues: HandCues) -> Tensor:
    """(B,21,6): where the image shows each keypoint, how surely, and how far from its cue."""
    log_probabilities = heatmaps.float().log_softmax(dim=-1)
    peak = log_probabilities.amax(dim=-1, keepdim=True)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=-1, keepdim=True)
    from_cue = torch.where(cues.keypoint_present[..., None], in_image - cues.keypoints, 0.0)
    return torch.cat([in_image, from_cue, peak, entropy], dim=-1)


def _places(cues: HandCues, in_image: Tensor) -> Tensor:
    """(B,21,2) in 0..1 over the crop: the keypoints where the cues have them, else where the image does."""
    places = torch.where(cues.keypoint_present[..., None], cues.keypoints, in_image)
    return ((places + 1) / 2).clamp(0, 1)


def _pixel_centres(height: int, width: int) -> Tensor:
    """(H*W,2) x, y of a map's pixels, row by row, -1..1 from edge to edge."""
    down, across = ((torch.arange(count) + 0.5) * (2 / count) - 1 for count in (height, width))
    return torch.cartesian_prod(down, across).flip(1)


def token_joints(tokens: int) -> list[int]:
    """The hand model's joint that each token of a pose tells of."""
    return [token * JOINTS // tokens for token in range(tokens)]
