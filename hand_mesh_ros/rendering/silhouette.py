"""Differentiable silhouettes: how surely each pixel of a crop is covered, with gradients to the mesh.

SoftRas (Liu et al., "Soft Rasterizer: A Differentiable Renderer for Image-based 3D Reasoning", 2019): face j
covers a pixel with the probability D_j = sigmoid(d_j^2 / sigma), d_j being the distance from the pixel's
centre to the outline of the projected triangle, and the exponent negative outside of it. The pixel is covered
with the probability 1 - prod_j (1 - D_j).

The same numbers come from two implementations. On the CPU compiled loops go over the faces, with the gradient
worked out by hand (``soft_coverage``): several times faster, and trainings run there. On other devices, and
for the depth, PyTorch works on one flat list of all pairs of a face and a pixel near it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hand_mesh_ros.rendering.soft_coverage import TINY, cover, move
from hand_mesh_ros.rendering.zbuffer import NEAR_M

#: Probability of covering a pixel below which a face counts for nothing there, as in SoftRas.
CUTOFF = 1e-4


class SoftSilhouette(nn.Module):
    """Draws the soft silhouettes of meshes that share their faces. Has no parameters.

    A square crop is what a pinhole camera sees whose axis passes through the crop's middle: a point appears
    at (X, Y) / Z * half side, where -1..1 reach from edge to edge of the picture, as ``CropView.to_unit``
    has it. Faces with a vertex that is nearer than ``NEAR_M`` or not finite are left out, and so are faces
    seen edge-on.

    Faces that meet at the mesh's outline add up there, which is SoftRas's own: where a hand is covered with
    probability 0.5 is about 1.2 sqrt(sigma) outside of it (1.5 sqrt(sigma) for a large, 1.0 for a small
    sigma). So compare with another soft silhouette where the target's mesh is known: against a hard mask,
    the mesh settles smaller or farther away than it is, unless sigma is small.
    """

    faces: Tensor

    def __init__(
        self, faces: np.ndarray, size: int, sigma: float = 1e-4, gamma: float = 1e-4, cutoff: float = CUTOFF
    ) -> None:
        """
        :param faces: (F,3) integer vertex numbers; their winding does not matter.
        :param size: side of the crops in pixels.
        :param sigma: blur, in squared half sides of the crop. Outlines are blurred over about sqrt(sigma);
            beyond 3 sqrt(sigma) nothing feels them.
        :param gamma: temperature of the depth's mean over faces, as a share of the mesh's extent in depth.
        :param cutoff: probability of covering a pixel below which a face counts for nothing there.
        :raises ValueError: ``size``, ``sigma`` or ``gamma`` is not positive, ``cutoff`` not between 0 and
            0.5, or a vertex number is negative.
        """
        super().__init__()
        if min(size, sigma, gamma) <= 0 or not 0 < cutoff < 0.5:
            raise ValueError(f'no silhouette can have {size=}, {sigma=}, {gamma=}, {cutoff=}')
        faces = np.array(faces, np.int64).reshape(-1, 3)
        if faces.size and faces.min() < 0:
            raise ValueError(f'faces refer to vertex {faces.min()}')
        self.register_buffer('faces', torch.from_numpy(faces), persistent=False)
        self.size, self.sigma, self.gamma = size, sigma, gamma
        #: How far beyond its outline a face is felt, in half sides of the crop.
        self.reach = math.sqrt(sigma * (math.log1p(-cutoff) - math.log(cutoff)))
        self._vertices = int(faces.max(initial=-1)) + 1

    def forward(self, vertices_camera: Tensor, half_sides: Tensor) -> Tensor:
        """Probabilities (B,S,S) that pixels are covered, with gradients to both arguments.

        :param vertices_camera: (B,V,3) metres, each mesh in its own crop's camera.
        :param half_sides: (B,) what each crop enlarges a slope by: ``CropViews.half_sides``.
        :raises ValueError: the faces refer to vertices that are not there.
        """
        points, _ = self._seen(vertices_camera, half_sides)
        if points.device.type == 'cpu':
            return _Covered.apply(points, self.faces.numpy(), self.size, self.sigma, self.reach)
        return self._pairs(points).covered()

    def with_depth(self, vertices_camera: Tensor, half_sides: Tensor) -> tuple[Tensor, Tensor]:
        """Silhouettes and depths in metres, both (B,S,S) and differentiable; much slower than ``forward``.

        A depth is the mean of the faces that touch the pixel, weighted by D_j exp(n_j / gamma), n_j being 1
        at the mesh's nearest vertex and 0 at its farthest, and 0 where no face reaches. (SoftRas also gives
        the background a weight; here the silhouette says how far there is anything.)
        """
        points, depths = self._seen(vertices_camera, half_sides)
        pairs = self._pairs(points)
        return pairs.covered(), pairs.depth(depths[:, self.faces], self.gamma)

    def _seen(self, vertices_camera: Tensor, half_sides: Tensor) -> tuple[Tensor, Tensor]:
        """Where vertices appear (B,V,2), NaN for those not in front, and their depths (B,V)."""
        if vertices_camera.shape[1] < self._vertices:
            raise ValueError(
                f'faces refer to {self._vertices} vertices, there are {vertices_camera.shape[1]}'
            )
        if vertices_camera.dtype not in (torch.float32, torch.float64):
            vertices_camera = vertices_camera.float()
        front = (vertices_camera[..., 2:] >= NEAR_M) & vertices_camera.isfinite().all(-1, keepdim=True)
        # The others get a harmless depth first: a NaN in the branch not taken would reach the gradient.
        safe = torch.where(front, vertices_camera, 1.0)
        points = safe[..., :2] / safe[..., 2:] * half_sides.to(safe)[:, None, None]
        return points.masked_fill(~front, math.nan), safe[..., 2]

    def _pairs(self, points: Tensor) -> _Pairs:
        """All pairs of a face and a pixel that it may cover, of ``points`` (B,V,2)."""
        corners = points[:, self.faces]
        with torch.no_grad():
            batch, face = _drawable(corners).nonzero(as_tuple=True)
            box = corners[batch, face]
            first = _to_pixel(box.amin(1) - self.reach, self.size).ceil().clamp(0, self.size).long()
            last = _to_pixel(box.amax(1) + self.reach, self.size).floor().clamp(-1, self.size - 1).long()
            width, height = (last - first + 1).clamp(min=0).unbind(1)
            count = width * height
            row = torch.repeat_interleave(count)
            within = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
            x, y = first[row, 0] + within % width[row], first[row, 1] + within // width[row]
            centre = (2 * torch.stack([x, y], 1) + 1).to(points) / self.size - 1
            squared = _signed_squared_distance(corners[batch[row], face[row]], centre)
            near = squared > -(self.reach**2)
            batch, face = batch[row][near], face[row][near]
            pixel = (batch * self.size + y[near]) * self.size + x[near]
        shape = (len(points), self.size, self.size)
        return _Pairs(shape, batch, face, pixel, centre[near], corners[batch, face], self.sigma)


class _Pairs(NamedTuple):
    """P pairs of a face and a pixel near it, of B pictures."""

    shape: tuple[int, int, int]  #: (B,S,S)
    batch: Tensor  #: (P,) the picture
    face: Tensor  #: (P,)
    pixel: Tensor  #: (P,) number among those of all pictures
    centre: Tensor  #: (P,2) of the pixel, in half sides of the crop
    corners: Tensor  #: (P,3,2) of the face, likewise
    sigma: float

    def exponents(self) -> Tensor:
        """Those of the sigmoids, (P,)."""
        return _signed_squared_distance(self.corners, self.centre) / self.sigma

    def covered(self) -> Tensor:
        """Probabilities (B,S,S) that the pixels are covered."""
        # log(1 - sigmoid(x)) is logsigmoid(-x), which does not overflow
        return -torch.expm1(self._summed(nn.functional.logsigmoid(-self.exponents()))).view(self.shape)

    def depth(self, depths: Tensor, gamma: float) -> Tensor:
        """Mean depth (B,S,S) of what each pixel may see; ``depths`` (B,F,3) are the corners'."""
        if not len(self.batch):
            return depths.new_zeros(self.shape)
        drawn = torch.zeros(depths.shape[:2], dtype=torch.bool, device=depths.device)
        drawn[self.batch, self.face] = True
        hidden = ~drawn[..., None]
        near = depths.masked_fill(hidden, math.inf).amin((1, 2))
        far = depths.masked_fill(hidden, -math.inf).amax((1, 2))
        extent = (far - near).clamp(min=NEAR_M)
        corner_depths = depths[self.batch, self.face]
        # Outside of a triangle the barycentrics are cut off and scaled to one, as SoftRas does.
        weights = _barycentrics(self.corners, self.centre).clamp(0, 1)
        weights = weights / weights.sum(1, keepdim=True)
        depth = 1 / (weights / corner_depths).sum(1)
        nearness = (far[self.batch] - depth) / extent[self.batch]
        scores = nn.functional.logsigmoid(self.exponents()) + nearness / gamma
        best = scores.new_full((math.prod(self.shape),), -math.inf)
        best = best.scatter_reduce(0, self.pixel, scores.detach(), 'amax')
        shares = (scores - best[self.pixel]).exp()
        total = self._summed(shares)
        mean = self._summed(shares * depth) / torch.where(total > 0, total, 1.0)
        return mean.view(self.shape)

    def _summed(self, values: Tensor) -> Tensor:
        """Sums (B S S,) of the pairs' values (P,) over each pixel."""
        return values.new_zeros(math.prod(self.shape)).index_add(0, self.pixel, values)


def _to_pixel(unit: Tensor, size: int) -> Tensor:
    """Pixel coordinates, integer at the centres, of what lies between -1 and 1."""
    return ((unit + 1) * size - 1) / 2


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross products (...) of vectors (...,2)."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _drawable(corners: Tensor) -> Tensor:
    """Whether triangles (...,3,2) are finite and not degenerate, (...)."""
    sides = corners.roll(-1, dims=-2) - corners
    # Comparisons with NaN are false
    whole = _cross(sides[..., 0, :], sides[..., 1, :]).abs() > TINY
    return whole & (sides.square().sum(-1) > TINY).all(-1) & corners.isfinite().flatten(-2).all(-1)


def _signed_squared_distance(corners: Tensor, points: Tensor) -> Tensor:
    """Squared distances (P,) of points (P,2) to the outlines of triangles (P,3,2), negative outside."""
    sides = corners.roll(-1, dims=1) - corners
    offsets = points[:, None] - corners
    with torch.no_grad():  # the nearest point of a side is where its place along the side has no gradient
        along = ((offsets * sides).sum(2) / sides.square().sum(2)).clamp(0, 1)
        turns = _cross(sides, offsets)
        inside = (turns >= 0).all(1) | (turns <= 0).all(1)
    squared = (offsets - along[..., None] * sides).square().sum(2).amin(1)
    return torch.where(inside, squared, -squared)


def _barycentrics(corners: Tensor, points: Tensor) -> Tensor:
    """Weights (P,3) of the corners of triangles (P,3,2) in the picture, for points (P,2)."""
    sides = corners.roll(-1, dims=1) - corners
    turns = _cross(sides, points[:, None] - corners).roll(-1, dims=1)  # opposite to each corner
    return turns / _cross(sides[:, 0], sides[:, 1])[:, None]


class _Covered(torch.autograd.Function):
    """The compiled loops and their gradient as a function of points (B,V,2)."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, faces: np.ndarray, size: int, sigma: float, reach: float) -> Tensor:
        drawn = np.ascontiguousarray(points.detach().numpy())
        uncovered = np.ones((len(drawn), size, size), drawn.dtype)
        _share(cover, drawn, faces, sigma, reach, uncovered)
        ctx.kept = drawn, faces, sigma, reach, uncovered
        return torch.from_numpy(1 - uncovered)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        drawn, faces, sigma, reach, uncovered = ctx.kept
        moving = np.zeros(drawn.shape)
        gradient_array = np.ascontiguousarray(gradient.detach().numpy())
        _share(move, drawn, faces, sigma, reach, uncovered, gradient_array, moving)
        return torch.from_numpy(moving).to(gradient), None, None, None, None


def _share(kernel: Callable[..., None], points: np.ndarray, faces: np.ndarray, *arguments: Any) -> None:
    """Run a kernel on a batch, in as many threads as torch has; arrays among ``arguments`` are batches."""
    threads = min(torch.get_num_threads(), len(points))
    if threads < 2:
        kernel(points, faces, *arguments)
        return
    parts = [slice(k * len(points) // threads, (k + 1) * len(points) // threads) for k in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        running = []
        for part in parts:
            own = (value[part] if isinstance(value, np.ndarray) else value for value in arguments)
            running.append(pool.submit(kernel, points[part], faces, *own))
        for one in running:
            one.result()
