"""``hand-mesh eval``: methods side by side on annotated images, or on rendered hands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from hand_mesh_ros.cli.options import add_model_options
from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.datasets.opening import open_dataset
from hand_mesh_ros.datasets.residuals import ResidualBank
from hand_mesh_ros.datasets.synthetic import SyntheticHands
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
from hand_mesh_ros.evaluation.reliability_plot import reliability_picture
from hand_mesh_ros.evaluation.scores import Score, found_everywhere, reliability_of, summarise
from hand_mesh_ros.evaluation.synthetic import (
    TEST_LEVELS,
    TEST_SEED,
    WORLD_ROW,
    CropMethod,
    FitOnCrops,
    WorldLandmarks,
    compare_on_synthetic,
)
from hand_mesh_ros.evaluation.tables import markdown, write_csv
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.inference.network import MAX_STEPS, MIN_STEPS
from hand_mesh_ros.reconstruction import METHODS, Reconstructor, make_reconstructor

#: The row of the network that must do with what the detector says.
_NO_IMAGE_ROW = 'maskhand-no-image'

_SYNTHETIC, _SYNTHETIC_HANDS = 'synthetic', 5000


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``eval`` and its options."""
    parser = commands.add_parser('eval', help='measure methods side by side, on annotated or rendered hands')
    parser.add_argument(
        'data',
        nargs='+',
        metavar='DATA',
        help='index.json of annotated images, or the folder of a data set: FreiHAND v2, HO-3D v3, DexYCB; '
        f'several make one table. Or the word {_SYNTHETIC}: rendered hands, crops without a detector',
    )
    parser.add_argument(
        '--split',
        metavar='NAME',
        help='evaluation (default) or training of FreiHAND, evaluation (default) or train of HO-3D, all '
        '(default) or s0_test of DexYCB',
    )
    parser.add_argument(
        '--same-hands',
        action='store_true',
        default=None,
        help='the data sets show the same hands under the same ids, covered more and more, say: a second '
        'table compares the hands that every method found in all of them',
    )
    parser.add_argument(
        '--method',
        action='append',
        choices=[*METHODS, _NO_IMAGE_ROW],
        help='may be repeated; default: every method there is what it needs for',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help='folder for table.md, samples.csv, reliability_*.png and worst/index.html',
    )
    parser.add_argument(
        '--weights', type=Path, metavar='FILE', help="of maskhand (default: the package's own)"
    )
    parser.add_argument(
        '--steps',
        type=int,
        nargs='+',
        metavar='T',
        help='iterations of the sampling: of images the last counts (default: 1), of synthetic each (1 3 5)',
    )
    parser.add_argument(
        '--worst',
        type=int,
        default=80,
        metavar='N',
        help='images: draw so many of the worst hands that were found, and a quarter as many of those that '
        'were not (default: %(default)s)',
    )
    maps = parser.add_mutually_exclusive_group()
    maps.add_argument(
        '--joint-map',
        type=Path,
        metavar='FILE',
        help='images: measure also with the offsets between joint definitions in this file',
    )
    maps.add_argument(
        '--fit-joint-map',
        type=Path,
        metavar='FILE',
        help='images: write such a file; measure each half of a data set with offsets from its other half',
    )
    parser.add_argument(
        '--count',
        type=int,
        metavar='N',
        help='images: so many of each DATA, evenly chosen (default: all); synthetic: hands (default: '
        f'{_SYNTHETIC_HANDS})',
    )
    parser.add_argument(
        '--covered',
        type=float,
        metavar='SHARE',
        help='synthetic: one object in front of every hand covers this much of it, 0 to 0.8',
    )
    add_model_options(parser)
    parser.set_defaults(command=evaluate)


def evaluate(arguments: argparse.Namespace) -> int:
    """Print the table; with ``--out`` write it, every hand's scores, and pictures."""
    for name, least in (('count', 1), ('worst', 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ConfigurationError(f'--{name} must be at least {least}, got {value}')
    if not all(MIN_STEPS <= steps <= MAX_STEPS for steps in arguments.steps or ()):
        raise ConfigurationError(f'--steps must be within {MIN_STEPS} to {MAX_STEPS}, got {arguments.steps}')
    synthetic = _SYNTHETIC in arguments.data
    if synthetic and len(arguments.data) > 1:
        raise ConfigurationError(f'the word {_SYNTHETIC} as DATA stands alone')
    for name in ('joint_map', 'fit_joint_map', 'split', 'same_hands') if synthetic else ('covered',):
        if getattr(arguments, name) is not None:
            what = 'images' if synthetic else f'the word {_SYNTHETIC}'
            raise ConfigurationError(f'--{name.replace("_", "-")} is for {what} as DATA alone')
    if arguments.out:
        _make_folder(arguments.out)
    scores, rows = _on_synthetic(arguments) if synthetic else _on_images(arguments)
    table = markdown(summarise(scores, rows))
    if arguments.same_hands:
        same = markdown(summarise(found_everywhere(scores), rows))
        table += f'\n\nOf these, the hands that every method found in every data set:\n\n{same}'
    print(table)
    if arguments.out:
        (arguments.out / 'table.md').write_text(table + '\n', encoding='utf-8')
        write_csv(arguments.out / 'samples.csv', scores)
        _write_reliability(arguments.out, scores, rows)
    return 0


def _on_images(arguments: argparse.Namespace) -> tuple[list[Score], list[str]]:
    """Scores, and names of the rows in order."""
    maps = read_maps(arguments.joint_map) if arguments.joint_map else None
    groups = _samples(arguments)
    models: dict[Side, HandModel] = {
        'right': load_hand_model(arguments.hand_model, 'right'),
        'left': load_hand_model(arguments.hand_model, 'left'),
    }
    methods: dict[str, Reconstructor] = _available(
        arguments, lambda name: _reconstructor(name, models, arguments), [*METHODS, _NO_IMAGE_ROW]
    )
    worst = None
    if arguments.out and arguments.worst:
        worst = WorstHands(arguments.worst, {side: model.faces for side, model in models.items()})
    detector = MediaPipeDetector()
    scores: list[Score] = []
    pairs: list[MappedPair] = []
    try:
        same_vertices = _has_mano_vertices(models['right'])
        compared = chain.from_iterable(
            compare(samples, detector, methods, same_vertices=same_vertices) for samples in groups
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
    options: dict[str, Any] = {'weights': arguments.weights}
    if arguments.steps:
        options['sampling_steps'] = arguments.steps[-1]
    if name == _NO_IMAGE_ROW:
        return make_reconstructor('maskhand', models, arguments.hand_length, use_image=False, **options)
    return make_reconstructor(name, models, arguments.hand_length, **options)


def _has_mano_vertices(model: HandModel) -> bool:
    """Whether its vertices are numbered as MANO's are; those of the open model are not."""
    return not np.array_equal(model.faces, load_hand_model().faces)


def _on_synthetic(arguments: argparse.Namespace) -> tuple[list[Score], list[str]]:
    """Scores, and names of the rows in order."""
    count = arguments.count or _SYNTHETIC_HANDS
    model = load_hand_model(arguments.hand_model, 'right')
    methods: dict[str, CropMethod] = {WORLD_ROW: WorldLandmarks(model)}
    options: dict[str, Any] = {'levels': TEST_LEVELS, 'residuals': ResidualBank.shipped(), 'model': model}
    if arguments.covered is not None:
        options['covered'] = arguments.covered
    for name, rows in _available(arguments, lambda name: _crop_rows(name, model, arguments), METHODS).items():
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
    try:
        from hand_mesh_ros.evaluation.synthetic_network import maskhand_rows
        from hand_mesh_ros.networks.maskhand import MASKHAND_PATH
    except ImportError as error:
        raise ConfigurationError(f"{name} needs {error.name}: pip install 'hand-mesh-ros[torch]'") from error
    path = arguments.weights or MASKHAND_PATH
    if not path.is_file():
        raise ConfigurationError(f'{name} needs weights, and {path} is missing: --weights FILE')
    return maskhand_rows(path, model, arguments.steps or (1, 3, 5))


def _available(arguments: argparse.Namespace, make: Any, names: Iterable[str]) -> dict[str, Any]:
    """What ``make`` makes of the names asked for; where none are, of those for which all is there."""
    if arguments.method:
        return {name: make(name) for name in dict.fromkeys(arguments.method)}
    made = {}
    for name in names:
        try:
            made[name] = make(name)
        except ConfigurationError as error:
            print(f'hand-mesh: without {name}: {error}', file=sys.stderr)
    return made


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f'{folder}: cannot be made: {error.strerror}') from error


def _write_reliability(folder: Path, scores: list[Score], rows: list[str]) -> None:
    for row in rows:
        reliability = reliability_of(scores, row)
        if reliability.counts.any():
            picture = cv2.cvtColor(reliability_picture(reliability, row), cv2.COLOR_RGB2BGR)
            (folder / f'reliability_{row}.png').write_bytes(cv2.imencode('.png', picture)[1].tobytes())
