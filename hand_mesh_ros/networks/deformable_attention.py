"""Multi-scale deformable attention, its bilinear sampling written with plain gathers.

Source: X. Zhu et al., "Deformable DETR", 2021. No grid_sample: TensorRT 10.13 to 11.1 gets it silently
wrong where deformable attention is made of it (NVIDIA/TensorRT issues 4646 and 4813).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

#: Height and width of each map of a pyramid, finest first.
PyramidShapes = Sequence[tuple[int, int]]


def sample_bilinear(features: Tensor, shape: tuple[int, int], points: Tensor) -> Tensor:
    """Features (B,N,C) at points (B,N,2) of maps (B,H*W,C), row by row, of that shape (H,W).

    Points are x, y, 0..1 from the outer edge of the first pixel to that of the last, as with
    ``grid_sample(align_corners=False)``; beyond the map everything is zero.
    """
    height, width = shape
    points = points.float()  # half precision cannot tell apart the pixels of a large map
    size = points.new_tensor([width, height])
    start = torch.zeros((), dtype=torch.int64, device=points.device)
    rows, shares = _corners(points, size, start)
    return _gathered(features, rows, shares)


class DeformableAttention(nn.Module):
    """Each query looks at a few points of each map about its reference point.

    Values come projected and split into heads already: they serve every iteration of the sampling.
    """

    sizes: Tensor
    starts: Tensor

    def __init__(self, width: int, heads: int, shapes: PyramidShapes, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, len(shapes), points
        self.offsets = nn.Linear(width, heads * self.levels * points * 2)
        self.weights = nn.Linear(width, heads * self.levels * points)
        self.out = nn.Linear(width, width)
        sizes = torch.tensor([[w, h] for h, w in shapes])
        areas = sizes.prod(dim=1)
        # As large as a query's locations (heads,levels,points,2): they broadcast faster than smaller ones
        each = (heads, self.levels, points)
        sizes, starts = sizes[:, None].float(), (areas.cumsum(0) - areas)[:, None]
        self.register_buffer('sizes', sizes.expand(*each, 2).contiguous(), persistent=False)
        self.register_buffer('starts', starts.expand(each).contiguous(), persistent=False)
        self._look_around()

    def forward(self, queries: Tensor, references: Tensor, values: Tensor) -> Tensor:
        """What queries (B,Q,C) see about references (B,Q,2), x, y in 0..1, in values (B,heads,P,C/heads).

        P runs over the pixels of all maps, map by map and row by row. Returns (B,Q,C).
        """
        batch, count, _ = queries.shape
        grid = (batch, count, self.heads, self.levels, self.points)
        weights = self.weights(queries).unflatten(-1, (self.heads, -1)).softmax(dim=-1).reshape(grid)
        # In float32, as in sample_bilinear
        offsets = self.offsets(queries).float().reshape(*grid, 2)
        locations = references[:, :, None, None, None].float() + offsets / self.sizes
        rows, shares = _corners(locations, self.sizes, self.starts)
        shares = shares.to(values.dtype) * weights[..., None].to(values.dtype)
        # To (B*heads,Q,levels*points*4)
        rows, shares = (t.transpose(1, 2).flatten(3).flatten(0, 1) for t in (rows, shares))
        seen = _gathered(values.flatten(0, 1), rows, shares)
        return self.out(seen.reshape(batch, self.heads, count, -1).transpose(1, 2).reshape(queries.shape))

    def _look_around(self) -> None:
        """Begin with each head looking its own way, each point one pixel further."""
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        nn.init.zeros_(self.offsets.weight)
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        steps = torch.arange(1, self.points + 1)[:, None]
        ring = directions[:, None, None] * steps  # (heads,1,points,2)
        with torch.no_grad():
            self.offsets.bias.copy_(ring.expand(-1, self.levels, -1, -1).flatten())


def _corners(locations: Tensor, sizes: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """The four pixels about each location (...,2): their rows (...,4) int64 and shares (...,4) float.

    Sizes are widths and heights as floats, starts the rows at which the maps begin.
    """
    pixels = locations * sizes - 0.5
    low = pixels.floor()
    upper_share = pixels - low
    # The pixels before and after, on each axis; a new first dimension leaves the others fast to broadcast
    corners = torch.stack([low, low + 1])
    inside = corners.clamp(min=0).minimum(sizes - 1)
    shares = torch.stack([1 - upper_share, upper_share]) * (corners == inside)
    columns, lines = inside.long().unbind(dim=-1)
    rows = (starts + lines * sizes[..., 0].long())[:, None] + columns
    products = shares[:, None, ..., 1] * shares[..., 0]
    return rows.flatten(0, 1).movedim(0, -1), products.flatten(0, 1).movedim(0, -1)


def _gathered(tables: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
    """(T,N,D): sums over the last dimension of rows and shares (T,N,K), from tables (T,P,D)."""
    count, length, width = tables.shape
    firsts = torch.arange(count, device=tables.device)[:, None, None] * length
    # Whole rows of one table: a Gather along the first axis, which every runtime has in a fast form
    taken = embedding(rows + firsts, tables.reshape(count * length, width))
    return (shares[..., None, :].to(taken.dtype) @ taken).squeeze(-2)
