"""Checkpoints: what a killed training run goes on from.

Tensors are safetensors and numbers are JSON. The optimizer's state is torch's own format, read with
``weights_only=True``, which unpickles nothing but tensors and plain containers. A checkpoint
appears under its final name only when it is complete.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.networks.weights import flush, read_tensors, write_tensors

_TENSORS, _OPTIMIZER, _STATE = 'tensors.safetensors', 'optimizer.pt', 'state.json'
_NAME = re.compile(r'step-(\d+)')


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training goes on from."""

    tensors: dict[str, Tensor]  #: of the network and of what is trained beside it
    optimizer: dict[str, Any]  #: state_dict of the optimizer
    state: dict[str, Any]  #: what JSON can say


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write ``folder/step-N`` and remove older checkpoints; returns its path."""
    final = folder / f'step-{step:08d}'
    partial = folder / f'{final.name}.partial'
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_tensors(partial / _TENSORS, checkpoint.tensors, {})
    torch.save(checkpoint.optimizer, partial / _OPTIMIZER)
    (partial / _STATE).write_text(json.dumps(checkpoint.state), encoding='utf-8')
    for path in partial.iterdir():
        flush(path)
    if final.exists():
        shutil.rmtree(final)
    os.replace(partial, final)
    flush(folder)
    for path in folder.iterdir():
        if path != final and _NAME.match(path.name):
            shutil.rmtree(path)
    return final


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint in a folder, its tensors on the CPU; None where there is none.

    :raises FileFormatError: a checkpoint that is damaged.
    """
    names = sorted(path.name for path in folder.glob('step-*') if _NAME.fullmatch(path.name))
    if not names:
        return None
    path = folder / names[-1]
    try:
        tensors, _ = read_tensors(path / _TENSORS)
        optimizer = torch.load(path / _OPTIMIZER, map_location='cpu', weights_only=True)
        state = json.loads((path / _STATE).read_text(encoding='utf-8'))
    except (OSError, ValueError, RuntimeError, EOFError, UnpicklingError) as error:
        raise FileFormatError(
            f'{path}: damaged checkpoint, remove it to go on from an older one or anew: {error}'
        ) from error
    return Checkpoint(tensors, optimizer, state)
