"""Networks to ONNX: graphs that ONNX Runtime and TensorRT 8.6 to 11 run alike.

A graph holds no weights but refers to the file of weights that it was made of, as external data: weights are
kept once, and the two cannot drift apart. They stay in the precision in which the file has them and are cast
to float32 where they enter.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx
import onnx_ir
import torch
from onnx import StringStringEntryProto, TensorProto, helper
from onnxscript.optimizer import optimize_ir
from torch import Tensor

from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.inference.graph_files import METADATA_KEY
from hand_mesh_ros.inference.node_scopes import name_by_scope
from hand_mesh_ros.inference.opset import to_opset_17
from hand_mesh_ros.networks.parts import Part

#: Larger constants are left to the engines to fold.
_FOLDED_ELEMENTS = 4096

#: What ``Part`` calls the network whose weights are in the file.
_NETWORK = 'network.'

_TYPES = {'F16': TensorProto.FLOAT16, 'F32': TensorProto.FLOAT, 'I64': TensorProto.INT64}


def exported(part: Part, example: Sequence[Tensor], batch: int = 0) -> onnx.ModelProto:
    """The graph of ``part``, with its weights as inputs: see ``refer_to_weights``.

    :param example: inputs of the part, of two or more hands.
    :param batch: hands of every batch; 0 for any number, in which case the dimension is called ``batch``.
    """
    with _quiet(), _no_autocast(), torch.no_grad():
        program = torch.onnx.export(
            part,
            tuple(example),
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_shapes=None if batch else _any_number(part, len(example)),
            dynamo=True,
            opset_version=18,
            external_data=False,
            optimize=False,
            verbose=False,
        )
    assert program is not None  # with a file's name it were
    model = program.model
    # As inputs, weights are nothing that the optimiser could fold, neither by themselves nor into each other
    for name in part.state_dict():
        if name.startswith(_NETWORK) and name in model.graph.initializers:
            weight = model.graph.initializers.pop(name)
            weight.const_value = None
            model.graph.inputs.append(weight)
    optimize_ir(
        model, num_iterations=4, input_size_limit=_FOLDED_ELEMENTS, output_size_limit=_FOLDED_ELEMENTS
    )
    proto = onnx_ir.to_proto(model)
    to_opset_17(proto)
    name_by_scope(proto)
    return proto


def refer_to_weights(graph: onnx.GraphProto, weights: Path) -> None:
    """Turn those inputs of ``graph`` that are weights into references to the file they are in.

    :param weights: a safetensors file, beside which the graph will lie.
    :raises FileFormatError: a file that is none, or lacks a weight.
    """
    stored = _stored_tensors(weights)
    casts = []
    for value in [value for value in graph.input if value.name.startswith(_NETWORK)]:
        try:
            kind, shape, offset, length = stored[value.name.removeprefix(_NETWORK)]
        except KeyError as error:
            raise FileFormatError(f'{weights}: no weights of this network: {error} is missing') from error
        tensor = TensorProto(name=value.name, data_type=kind, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, text in (('location', weights.name), ('offset', offset), ('length', length)):
            tensor.external_data.append(StringStringEntryProto(key=key, value=str(text)))
        wanted = value.type.tensor_type.elem_type
        if kind != wanted:
            tensor.name += '.stored'
            casts.append(
                helper.make_node('Cast', [tensor.name], [value.name], f'{value.name}.cast', to=wanted)
            )
        graph.initializer.append(tensor)
        graph.input.remove(value)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def write_graph(model: onnx.ModelProto, description: dict[str, Any], path: Path) -> None:
    """Write a graph, and what it says of itself; the file is replaced as a whole.

    :raises onnx.checker.ValidationError: a graph that breaks the rules of ONNX.
    """
    model.producer_name, model.producer_version = 'hand_mesh_ros', ''
    model.doc_string = ''
    for node in model.graph.node:  # where in the source each came from: longer than all else
        del node.metadata_props[:]
    for value in model.graph.value_info:
        del value.metadata_props[:]
    helper.set_model_props(model, {METADATA_KEY: json.dumps(description)})
    partial = path.with_name(f'{path.name}.partial')
    partial.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(partial), full_check=True)
    os.replace(partial, path)


def _stored_tensors(path: Path) -> dict[str, tuple[int, list[int], int, int]]:
    """Type, shape, offset in the file and length in bytes of each tensor in a safetensors file."""
    try:
        with path.open('rb') as file:
            (length,) = struct.unpack('<Q', file.read(8))
            header = json.loads(file.read(length))
        header.pop('__metadata__', None)
        return {
            name: (
                _TYPES[t['dtype']],
                t['shape'],
                8 + length + t['data_offsets'][0],
                t['data_offsets'][1] - t['data_offsets'][0],
            )
            for name, t in header.items()
        }
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise FileFormatError(f'{path}: no weights as hand-mesh train writes them: {error!r}') from error


def _any_number(part: Part, count: int) -> tuple[Any, ...]:
    """Dynamic shapes of ``count`` inputs whose first dimension is the batch, as the exporter wants them."""
    batch = {0: torch.export.Dim('batch')}
    given, collected = part.forward.__code__.co_argcount - 1, bool(part.forward.__code__.co_flags & 4)
    first = (batch,) * given
    return (*first, (batch,) * (count - given)) if collected else first


@contextlib.contextmanager
def _no_autocast() -> Iterator[None]:
    """Regions of autocast say nothing in a graph of float32, but what is in them loses its module's name."""
    with patch.object(torch, 'autocast', lambda *_, **__: contextlib.nullcontext()):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch's exporter tells of its own deprecations."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
