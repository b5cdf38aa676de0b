"""Adapts Mask2Hand to masks that nobody labelled: of other hands, cameras, ways of segmentation.

The supervision is its own, as in arXiv 2205.15553: what it says of a mask is rendered and compared with
that mask. What a silhouette does not tell is held by what the network said before, by a prior of poses, and
by synthetic masks with their truth in the same batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.networks.mask2hand import (
    Hypotheses,
    Mask2Hand,
    describe,
    load_mask2hand,
    posed_hands,
)
from hand_mesh_ros.networks.weights import save_weights
from hand_mesh_ros.training.configuration import LoopConfiguration, require
from hand_mesh_ros.training.loop import Training
from hand_mesh_ros.training.mask2hand import Mask2HandObjective, Mask2HandTrainingConfiguration
from hand_mesh_ros.training.mask_overlap import overlaps
from hand_mesh_ros.training.mask_samples import MaskSamples
from hand_mesh_ros.training.processes import ProcessGroup
from hand_mesh_ros.training.silhouette_terms import PosePrior, SilhouetteTerms

#: Of the masks, at most so many, and that share, judge the network and are not learned from.
_HELD_OUT, _HELD_OUT_SHARE = 512, 0.2

_EVALUATION_BATCH = 128


class MaskCrops(NamedTuple):
    """Masks of right hands in crops, nothing being known of the hands."""

    masks: Tensor  #: (N,1,S,S) uint8 0..255
    half_sides: Tensor  #: (N,) focal length of each crop's camera over half the side

    def those(self, chosen: Tensor) -> MaskCrops:
        """The masks of these numbers (M,)."""
        return MaskCrops(self.masks[chosen], self.half_sides[chosen])


@dataclass(frozen=True)
class AdaptationLossWeights:
    """Weights of the terms of the loss.

    :raises ConfigurationError: a negative weight.
    """

    overlap: float = 4.0  #: of 1 - intersection over union
    contour: float = 20.0  #: of the mean distance of outlines, half sides
    prior: float = 0.02  #: of the squared distance from the mean pose, in standard deviations
    limits: float = 1.0  #: of the radians beyond the joints' limits
    betas: float = 0.01  #: of the mean squared betas
    before: float = 4.0  #: of the mean difference from the rotations that the network said before
    labelled: float = 0.3  #: of the whole loss of ``train mask2hand`` on synthetic masks

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            require(self, name, at_least=0)


@dataclass(frozen=True)
class AdaptationConfiguration:
    """All of ``config/training/adapt.yaml``.

    :raises ConfigurationError: numbers out of their range.
    """

    loop: LoopConfiguration = field(
        default_factory=lambda: LoopConfiguration(
            steps=300,
            batch_size=32,
            learning_rate=2e-4,
            warmup_steps=20,
            weight_decay=1e-2,
            gradient_clip=5.0,
            log_every=20,
            evaluate_every=100,
            checkpoint_every=100,
        )
    )
    loss: AdaptationLossWeights = field(default_factory=AdaptationLossWeights)
    labelled: int = 32  #: synthetic masks in each batch, besides
    worn_share: float = 0.5  #: of those, that are not perfect
    workers: int = 1  #: processes that draw those; 0 for none
    held_out_labelled: int = 256  #: synthetic masks of each kind that tell what the network forgets

    def __post_init__(self) -> None:
        require(self, 'labelled', at_least=0)
        require(self, 'held_out_labelled', at_least=1)
        require(self, 'workers', at_least=0)


class _Batch(NamedTuple):
    crops: MaskCrops
    labelled: MaskSamples | None


def adapt_mask2hand(
    objective: AdaptationObjective, folder: Path, group: ProcessGroup, resume: bool = False
) -> bool:
    """Adapt in a folder (see ``Training``); False where SIGTERM ended it early.

    ``best.safetensors`` there keeps the calibration of confidence of the weights that were adapted, and is
    of half precision in the end.
    """
    c, model = objective.configuration, objective.model
    description = describe(objective.network, {'name': model.name, 'sha256': model.sha256})
    description['calibration'] = objective.calibration
    description['adapted'] = objective.origin
    done = Training(objective, c.loop, folder, group, description, asdict(c)).run(resume)
    if done and group.is_first:
        best = folder / 'best.safetensors'
        network, description = load_mask2hand(best)
        save_weights(best, network.half(), description)
    return done


class AdaptationObjective:
    """What the network is adapted to and for: an ``Objective``."""

    criterion = 'missed'

    def __init__(
        self,
        configuration: AdaptationConfiguration,
        crops: MaskCrops,
        model: HandModel,
        device: torch.device,
        weights: Path,
    ) -> None:
        """
        :param weights: that are adapted.
        :raises ConfigurationError: fewer than two masks, or not of the size that the network takes.
        :raises FileFormatError: ``weights`` are no network's.
        """
        c = configuration
        if len(crops.masks) < 2:
            raise ConfigurationError(f'{len(crops.masks)} masks with a hand: there must be two at least')
        network, description = load_mask2hand(weights)
        if description['hand_model']['sha256'] != model.sha256:
            raise ConfigurationError(
                f'{weights} learned another hand model than {model.name!r}: give its own with --hand-model'
            )
        size = network.configuration.image_size
        if crops.masks.shape[-1] != size:
            raise ConfigurationError(f'masks of side {crops.masks.shape[-1]}, {weights} takes {size}')
        self.calibration = description['calibration']
        #: Which weights were adapted to which masks: only such a run can be resumed.
        self.origin = {
            'weights_sha256': hashlib.sha256(weights.read_bytes()).hexdigest(),
            'masks_sha256': hashlib.sha256(crops.masks.numpy().tobytes()).hexdigest(),
            'masks': len(crops.masks),
        }
        self.network: Mask2Hand = network.requires_grad_(True).to(device)
        self._before = deepcopy(self.network).eval().requires_grad_(False)
        self.companions = nn.Module()
        self.configuration, self.model, self._device = c, model, device
        self._layer = HandLayer(model).to(device)
        self._terms = SilhouetteTerms(model.faces, size).to(device)
        self._prior = PosePrior(model).to(device)
        order = torch.randperm(len(crops.masks), generator=torch.Generator().manual_seed(c.loop.seed))
        held_out = min(_HELD_OUT, max(1, round(_HELD_OUT_SHARE * len(order))))
        self._held_out, self._crops = crops.those(order[:held_out]), crops.those(order[held_out:])
        self._synthetic: Mask2HandObjective | None = None
        if c.labelled:
            loop = LoopConfiguration(batch_size=c.labelled, seed=c.loop.seed)
            supervised = Mask2HandTrainingConfiguration(
                network=self.network.configuration,
                begin_with=str(weights),
                worn_share=c.worn_share,
                workers=c.workers,
                held_out_samples=c.held_out_labelled,
                loop=loop,
            )
            self._synthetic = Mask2HandObjective(supervised, model, device)
        self._use(self.network)

    def batches(self, first_step: int, group: ProcessGroup) -> Iterator[_Batch]:
        """Masks in an order of their own in each round, and as many synthetic ones as are asked for."""
        labelled = self._synthetic.batches(first_step, group) if self._synthetic else None
        size = self.configuration.loop.batch_size
        step = first_step
        while True:
            generator = torch.Generator().manual_seed(
                (self.configuration.loop.seed << 32) + step * group.size + group.rank
            )
            chosen = torch.randint(len(self._crops.masks), (size,), generator=generator)
            crops = MaskCrops(*(t.to(self._device) for t in self._crops.those(chosen)))
            yield _Batch(crops, next(labelled) if labelled else None)
            step += 1

    def losses(self, network: nn.Module, batch: _Batch) -> dict[str, Tensor]:
        """The weighted sum ``loss``, and its terms before they are weighted."""
        masks, half_sides = batch.crops.masks.float() / 255, batch.crops.half_sides
        count = len(masks)
        if batch.labelled is not None:  # in one pass, that both are normalised alike
            masks = torch.cat([masks, batch.labelled.masks.float() / 255])
            half_sides = torch.cat([half_sides, batch.labelled.half_sides])
        hands: Hypotheses = network(masks, half_sides)
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            before = self._before(masks[:count], half_sides[:count])
        with torch.autocast(self._device.type, enabled=False):
            own = Hypotheses(*(t[:count].float() for t in hands))
            terms = self._silhouette_terms(own, before, masks[:count], half_sides[:count])
            if batch.labelled is not None and self._synthetic is not None:
                others = Hypotheses(*(t[count:].float() for t in hands))
                terms['labelled'] = self._synthetic.weighted(others, batch.labelled)['loss']
        weights = asdict(self.configuration.loss)
        loss = sum(
            (weights[name] * term for name, term in terms.items()), torch.zeros((), device=self._device)
        )
        return {'loss': loss, **terms}

    def _silhouette_terms(
        self, hands: Hypotheses, before: Hypotheses, masks: Tensor, half_sides: Tensor
    ) -> dict[str, Tensor]:
        which = before.scores.argmax(dim=1)
        chosen, was = hands.chosen(which), before.chosen(which)
        vertices = posed_hands(self._layer, chosen, half_sides).vertices
        terms = {
            **self._terms(vertices, masks, half_sides),
            **self._prior(chosen.rotations[:, 0]),
            'betas': chosen.betas.square().flatten(1).mean(dim=1),
            'before': (chosen.rotations - was.rotations)[..., :2].abs().flatten(1).mean(dim=1),
        }
        return {name: values.mean() for name, values in terms.items()}

    def after_update(self, step: int, group: ProcessGroup) -> None:
        """Nothing to do."""

    @torch.no_grad()
    def judged(self, weights: Path) -> dict[str, float]:
        """What ``evaluate`` says of the network in a file of weights.

        :raises FileFormatError: it holds no Mask2Hand network.
        """
        own = self.network
        try:
            self._use(load_mask2hand(weights)[0].to(self._device))
            return self.evaluate()
        finally:
            self._use(own)

    def _use(self, network: Mask2Hand) -> None:
        self.network = network
        if self._synthetic is not None:
            self._synthetic.network = network

    @property
    def held_out(self) -> int:
        """How many masks judge the network."""
        return len(self._held_out.masks)

    def evaluate(self) -> dict[str, float]:
        """Overlap on the masks held out, and how much it misses; errors on synthetic masks besides."""
        found = []
        for start in range(0, len(self._held_out.masks), _EVALUATION_BATCH):
            crops = MaskCrops(*(t[start : start + _EVALUATION_BATCH] for t in self._held_out))
            masks, half_sides = crops.masks.to(self._device), crops.half_sides.to(self._device)
            hands = self.network(masks.float() / 255, half_sides)
            top = hands.chosen(hands.scores.argmax(dim=1))
            vertices = posed_hands(self._layer, top, half_sides).vertices
            found.append(overlaps(vertices, self.model.faces, masks, half_sides))
        overlap = torch.cat(found).mean().item()
        figures = {'overlap': overlap, 'missed': 1 - overlap}
        if self._synthetic is not None:
            figures |= {f'synthetic_{name}': v for name, v in self._synthetic.evaluate().items()}
        return figures
