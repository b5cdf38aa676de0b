"""What a mask alone says of a hand: losses without labels.

Source of the first two: arXiv 2205.15553, overlap and contour of rendered and given silhouette. Here the
contour's distance transform is looked up at the mesh's vertices, and the other way round each part of the
mask must have a vertex near it, so that neither needs an outline to be drawn.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample

from hand_mesh_ros.datasets.pose_sampler import PoseSampler
from hand_mesh_ros.hand_model.layer import rotation_matrices
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.networks.rotations import axis_angles, six_numbers
from hand_mesh_ros.rendering.silhouette import SoftSilhouette

#: Pixels of the mask that look for a vertex near them, and how far off one is near, in half sides.
_PROBES, _NEAR = 96, 0.04

#: Blur of rendered silhouettes, squared half sides. With more of it hands settle smaller than their masks;
#: what is farther off than its root is drawn by the contour.
_SIGMA = 1e-5

#: Poses whose spread is the prior's, and what keeps their covariance invertible.
_PRIOR_POSES, _PRIOR_RIDGE = 4096, 1e-3


class SilhouetteTerms(nn.Module):
    """Overlap and contour of hands and the masks that they were told from."""

    def __init__(self, faces: np.ndarray, size: int) -> None:
        """For masks in crops of side ``size``, compared at half of that."""
        super().__init__()
        self._soft = SoftSilhouette(faces, size // 2, _SIGMA)

    def forward(self, vertices: Tensor, masks: Tensor, half_sides: Tensor) -> dict[str, Tensor]:
        """``overlap``: 1 - intersection over union; ``contour``: mean distance, in half sides, of vertices
        from the mask and of the mask from vertices. Each (B,).

        :param vertices: (B,V,3) metres, in the crops' cameras.
        :param masks: (B,1,S,S) float, 0..1.
        :param half_sides: (B,) focal lengths of those over half the side.
        """
        wanted = avg_pool2d(masks, 2)[:, 0]
        seen = self._soft(vertices, half_sides)
        common = (seen * wanted).sum(dim=(1, 2))
        either = (seen + wanted).sum(dim=(1, 2)) - common
        return {
            'overlap': 1 - common / either.clamp(min=1),
            'contour': _contour(vertices, masks, half_sides),
        }


class PosePrior(nn.Module):
    """How far poses are from those that hands have."""

    mean: Tensor
    whitening: Tensor
    lower: Tensor
    upper: Tensor

    def __init__(self, model: HandModel) -> None:
        super().__init__()
        poses = PoseSampler(model)(np.arange(_PRIOR_POSES)).hand_pose
        numbers = _numbers(rotation_matrices(torch.from_numpy(poses).float().unflatten(1, (15, 3))))
        mean = numbers.mean(dim=0)
        spread = (numbers - mean).T @ (numbers - mean) / len(numbers)
        root = torch.linalg.cholesky(torch.linalg.inv(spread + _PRIOR_RIDGE * torch.eye(len(mean))))
        limits = torch.from_numpy(model.pose_limits).float()
        for name, values in (('mean', mean), ('whitening', root), ('lower', limits[:, 0])):
            self.register_buffer(name, values, persistent=False)
        self.register_buffer('upper', limits[:, 1], persistent=False)

    def forward(self, rotations: Tensor) -> dict[str, Tensor]:
        """``prior``: mean squared distance from the mean pose, in standard deviations; ``limits``: mean
        radians beyond the joints' limits. Each (B,), of rotations (B,16,3,3)."""
        distances = (_numbers(rotations[:, 1:]) - self.mean) @ self.whitening
        angles = axis_angles(rotations[:, 1:]).flatten(1)
        beyond = (self.lower - angles).clamp(min=0) + (angles - self.upper).clamp(min=0)
        return {'prior': distances.square().mean(dim=1), 'limits': beyond.mean(dim=1)}


def _numbers(rotations: Tensor) -> Tensor:
    return six_numbers(rotations).flatten(1)


def _contour(vertices: Tensor, masks: Tensor, half_sides: Tensor) -> Tensor:
    places = vertices[..., :2] / vertices[..., 2:].clamp(min=1e-2) * half_sides[:, None, None]
    distances, probes = _fields(masks)
    found = grid_sample(distances[:, None], places[:, None], align_corners=False, padding_mode='border')
    outside = found[:, 0, 0] + (places.abs() - 1).clamp(min=0).sum(dim=-1)
    nearest = torch.cdist(probes, places).amin(dim=2)
    return outside.mean(dim=1) + (nearest - _NEAR).clamp(min=0).mean(dim=1)


def _fields(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (B,S,S) of pixels from the masks, and places (B,P,2) of some of their pixels; half sides."""
    size = masks.shape[-1]
    distances, probes = [], []
    for mask in (masks[:, 0] > 0.5).cpu().numpy():
        distances.append(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5))
        rows, columns = np.nonzero(mask)
        if not len(rows):
            rows, columns = np.array([size // 2]), np.array([size // 2])
        chosen = np.linspace(0, len(rows) - 1, _PROBES).astype(int)
        probes.append(np.column_stack([columns[chosen], rows[chosen]]))
    to_half_sides = 2.0 / size
    return (
        torch.from_numpy(np.stack(distances)).to(masks.device) * to_half_sides,
        ((torch.from_numpy(np.stack(probes)).float() + 0.5) * to_half_sides - 1).to(masks.device),
    )
