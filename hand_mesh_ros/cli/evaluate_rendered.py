"""The part of ``hand-mesh eval`` that measures methods on rendered hands."""

from __future__ import annotations

import argparse
from typing import Any

from tqdm import tqdm

from hand_mesh_ros.cli.available import available
from hand_mesh_ros.datasets.masks import SyntheticMasks
from hand_mesh_ros.datasets.residuals import ResidualBank
from hand_mesh_ros.datasets.synthetic import SyntheticHands
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.evaluation.scores import Score
from hand_mesh_ros.evaluation.silhouettes import ROWS, WORN_SHARES, SilhouetteRows, compare_on_silhouettes
from hand_mesh_ros.evaluation.synthetic import (
    TEST_LEVELS,
    TEST_SEED,
    WORLD_ROW,
    CropMethod,
    FitOnCrops,
    WorldLandmarks,
    compare_on_synthetic,
)
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.inference.loading import load_silhouette_network
from hand_mesh_ros.reconstruction import IMAGE_METHODS, MASK_METHODS

#: Hands, where nobody says how many.
DEFAULT_COUNT = 5000


def scores_on_silhouettes(arguments: argparse.Namespace) -> tuple[list[Score], list[str]]:
    """Scores, and names of the rows in order."""
    count = arguments.count or DEFAULT_COUNT
    model = load_hand_model(arguments.hand_model, 'right')
    rows = SilhouetteRows(model, load_silhouette_network(arguments.weights), arguments.hand_length)
    scores: list[Score] = []
    with tqdm(total=len(WORN_SHARES) * count, unit='mask', disable=None) as progress:
        for dataset, share in WORN_SHARES.items():
            masks = SyntheticMasks(TEST_SEED, worn_share=share, model=model)
            for of_mask in compare_on_silhouettes(masks, rows, dataset, count):
                scores += of_mask
                progress.update()
    return scores, [*ROWS]


def scores_on_synthetic(arguments: argparse.Namespace) -> tuple[list[Score], list[str]]:
    """Scores, and names of the rows in order."""
    count = arguments.count or DEFAULT_COUNT
    model = load_hand_model(arguments.hand_model, 'right')
    methods: dict[str, CropMethod] = {WORLD_ROW: WorldLandmarks(model)}
    options: dict[str, Any] = {'levels': TEST_LEVELS, 'residuals': ResidualBank.shipped(), 'model': model}
    if arguments.covered is not None:
        options['covered'] = arguments.covered
    made = available(IMAGE_METHODS, lambda name: _crop_rows(name, model, arguments), arguments.method)
    for name, rows in made.items():
        methods |= {row: method for row, method in rows.items() if name in ('fit', 'maskhand', row)}
    sizes = [method.image_size for method in methods.values() if method.image_size is not None]
    if sizes:
        options['size'] = sizes[0]
    hands = SyntheticHands(TEST_SEED, **options)
    scores: list[Score] = []
    with tqdm(total=count, unit='hand', disable=None) as progress:
        for group in compare_on_synthetic(hands, methods, count):
            scores += group
            progress.update(len(group) // len(methods))
    return scores, [*methods]


def _crop_rows(name: str, model: HandModel, arguments: argparse.Namespace) -> dict[str, CropMethod]:
    """The rows of a method, by their names."""
    if name == 'fit':
        return {'fit': FitOnCrops(model)}
    if name in MASK_METHODS:
        raise ConfigurationError(f'{name} looks at masks alone: it is measured on the word silhouettes')
    try:
        from hand_mesh_ros.evaluation.synthetic_network import maskhand_rows
        from hand_mesh_ros.networks.maskhand import MASKHAND_PATH
    except ImportError as error:
        raise ConfigurationError(f"{name} needs {error.name}: pip install 'hand-mesh-ros[torch]'") from error
    path = arguments.weights or MASKHAND_PATH
    if not path.is_file():
        raise ConfigurationError(f'{name} needs weights, and {path} is missing: --weights FILE')
    return maskhand_rows(path, model, arguments.steps or (1, 3, 5))
