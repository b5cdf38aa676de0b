"""Which operators of ONNX TensorRT's parsers take, 8.6 being the strictest, and what graphs it would refuse.

Sources: docs/operators.md and the importers of onnx/onnx-tensorrt, branch release/8.6-GA; NVIDIA's support
matrix of TensorRT 8.6. Later versions take all that is listed here, and more types.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, defs, numpy_helper

from hand_mesh_ros.inference.opset import OPSET

#: TopK's limit in every version.
_MOST_TOP = 3840

#: Dimensions of a tensor.
_MOST_DIMENSIONS = 8

#: Kinds of numbers: float32 and float16; int32, to which int64 is cut down; truth values; bytes.
_KINDS = {
    TensorProto.FLOAT: 'F',
    TensorProto.FLOAT16: 'F',
    TensorProto.INT32: 'I',
    TensorProto.INT64: 'I',
    TensorProto.BOOL: 'B',
    TensorProto.UINT8: 'U',
}

_BY_KINDS = {
    'F': 'Atan Ceil Cos Erf Exp Floor HardSigmoid HardSwish Log Reciprocal Relu Round Sigmoid Sin Softplus '
    'Sqrt Tanh AveragePool BatchNormalization Conv ConvTranspose Gemm GlobalAveragePool '
    'InstanceNormalization LayerNormalization LogSoftmax MatMul MaxPool Resize Softmax '
    # The table promises no integers for these, though some versions take them
    'Clip Pow ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum',
    'FI': 'Abs Add ArgMax ArgMin Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul Neg Pad '
    'Range Sign Sub TopK',
    'B': 'And Not Or Xor',
    'FIB': 'Concat Constant Expand Flatten Gather GatherElements GatherND Identity Reshape Slice Split '
    'Squeeze Tile Transpose Trilu Unsqueeze Where',
    'I': 'ConstantOfShape',  # of shapes; what it gives is of its attribute's type
    'FIBU': 'Cast Shape',  # nothing else takes bytes: no tensor between two operators may be of them
}

#: Operators by name: the kinds of numbers that each computes with.
OPERATORS = {name: kinds for kinds, names in _BY_KINDS.items() for name in names.split()}

_FORBIDDEN_FOR = {
    'draws at random: TensorRT ignores the seed, or has no such operator': (
        'Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike'
    ),
    'silently wrong in 10.13 to 11.1 (NVIDIA/TensorRT issues 4646 and 4813)': 'GridSample',
    'control flow: the work would depend on the data': 'If Loop Scan',
    'gives a shape that depends on the data': 'Compress NonMaxSuppression NonZero Unique',
}

#: Never in a graph, whatever a version says: name and reason.
FORBIDDEN = {name: reason for reason, names in _FORBIDDEN_FOR.items() for name in names.split()}

#: Inputs, by number, that must be constants, or computed of shapes alone where said.
_CONSTANT = {'Conv': (1, 2), 'ConvTranspose': (1, 2), 'ReduceSum': (1,), 'Split': (1,), 'Squeeze': (1,)} | {
    'BatchNormalization': (1, 2, 3, 4),
    'Clip': (1, 2),
    'Slice': (3,),
    'TopK': (1,),
    'Unsqueeze': (1,),
}
_OF_SHAPES = {'ConstantOfShape': (0,), 'Expand': (1,), 'Range': (0, 1, 2), 'Reshape': (1,)} | {
    'Resize': (2, 3),
    'Slice': (1, 2, 4),
    'Tile': (1,),
}


def unsupported(model: onnx.ModelProto) -> list[str]:
    """What TensorRT 8.6 to 11 would refuse of a graph, or get wrong; empty if nothing.

    :param model: weights may lie outside. Casts of weights count as weights: see ``engine_graph``.
    :raises onnx.shape_inference.InferenceError: shapes or types that contradict each other.
    """
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    return [*_of_file(model), *_Graph(model).complaints()]


def _of_file(model: onnx.ModelProto) -> Iterator[str]:
    for opset in model.opset_import:
        if opset.domain not in ('', 'ai.onnx'):
            yield f'operators of {opset.domain}'
        elif opset.version > OPSET:
            yield f'opset {opset.version}: 8.6 knows {OPSET}'
    for value in (*model.graph.input, *model.graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type not in _KINDS:
            yield f'{value.name} is {TensorProto.DataType.Name(tensor.elem_type)}'
        if not all(dimension.HasField('dim_value') for dimension in tensor.shape.dim[1:]):
            yield f'{value.name}: a dimension is open that is not the batch'


class _Graph:
    """What of a graph's values the complaints are about."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = self.graph = model.graph
        values = (*graph.input, *graph.value_info, *graph.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
        self.ranks |= {tensor.name: len(tensor.dims) for tensor in graph.initializer}
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.constants, self.of_shapes = set(self.tensors), set(self.tensors)
        for node in graph.node:
            taken = [name for name in node.input if name]
            if self.constants.issuperset(taken):  # of nothing, too
                self.constants.update(node.output)
            if node.op_type == 'Shape' or self.of_shapes.issuperset(taken):
                self.of_shapes.update(node.output)

    def complaints(self) -> Iterator[str]:
        """About each node."""
        outputs = {value.name for value in self.graph.output}
        for node in self.graph.node:
            for complaint in self._about(node):
                yield f'{node.op_type} {node.name}: {complaint}'
            for name in node.output:
                if self.types.get(name) == TensorProto.UINT8 and name not in outputs:
                    yield f'{node.op_type} {node.name}: gives bytes to another operator'
                if self.ranks.get(name, 0) > _MOST_DIMENSIONS:
                    yield f'{node.op_type} {node.name}: {self.ranks[name]} dimensions'

    def _about(self, node: onnx.NodeProto) -> Iterator[str]:
        if node.op_type in FORBIDDEN:
            yield FORBIDDEN[node.op_type]
            return
        if node.op_type not in OPERATORS:
            yield 'not in the table'
            return
        for index in _data_inputs(node):
            kind = _KINDS.get(self.types.get(node.input[index], 0), '?')
            if kind not in OPERATORS[node.op_type]:
                yield f'input {index} is of kind {kind}, must be one of {OPERATORS[node.op_type]}'
        for known, table in ((self.constants, _CONSTANT), (self.of_shapes, _OF_SHAPES)):
            for index in table.get(node.op_type, ()):
                if index < len(node.input) and node.input[index] and node.input[index] not in known:
                    yield f'input {index} depends on the data'
        yield from self._own_limits(node)

    def _own_limits(self, node: onnx.NodeProto) -> Iterator[str]:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        rank = self.ranks.get(node.input[0], 0) if node.input else 0
        if node.op_type == 'TopK':
            count = self.tensors.get(node.input[1])
            if count is None or int(np.max(numpy_helper.to_array(count))) >= _MOST_TOP:
                yield f'K must be a number below {_MOST_TOP}'
        elif node.op_type == 'Cast':
            if attributes['to'].i not in _KINDS:
                yield f'to {TensorProto.DataType.Name(attributes["to"].i)}'
        elif node.op_type == 'Gemm':
            if rank != 2:
                yield 'takes matrices only'
        elif node.op_type in ('Conv', 'ConvTranspose'):
            if not 3 <= rank <= 5:
                yield 'takes one to three dimensions besides batch and channels'
        elif node.op_type == 'Resize':
            mode = attributes['mode'].s if 'mode' in attributes else b'nearest'
            if mode not in (b'nearest', b'linear'):
                yield f'mode {mode!r}'
        elif node.op_type == 'LayerNormalization' and len({self.types[name] for name in node.input}) > 1:
            yield 'scale and bias must be of the type of what is normalised'


def _data_inputs(node: onnx.NodeProto) -> list[int]:
    """Numbers of the inputs that an operator computes with, not those that say where or how much."""
    if node.op_type == 'Where':
        return [1, 2]
    if node.op_type == 'Pow':
        return [0, 1]
    formal = defs.get_schema(node.op_type, OPSET).inputs
    kinds = [formal[min(index, len(formal) - 1)].type_str for index in range(len(node.input))]
    return [index for index, name in enumerate(node.input) if name and kinds[index] == kinds[0]]
