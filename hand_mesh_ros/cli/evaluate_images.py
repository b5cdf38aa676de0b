"""The part of ``hand-mesh eval`` that measures methods on annotated images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hand_mesh_ros.cli.available import available
from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.datasets.opening import open_dataset
from hand_mesh_ros.detection.mediapipe import MediaPipeDetector
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.evaluation.comparison import DETECTOR_ROW, compare
from hand_mesh_ros.evaluation.joint_map import (
    MappedPair,
    fit_maps,
    read_maps,
    with_cross_fitted_maps,
    with_maps,
    write_maps,
)
from hand_mesh_ros.evaluation.pages import WorstHands
from hand_mesh_ros.evaluation.scores import Score
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.reconstruction import MASK_METHODS, METHODS, Reconstructor, make_reconstructor

#: The row of the network that must do with what the detector says.
_NO_IMAGE_ROW = 'maskhand-no-image'

#: What ``--method`` may name.
IMAGE_ROWS = (*METHODS, _NO_IMAGE_ROW)


def scores_on_images(arguments: argparse.Namespace) -> tuple[list[Score], list[str]]:
    """Scores, and names of the rows in order."""
    maps = read_maps(arguments.joint_map) if arguments.joint_map else None
    groups = _samples(arguments)
    models: dict[Side, HandModel] = {
        'right': load_hand_model(arguments.hand_model, 'right'),
        'left': load_hand_model(arguments.hand_model, 'left'),
    }
    methods: dict[str, Reconstructor] = available(
        _rows(arguments, groups), lambda name: _reconstructor(name, models, arguments), arguments.method
    )
    faces = {side: model.faces for side, model in models.items()}
    worst = WorstHands(arguments.worst, faces) if arguments.out and arguments.worst else None
    detector = MediaPipeDetector()
    scores: list[Score] = []
    pairs: list[MappedPair] = []
    try:
        same_vertices = _has_mano_vertices(models['right'])
        compared = chain.from_iterable(
            compare(samples, detector, methods, faces, same_vertices=same_vertices) for samples in groups
        )
        for hand in tqdm(compared, total=sum(map(len, groups)), unit='hand', disable=None):
            scores += hand.scores
            if arguments.joint_map or arguments.fit_joint_map:
                pairs += hand.pairs()
            if worst is not None:
                worst.add(hand)
    finally:
        detector.close()
    if worst is not None:
        worst.write(arguments.out / 'worst')
    if maps is not None:
        scores = with_maps(scores, pairs, maps)
    if arguments.fit_joint_map:
        write_maps(arguments.fit_joint_map, fit_maps(pairs))
        scores = with_cross_fitted_maps(scores, pairs)
    return scores, [DETECTOR_ROW, *methods]


def _rows(arguments: argparse.Namespace, groups: Sequence[Sequence[AnnotatedHand]]) -> list[str]:
    """The names of the methods that the hands can be shown to.

    :raises ConfigurationError: one that is asked for is not among them.
    """
    if any(sample.mask is not None for sample in chain(*groups)):
        return [*IMAGE_ROWS]
    for name in arguments.method or ():
        if name in MASK_METHODS:
            raise ConfigurationError(
                f'{name} needs masks, and no hand in {", ".join(arguments.data)} has one'
            )
    return [name for name in IMAGE_ROWS if name not in MASK_METHODS]


def _samples(arguments: argparse.Namespace) -> list[list[AnnotatedHand]]:
    """The hands of each DATA. A data set's name that came before is told apart by the path."""
    groups: list[list[AnnotatedHand]] = []
    for data in arguments.data:
        samples = _of_images(open_dataset(Path(data), arguments.split), arguments.count)
        before = {sample.dataset for sample in chain(*groups)}
        groups.append(
            [replace(s, dataset=f'{s.dataset} {data}') if s.dataset in before else s for s in samples]
        )
    return groups


def _of_images(samples: list[AnnotatedHand], count: int | None) -> list[AnnotatedHand]:
    """The hands of so many images, evenly chosen; None for all."""
    images = [*dict.fromkeys(sample.image for sample in samples)]
    if count is None or count >= len(images):
        return samples
    chosen = {images[k * len(images) // count] for k in range(count)}
    return [sample for sample in samples if sample.image in chosen]


def _reconstructor(name: str, models: dict[Side, HandModel], arguments: argparse.Namespace) -> Reconstructor:
    weights = arguments.mask_weights if name in MASK_METHODS else arguments.weights
    options: dict[str, Any] = {'weights': weights}
    if arguments.steps:
        options['sampling_steps'] = arguments.steps[-1]
    if name == _NO_IMAGE_ROW:
        return make_reconstructor('maskhand', models, arguments.hand_length, use_image=False, **options)
    return make_reconstructor(name, models, arguments.hand_length, **options)


def _has_mano_vertices(model: HandModel) -> bool:
    """Whether its vertices are numbered as MANO's are; those of the open model are not."""
    return not np.array_equal(model.faces, load_hand_model().faces)
