"""From a detector's cues alone to a whole pose: the guess that the masked transformer starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hand_mesh_ros.networks.rotations import matrices_from_six, six_numbers
from hand_mesh_ros.networks.skeleton_graph import CUE_FEATURES, KEYPOINTS, HandCues
from hand_mesh_ros.networks.vq_mano import JOINTS

BETAS = 10

_SIX = 6  #: numbers of a rotation


class LiftedHand(NamedTuple):
    """What the cues suggest."""

    rotations: Tensor  #: (B,16,3,3) each joint against its parent, the wrist's against the crop camera first
    betas: Tensor  #: (B,10)


class Lifter(nn.Module):
    """A residual network over all cues at once (J. Martinez et al., "A simple yet effective baseline for
    3d human pose estimation", 2017, with layer normalisation)."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.entry = nn.Linear(KEYPOINTS * CUE_FEATURES, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.exit = nn.Linear(width, JOINTS * _SIX + BETAS)
        with torch.no_grad():  # begins near no rotation
            self.exit.weight.mul_(0.1)
            self.exit.bias.zero_()
            self.exit.bias[: JOINTS * _SIX].view(JOINTS, _SIX)[:, [0, 4]] = 1.0

    def forward(self, cues: HandCues) -> LiftedHand:
        """The hand of cues."""
        x = self.entry(cues.features().flatten(1))
        for block in self.blocks:
            x = block(x)
        numbers, betas = self.exit(self.norm(x)).split([JOINTS * _SIX, BETAS], dim=1)
        return LiftedHand(matrices_from_six(numbers.float().unflatten(1, (JOINTS, _SIX))), betas)


class Lifters(nn.Module):
    """Several lifters, of which the mean is taken.

    Trained on the same invented errors, each learns some of these by heart; what they learn of hands is
    what they have in common.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Of widths and depths ``sizes``, at least one, with random weights."""
        super().__init__()
        self.members = nn.ModuleList(Lifter(width, depth) for width, depth in sizes)

    def forward(self, cues: HandCues) -> LiftedHand:
        """The hand of cues: the mean of rotations is that of their matrices' first two columns."""
        hands: list[LiftedHand] = [member(cues) for member in self.members]
        numbers = torch.stack([six_numbers(hand.rotations) for hand in hands]).mean(dim=0)
        return LiftedHand(matrices_from_six(numbers), torch.stack([hand.betas for hand in hands]).mean(dim=0))


class ResidualBlock(nn.Module):
    """Two layers that begin as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Linear(width, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)
