"""``hand-mesh eval``: methods side by side on annotated images, or on rendered hands."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from hand_mesh_ros.cli.evaluate_images import IMAGE_ROWS, scores_on_images
from hand_mesh_ros.cli.evaluate_rendered import DEFAULT_COUNT, scores_on_silhouettes, scores_on_synthetic
from hand_mesh_ros.cli.options import add_model_options
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.evaluation.reliability_plot import reliability_picture
from hand_mesh_ros.evaluation.scores import Score, found_everywhere, reliability_of, summarise
from hand_mesh_ros.evaluation.tables import markdown, write_csv
from hand_mesh_ros.inference.network import MAX_STEPS, MIN_STEPS

#: What is measured on: images, or what one of two words stands for.
_IMAGES, _SYNTHETIC, _SILHOUETTES = 'images', 'synthetic', 'silhouettes'
_MEASURED = {
    _IMAGES: scores_on_images,
    _SYNTHETIC: scores_on_synthetic,
    _SILHOUETTES: scores_on_silhouettes,
}

#: Options that make sense on some of these alone.
_OPTIONS = {
    'joint_map': (_IMAGES,),
    'fit_joint_map': (_IMAGES,),
    'split': (_IMAGES,),
    'same_hands': (_IMAGES,),
    'mask_weights': (_IMAGES,),
    'method': (_IMAGES, _SYNTHETIC),
    'steps': (_IMAGES, _SYNTHETIC),
    'covered': (_SYNTHETIC,),
}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``eval`` and its options."""
    parser = commands.add_parser('eval', help='measure methods side by side, on annotated or rendered hands')
    parser.add_argument(
        'data',
        nargs='+',
        metavar='DATA',
        help='index.json of annotated images, or the folder of a data set: FreiHAND v2, HO-3D v3, DexYCB; '
        f'several make one table. Or one of two words: {_SYNTHETIC}, rendered hands, crops without a '
        f'detector; {_SILHOUETTES}, masks of rendered hands, perfect and ragged, for mask2hand',
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
        choices=IMAGE_ROWS,
        help='of images, or synthetic; may be repeated; default: every method there is what it needs for '
        '(mask2hand: masks)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help='folder for table.md, samples.csv, reliability_*.png and worst/index.html',
    )
    parser.add_argument(
        '--weights',
        type=Path,
        metavar='FILE',
        help=f"of maskhand, and on {_SILHOUETTES} of mask2hand (default: the package's own)",
    )
    parser.add_argument(
        '--mask-weights', type=Path, metavar='FILE', help="images: of mask2hand (default: the package's own)"
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
        help='images: so many of each DATA, evenly chosen (default: all); rendered hands: so many of each '
        f'table (default: {DEFAULT_COUNT})',
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
    kind = _kind(arguments)
    if arguments.out:
        _make_folder(arguments.out)
    scores, rows = _MEASURED[kind](arguments)
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


def _kind(arguments: argparse.Namespace) -> str:
    """What is measured on, of ``_MEASURED``.

    :raises ConfigurationError: a word beside other DATA, or an option that is not for it.
    """
    kind = next((word for word in arguments.data if word in (_SYNTHETIC, _SILHOUETTES)), _IMAGES)
    if kind != _IMAGES and len(arguments.data) > 1:
        raise ConfigurationError(f'the word {kind} as DATA stands alone')
    for name, kinds in _OPTIONS.items():
        if getattr(arguments, name) is not None and kind not in kinds:
            raise ConfigurationError(f'--{name.replace("_", "-")} is for {" or ".join(kinds)} as DATA alone')
    return kind


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
