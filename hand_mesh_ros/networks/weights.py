"""Weights of a network in one safetensors file, with a description of the network as its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hand_mesh_ros.errors import FileFormatError

_DESCRIPTION = 'description'

Network = TypeVar('Network', bound=nn.Module)


def save_weights(path: Path, network: nn.Module, description: Mapping[str, Any]) -> None:
    """Write a network's weights, and what JSON can say of them; the file is replaced as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.partial')
    write_tensors(partial, network.state_dict(), {_DESCRIPTION: json.dumps(description)})
    flush(partial)
    partial.chmod(0o644)  # safetensors lets nobody else read it
    os.replace(partial, path)


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights, on the CPU, and description, as ``save_weights`` wrote them.

    :raises FileFormatError: a file that is missing, damaged, or without a description.
    """
    try:
        tensors, metadata = read_tensors(path)
        return tensors, json.loads(metadata[_DESCRIPTION])
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise FileFormatError(f'{path}: no weights as hand-mesh train writes them: {error!r}') from error


def built(make: Callable[[], Network], weights: Mapping[str, Tensor]) -> Network:
    """The network that ``make`` makes, with those weights.

    They are compared by shape first, with a network that takes no memory: the sizes of a network are what its
    file says, and may be anything.

    :raises ValueError: the weights are of another network.
    """
    with torch.device('meta'):
        expected = {name: tensor.shape for name, tensor in make().state_dict().items()}
    if {name: tensor.shape for name, tensor in weights.items()} != expected:
        raise ValueError('its weights are not of the names and shapes that its description asks for')
    network = make()
    network.load_state_dict(weights)
    return network


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors by name, and texts, to a safetensors file."""
    # safetensors wants contiguous tensors that share no memory
    plain = {name: tensor.detach().to('cpu', copy=True).contiguous() for name, tensor in tensors.items()}
    save_file(plain, path, metadata=metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, on the CPU, and texts, of a safetensors file.

    :raises OSError: it cannot be read.
    :raises ValueError: it is no safetensors file.
    """
    try:
        with safe_open(path, framework='pt') as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
