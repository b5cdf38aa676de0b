"""Scores as text: a table of means in Markdown, and every hand's in CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from hand_mesh_ros.evaluation.scores import MEASURES, Score


def markdown(rows: Sequence[Mapping[str, str | float]]) -> str:
    """Rows of the same columns as a table; what is NaN is left blank."""
    if not rows:
        return '(no hands)'
    lines = ['| ' + ' | '.join(rows[0]) + ' |', '|' + ' --- |' * len(rows[0])]
    lines += ['| ' + ' | '.join(_cell(value) for value in row.values()) + ' |' for row in rows]
    return '\n'.join(lines)


def write_csv(path: Path, scores: Sequence[Score]) -> None:
    """One line for each hand and method: its measures and its mean confidence."""
    columns = ('id', 'dataset', 'method', 'found', 'side_correct')
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *MEASURES, 'confidence'])
        for score in scores:
            measures = [score.measures.get(name, float('nan')) for name in MEASURES]
            known = [getattr(score, name) for name in columns]
            writer.writerow([*known, *measures, float(score.confidence.mean())])


def _cell(value: str | float) -> str:
    if not isinstance(value, float):
        return str(value)
    return '' if value != value else f'{value:.1f}' if abs(value) >= 1.0 else f'{value:.3f}'
