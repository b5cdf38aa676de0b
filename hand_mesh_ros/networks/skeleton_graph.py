"""What a detector says of a hand's 21 keypoints, through a graph network along the bones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from hand_mesh_ros.hand_model.keypoints import JOINT_PARENTS, KEYPOINT_PARENTS

KEYPOINTS = len(KEYPOINT_PARENTS)

#: Numbers that ``HandCues.features`` gives for each keypoint.
CUE_FEATURES = 10


class HandCues(NamedTuple):
    """What is known of hands besides their pictures; any of it may be missing.

    Values behind a missing flag may be anything, even no numbers.
    """

    keypoints: Tensor  #: (B,21,2) float, -1..1 over the crop, x right, y down
    confidence: Tensor  #: (B,21) float, 0..1; 0 for a keypoint that is missing
    relative_depth: Tensor  #: (B,21) float, behind the wrist, in half sides of the crop
    world: Tensor  #: (B,21,3) float, from the wrist, crop camera's axes, unit RMS distance from their mean
    present: Tensor  #: (B,3) bool: keypoints, relative depth, world landmarks

    @property
    def keypoint_present(self) -> Tensor:
        """(B,21) bool: the keypoints that a position is known of."""
        return self.present[:, :1] & (self.confidence > 0)

    def features(self) -> Tensor:
        """(B,21,10): everything known of each keypoint, zero where it is missing, and three flags."""
        seen = self.keypoint_present[..., None]
        depth, world = (self.present[:, i, None, None].expand_as(seen) for i in (1, 2))
        parts = [
            (self.keypoints, seen),
            (self.confidence[..., None], seen),
            (self.relative_depth[..., None], depth),
            (self.world, world),
        ]
        known = [torch.where(flag, values, torch.zeros_like(values)) for values, flag in parts]
        flags = [flag.to(self.keypoints.dtype) for flag in (seen, depth, world)]
        return torch.cat([*known, *flags], dim=-1)


class SkeletonGraph(nn.Module):
    """Cues to one vector per keypoint, by graph convolutions over the skeleton's bones.

    Source of the convolution: T. Kipf, M. Welling, "Semi-supervised classification with graph
    convolutional networks", 2017; with a weight of its own for the node itself.
    """

    adjacency: Tensor

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.register_buffer('adjacency', bone_adjacency(), persistent=False)
        self.entry = nn.Linear(CUE_FEATURES, width)
        self.keypoint = nn.Parameter(torch.randn(KEYPOINTS, width) * 0.1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.own = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.neighbours = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))

    def forward(self, cues: HandCues) -> Tensor:
        """(B,21,W) of cues."""
        nodes = self.entry(cues.features()) + self.keypoint
        for norm, own, neighbours in zip(self.norms, self.own, self.neighbours, strict=True):
            normal = norm(nodes)
            nodes = nodes + gelu(own(normal) + self.adjacency @ neighbours(normal))
        return nodes


def bone_adjacency() -> Tensor:
    """(21,21) float32: bones and self-loops, normalised symmetrically by the nodes' degrees."""
    adjacency = torch.eye(KEYPOINTS)
    for child, parent in enumerate(KEYPOINT_PARENTS):
        if parent >= 0:
            adjacency[child, parent] = adjacency[parent, child] = 1.0
    root_degree = adjacency.sum(dim=1).sqrt()
    return adjacency / root_degree[:, None] / root_degree


def joint_distances() -> Tensor:
    """(16,16) int64: how many bones lie between each two of the hand model's joints."""
    chains = [_chain_to_root(joint) for joint in range(len(JOINT_PARENTS))]
    return torch.tensor([[len(set(one) ^ set(other)) for other in chains] for one in chains])


def _chain_to_root(joint: int) -> list[int]:
    chain = []
    while joint >= 0:
        chain.append(joint)
        joint = JOINT_PARENTS[joint]
    return chain
