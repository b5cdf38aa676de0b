"""Training of RefineNet: hands that a frozen Mask2Hand told of synthetic masks, moved towards the truth."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.networks.mask2hand import MASK2HAND_PATH, load_mask2hand, posed_hands
from hand_mesh_ros.networks.refine_net import RefineNet, RefineNetConfiguration, describe
from hand_mesh_ros.rendering.masks import hard_silhouettes
from hand_mesh_ros.training.configuration import LoopConfiguration, require
from hand_mesh_ros.training.hand_errors import aligned_errors, posed
from hand_mesh_ros.training.loop import Training
from hand_mesh_ros.training.mask_overlap import overlaps
from hand_mesh_ros.training.mask_samples import MaskSampleMaker, MaskSamples
from hand_mesh_ros.training.processes import ProcessGroup
from hand_mesh_ros.training.samples import batches
from hand_mesh_ros.training.silhouette_terms import SilhouetteTerms
from hand_mesh_ros.training.vq_mano import HELD_OUT_SEED

#: Hands that are evaluated at once.
_EVALUATION_BATCH = 128

#: Metres: of a vertex that is farther off, no silhouette says where it is.
_LOST_M = 0.03


@dataclass(frozen=True)
class RefineNetLossWeights:
    """Weights of the terms of the loss. The first two are to each other as in the paper.

    :raises ConfigurationError: a negative weight.
    """

    aligned: float = 100.0  #: of the mean distance of vertices, once hands are turned and sized alike, metres
    vertices: float = 10.0  #: of the mean distance of vertices from the hand's middle on, metres
    overlap: float = 3.0  #: of 1 - intersection over union of the silhouettes, drawn softly
    contour: float = 3.0  #: of the mean distance of vertices from the silhouette, and back, half sides
    smooth: float = 100.0  #: of how far moves differ from those of their neighbours, mean, metres
    size: float = 10.0  #: of the mean move, metres

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            require(self, name, at_least=0)


@dataclass(frozen=True)
class RefineNetTrainingConfiguration:
    """All of ``config/training/mask2hand_refinement.yaml``.

    :raises ConfigurationError: numbers out of their range.
    """

    mask2hand: str = ''  #: weights of the Mask2Hand whose hands are refined; empty: those of the package
    network: RefineNetConfiguration = field(default_factory=RefineNetConfiguration)
    worn_share: float = 0.5  #: of the masks that are not perfect
    loop: LoopConfiguration = field(default_factory=LoopConfiguration)
    loss: RefineNetLossWeights = field(default_factory=RefineNetLossWeights)
    workers: int = 0  #: processes that draw masks; 0 for none
    held_out_samples: int = 512

    def __post_init__(self) -> None:
        require(self, 'held_out_samples', at_least=1)
        require(self, 'workers', at_least=0)
        require(self, 'worn_share', at_least=0, below=1.0001)
        if self.loop.seed >= HELD_OUT_SEED:
            raise ConfigurationError(f'seed is {self.loop.seed}, must be below {HELD_OUT_SEED}')


def train_refine_net(
    configuration: RefineNetTrainingConfiguration,
    model: HandModel,
    folder: Path,
    group: ProcessGroup,
    resume: bool,
) -> bool:
    """Train in a folder (see ``Training``); returns False where SIGTERM ended it early."""
    objective = RefineNetObjective(configuration, model, group.device)
    description = {
        **describe(objective.network, {'name': model.name, 'sha256': model.sha256}),
        'mask2hand': objective.mask2hand_sha256,
    }
    settings = asdict(configuration)
    return Training(objective, configuration.loop, folder, group, description, settings).run(resume)


class ToldHands(NamedTuple):
    """Hands that Mask2Hand told, and the true ones."""

    masks: Tensor  #: (B,1,S,S) uint8 0..255, that they were told of
    half_sides: Tensor  #: (B,)
    drawn: Tensor  #: (B,1,S,S) uint8 0 or 255, silhouettes of the told hands
    true_masks: Tensor  #: (B,1,S,S) likewise, of the true ones
    vertices: Tensor  #: (B,V,3) told, metres in the crop's camera
    true_vertices: Tensor  #: (B,V,3)
    turns: Tensor  #: (B,3,3) of the told hands against the camera
    true_turns: Tensor  #: (B,3,3)

    def part(self, start: int, stop: int) -> ToldHands:
        """Some of the hands."""
        return ToldHands(*(tensor[start:stop] for tensor in self))


class RefineNetObjective:
    """What RefineNet is trained on and for: an ``Objective``."""

    criterion = 'loss'

    def __init__(
        self, configuration: RefineNetTrainingConfiguration, model: HandModel, device: torch.device
    ) -> None:
        """
        :raises ConfigurationError: sizes that are not those of Mask2Hand or of the hand model, or that model
            is not the one that Mask2Hand learned.
        :raises FileFormatError: the weights of Mask2Hand are none.
        """
        c = configuration
        path = Path(c.mask2hand) if c.mask2hand else MASK2HAND_PATH
        mask2hand, description = load_mask2hand(path)
        if description['hand_model']['sha256'] != model.sha256:
            raise ConfigurationError(f'{path} is of another hand model than {model.name}')
        size, count = mask2hand.configuration.image_size, len(model.v_template)
        if (c.network.image_size, c.network.vertices) != (size, count):
            raise ConfigurationError(f'network must have image_size {size} and vertices {count}')
        torch.manual_seed(c.loop.seed)
        self.network = RefineNet(c.network, model.faces)
        self.companions = nn.Module()
        #: SHA-256 of the weights of Mask2Hand
        self.mask2hand_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self._configuration, self._model, self._device = c, model, device
        self._mask2hand = mask2hand.to(device)
        self._layer = HandLayer(model).to(device)
        self._terms = SilhouetteTerms(model.faces, size).to(device)
        self._laplacian = _laplacian(model).to(device)
        self._maker = self._maker_of(c.loop.seed, c.worn_share, loose=True)
        #: Held-out hands, by the ending of the figures' names
        self._held_out = {
            ending: self._told_of_held_out(self._maker_of(HELD_OUT_SEED, share, loose=False))
            for ending, share in (('', 0.0), ('_worn', 1.0))
        }

    def _maker_of(self, seed: int, worn_share: float, loose: bool) -> MaskSampleMaker:
        size = self._configuration.network.image_size
        return MaskSampleMaker(seed=seed, size=size, worn_share=worn_share, loose=loose, model=self._model)

    def _told_of_held_out(self, maker: MaskSampleMaker) -> ToldHands:
        numbers = np.arange(self._configuration.held_out_samples)
        parts = [
            self._told(maker[numbers[start : start + _EVALUATION_BATCH]])
            for start in range(0, len(numbers), _EVALUATION_BATCH)
        ]
        return ToldHands(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def batches(self, first_step: int, group: ProcessGroup) -> Iterator[ToldHands]:
        """Hands of masks that no step before had."""
        c = self._configuration
        for samples in batches(self._maker, first_step, c.loop.batch_size, group, c.workers):
            yield self._told(samples)

    @torch.no_grad()
    def _told(self, samples: MaskSamples) -> ToldHands:
        """What Mask2Hand thinks best."""
        samples = samples.to(self._device)
        half_sides = samples.half_sides
        hands = self._mask2hand(samples.masks.float() / 255, half_sides)
        best = hands.chosen(hands.scores.argmax(dim=1))
        vertices = posed_hands(self._layer, best, half_sides).vertices
        truth = posed(self._layer, samples.rotations, samples.betas)
        true_vertices = truth.vertices + (samples.keypoints[:, :1] - truth.keypoints[:, :1])
        return ToldHands(
            masks=samples.masks,
            half_sides=half_sides,
            drawn=self._drawn(vertices, half_sides),
            true_masks=self._drawn(true_vertices, half_sides),
            vertices=vertices,
            true_vertices=true_vertices,
            turns=best.rotations[:, 0, 0],
            true_turns=samples.rotations[:, 0],
        )

    def _drawn(self, vertices: Tensor, half_sides: Tensor) -> Tensor:
        size = self._configuration.network.image_size
        silhouettes = hard_silhouettes(
            vertices.double().cpu().numpy(), self._model.faces, half_sides.cpu().numpy(), size
        )
        return torch.from_numpy(silhouettes[:, None].astype(np.uint8) * 255).to(self._device)

    def losses(self, network: nn.Module, batch: ToldHands) -> dict[str, Tensor]:
        """The weighted sum ``loss``, and its terms before they are weighted."""
        offsets = _offsets(network, batch)
        with torch.autocast(self._device.type, enabled=False):
            terms = {name: values.mean() for name, values in self._missed(offsets, batch).items()}
            return {'loss': self._weighted(terms), **terms}

    def after_update(self, step: int, group: ProcessGroup) -> None:
        """Nothing to do."""

    def evaluate(self) -> dict[str, float]:
        """Errors on held-out masks; with ``_worn`` on such as are not perfect, with ``_before`` of the hands
        that are not refined. ``loss`` is that of both kinds of masks together.

        ``overlap`` is with the true hand's own silhouette, whatever the mask was; ``aligned_mm`` the mean
        distance of vertices after a similarity.
        """
        figures: dict[str, float] = {}
        for ending, told in self._held_out.items():
            parts = [
                self._figures(told.part(start, start + _EVALUATION_BATCH), ending)
                for start in range(0, len(told.masks), _EVALUATION_BATCH)
            ]
            for figure in parts[0]:
                figures[figure] = torch.cat([part[figure] for part in parts]).mean().item()
        losses = [figures.pop(f'loss{ending}') for ending in self._held_out]
        return {'loss': sum(losses) / len(losses), **figures}

    def _figures(self, told: ToldHands, ending: str) -> dict[str, Tensor]:
        offsets = _offsets(self.network, told)
        figures = {f'loss{ending}': self._weighted(self._missed(offsets, told))}
        for kind, vertices in (('_before', told.vertices), ('', told.vertices + offsets)):
            figures |= {
                f'aligned_mm{kind}{ending}': 1000 * aligned_errors(vertices, told.true_vertices).mean(dim=1),
                f'overlap{kind}{ending}': overlaps(
                    vertices, self._model.faces, told.true_masks, told.half_sides
                ),
            }
        return {**figures, f'move_mm{ending}': 1000 * offsets.norm(dim=-1).mean(dim=1)}

    def _weighted(self, terms: dict[str, Tensor]) -> Tensor:
        weights = asdict(self._configuration.loss)
        return sum(
            (weights[name] * term for name, term in terms.items()), torch.zeros((), device=self._device)
        )

    def _missed(self, offsets: Tensor, told: ToldHands) -> dict[str, Tensor]:
        """The terms of the loss, each (B,)."""
        refined = told.vertices + offsets
        made, wanted = (points - points.mean(dim=1, keepdim=True) for points in (refined, told.true_vertices))
        # A silhouette says neither how large a hand is nor, at once with its pose, how it is turned
        before = told.vertices - told.vertices.mean(dim=1, keepdim=True)
        larger = wanted.norm(dim=-1).mean(dim=1) / before.norm(dim=-1).mean(dim=1)
        own, true_own = made @ told.turns * larger[:, None, None], wanted @ told.true_turns
        neighbours = self._laplacian @ offsets
        return {
            'aligned': (own - true_own).norm(dim=-1).clamp(max=_LOST_M).mean(dim=1),
            'vertices': (made - wanted).norm(dim=-1).clamp(max=_LOST_M).mean(dim=1),
            # With the true hand's own silhouette: where a mask is wrong, hands are not to follow it
            **self._terms(refined, told.true_masks.float() / 255, told.half_sides),
            'smooth': _lengths(neighbours).mean(dim=1),
            'size': _lengths(offsets).mean(dim=1),
        }


def _offsets(network: nn.Module, told: ToldHands) -> Tensor:
    return network(told.masks.float() / 255, told.drawn.float() / 255, told.vertices, told.half_sides)


def _lengths(vectors: Tensor) -> Tensor:
    """Of vectors (...,3): (...), with a gradient where they are zero, too."""
    return (vectors.square().sum(dim=-1) + 1e-10).sqrt()


def _laplacian(model: HandModel) -> Tensor:
    """(V,V): takes what vertices have to how that differs from their neighbours' mean."""
    count = len(model.v_template)
    neighbours = torch.zeros(count, count)
    ends = torch.from_numpy(model.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).astype(np.int64))
    neighbours[ends[:, 0], ends[:, 1]] = neighbours[ends[:, 1], ends[:, 0]] = 1.0
    return torch.eye(count) - neighbours / neighbours.sum(dim=1, keepdim=True)
