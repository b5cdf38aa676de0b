"""Synthetic hands as tensors: batches for training, made by other processes, and the held-out ones."""

from __future__ import annotations

import atexit
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hand_mesh_ros.datasets.detected import DetectedHands, Look
from hand_mesh_ros.datasets.residuals import ResidualBank
from hand_mesh_ros.datasets.synthetic import SyntheticHands
from hand_mesh_ros.hand_model.layer import rotation_matrices
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.networks.skeleton_graph import HandCues
from hand_mesh_ros.training.processes import ProcessGroup

Batch = TypeVar('Batch')


class Samples(NamedTuple):
    """Hands to learn from; see ``SyntheticSample``."""

    images: Tensor | None  #: (B,3,S,S) uint8 RGB; None where only cues were made
    cues: HandCues
    rotations: Tensor  #: (B,16,3,3) each joint against its parent, the wrist's against the crop camera first
    betas: Tensor  #: (B,10)
    keypoints: Tensor  #: (B,21,3) metres, from the wrist
    landmarks: Tensor  #: (B,21,3) keypoints in the crop, -1..1, and true depth behind the wrist, half sides
    root_depth_m: Tensor  #: (B,)
    focal_share: Tensor  #: (B,) focal length over half the crop's side
    in_the_loop: Tensor  #: (B,) bool: the cues are what a landmark network says of these very images
    seen: tuple[Tensor, ...] = ()  #: what the backbone's maps show, float16, where they were kept

    def to(self, device: torch.device) -> Samples:
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def part(self, start: int, stop: int) -> Samples:
        """Some of the hands."""
        return self._each(lambda tensor: tensor[start:stop])

    def those(self, chosen: Tensor) -> Samples:
        """The hands where ``chosen`` (B,) bool."""
        return self._each(lambda tensor: tensor[chosen])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Samples:
        fields = self._asdict()
        cues, seen = HandCues(*map(change, self.cues)), tuple(map(change, self.seen))
        images = None if self.images is None else change(self.images)
        others = {name: change(fields[name]) for name in fields if name not in ('images', 'cues', 'seen')}
        return Samples(images=images, cues=cues, seen=seen, **others)


class SampleMaker(Dataset[Samples]):
    """Batches by the numbers of their samples, in whatever process asks for them."""

    def __init__(
        self,
        model: HandModel,
        seed: int,
        size: int,
        residuals: bool,
        pictures: bool,
        look: Callable[[], Look] | None = None,
        looked_share: float = 0.0,
    ) -> None:
        """Make samples of one seed.

        :param size: S, side of the crops.
        :param residuals: whether errors of a real detector are mixed into the cues.
        :param pictures: False for cues alone, a hundred times as fast.
        :param look: makes, in whatever process it is called, what looks at pictures for the cues of
            ``looked_share`` of the samples; see ``DetectedHands``.
        """
        self._look, self._looked_share = look, looked_share
        self._arguments: dict[str, Any] = {'seed': seed, 'size': size, 'model': model}
        self._residuals, self._pictures, self._size = residuals, pictures, size
        self._hands: SyntheticHands | DetectedHands | None = None

    def __getitem__(self, indices: np.ndarray) -> Samples:
        """The samples with these numbers (N,)."""
        if self._hands is None:  # here, that each process has its own
            bank = ResidualBank.shipped() if self._residuals else None
            self._hands = self._make(bank)
        hands = self._hands
        if self._pictures:
            return samples_of(hands.batch(indices), self._size)
        assert isinstance(hands, SyntheticHands)  # looking takes pictures
        return samples_of(hands.cue_batch(indices), self._size)

    def _make(self, bank: ResidualBank | None) -> SyntheticHands | DetectedHands:
        if self._look is None or self._looked_share == 0:
            return SyntheticHands(residuals=bank, **self._arguments)
        return DetectedHands(look=self._look(), share=self._looked_share, residuals=bank, **self._arguments)


def batches(
    maker: Dataset[Batch], first_step: int, batch_size: int, group: ProcessGroup, workers: int
) -> Iterator[Batch]:
    """Batches of samples that no step before had; see ``Objective.batches``.

    :param maker: makes those of an array of numbers (N,).
    :param workers: processes that make them; 0 makes them here.
    """
    numbers = (
        np.arange(batch_size) + (step * group.size + group.rank) * batch_size
        for step in itertools.count(first_step)
    )
    if workers == 0:
        return (maker[indices] for indices in numbers)
    # Spawned: a forked copy of a process with running threads may hang
    loader = DataLoader(
        maker,
        sampler=_Numbers(numbers),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4,
        multiprocessing_context='spawn',
        worker_init_fn=_prepare_worker,
    )
    return iter(loader)


class _Numbers(torch.utils.data.Sampler[np.ndarray]):
    def __init__(self, numbers: Iterator[np.ndarray]) -> None:
        self._numbers = numbers

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._numbers


def _prepare_worker(_: int) -> None:
    torch.set_num_threads(1)
    # A worker that ran a network now and then aborts in the destructors of an orderly exit, which its parent
    # takes for a failure
    atexit.register(os._exit, 0)


def samples_of(fields: dict[str, np.ndarray], size: int) -> Samples:
    """The samples that ``SyntheticHands`` made, in crops of side ``size``."""

    def tensor(name: str) -> Tensor:
        return torch.as_tensor(fields[name])

    vectors = torch.cat([tensor('global_orient'), tensor('hand_pose')], dim=1).unflatten(1, (16, 3))
    focal_share = tensor('focal_px') * (2 / size)
    unit = (tensor('keypoints_2d') - (size - 1) / 2) * (2 / size)
    depth = tensor('keypoints_3d')[..., 2] / tensor('root_depth_m')[:, None] * focal_share[:, None]
    return Samples(
        images=tensor('image').permute(0, 3, 1, 2) if 'image' in fields else None,
        cues=HandCues(
            keypoints=tensor('cue_keypoints'),
            confidence=tensor('cue_confidence'),
            relative_depth=tensor('cue_relative_depth'),
            world=tensor('cue_world'),
            present=tensor('cue_present'),
        ),
        rotations=rotation_matrices(vectors),
        betas=tensor('betas'),
        keypoints=tensor('keypoints_3d'),
        landmarks=torch.cat([unit, depth[..., None]], dim=-1),
        root_depth_m=tensor('root_depth_m'),
        focal_share=focal_share,
        in_the_loop=tensor('in_the_loop')
        if 'in_the_loop' in fields
        else torch.zeros(len(unit), dtype=torch.bool),
    )
