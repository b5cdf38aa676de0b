"""How well hands' silhouettes and masks cover each other."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.rendering.zbuffer import rasterise


def overlaps(vertices: Tensor, faces: np.ndarray, masks: Tensor, half_sides: Tensor) -> Tensor:
    """Intersection over union (B,) of rendered hands and masks.

    :param vertices: (B,V,3) metres, in the crops' cameras.
    :param masks: (B,1,S,S) uint8; a pixel counts from the middle of its range.
    :param half_sides: (B,) focal lengths of the crops' cameras over half the side.
    """
    size = masks.shape[-1]
    wanted, middle = (masks[:, 0] > 127).cpu().numpy(), (size - 1) / 2
    result = np.zeros(len(wanted), np.float32)
    hands = zip(vertices.double().cpu().numpy(), half_sides.double().cpu().numpy(), strict=True)
    for row, (points, half_side) in enumerate(hands):
        focal = float(half_side) * size / 2
        seen = rasterise(points, faces, Camera(size, size, focal, focal, middle, middle)).mask
        result[row] = (seen & wanted[row]).sum() / max(1, (seen | wanted[row]).sum())
    return torch.from_numpy(result)
