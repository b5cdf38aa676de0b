"""Float16 for a graph, as types in it: all but the places named here, and all inputs and outputs.

TensorRT 11 knows no other way to compute in half precision, and no version need guess then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hand_mesh_ros.inference.node_scopes import scope_of


class Place(NamedTuple):
    """Where a network stays in float32."""

    modules: str  #: regular expression of modules' whole names, as ``node_scopes`` has them
    reason: str


#: All places in float32. A module's name stands for what it does itself, not for the modules in it: layers
#: that were learned compute in half precision, what is done with their numbers by hand does not.
FLOAT32_PLACES = (
    Place(
        '', 'rotations, the hand layer, projections, distances to codes: metres, to fractions of millimetres'
    ),
    Place(
        r'network',
        "Mask2Hand's and RefineNet's own: keypoints as means of maps, where to sample these, and "
        'perspective, which tells distances by small differences',
    ),
    Place(r'network\.encoder', 'keypoints as means of heatmaps, off by a tenth of a pixel else; entropies'),
    Place(r'network\.hand_head', 'landmarks in pixels, lengths by sums of squares'),
    Place(r'network\.second_look', 'two sets of landmarks: what counts is how little they differ'),
    Place(r'network\.lifter(\.members\.\d+)?', 'rotations'),
    Place(r'network\.decoder', 'logits of codes, of which the greatest is sought among many nearly as great'),
    Place(r'network\.decoder\..*\.cross_attention', 'where to look: half precision blurs large maps'),
    Place(r'network\.confidence', 'where to look, entropies, and how far the hand is from its cues'),
)

#: What moves numbers as they are stays in the type that they have.
_MOVERS = frozenset(
    ('Expand', 'Gather', 'GatherElements', 'Identity', 'Reshape', 'Slice', 'Split', 'Squeeze', 'Tile')
    + ('Transpose', 'Unsqueeze')
)

#: Inputs that are float32 in whatever type an operator computes.
_ALWAYS_FLOAT32 = {'Resize': (1, 2)}

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def to_half(model: onnx.ModelProto, places: tuple[Place, ...] = FLOAT32_PLACES) -> None:
    """Let a graph compute in float16 but for ``places``, in place.

    :param model: with the types of all values in it, and with weights.
    :raises ValueError: a constant that float16 cannot hold, outside of the places.
    """
    stays = re.compile('|'.join(f'(?:{place.modules})' for place in places))
    graph = model.graph
    typed = _Typed(graph)
    for node in graph.node:
        taken = [
            index
            for index, name in enumerate(node.input)
            if name in typed.floats and index not in _ALWAYS_FLOAT32.get(node.op_type, ())
        ]
        given = [index for index, name in enumerate(node.output) if name in typed.floats]
        if not taken and not given:
            typed.nodes.append(node)
            continue
        if node.op_type in _MOVERS and node.input[0] not in typed.weights:
            kind = typed.kinds[node.input[0]]
        else:
            kind = _FLOAT if stays.fullmatch(scope_of(node.name)) else _HALF
        for index in taken:
            node.input[index] = typed.name(node.input[index], kind)
        typed.nodes.append(node)
        for index in given:
            typed.give(node, index, kind)
        _set_types(node, kind)
    typed.write()


@dataclass
class _Typed:
    """A graph on its way to half precision."""

    graph: onnx.GraphProto
    floats: set[str] = field(init=False)  #: names of values that were float32
    weights: dict[str, onnx.TensorProto] = field(init=False)
    outputs: set[str] = field(init=False)
    kinds: dict[str, int] = field(init=False)  #: of values: in which type each was computed
    copies: dict[tuple[str, int], str] = field(default_factory=dict)  #: of a value in a type: its name
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        graph = self.graph
        values = (*graph.input, *graph.value_info, *graph.output)
        self.floats = {value.name for value in values if value.type.tensor_type.elem_type == _FLOAT}
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.floats |= {name for name, tensor in self.weights.items() if tensor.data_type == _FLOAT}
        self.outputs = {value.name for value in graph.output}
        self.kinds = dict.fromkeys(self.floats, _FLOAT)

    def name(self, value: str, kind: int) -> str:
        """The name of a value, or weight, in that type; what gives it so is added."""
        if self.kinds[value] == kind and (value, kind) not in self.copies:
            return value
        if (value, kind) not in self.copies:
            made = f'{value}.{"half" if kind == _HALF else "single"}'
            self.copies[value, kind] = made
            if value in self.weights:
                self.weights[made] = _half(self.weights[value], made)
            else:
                self.nodes.append(helper.make_node('Cast', [value], [made], f'{made}/Cast', to=kind))
        return self.copies[value, kind]

    def give(self, node: onnx.NodeProto, index: int, kind: int) -> None:
        """Note that a node, the last, gives an output in that type."""
        value = node.output[index]
        self.kinds[value] = kind
        if kind == _HALF and value in self.outputs:  # whose type is promised
            node.output[index] = self.copies[value, _HALF] = f'{value}.half'
            self.nodes.append(
                helper.make_node('Cast', [node.output[index]], [value], f'{value}.single/Cast', to=_FLOAT)
            )
            self.kinds[value] = _FLOAT

    def write(self) -> None:
        """Put it all into the graph."""
        graph, used = self.graph, {name for node in self.nodes for name in node.input}
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(t for name, t in self.weights.items() if name in used | self.outputs)
        for value in graph.value_info:
            if self.kinds.get(value.name) == _HALF:
                value.type.tensor_type.elem_type = _HALF


def _set_types(node: onnx.NodeProto, kind: int) -> None:
    """Where an operator's attributes say what it gives."""
    if node.op_type == 'Cast':
        (to,) = (attribute for attribute in node.attribute if attribute.name == 'to')
        to.i = kind if to.i == _FLOAT else to.i
    for attribute in node.attribute:
        if attribute.HasField('t') and attribute.t.data_type == _FLOAT and kind == _HALF:
            attribute.t.CopyFrom(_half(attribute.t, attribute.t.name))


def _half(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    array = numpy_helper.to_array(tensor)
    with np.errstate(over='ignore'):
        half = array.astype(np.float16)
    lost = (half == 0) & (array != 0) if array.size == 1 else np.zeros(array.shape, bool)
    if lost.any() or not np.isfinite(half[np.isfinite(array)]).all():
        raise ValueError(f'{tensor.name} is {array[lost | ~np.isfinite(half)]}, which float16 cannot hold')
    return numpy_helper.from_array(half, name)
