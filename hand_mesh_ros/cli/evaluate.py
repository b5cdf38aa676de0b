"""``hand-mesh eval``: methods side by side on annotated images."""

from __future__ import annotations

import argparse
import csv
from dataclasses import asdict, fields
from pathlib import Path

from tqdm import tqdm

from hand_mesh_ros.cli.options import add_model_options
from hand_mesh_ros.datasets.annotated import read_index
from hand_mesh_ros.detection.mediapipe import MediaPipeDetector
from hand_mesh_ros.evaluation.comparison import DETECTOR_ROW, Score, compare, summarise
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.reconstruction import METHODS, make_reconstructor


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``eval`` and its options."""
    parser = commands.add_parser('eval', help='measure methods on annotated images, side by side')
    parser.add_argument('data', type=Path, metavar='DATA', help='index.json of annotated images')
    parser.add_argument(
        '--method', action='append', choices=METHODS, help='may be repeated; default: every method'
    )
    parser.add_argument('--out', type=Path, metavar='DIR', help='folder for samples.csv and table.md')
    add_model_options(parser)
    parser.set_defaults(command=evaluate)


def evaluate(arguments: argparse.Namespace) -> int:
    """Print the table; with ``--out`` write it and every sample's scores."""
    samples = read_index(arguments.data)
    names = arguments.method or list(METHODS)
    models: dict[Side, HandModel] = {
        'right': load_hand_model(arguments.hand_model, 'right'),
        'left': load_hand_model(arguments.hand_model, 'left'),
    }
    methods = {name: make_reconstructor(name, models, arguments.hand_length) for name in names}
    detector = MediaPipeDetector()
    try:
        groups = compare(samples, detector, methods)
        scores = [
            score for group in tqdm(groups, total=len(samples), unit='hand', disable=None) for score in group
        ]
    finally:
        detector.close()
    table = _markdown(summarise(scores, [DETECTOR_ROW, *names]))
    print(table)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / 'table.md').write_text(table + '\n', encoding='utf-8')
        with open(arguments.out / 'samples.csv', 'w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Score)])
            writer.writeheader()
            writer.writerows(asdict(score) for score in scores)
    return 0


def _markdown(rows: list[dict[str, str | float]]) -> str:
    lines = ['| ' + ' | '.join(rows[0]) + ' |', '|' + ' --- |' * len(rows[0])]
    for row in rows:
        lines.append('| ' + ' | '.join(_cell(value) for value in row.values()) + ' |')
    return '\n'.join(lines)


def _cell(value: str | float) -> str:
    if not isinstance(value, float):
        return str(value)
    return '' if value != value else f'{value:.1f}' if abs(value) >= 1.0 else f'{value:.3f}'
