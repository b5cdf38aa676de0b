"""Bytes in graphs, as TensorRT 8.6 takes them: it knows nothing to do with them but to cast them."""

from __future__ import annotations

from pathlib import Path


def cast_bytes_first(graph: Path) -> None:
    """Rewrite a graph so that inputs of bytes are cast to float32 before they are turned round. What it
    computes stays the same. Weights outside of the file stay where they are.

    :raises ImportError: onnx is not installed.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(graph, load_external_data=False)
    nodes = list(model.graph.node)
    bytes_in = [v.name for v in model.graph.input if v.type.tensor_type.elem_type == TensorProto.UINT8]
    for name in bytes_in:
        as_float = f'{name}.as_float'
        for node in nodes:
            if node.op_type != 'Cast':
                node.input[:] = [as_float if taken == name else taken for taken in node.input]
        nodes.insert(0, helper.make_node('Cast', [name], [as_float], as_float, to=TensorProto.FLOAT))
    # Between the input and its first cast there are floats now.
    typed = [v for v in model.graph.value_info if v.type.tensor_type.elem_type != TensorProto.UINT8]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.value_info.extend(typed)
    onnx.save(model, graph)
