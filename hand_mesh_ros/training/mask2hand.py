"""Training of Mask2Hand: hands from silhouettes, with the truth of synthetic ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.networks.mask2hand import (
    Hypotheses,
    Mask2Hand,
    Mask2HandConfiguration,
    describe,
    load_mask2hand,
    posed_hands,
)
from hand_mesh_ros.training.configuration import LoopConfiguration, require
from hand_mesh_ros.training.hand_errors import aligned_errors, posed, thin_hand_layer
from hand_mesh_ros.training.heatmaps import splat
from hand_mesh_ros.training.loop import Training
from hand_mesh_ros.training.mask_overlap import overlaps
from hand_mesh_ros.training.mask_samples import MaskSampleMaker, MaskSamples
from hand_mesh_ros.training.processes import ProcessGroup
from hand_mesh_ros.training.samples import batches
from hand_mesh_ros.training.vq_mano import HELD_OUT_SEED

#: Hands that are evaluated at once.
_EVALUATION_BATCH = 128

#: How much all hypotheses together count beside the best one, lest some never learn.
_ALL_SHARE = 0.1


@dataclass(frozen=True)
class Mask2HandLossWeights:
    """Weights of the terms of the loss.

    :raises ConfigurationError: a negative weight.
    """

    pose: float = 5.0  #: of the mean difference between entries of rotation matrices
    joints: float = 100.0  #: of the mean distance between keypoints, from the wrist, in metres
    aligned: float = 100.0  #: of the same, both hands being turned alike: the pose alone
    vertices: float = 50.0  #: of the mean distance between vertices, from the wrist, in metres
    projection: float = 10.0  #: of the mean distance between vertices in the crop, half sides
    landmarks: float = 10.0  #: of the mean difference between keypoints found in the maps, half sides
    heatmaps: float = 0.5  #: of the cross entropy of the keypoints' places in the crop, nats
    parts: float = 2.0  #: of the cross entropy of which joint's part is seen at each place, nats
    depths: float = 5.0  #: of the mean difference of depth at each place, half sides
    betas: float = 0.02  #: of the mean squared difference
    scores: float = 0.3  #: of the cross entropy of which hypothesis is best
    confidence: float = 0.1  #: of the negative log-likelihood of the errors

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            require(self, name, at_least=0)


@dataclass(frozen=True)
class Mask2HandTrainingConfiguration:
    """All of ``config/training/mask2hand.yaml``.

    :raises ConfigurationError: numbers out of their range.
    """

    begin_with: str = ''  #: weights of an earlier run of the same network, to go on with
    network: Mask2HandConfiguration = field(default_factory=Mask2HandConfiguration)
    worn_share: float = 0.5  #: of the masks that are not perfect
    loop: LoopConfiguration = field(default_factory=LoopConfiguration)
    loss: Mask2HandLossWeights = field(default_factory=Mask2HandLossWeights)
    loss_vertices: int = 48  #: of the hand model that enter the loss, spread over the hand
    workers: int = 1  #: processes that draw masks; 0 for none
    held_out_samples: int = 512

    def __post_init__(self) -> None:
        require(self, 'loss_vertices', at_least=5)
        require(self, 'held_out_samples', at_least=1)
        require(self, 'workers', at_least=0)
        require(self, 'worn_share', at_least=0, below=1.0001)
        if self.loop.seed >= HELD_OUT_SEED:
            raise ConfigurationError(f'seed is {self.loop.seed}, must be below {HELD_OUT_SEED}')


def train_mask2hand(
    configuration: Mask2HandTrainingConfiguration,
    model: HandModel,
    folder: Path,
    group: ProcessGroup,
    resume: bool,
) -> bool:
    """Train in a folder (see ``Training``); returns False where SIGTERM ended it early."""
    objective = Mask2HandObjective(configuration, model, group.device)
    description = describe(objective.network, {'name': model.name, 'sha256': model.sha256})
    settings = asdict(configuration)
    return Training(objective, configuration.loop, folder, group, description, settings).run(resume)


class Mask2HandObjective:
    """What Mask2Hand is trained on and for: an ``Objective``."""

    criterion = 'keypoint_mm'

    def __init__(
        self, configuration: Mask2HandTrainingConfiguration, model: HandModel, device: torch.device
    ) -> None:
        c = configuration
        torch.manual_seed(c.loop.seed)
        self.network = _begun(c)
        self.companions = nn.Module()
        self._configuration, self._model, self._device = c, model, device
        self._layer = HandLayer(model).to(device)
        self._thin_layer = thin_hand_layer(model, c.loss_vertices).to(device)
        self._maker = self._maker_of(c.loop.seed, c.worn_share, loose=True)
        numbers = np.arange(c.held_out_samples)
        #: Held-out masks, by the ending of the figures' names
        self._held_out = {
            ending: self._maker_of(HELD_OUT_SEED, share, loose=False)[numbers]
            for ending, share in (('', 0.0), ('_worn', 1.0))
        }

    def _maker_of(self, seed: int, worn_share: float, loose: bool) -> MaskSampleMaker:
        size = self._configuration.network.image_size
        return MaskSampleMaker(seed=seed, size=size, worn_share=worn_share, loose=loose, model=self._model)

    def batches(self, first_step: int, group: ProcessGroup) -> Iterator[MaskSamples]:
        """Masks that no step before had."""
        c = self._configuration
        for samples in batches(self._maker, first_step, c.loop.batch_size, group, c.workers):
            yield samples.to(self._device)

    def losses(self, network: nn.Module, batch: MaskSamples) -> dict[str, Tensor]:
        """The weighted sum ``loss``, and its terms before they are weighted."""
        hands: Hypotheses = network(batch.masks.float() / 255, batch.half_sides)
        with torch.autocast(self._device.type, enabled=False):
            return self.weighted(hands, batch)

    def weighted(self, hands: Hypotheses, batch: MaskSamples) -> dict[str, Tensor]:
        """The weighted sum ``loss`` of what hands (in float32) miss the truth by, and its terms."""
        terms = self._terms(hands, batch)
        weights = asdict(self._configuration.loss)
        loss = sum(
            (weights[name] * term for name, term in terms.items()), torch.zeros((), device=self._device)
        )
        return {'loss': loss, **terms}

    def after_update(self, step: int, group: ProcessGroup) -> None:
        """Nothing to do."""

    def evaluate(self) -> dict[str, float]:
        """Errors on held-out masks; with ``_worn`` on such as are not perfect, with ``_best`` of the
        hypothesis that is nearest to the truth."""
        figures: dict[str, float] = {}
        for ending, samples in self._held_out.items():
            parts = [
                self._errors(samples.part(start, start + _EVALUATION_BATCH))
                for start in range(0, len(samples.betas), _EVALUATION_BATCH)
            ]
            for figure in parts[0]:
                figures[figure + ending] = torch.cat([part[figure] for part in parts]).mean().item()
        return figures

    def _errors(self, samples: MaskSamples) -> dict[str, Tensor]:
        """Figures (B,) of held-out masks."""
        samples = samples.to(self._device)
        hands = self.network(samples.masks.float() / 255, samples.half_sides)
        truth = samples.keypoints - samples.keypoints[:, :1]
        keypoints = posed_hands(self._thin_layer, hands, samples.half_sides).keypoints
        keypoints = (keypoints - keypoints[:, :1]).unflatten(0, (len(truth), -1))
        errors = (keypoints - truth[:, None]).norm(dim=-1).mean(dim=2)
        top = hands.scores.argmax(dim=1)
        chosen = hands.chosen(top)
        rows = torch.arange(len(truth), device=top.device)
        vertices = posed_hands(self._layer, chosen, samples.half_sides).vertices
        return {
            'aligned_mm': 1000 * aligned_errors(keypoints[rows, top], truth).mean(dim=1),
            'keypoint_mm': 1000 * errors[rows, top],
            'keypoint_mm_best': 1000 * errors.amin(dim=1),
            'overlap': overlaps(vertices, self._model.faces, samples.masks, samples.half_sides),
        }

    def _terms(self, hands: Hypotheses, batch: MaskSamples) -> dict[str, Tensor]:
        count = hands.betas.shape[1]

        def repeated(values: Tensor) -> Tensor:
            return values.repeat_interleave(count, dim=0)

        def mean(of_hypotheses: Tensor) -> Tensor:
            """(B,K) of values (B*K,...)."""
            return of_hypotheses.flatten(1).mean(dim=1).unflatten(0, (-1, count))

        rotations, betas = hands.rotations.flatten(0, 1), repeated(batch.betas)
        wanted = posed(self._thin_layer, batch.rotations, batch.betas)
        truth = wanted.keypoints - wanted.keypoints[:, :1]
        true_vertices = wanted.vertices - wanted.keypoints[:, :1]
        made = posed(self._thin_layer, rotations, betas)
        keypoints, vertices = (points - made.keypoints[:, :1] for points in (made.keypoints, made.vertices))
        # Turned back by each hand's own orientation, what is left is pose
        back, true_back = rotations[:, 0], repeated(batch.rotations[:, 0])
        own, true_own = keypoints @ back, repeated(truth) @ true_back
        placed = posed_hands(self._thin_layer, hands, batch.half_sides)
        seen = _in_crop(placed.vertices, repeated(batch.half_sides))
        wrist = batch.keypoints[:, :1]
        true_seen = repeated(_in_crop(true_vertices + wrist, batch.half_sides))
        each = {
            'pose': mean((rotations - repeated(batch.rotations))[..., :2].abs()),
            'joints': mean((keypoints - repeated(truth)).norm(dim=-1)),
            'aligned': mean((own - true_own).norm(dim=-1)),
            'vertices': mean((vertices - repeated(true_vertices)).norm(dim=-1)),
            'projection': mean((seen - true_seen).norm(dim=-1).clamp(max=1)),
            'betas': mean((hands.betas.flatten(0, 1) - betas).square()),
        }
        best = (each['joints'] + each['aligned'] + each['vertices']).argmin(dim=1)

        def counted(values: Tensor) -> Tensor:
            won = values.gather(1, best[:, None]).mean()
            return (1 - _ALL_SHARE) * won + _ALL_SHARE * values.mean()

        depth = (batch.keypoints[..., 2:] - wrist[..., 2:]) / wrist[..., 2:] * batch.half_sides[:, None, None]
        landmarks = torch.cat([_in_crop(batch.keypoints, batch.half_sides), depth], dim=-1)
        inside = (landmarks[..., :2].abs() < 1).all(dim=-1).float()
        side = round(hands.heatmaps.shape[-1] ** 0.5)
        places = splat(landmarks[..., :2], side, side)
        entropy = -(places * hands.heatmaps.log_softmax(dim=-1)).sum(dim=-1)
        on_hand = (batch.joint_map >= 0).float()
        depths = (hands.seen[:, -1] - batch.depth_map).abs().clamp(max=1) * on_hand
        errors = aligned_errors(keypoints, repeated(truth)).unflatten(0, (-1, count))
        squared_cm = (100 * errors).square()
        return {
            **{name: counted(values) for name, values in each.items()},
            'landmarks': (hands.landmarks - landmarks).abs().clamp(max=1).mean(),
            'heatmaps': (entropy * inside).sum() / inside.sum().clamp(min=1),
            'parts': cross_entropy(hands.seen[:, :-1], batch.joint_map + 1),
            'depths': depths.sum() / on_hand.sum().clamp(min=1),
            'scores': cross_entropy(hands.scores, best),
            # Of a normal distribution in space, whose variance is a third of the squared distance's mean
            'confidence': (hands.log_variance + squared_cm / 3 * (-hands.log_variance).exp()).mean(),
        }


def _in_crop(points: Tensor, half_sides: Tensor) -> Tensor:
    """Where crops show points (B,N,3) of their cameras' frames: (B,N,2), -1..1 over them."""
    return points[..., :2] / points[..., 2:].clamp(min=1e-2) * half_sides[:, None, None]


def _begun(c: Mask2HandTrainingConfiguration) -> Mask2Hand:
    """The network as training begins with it."""
    if not c.begin_with:
        return Mask2Hand(c.network)
    network, _ = load_mask2hand(Path(c.begin_with))
    if network.configuration != c.network:
        raise ConfigurationError(f'begin_with is of {network.configuration}, network says {c.network}')
    return network.requires_grad_(True)
