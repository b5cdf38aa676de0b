"""What heatmaps of keypoints should be."""

from __future__ import annotations

import torch
from torch import Tensor


def splat(places: Tensor, height: int, width: int) -> Tensor:
    """Distributions (B,N,H*W) over a map's pixels whose means are places (B,N,2), -1..1 over it: bilinear."""
    shares = []
    for axis, count in enumerate((width, height)):
        position = ((places[..., axis] + 1) * (count / 2) - 0.5).clamp(0, count - 1)
        distance = (position[..., None] - torch.arange(count, device=places.device)).abs()
        shares.append((1 - distance).clamp(min=0))
    across, down = shares
    return (down[..., None] * across[..., None, :]).flatten(-2)
