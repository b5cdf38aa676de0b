"""From opset 18, the oldest that PyTorch exports, to 17, the newest that TensorRT 8.6 knows."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

OPSET = 17

#: Reductions whose axes became an input with opset 18. (ReduceSum's had been one before.)
_REDUCTIONS = ('ReduceL1', 'ReduceL2', 'ReduceMax', 'ReduceMean', 'ReduceMin', 'ReduceProd')

#: Attributes that are new in opset 18. With their defaults, which is all that PyTorch writes, they say what
#: opset 17 means without them.
_NEW_ATTRIBUTES = ('antialias', 'keep_aspect_ratio_policy', 'noop_with_empty_axes', 'num_outputs')


def to_opset_17(model: onnx.ModelProto) -> None:
    """Say in opset 17, in place, what a graph says in opset 18.

    Of the operators whose meaning differs between the two, those that the networks of this package use.

    :raises ValueError: axes of a reduction that are no constant.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _REDUCTIONS and len(node.input) == 2:
            axes = constants.get(node.input.pop())
            if axes is None:
                raise ValueError(f'the axes of {node.name} are no constant')
            node.attribute.append(helper.make_attribute('axes', numpy_helper.to_array(axes).tolist()))
        for attribute in [attribute for attribute in node.attribute if attribute.name in _NEW_ATTRIBUTES]:
            node.attribute.remove(attribute)
    used = {name for node in model.graph.node for name in node.input}
    unused = [tensor for tensor in model.graph.initializer if tensor.name not in used]
    for tensor in unused:
        model.graph.initializer.remove(tensor)
    for opset in model.opset_import:
        if opset.domain == '':
            opset.version = OPSET
