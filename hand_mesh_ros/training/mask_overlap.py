"""How well hands' silhouettes and masks cover each other, in torch: for evaluation in training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hand_mesh_ros.rendering.masks import hard_silhouettes


def overlaps(vertices: Tensor, faces: np.ndarray, masks: Tensor, half_sides: Tensor) -> Tensor:
    """Intersection over union (B,) of rendered hands and masks.

    :param vertices: (B,V,3) metres, in the crops' cameras.
    :param masks: (B,1,S,S) uint8; a pixel counts from the middle of its range.
    :param half_sides: (B,) focal lengths of the crops' cameras over half the side.
    """
    wanted = (masks[:, 0] > 127).cpu().numpy()
    points, focal = vertices.double().cpu().numpy(), half_sides.double().cpu().numpy()
    seen = hard_silhouettes(points, faces, focal, masks.shape[-1])
    both, either = ((seen & wanted).sum(axis=(1, 2)), (seen | wanted).sum(axis=(1, 2)))
    return torch.from_numpy((both / np.maximum(either, 1)).astype(np.float32))
