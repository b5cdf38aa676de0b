"""Training of the lifter: cues to poses, on cues without pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.networks.lifter import Lifter
from hand_mesh_ros.networks.weights import load_weights
from hand_mesh_ros.training.configuration import LoopConfiguration, require
from hand_mesh_ros.training.hand_errors import aligned_errors, angles_between, posed, thin_hand_layer
from hand_mesh_ros.training.loop import Training
from hand_mesh_ros.training.processes import ProcessGroup
from hand_mesh_ros.training.samples import SampleMaker, Samples, batches
from hand_mesh_ros.training.vq_mano import HELD_OUT_SEED

NETWORK_NAME = 'lifter'

#: A crop's side where there is no picture: only ratios to it are used.
_SIZE = 128


@dataclass(frozen=True)
class LifterLossWeights:
    """Weights of the terms of the loss.

    :raises ConfigurationError: a negative weight.
    """

    pose: float = 5.0  #: of the mean difference between entries of rotation matrices
    joints: float = 100.0  #: of the mean distance between keypoints, from the wrist, in metres
    betas: float = 0.02  #: of the mean squared difference

    def __post_init__(self) -> None:
        for name in ('pose', 'joints', 'betas'):
            require(self, name, at_least=0)


@dataclass(frozen=True)
class LifterTrainingConfiguration:
    """All of ``config/training/lifter.yaml``.

    :raises ConfigurationError: numbers out of their range.
    """

    width: int = 512
    depth: int = 5
    residuals: bool = True  #: mix errors of a real detector into the cues
    loop: LoopConfiguration = field(default_factory=LoopConfiguration)
    loss: LifterLossWeights = field(default_factory=LifterLossWeights)
    workers: int = 1  #: processes that make samples; 0 for none
    held_out_samples: int = 5000

    def __post_init__(self) -> None:
        for name in ('width', 'held_out_samples'):
            require(self, name, at_least=1)
        for name in ('depth', 'workers'):
            require(self, name, at_least=0)
        if self.loop.seed >= HELD_OUT_SEED:
            raise ConfigurationError(f'seed is {self.loop.seed}, must be below {HELD_OUT_SEED}')


def train_lifter(
    configuration: LifterTrainingConfiguration,
    model: HandModel,
    folder: Path,
    group: ProcessGroup,
    resume: bool,
) -> bool:
    """Train in a folder (see ``Training``); returns False where SIGTERM ended it early."""
    objective = LifterObjective(configuration, model, group.device)
    description = {
        'network': NETWORK_NAME,
        'configuration': {'width': configuration.width, 'depth': configuration.depth},
        'hand_model': {'name': model.name, 'sha256': model.sha256},
    }
    settings = asdict(configuration)
    return Training(objective, configuration.loop, folder, group, description, settings).run(resume)


def load_lifter(path: Path) -> Lifter:
    """The network of a file that ``hand-mesh train lifter`` wrote, on the CPU.

    :raises FileFormatError: the file is missing, damaged or holds another network.
    """
    weights, description = load_weights(path)
    try:
        if description['network'] != NETWORK_NAME:
            raise ValueError(f'a {description["network"]} network')
        network = Lifter(**description['configuration'])
        network.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileFormatError(f'{path}: not the weights of a lifter: {error}') from error
    return network.eval().requires_grad_(False)


class LifterObjective:
    """What the lifter is trained on and for: an ``Objective``."""

    criterion = 'aligned_mm'

    def __init__(
        self, configuration: LifterTrainingConfiguration, model: HandModel, device: torch.device
    ) -> None:
        c = configuration
        torch.manual_seed(c.loop.seed)
        self.network = Lifter(c.width, c.depth)
        self.companions = nn.Module()
        self._configuration, self._device = c, device
        self._layer = thin_hand_layer(model, len(model.tip_vertices)).to(device)
        self._maker = SampleMaker(model, c.loop.seed, _SIZE, c.residuals, pictures=False)
        held_out = SampleMaker(model, HELD_OUT_SEED, _SIZE, c.residuals, pictures=False)
        self._held_out = held_out[np.arange(c.held_out_samples)]

    def batches(self, first_step: int, group: ProcessGroup) -> Iterator[Samples]:
        """Cues that no step before had."""
        c = self._configuration
        for samples in batches(self._maker, first_step, c.loop.batch_size, group, c.workers):
            yield samples.to(self._device)

    def losses(self, network: nn.Module, batch: Samples) -> dict[str, Tensor]:
        """The weighted sum ``loss``, and its terms before they are weighted."""
        rotations, betas = network(batch.cues)
        weights = self._configuration.loss
        pose = (rotations - batch.rotations)[..., :2].abs().mean()
        joints = (self._keypoints(rotations, batch.betas) - batch.keypoints).norm(dim=-1).mean()
        shape = (betas - batch.betas).square().mean()
        loss = weights.pose * pose + weights.joints * joints + weights.betas * shape
        return {'loss': loss, 'pose': pose, 'joints': joints, 'betas': shape}

    def after_update(self, step: int, group: ProcessGroup) -> None:
        """Nothing to do."""

    def evaluate(self) -> dict[str, float]:
        """Errors on the held-out cues: mean keypoint distances with the wrists in one place, and aligned."""
        totals: dict[str, float] = dict.fromkeys(
            ('aligned_mm', 'keypoint_mm', 'orientation_deg', 'joint_deg'), 0
        )
        count = self._configuration.held_out_samples
        for start in range(0, count, 1000):
            part = self._held_out.part(start, min(start + 1000, count)).to(self._device)
            rotations, betas = self.network(part.cues)
            keypoints = self._keypoints(rotations, betas)
            angles = angles_between(part.rotations, rotations).rad2deg()
            of_hands = {
                'aligned_mm': 1000 * aligned_errors(keypoints, part.keypoints).mean(dim=1),
                'keypoint_mm': 1000 * (keypoints - part.keypoints).norm(dim=-1).mean(dim=1),
                'orientation_deg': angles[:, 0],
                'joint_deg': angles[:, 1:].mean(dim=1),
            }
            for name, values in of_hands.items():
                totals[name] += values.sum().item() / count
        return totals

    def _keypoints(self, rotations: Tensor, betas: Tensor) -> Tensor:
        keypoints = posed(self._layer, rotations, betas).keypoints
        return keypoints - keypoints[:, :1]


def lifter_size(network: Lifter) -> tuple[int, int]:
    """Width and depth of a lifter, as ``MaskHandConfiguration`` has them."""
    return network.entry.out_features, len(network.blocks)
