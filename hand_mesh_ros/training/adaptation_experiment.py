"""What adapting Mask2Hand without labels is worth: synthetic masks of a domain that is new to it.

Their truth judges, and nothing is learned from it.

Run as ``python -m hand_mesh_ros.training.adaptation_experiment --weights FILE --seeds 0 1 2``. The other
domain is a camera close to large and small hands, whose masks are rougher than any in training. Beside the
adaptation stands the same one without the terms that compare silhouettes: what its other parts do alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from hand_mesh_ros.datasets.mask_borders import BorderNoise
from hand_mesh_ros.evaluation.tables import markdown
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.networks.mask2hand import MASK2HAND_PATH, Mask2Hand, load_mask2hand, posed_hands
from hand_mesh_ros.training.adaptation import (
    AdaptationConfiguration,
    AdaptationObjective,
    MaskCrops,
    adapt_mask2hand,
)
from hand_mesh_ros.training.configuration import load_configuration
from hand_mesh_ros.training.hand_errors import aligned_errors
from hand_mesh_ros.training.mask_overlap import overlaps
from hand_mesh_ros.training.mask_samples import MaskSampleMaker, MaskSamples
from hand_mesh_ros.training.processes import process_group

#: Seeds of masks to adapt to and to judge by, to which that of the experiment is added: far from those of
#: training, held-out masks, calibration and tests.
_ADAPTATION_SEED, _JUDGING_SEED = 5_000_000_000, 6_000_000_000

#: Arguments of ``SyntheticMasks``.
_DOMAINS: dict[str, dict[str, Any]] = {
    'shifted': {
        'worn_share': 1.0,
        'distances_m': (0.2, 0.35),
        'betas_scale': 2.0,
        'noise': BorderNoise(
            ragged=0.02,
            grown=0.016,
            arm_m=0.06,
            cut_m=0.02,
            arm_share=0.8,
            lost_share=0.4,
            lost=0.08,
            edge_share=0.12,
        ),
    },
    'original': {'worn_share': 0.5},
}

_JUDGING_MASKS = 1000
_BATCH = 100


@dataclass(frozen=True)
class Experiment:
    """How the experiment is made."""

    weights: Path
    steps: int | None = None  #: of each adaptation; None for those of the configuration
    masks: int = 3000  #: without labels, of each seed
    judging_masks: int = _JUDGING_MASKS
    configuration: AdaptationConfiguration = field(default_factory=AdaptationConfiguration)

    def adaptations(self) -> dict[str, AdaptationConfiguration]:
        """What is compared, by name."""
        c = self.configuration
        if self.steps is not None:
            c = replace(c, loop=replace(c.loop, steps=self.steps))
        return {
            'adapted': c,
            'without silhouettes': replace(c, loss=replace(c.loss, overlap=0.0, contour=0.0)),
        }


def run_experiment(experiment: Experiment, seeds: list[int], out: Path) -> list[dict[str, str | float]]:
    """Rows of a table: for each seed what was measured before and after, then the means.

    :param out: where the adaptations' folders go; one that is there already is gone on with.
    """
    model = load_hand_model()
    rows: list[dict[str, str | float]] = []
    for seed in seeds:
        rows += _one_seed(experiment, seed, out / f'seed_{seed}', model)
    names = dict.fromkeys(row['weights'] for row in rows)
    return rows + [_mean([row for row in rows if row['weights'] == name]) for name in names]


def _one_seed(
    experiment: Experiment, seed: int, folder: Path, model: HandModel
) -> list[dict[str, str | float]]:
    network, _ = load_mask2hand(experiment.weights)
    size = network.configuration.image_size
    shifted = _masks('shifted', _ADAPTATION_SEED + seed, experiment.masks, size, model)
    crops = MaskCrops(shifted.masks, shifted.half_sides)  # nothing else of them is used
    judged = {
        domain: _masks(domain, _JUDGING_SEED + seed, experiment.judging_masks, size, model)
        for domain in _DOMAINS
    }
    rows: list[dict[str, str | float]] = []

    def judge(name: str, weights: Path) -> None:
        adapted, _ = load_mask2hand(weights)
        figures = {
            f'{measure}, {domain}': value
            for domain, samples in judged.items()
            for measure, value in errors(adapted, samples, model).items()
        }
        rows.append({'seed': str(seed), 'weights': name, **figures})

    judge('before', experiment.weights)
    for name, configuration in experiment.adaptations().items():
        run = folder / name.replace(' ', '_')
        seeded = replace(configuration, loop=replace(configuration.loop, seed=seed))
        with process_group() as group:
            objective = AdaptationObjective(seeded, crops, model, group.device, experiment.weights)
            if not adapt_mask2hand(objective, run, group, resume=True):
                raise SystemExit(1)
        judge(name, run / 'best.safetensors')
    return rows


@torch.no_grad()
def errors(network: Mask2Hand, samples: MaskSamples, model: HandModel) -> dict[str, float]:
    """Of the best-scored hands of masks with their truth: overlap with the masks, and errors in mm."""
    layer, parts = HandLayer(model), []
    for start in range(0, len(samples.betas), _BATCH):
        part = samples.part(start, start + _BATCH)
        hands = network(part.masks.float() / 255, part.half_sides)
        posed = posed_hands(layer, hands.chosen(hands.scores.argmax(dim=1)), part.half_sides)
        relative, truth = (points - points[:, :1] for points in (posed.keypoints, part.keypoints))
        parts.append(
            {
                'IoU': overlaps(posed.vertices, model.faces, part.masks, part.half_sides),
                'PA-MPJPE mm': 1000 * aligned_errors(relative, truth).mean(dim=1),
                'MPJPE mm': 1000 * (relative - truth).norm(dim=-1).mean(dim=1),
            }
        )
    return {name: torch.cat([part[name] for part in parts]).mean().item() for name in parts[0]}


def _masks(domain: str, seed: int, count: int, size: int, model: HandModel) -> MaskSamples:
    maker = MaskSampleMaker(seed=seed, size=size, model=model, **_DOMAINS[domain])
    starts = tqdm(range(0, count, _BATCH), desc=f'masks, {domain}', unit='batch', disable=None)
    parts = [maker[np.arange(start, min(start + _BATCH, count))] for start in starts]
    fields: list[tuple[Tensor, ...]] = list(zip(*parts, strict=True))
    return MaskSamples(*map(torch.cat, fields))


def _mean(rows: list[dict[str, str | float]]) -> dict[str, str | float]:
    """One row of rows of several seeds."""
    mean = rows[0] | {'seed': 'mean'}
    for name, value in rows[0].items():
        if isinstance(value, float):
            mean[name] = float(np.mean([float(row[name]) for row in rows]))
    return mean


def main() -> None:
    """Make the experiment and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--weights', type=Path, default=MASK2HAND_PATH, metavar='FILE')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], metavar='N')
    parser.add_argument('--steps', type=int, metavar='N', help='of each adaptation')
    parser.add_argument('--masks', type=int, default=3000, metavar='N', help='without labels, to adapt to')
    parser.add_argument('--judging-masks', type=int, default=_JUDGING_MASKS, metavar='N')
    parser.add_argument('--config', type=Path, metavar='FILE', help='such as config/training/adapt.yaml')
    parser.add_argument('--out', type=Path, default=Path('runs/adaptation'), metavar='DIR')
    arguments = parser.parse_args()
    configuration = AdaptationConfiguration()
    if arguments.config is not None:
        configuration = load_configuration(arguments.config, AdaptationConfiguration)
    experiment = Experiment(
        arguments.weights, arguments.steps, arguments.masks, arguments.judging_masks, configuration
    )
    print(markdown(run_experiment(experiment, arguments.seeds, arguments.out)))


if __name__ == '__main__':
    main()
