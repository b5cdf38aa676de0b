"""Logs of a training run: CSV always, TensorBoard where it is installed."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml


class RunLog:
    """``training.csv``, ``evaluation.csv`` and ``tensorboard/`` in a run's folder; lines on the screen."""

    def __init__(self, folder: Path, step: int, settings: Mapping[str, Any]) -> None:
        """Begin to log after that many steps; what the files say of later ones is dropped.

        :param settings: written to ``configuration.yaml``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(settings), sort_keys=False)
        (folder / 'configuration.yaml').write_text(text, encoding='utf-8')
        self._folder = folder
        for name in ('training', 'evaluation'):
            _drop_after(self._path(name), step)
        self._board = _tensorboard(folder / 'tensorboard', step)

    def training(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the losses of one step."""
        self._write('training', step, figures)

    def evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures on held-out data after that many steps."""
        self._write('evaluation', step, figures)
        print(
            f'step {step}: ' + ', '.join(f'{name} {value:.4g}' for name, value in figures.items()), flush=True
        )

    def close(self) -> None:
        """Write what TensorBoard still holds."""
        if self._board:
            self._board.close()

    def _write(self, name: str, step: int, figures: Mapping[str, float]) -> None:
        path = self._path(name)
        new = not path.exists()
        with open(path, 'a', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, ['step', *figures])
            if new:
                writer.writeheader()
            writer.writerow({'step': step, **figures})
        if self._board:
            for key, value in figures.items():
                self._board.add_scalar(f'{name}/{key}', value, step)

    def _path(self, name: str) -> Path:
        return self._folder / f'{name}.csv'


def _drop_after(path: Path, step: int) -> None:
    """Keep the rows of a CSV file up to that step: a killed run has logged more than it saved."""
    if not path.exists():
        return
    with open(path, newline='', encoding='utf-8') as file:
        lines = list(csv.reader(file))
    if step == 0 or not lines:
        path.unlink()
        return
    header, *rows = lines
    # The last row of a killed run may be cut short
    kept = [row for row in rows if len(row) == len(header) and int(row[0]) <= step]
    partial = path.with_name(f'{path.name}.partial')
    with open(partial, 'w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows([header, *kept])
    os.replace(partial, path)


def _tensorboard(folder: Path, step: int) -> Any:
    if find_spec('tensorboard') is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
