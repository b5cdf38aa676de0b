"""Exported graphs as TensorRT's parser wants them: whole, with weights that are constants, typed throughout.

An exported graph refers to a file of weights and casts each where it enters. TensorRT 8.6's parser, and the
fusions of all versions, want weights and not what an operator makes of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.inference.graph_files import METADATA_KEY, checked_description

if TYPE_CHECKING:
    import onnx

#: Bytes of weights from which they go beside the file: no ONNX file may have 2 GiB.
_LARGE = 1 << 30


def write_engine_graph(path: Path, precision: Literal['fp16', 'fp32'], out: Path) -> None:
    """Write what ``path`` computes so that TensorRT 8.6 to 11 can read it, to ``out``.

    Everything is in that file, but for weights of more than a GiB, which go beside it. What can be computed
    of weights alone is computed, and normalisations after convolutions are part of these. With ``fp16`` the
    types in the file are those to compute in: float16, and float32 in the places that ``half_types`` names.
    Inputs and outputs have the same names, shapes and types as before.

    :param path: a graph that ``hand-mesh export`` wrote.
    :raises ConfigurationError: onnx is not installed, or the graph is in half precision and fp32 is asked
        for.
    :raises FileFormatError: the graph, or the file of its weights, is missing or damaged.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ConfigurationError(f'backend tensorrt needs onnx: pip install onnx ({error})') from error
    from hand_mesh_ros.inference.half_types import to_half

    try:
        # Without weights, which shapes do not depend on: some are larger than what can be inferred at once
        model = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False), strict_mode=True)
        description = json.loads(_metadata(model).value)
        for name in _files_beside(model):
            # What is cut off or of another network would be taken for weights
            checked_description(path, {METADATA_KEY: _metadata(model).value}, path.parent / name)
        onnx.load_external_data_for_model(model, str(path.parent))
    except (
        OSError,
        DecodeError,
        ValueError,
        StopIteration,
        onnx.checker.ValidationError,  # weights from another folder
        onnx.shape_inference.InferenceError,
    ) as error:
        raise FileFormatError(
            f'{path}: no whole graph that hand-mesh export wrote: it makes it anew ({error!r})'
        ) from error
    if description['precision'] != precision and description['precision'] != 'fp32':
        raise ConfigurationError(f'{path} is in {description["precision"]} already: give the graph in fp32')
    _fold_constants(model)
    _fold_normalisations(model)
    if precision != description['precision']:
        to_half(model)
    _metadata(model).value = json.dumps({**description, 'precision': precision})
    _save(model, out)


def _metadata(model: onnx.ModelProto) -> onnx.StringStringEntryProto:
    return next(entry for entry in model.metadata_props if entry.key == METADATA_KEY)


def _files_beside(model: onnx.ModelProto) -> set[str]:
    """Names of the files that hold the weights, as far as they are not in the graph."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    return {ExternalDataInfo(t).location for t in model.graph.initializer if uses_external_data(t)}


def _save(model: onnx.ModelProto, out: Path) -> None:
    import onnx

    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGE
    weights = out.with_name(f'{out.name}.weights')
    if large:
        weights.unlink(missing_ok=True)  # onnx adds to what is there
    partial = out.with_name(f'{out.name}.partial')
    onnx.save(model, partial, save_as_external_data=large, location=weights.name)
    os.replace(partial, out)


def _fold_constants(model: onnx.ModelProto) -> None:
    """Replace nodes that compute with constants alone by what they give."""
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    folded, kept = [], []
    for node in graph.node:  # in the order of computation
        taken = [name for name in node.input if name]
        if taken and constants.issuperset(taken) and outputs.isdisjoint(node.output):
            folded.append(node)
            constants.update(node.output)
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input} | outputs
    wanted = [name for node in folded for name in node.output if name in used]
    if wanted:
        given = {name for node in folded for name in node.input}
        alone = helper.make_model(
            helper.make_graph(
                folded,
                'constants',
                [],
                [onnx.ValueInfoProto(name=name) for name in wanted],
                [tensor for tensor in graph.initializer if tensor.name in given],
            ),
            opset_imports=model.opset_import,
        )
        values = ReferenceEvaluator(alone).run(None, {})
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value), name)
            for name, value in zip(wanted, values, strict=True)
        )
    _keep(model, kept)


def _fold_normalisations(model: onnx.ModelProto) -> None:
    """Make batch normalisations part of the convolutions whose only consumers they are."""
    from onnx import numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    consumers: dict[str, int] = {}
    for name in [*(name for node in graph.node for name in node.input), *(v.name for v in graph.output)]:
        consumers[name] = consumers.get(name, 0) + 1
    convolutions = {node.output[0]: node for node in graph.node if node.op_type == 'Conv'}
    kept = []
    for node in graph.node:
        convolution = convolutions.get(node.input[0]) if node.op_type == 'BatchNormalization' else None
        if convolution is None or consumers[node.input[0]] > 1 or consumers[convolution.input[1]] > 1:
            kept.append(node)
            continue
        scale, bias, mean, variance = (
            numpy_helper.to_array(tensors[name]).astype(np.float64) for name in node.input[1:]
        )
        epsilon = next((a.f for a in node.attribute if a.name == 'epsilon'), 1e-5)
        scale = scale / np.sqrt(variance + epsilon)
        shift = np.zeros_like(mean)
        if len(convolution.input) > 2:
            shift = numpy_helper.to_array(tensors[convolution.input[2]]).astype(np.float64)
        weight = numpy_helper.to_array(tensors[convolution.input[1]])
        weight = (weight.astype(np.float64).T * scale).T.astype(np.float32)
        shift = ((shift - mean) * scale + bias).astype(np.float32)
        tensors[convolution.input[1]].CopyFrom(numpy_helper.from_array(weight, convolution.input[1]))
        # What was the normalisation's bias is the convolution's now
        added = f'{node.input[2]}.folded'
        graph.initializer.append(numpy_helper.from_array(shift, added))
        convolution.input[2:] = [added]
        convolution.output[0] = node.output[0]
    _keep(model, kept)


def _keep(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Leave only these nodes in a graph, and of its other content what they need."""
    graph = model.graph
    used = {name for node in nodes for name in (*node.input, *node.output)}
    used |= {value.name for value in graph.output}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    values = [value for value in graph.value_info if value.name in used]
    constants = {tensor.name for tensor in tensors}
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    graph.value_info.extend(value for value in values if value.name not in constants)
