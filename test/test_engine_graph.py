"""Graphs for TensorRT: whole, constant, in half precision where that does no harm; what it would refuse."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from varied_crops import (
    Arrays,
    all_vertices,
    best_vertices,
    crops_of_hands,
    crops_of_masks,
    farthest_mm,
    run,
    with_silhouettes,
)

from hand_mesh_ros.errors import ConfigurationError, FileFormatError
from hand_mesh_ros.inference.engine_graph import write_engine_graph
from hand_mesh_ros.inference.graph_files import METADATA_KEY, embedded_metadata, maskhand_graphs, single_graph
from hand_mesh_ros.inference.half_types import FLOAT32_PLACES, Place, to_half
from hand_mesh_ros.inference.node_scopes import scope_of
from hand_mesh_ros.inference.onnx_runtime import OnnxRuntimeRunner
from hand_mesh_ros.inference.tensorrt_operators import unsupported
from hand_mesh_ros.networks.shipped import MASK2HAND_PATH, MASKHAND_PATH, REFINE_NET_PATH

MASKHAND = maskhand_graphs(MASKHAND_PATH, 1)
MASK2HAND, REFINEMENT = single_graph(MASK2HAND_PATH), single_graph(REFINE_NET_PATH)
SHIPPED = [*MASKHAND, *MASK2HAND, *REFINEMENT]

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
LEARNED = ('Conv', 'ConvTranspose', 'Gemm', 'LayerNormalization')


@pytest.fixture(scope='module')
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all graphs of the package, by precision and name, and no file of weights."""
    folder = tmp_path_factory.mktemp('engine_graphs')
    for precision in ('fp32', 'fp16'):
        (folder / precision).mkdir()
        for path in SHIPPED:
            write_engine_graph(path, precision, folder / precision / path.name)
    return folder


def value_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of all values."""
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def rounded_everywhere(model: onnx.ModelProto) -> onnx.ModelProto:
    """Float32, but every number that is float16 in ``model`` is rounded to that.

    ONNX Runtime's CPU computes in float32 from one node to the next, and is more exact than a GPU may be.
    """
    types, graph = value_types(model), model.graph
    for tensor in [*graph.initializer, *(a.t for n in graph.node for a in n.attribute if a.HasField('t'))]:
        if tensor.data_type == HALF:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype('f4'), tensor.name))
    nodes = []
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == 'Cast' and attribute.name == 'to' and attribute.i == HALF:
                attribute.i = FLOAT
        nodes.append(node)
        for index, name in enumerate(node.output):
            if types.get(name) == HALF:
                node.output[index], rounded = f'{name}.exact', f'{name}.rounded'
                nodes.append(helper.make_node('Cast', [f'{name}.exact'], [rounded], f'round/{name}', to=HALF))
                nodes.append(helper.make_node('Cast', [rounded], [name], f'use/{name}', to=FLOAT))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return model


@pytest.fixture(scope='module')
def rounding(written: Path) -> Path:
    folder = written / 'rounding'
    folder.mkdir()
    for path in SHIPPED:
        onnx.save(rounded_everywhere(onnx.load(written / 'fp16' / path.name)), folder / path.name)
    return folder


def runner_of(graphs, folder: Path | None = None) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner([folder / path.name if folder else path for path in graphs], threads=1)


@functools.cache
def expected_of(graphs) -> Arrays:
    """Of the graphs as they are."""
    if graphs == REFINEMENT:
        return run(runner_of(graphs), with_silhouettes(expected_of(MASK2HAND)))
    return run(runner_of(graphs), crops_of_hands() if graphs == MASKHAND else crops_of_masks())


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_all_that_was_learned_is_constant(written, path, precision):
    model = onnx.load(written / precision / path.name)
    onnx.checker.check_model(model, full_check=True)
    assert unsupported(model) == []
    constants = {tensor.name for tensor in model.graph.initializer}
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds['BatchNormalization'] == 0  # all of them come after convolutions
    before = onnx.load(path, load_external_data=False)
    for kind in LEARNED:
        assert kinds[kind] == sum(node.op_type == kind for node in before.graph.node)
    for node in model.graph.node:
        assert not constants.issuperset(node.input)
        if node.op_type in LEARNED:
            assert constants.issuperset(node.input[1:])
    for now, then in ((model.graph.input, before.graph.input), (model.graph.output, before.graph.output)):
        assert [value.SerializeToString() for value in now] == [value.SerializeToString() for value in then]
    assert (model.opset_import[0].version, len(model.opset_import)) == (17, 1)


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_half_precision_is_in_the_types_but_for_the_named_places(written, path):
    model = onnx.load(written / 'fp16' / path.name)
    types = value_types(model)
    layers = [node for node in model.graph.node if node.op_type in LEARNED]
    assert {types[name] for node in layers for name in (*node.input, *node.output)} <= {HALF, FLOAT}
    assert all(types[node.input[1]] == HALF for node in layers)
    for node in model.graph.node:
        if node.op_type in ('Atan', 'ReduceL2', 'LogSoftmax', 'ArgMax', 'Floor'):
            assert types[node.input[0]] == FLOAT, node.name
    assert (written / 'fp16' / path.name).stat().st_size < 0.65 * (
        written / 'fp32' / path.name
    ).stat().st_size + 1e6


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_what_a_graph_says_of_itself_stays_but_for_the_precision(written, precision):
    def told(path: Path) -> dict:
        return json.loads(embedded_metadata(path)[METADATA_KEY])

    for path in SHIPPED:
        assert told(written / precision / path.name) == {**told(path), 'precision': precision}


def test_every_place_in_float32_is_one_of_the_networks():
    names = [node.name for path in SHIPPED for node in onnx.load(path, load_external_data=False).graph.node]
    for place in FLOAT32_PLACES:
        assert place.reason
        alone = [name for name in names if stays(place, name)]
        assert alone, place


def stays(place: Place, name: str) -> bool:
    return '/' in name and re.fullmatch(place.modules, scope_of(name)) is not None


@pytest.mark.parametrize('kind', ['fp32', 'fp16', 'rounding'])
def test_maskhand_is_within_a_millimetre(written, rounding, kind):
    expected = expected_of(MASKHAND)
    told = run(runner_of(MASKHAND, written / kind), crops_of_hands())
    same = (told['tokens'] == expected['tokens']).mean()
    assert farthest_mm(told['vertices'], expected['vertices']) < (0.01 if kind == 'fp32' else 1.0)
    assert same > (0.9999 if kind == 'fp32' else 0.98)
    np.testing.assert_allclose(told['confidence'], expected['confidence'], atol=0.02)


@pytest.mark.parametrize('kind', ['fp32', 'fp16', 'rounding'])
def test_mask2hand_is_within_a_millimetre(written, rounding, kind):
    expected = expected_of(MASK2HAND)
    told = run(runner_of(MASK2HAND, written / kind), crops_of_masks())
    most = 0.1 if kind == 'fp32' else 1.0
    assert (told['score'].argmax(axis=1) == expected['score'].argmax(axis=1)).mean() > 0.99
    assert farthest_mm(all_vertices(told), all_vertices(expected)) < most
    # Where they are, too, of the best; of the others the distance is known no better than to centimetres
    assert farthest_mm(best_vertices(told), best_vertices(expected)) < most
    np.testing.assert_allclose(told['confidence'], expected['confidence'], atol=0.02)
    told = run(runner_of(REFINEMENT, written / kind), with_silhouettes(expected))
    assert farthest_mm(told['offsets'], expected_of(REFINEMENT)['offsets']) < most / 10


def test_a_graph_in_half_precision_stays_one(written, tmp_path):
    path = written / 'fp16' / REFINEMENT[0].name
    write_engine_graph(path, 'fp16', tmp_path / 'again.onnx')
    assert onnx.load(tmp_path / 'again.onnx').graph.node == onnx.load(path).graph.node
    with pytest.raises(ConfigurationError, match='fp16 already'):
        write_engine_graph(path, 'fp32', tmp_path / 'back.onnx')


def test_files_that_are_no_whole_graphs_are_refused(tmp_path):
    graph, weights = REFINEMENT[0], REFINE_NET_PATH
    out = tmp_path / 'out.onnx'
    for name, content in (('cut', graph.read_bytes()[:5000]), ('none', b'not a graph'), ('empty', b'')):
        damaged = tmp_path / f'{name}.onnx'
        damaged.write_bytes(content)
        shutil.copy(weights, tmp_path / weights.name)
        with pytest.raises(FileFormatError, match=f'{name}.onnx: .*hand-mesh export'):
            write_engine_graph(damaged, 'fp16', out)
    alone = tmp_path / 'alone'
    alone.mkdir()
    shutil.copy(graph, alone / graph.name)
    with pytest.raises(FileFormatError, match=f'{weights.name}: cannot be read'):
        write_engine_graph(alone / graph.name, 'fp16', out)
    stranger = onnx.load(graph, load_external_data=False)
    for tensor in stranger.graph.initializer:
        for entry in tensor.external_data:
            entry.value = f'../{weights.name}' if entry.key == 'location' else entry.value
    (alone / 'stranger.onnx').write_bytes(stranger.SerializeToString())
    with pytest.raises(FileFormatError, match='stranger.onnx: .*hand-mesh export'):
        write_engine_graph(alone / 'stranger.onnx', 'fp16', out)
    (alone / weights.name).write_bytes(weights.read_bytes()[:100000])
    with pytest.raises(FileFormatError, match='made of other weights .*hand-mesh export'):
        write_engine_graph(alone / graph.name, 'fp16', out)
    assert not out.exists()


def test_a_constant_that_half_precision_cannot_hold_is_told():
    model = tiny(
        [helper.make_node('Max', ['x', 'least'], ['y'], 'network.layer/Max_0')], least=np.float32(1e-12)
    )
    with pytest.raises(ValueError, match='1.e-12'):
        to_half(model)


def tiny(nodes, x=FLOAT, y=FLOAT, shape=(3, 4), opset=17, **constants) -> onnx.ModelProto:
    """A graph from x (batch, *shape) to y."""
    given = helper.make_tensor_value_info('x', x, ['batch', *shape])
    told = onnx.ValueInfoProto(name='y')
    told.type.tensor_type.elem_type = y
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, 'tiny', [given], [told], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)])
    model = onnx.shape_inference.infer_shapes(model)
    if not model.graph.output[0].type.tensor_type.HasField('shape'):
        model.graph.output[0].type.tensor_type.shape.dim.add(dim_param='batch')
    return model


def node(kind: str, *inputs: str, out: str = 'y', **attributes) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [out], f'/{kind}', **attributes)


BYTES, BOOL, INT64, DOUBLE = TensorProto.UINT8, TensorProto.BOOL, TensorProto.INT64, TensorProto.DOUBLE
REFUSED = {
    'gives bytes': tiny([node('Transpose', 'x', out='t'), node('Cast', 't', to=FLOAT)], x=BYTES),
    'Not /Not: input 0 is of kind F': tiny([node('Not', 'x')], y=BOOL),
    'Clip /Clip: input 0 is of kind I': tiny([node('Clip', 'x', 'low')], x=INT64, y=INT64, low=np.int64(0)),
    'x is DOUBLE': tiny([node('Add', 'x', 'x')], x=DOUBLE, y=DOUBLE),
    'draws at random': tiny([node('RandomNormalLike', 'x')]),
    'a shape that depends on the data': tiny([node('NonZero', 'x')], y=INT64),
    'not in the table': tiny([node('Einsum', 'x', equation='bij->bji')]),
    'opset 18': tiny([node('Relu', 'x')], opset=18),
    'K must be a number below 3840': tiny(
        [helper.make_node('TopK', ['x', 'k'], ['values', 'y'])], y=INT64, shape=(5000,), k=np.array([4000])
    ),
    'Expand /Expand: input 1 depends on the data': tiny(
        [node('Cast', 'x', out='i', to=INT64), node('Squeeze', 'i', 'a', out='j'), node('Expand', 'v', 'j')],
        shape=(1,),
        a=np.array([1]),
        v=np.ones((1,), 'f4'),
    ),
    'silently wrong': tiny([node('GridSample', 'x', 'g')], shape=(1, 4, 4), g=np.zeros((1, 2, 2, 2), 'f4')),
}


@pytest.mark.parametrize('complaint', REFUSED)
def test_what_tensorrt_refuses_is_told(complaint):
    found = unsupported(REFUSED[complaint])
    assert any(complaint in line for line in found), found


def test_what_it_takes_is_not_complained_of():
    assert unsupported(tiny([node('Cast', 'x', out='f', to=FLOAT), node('Relu', 'f')], x=BYTES)) == []
