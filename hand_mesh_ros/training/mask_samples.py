"""Synthetic masks as tensors: batches for training, made by other processes, and the held-out ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hand_mesh_ros.datasets.masks import SyntheticMasks
from hand_mesh_ros.hand_model.layer import rotation_matrices


class MaskSamples(NamedTuple):
    """Masks to learn from, and the truth; see ``SyntheticMasks.batch``."""

    masks: Tensor  #: (B,1,S,S) uint8 0..255
    half_sides: Tensor  #: (B,)
    rotations: Tensor  #: (B,16,3,3) each joint against its parent, the wrist's against the crop camera first
    betas: Tensor  #: (B,10)
    keypoints: Tensor  #: (B,21,3) metres, crop camera's frame
    joint_map: Tensor  #: (B,M,M) int64: the joint that what is seen moves with, -1 for no hand
    depth_map: Tensor  #: (B,M,M) how far that is behind the wrist, in half sides

    def to(self, device: torch.device) -> MaskSamples:
        """The same on another device."""
        return MaskSamples(*(tensor.to(device, non_blocking=True) for tensor in self))

    def part(self, start: int, stop: int) -> MaskSamples:
        """Some of the masks."""
        return MaskSamples(*(tensor[start:stop] for tensor in self))


class MaskSampleMaker(Dataset[MaskSamples]):
    """Batches by the numbers of their samples, in whatever process asks for them."""

    def __init__(self, **arguments: Any) -> None:
        """Make samples of ``SyntheticMasks(**arguments)``, with maps of a quarter of the masks' side."""
        self._arguments = {'map_size': arguments.get('size', 96) // 4, **arguments}
        self._masks: SyntheticMasks | None = None

    def __getitem__(self, indices: np.ndarray) -> MaskSamples:
        """The samples with these numbers (N,)."""
        if self._masks is None:  # here, that each process has its own
            self._masks = SyntheticMasks(**self._arguments)
        fields = {name: torch.from_numpy(values) for name, values in self._masks.batch(indices).items()}
        vectors = torch.cat([fields['global_orient'], fields['hand_pose']], dim=1).unflatten(1, (16, 3))
        return MaskSamples(
            masks=fields['mask'][:, None],
            half_sides=fields['half_side'],
            rotations=rotation_matrices(vectors),
            betas=fields['betas'],
            keypoints=fields['keypoints'],
            joint_map=fields['joint_map'].long(),
            depth_map=fields['depth_map'] * fields['half_side'][:, None, None],
        )
