"""Training of VQ-MANO: reconstruction through the hand model, and a codebook that follows averages."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hand_mesh_ros.datasets.counter_random import uniforms
from hand_mesh_ros.datasets.pose_sampler import HandPoses, PoseSampler
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.layer import HandLayer, rotation_matrices
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.networks.vq_mano import NETWORK_NAME, VqMano, VqManoConfiguration, VqManoOutput
from hand_mesh_ros.training.configuration import LoopConfiguration, require
from hand_mesh_ros.training.hand_errors import angles_between, posed, thin_hand_layer
from hand_mesh_ros.training.loop import Training
from hand_mesh_ros.training.processes import ProcessGroup

#: Seed of the held-out poses: out of the reach of training's own seeds, which are smaller.
HELD_OUT_SEED = 1_000_000_007

#: Added to a sampler's seed: the turns are drawn apart from the poses.
_TURNS_SEED = 2_000_000_011

#: Poses that are evaluated at once: a few hundred megabytes of meshes.
_EVALUATION_BATCH = 500


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the loss.

    :raises ConfigurationError: a negative weight.
    """

    pose: float = 5.0  #: of the mean difference between entries of rotation matrices
    joints: float = 100.0  #: of the mean distance between keypoints in metres
    vertices: float = 100.0  #: of the mean distance between vertices in metres
    commitment: float = 1.0  #: of the mean squared difference between embeddings and their codes

    def __post_init__(self) -> None:
        for name in ('pose', 'joints', 'vertices', 'commitment'):
            require(self, name, at_least=0)


@dataclass(frozen=True)
class CodebookConfiguration:
    """How the codebook follows the embeddings.

    :raises ConfigurationError: shares that are none.
    """

    decay: float = 0.99  #: of the averages, each step
    dead_below: float = 0.05  #: a code is dead below this share of the use it would have if all had the same

    def __post_init__(self) -> None:
        for name in ('decay', 'dead_below'):
            require(self, name, at_least=0, below=1)


@dataclass(frozen=True)
class VqManoTrainingConfiguration:
    """All of ``config/training/vq_mano.yaml``.

    :raises ConfigurationError: numbers out of their range.
    """

    network: VqManoConfiguration = field(default_factory=VqManoConfiguration)
    loop: LoopConfiguration = field(default_factory=LoopConfiguration)
    loss: LossWeights = field(default_factory=LossWeights)
    codebook: CodebookConfiguration = field(default_factory=CodebookConfiguration)
    loss_vertices: int = 128  #: of the hand model that enter the loss, spread over the hand
    held_out_poses: int = 10000

    def __post_init__(self) -> None:
        require(self, 'loss_vertices', at_least=5)
        require(self, 'held_out_poses', at_least=1)
        if self.loop.seed >= HELD_OUT_SEED:
            raise ConfigurationError(f'seed is {self.loop.seed}, must be below {HELD_OUT_SEED}')


def train_vq_mano(
    configuration: VqManoTrainingConfiguration,
    model: HandModel,
    folder: Path,
    group: ProcessGroup,
    resume: bool,
) -> bool:
    """Train in a folder (see ``Training``); returns False where SIGTERM ended it early."""
    objective = VqManoObjective(configuration, model, group.device)
    description = describe(configuration.network, model)
    settings = asdict(configuration)
    return Training(objective, configuration.loop, folder, group, description, settings).run(resume)


def describe(configuration: VqManoConfiguration, model: HandModel) -> dict[str, Any]:
    """What a file of weights says of its network; ``load_vq_mano`` reads it."""
    return {
        'network': NETWORK_NAME,
        'configuration': asdict(configuration),
        'hand_model': {'name': model.name, 'sha256': model.sha256},
    }


class Poses(NamedTuple):
    """Poses to learn from."""

    rotations: Tensor  #: (B,16,3,3) each joint against its parent, the wrist's against the camera first
    betas: Tensor  #: (B,10)


class VqManoObjective:
    """What VQ-MANO is trained on and for: an ``Objective``."""

    criterion = 'vertex_mm'

    def __init__(
        self, configuration: VqManoTrainingConfiguration, model: HandModel, device: torch.device
    ) -> None:
        seed = configuration.loop.seed
        torch.manual_seed(seed)
        self.network = VqMano(configuration.network)
        self.companions = CodebookAverages(configuration.network, configuration.codebook)
        self._configuration = configuration
        self._device = device
        self._layer = HandLayer(model).to(device)
        self._thin_layer = thin_hand_layer(model, configuration.loss_vertices).to(device)
        self._sampler = PoseSampler(model, seed)
        self._held_out = PoseSampler(model, HELD_OUT_SEED)(np.arange(configuration.held_out_poses))
        self._held_out_turns = picture_turns(HELD_OUT_SEED, np.arange(configuration.held_out_poses))
        self._quantised: VqManoOutput | None = None

    def batches(self, first_step: int, group: ProcessGroup) -> Iterator[Poses]:
        """Poses that no step before had, made as they are asked for."""
        size, seed = self._configuration.loop.batch_size, self._configuration.loop.seed
        for step in itertools.count(first_step):
            first = (step * group.size + group.rank) * size
            indices = np.arange(first, first + size)
            yield self._turned(self._tensors(self._sampler(indices)), picture_turns(seed, indices))

    def losses(self, network: nn.Module, batch: Poses) -> dict[str, Tensor]:
        """The weighted sum ``loss``, and its terms before they are weighted."""
        output: VqManoOutput = network(batch.rotations)
        self._quantised = output
        weights = self._configuration.loss
        with torch.autocast(self._device.type, enabled=False):
            wanted = posed(self._thin_layer, batch.rotations, batch.betas)
            made = posed(self._thin_layer, output.rotations, batch.betas)
            pose = (output.rotations - batch.rotations)[..., :2].abs().mean()
            joints = (made.keypoints - wanted.keypoints).norm(dim=-1).mean()
            vertices = (made.vertices - wanted.vertices).norm(dim=-1).mean()
            commitment = (output.embeddings.float() - output.codes).square().mean()
        loss = (
            weights.pose * pose
            + weights.joints * joints
            + weights.vertices * vertices
            + weights.commitment * commitment
        )
        return {'loss': loss, 'pose': pose, 'joints': joints, 'vertices': vertices, 'commitment': commitment}

    def after_update(self, step: int, group: ProcessGroup) -> None:
        """Move the codebook."""
        assert self._quantised is not None  # losses() came before
        self.companions.update(
            self.network.codebook,
            self._quantised.embeddings.detach().float().flatten(0, 1),
            self._quantised.indices.flatten(),
            seed=self._configuration.loop.seed + step,
            group=group,
        )
        self._quantised = None

    def evaluate(self) -> dict[str, float]:
        """Errors on the held-out poses; share of the codebook that they use, and its perplexity.

        ``vertex_mm`` and ``keypoint_mm`` are mean distances with the wrist joint in the same place and the
        global orientation as decoded. ``turned_vertex_mm`` is of the same hands turned in the picture.
        """
        parts: list[dict[str, Tensor]] = []
        uses = torch.zeros(len(self.network.codebook), dtype=torch.int64, device=self._device)
        for first in range(0, len(self._held_out.betas), _EVALUATION_BATCH):
            part = HandPoses(*(values[first : first + _EVALUATION_BATCH] for values in self._held_out))
            poses = self._tensors(part)
            indices = self.network.encode(poses.rotations)
            uses += indices.flatten().bincount(minlength=len(uses))
            errors = self._errors(poses, self.network.decode_indices(indices))
            turned = self._turned(poses, self._held_out_turns[first : first + _EVALUATION_BATCH])
            decoded = self.network.decode_indices(self.network.encode(turned.rotations))
            parts.append(errors | {'turned_vertex_mm': self._errors(turned, decoded)['vertex_mm']})
        errors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        shares = uses[uses > 0].double() / uses.sum()
        return {
            'vertex_mm': errors['vertex_mm'].mean().item(),
            'vertex_mm_p95': errors['vertex_mm'].quantile(0.95).item(),
            'turned_vertex_mm': errors['turned_vertex_mm'].mean().item(),
            'keypoint_mm': errors['keypoint_mm'].mean().item(),
            'orientation_deg': errors['orientation_deg'].mean().item(),
            'joint_deg': errors['joint_deg'].mean().item(),
            'codebook_usage': len(shares) / len(uses),
            'perplexity': (-(shares * shares.log()).sum()).exp().item(),
        }

    def _errors(self, poses: Poses, rotations: Tensor) -> dict[str, Tensor]:
        """Of each pose (B,): mean distances in millimetres, angles in degrees."""
        wanted = posed(self._layer, poses.rotations, poses.betas)
        made = posed(self._layer, rotations, poses.betas)
        angles = angles_between(poses.rotations, rotations).rad2deg()
        return {
            'vertex_mm': 1000 * (made.vertices - wanted.vertices).norm(dim=-1).mean(dim=1),
            'keypoint_mm': 1000 * (made.keypoints - wanted.keypoints).norm(dim=-1).mean(dim=1),
            'orientation_deg': angles[:, 0],
            'joint_deg': angles[:, 1:].mean(dim=1),
        }

    def _turned(self, poses: Poses, angles: np.ndarray) -> Poses:
        """The hands turned in the picture by angles (B,) in radians."""
        vectors = torch.zeros_like(poses.betas[:, :3])
        vectors[:, 2] = torch.tensor(angles, dtype=torch.float32)
        wrists = rotation_matrices(vectors)[:, None] @ poses.rotations[:, :1]
        return poses._replace(rotations=torch.cat([wrists, poses.rotations[:, 1:]], dim=1))

    def _tensors(self, poses: HandPoses) -> Poses:
        vectors = np.concatenate([poses.global_orient, poses.hand_pose], axis=1).reshape(-1, 16, 3)
        rotations = rotation_matrices(torch.tensor(vectors, dtype=torch.float32, device=self._device))
        return Poses(rotations, torch.tensor(poses.betas, dtype=torch.float32, device=self._device))


def picture_turns(seed: int, indices: np.ndarray) -> np.ndarray:
    """Angles (N,) in radians, -pi to pi, for the hands with these numbers: half of them below 6 degrees.

    The sampler's hands point up in the picture. A crop that follows detected keypoints misses that, by any
    angle where the hand points at the camera; the tokens must tell those poses, too.
    """
    return np.pi * (2 * uniforms(seed + _TURNS_SEED, indices, 1)[:, 0] - 1) ** 5


class CodebookAverages(nn.Module):
    """Moves each code to the moving average of the embeddings that fall to it, and dead codes to new places.

    Source: A. van den Oord et al., "Neural discrete representation learning", 2017, appendix A.1.
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, network: VqManoConfiguration, configuration: CodebookConfiguration) -> None:
        super().__init__()
        self._decay = configuration.decay
        self._dead_below = configuration.dead_below
        # Nothing has fallen to any code: all are dead, and the first update places them
        self.register_buffer('counts', torch.zeros(network.codebook_size))
        self.register_buffer('sums', torch.zeros(network.codebook_size, network.code_dim))

    @torch.no_grad()
    def update(
        self, codebook: Tensor, embeddings: Tensor, indices: Tensor, seed: int, group: ProcessGroup
    ) -> None:
        """Move a codebook (K,D), in place, by this process's ``embeddings`` (M,D) of codes ``indices`` (M,).

        A dead code takes the place of an embedding drawn by ``seed`` from those of all processes.
        """
        size = len(codebook)
        counts = torch.zeros_like(self.counts).index_add_(0, indices, torch.ones_like(embeddings[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, indices, embeddings)
        newcomers = _drawn(embeddings, size, seed, group)
        together = group.sum_(torch.cat([counts[:, None], sums, newcomers], dim=1))
        counts, sums, newcomers = together.split([1, codebook.shape[1], codebook.shape[1]], dim=1)

        self.counts.lerp_(counts[:, 0], 1 - self._decay)
        self.sums.lerp_(sums, 1 - self._decay)
        least = self._dead_below * len(embeddings) * group.size / size
        dead = self.counts < least
        # Enough to live on for a while unused, and little enough to follow what comes
        self.counts[:] = torch.where(dead, 2 * least, self.counts)
        self.sums[:] = torch.where(dead[:, None], newcomers * (2 * least), self.sums)
        codebook[:] = self.sums / self.counts.clamp(min=torch.finfo(torch.float32).tiny)[:, None]


def _drawn(embeddings: Tensor, count: int, seed: int, group: ProcessGroup) -> Tensor:
    """(count,D): embeddings drawn from those of all processes, zero where another process has them."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(len(embeddings) * group.size, (count,), generator=generator).to(embeddings.device)
    own = places - group.rank * len(embeddings)
    mine = (own >= 0) & (own < len(embeddings))
    return torch.where(mine[:, None], embeddings[own.clamp(0, len(embeddings) - 1)], 0.0)
