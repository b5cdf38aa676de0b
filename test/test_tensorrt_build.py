"""Graphs to engines, as each version of TensorRT wants it, and the doubles that stand for the versions."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from cuda_double import NEWEST, OLD, cuda_double
from engine_rig import machines, small_inputs, write_graphs
from onnx import TensorProto, helper, numpy_helper
from tensorrt_double import VERSIONS

from hand_mesh_ros.errors import EngineError, FileFormatError
from hand_mesh_ros.inference.onnx_runtime import OnnxRuntimeRunner
from hand_mesh_ros.inference.tensorrt_build import build_engine
from hand_mesh_ros.inference.tensorrt_engines import (
    EngineOptions,
    engines_of,
)
from hand_mesh_ros.inference.tensorrt_graph import cast_bytes_first


@pytest.fixture
def machine(monkeypatch):
    """Makes this machine one with a GPU and a version of TensorRT."""
    return machines(monkeypatch)


@pytest.fixture
def graphs(tmp_path: Path) -> tuple[Path, Path]:
    """Encoder and decoder."""
    folder = tmp_path / 'graphs'
    folder.mkdir()
    return write_graphs(folder)


@pytest.fixture
def options(tmp_path: Path) -> EngineOptions:
    """Float32, and a cache of its own."""
    return EngineOptions('fp32', cache_folder=tmp_path / 'cache')


def test_the_versions_recorded_are_those_that_differ() -> None:
    majors = [int(version.split('.')[0]) for version in VERSIONS]
    assert majors[0] == 8 and VERSIONS[0] == '8.6.0' and {8, 10, 11} == set(majors)


@pytest.mark.parametrize('version', VERSIONS)
def test_a_network_is_built_as_its_version_wants_it(version, machine, graphs, options) -> None:
    trt, _ = machine(version)
    engines_of(graphs[:1], options)
    flags = trt.double.network_flags
    kinds = trt.NetworkDefinitionCreationFlag
    if version.startswith('8.'):
        assert flags == 1 << int(kinds.EXPLICIT_BATCH)
    else:
        assert flags == 1 << int(kinds.STRONGLY_TYPED)
    # Float32 alone is in the folded graph: nothing else may be used, and no shortened float32 either.
    assert trt.double.flags == set() and trt.double.constraints == {}


def _half_graph(folder: Path) -> Path:
    """Half precision, but for a division in float32."""
    nodes = [
        helper.make_node('Cast', ['x'], ['half'], to=TensorProto.FLOAT16),
        helper.make_node('Mul', ['half', 'half'], ['square']),
        helper.make_node('Cast', ['square'], ['wide'], to=TensorProto.FLOAT),
        helper.make_node('Div', ['wide', 'x'], ['quotient']),
        helper.make_node('Greater', ['quotient', 'x'], ['more']),
        helper.make_node('Cast', ['quotient'], ['again'], to=TensorProto.FLOAT16),
        helper.make_node('Add', ['again', 'again'], ['sum']),
        helper.make_node('Cast', ['sum'], ['y'], to=TensorProto.FLOAT),
        helper.make_node('ArgMax', ['quotient'], ['greatest'], axis=1, keepdims=0),
        helper.make_node('ArgMax', ['sum'], ['greatest_sum'], axis=1, keepdims=0),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        'half',
        [value('x', TensorProto.FLOAT, ['batch', 3])],
        [
            value('y', TensorProto.FLOAT, ['batch', 3]),
            value('more', TensorProto.BOOL, ['batch', 3]),
            value('greatest', TensorProto.INT64, ['batch']),
            value('greatest_sum', TensorProto.INT64, ['batch']),
        ],
    )
    path = folder / 'half.onnx'
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize('version', VERSIONS)
def test_what_is_in_float32_in_a_file_of_half_precision_stays_so(version, machine, tmp_path) -> None:
    trt, _ = machine(version)
    build_engine(_half_graph(tmp_path), (1, 2))
    if not version.startswith('8.'):
        assert trt.double.flags == set() and trt.double.constraints == {}  # strongly typed
        return
    assert trt.double.flags == {'FP16', 'PREFER_PRECISION_CONSTRAINTS'}
    told = trt.double.constraints['precision']
    assert told == trt.double.constraints['output']
    # The division, and the layers that the parser adds for nodes of float32; no comparison and no cast.
    assert [name for name in told if not name.startswith('(Unnamed')] == ['quotient']
    # And the search for the greatest quotient, but not that for the greatest sum, which is in half precision.
    assert [name for name in told if name.endswith('values')] == ['(Unnamed Layer* quotient)_values']
    assert len(told) == 5


@pytest.mark.parametrize('version', VERSIONS)
def test_timings_are_handed_from_build_to_build(version, machine, graphs, options, caplog) -> None:
    machine(version)
    engines_of(graphs, options)
    (path,) = options.cache_folder.glob('*.timing')
    assert path.read_bytes().endswith(b'timed;timed;')
    built = build_engine(_half_graph(path.parent), (1,), b'of another version')
    assert built.timings == b'timed;' and 'refuses the timings' in caplog.text


def test_no_engine_says_what_tensorrt_said(machine, graphs, options) -> None:
    trt, _ = machine()
    trt.double.no_engine = True
    with pytest.raises(EngineError, match='no kernel for node 7'):
        engines_of(graphs, options)


@pytest.mark.parametrize('version', VERSIONS)
def test_a_graph_that_the_parser_refuses_is_told_with_its_node(version, machine, tmp_path) -> None:
    machine(version)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node('Det', ['x'], ['y'])],
        'det',
        [value('x', TensorProto.FLOAT, ['batch', 3, 3])],
        [value('y', TensorProto.FLOAT, ['batch'])],
    )
    path = tmp_path / 'det.onnx'
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path)
    with pytest.raises(EngineError, match='det.onnx.*node 3: No importer registered for op: Det'):
        build_engine(path, (1,))


@pytest.mark.parametrize('version', VERSIONS)
def test_a_driver_that_is_too_old_is_an_error_of_the_engine(version, machine, graphs, options) -> None:
    trt, _ = machine(version)
    engines_of(graphs[:1], options)
    trt, _ = machine(version)
    trt.double.no_driver = True
    refusing = EngineOptions('fp32', cache_folder=options.cache_folder, may_build=False)
    for wanted, kind in ((refusing, 'Runtime'), (options, 'Builder')):
        with pytest.raises(EngineError, match=f'makes no {kind}.*driver.*failure with error: 35'):
            engines_of(graphs[:1], wanted)


def test_a_graph_that_cannot_be_prepared_is_an_error_of_the_engine(machine, graphs, tmp_path) -> None:
    machine()
    model = onnx.load(graphs[0], load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name == 'byte':
            tensor.CopyFrom(numpy_helper.from_array(np.float32(1e6), 'byte'))
    for node in model.graph.node:
        node.name = f'network.somewhere/{node.output[0]}'  # not a place in float32
    onnx.save(model, graphs[0])
    with pytest.raises(EngineError, match='small.encoder cannot be prepared.*float16 cannot hold'):
        engines_of(graphs[:1], EngineOptions('fp16', cache_folder=tmp_path / 'cache'))


def test_a_length_other_than_the_batch_that_is_open_is_refused(machine, tmp_path) -> None:
    machine()
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node('Neg', ['x'], ['y'])],
        'open',
        [value('x', TensorProto.FLOAT, ['batch', 'length'])],
        [value('y', TensorProto.FLOAT, ['batch', 'length'])],
    )
    path = tmp_path / 'open.onnx'
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), path)
    with pytest.raises(FileFormatError, match='only the first length'):
        build_engine(path, (1,))


def test_bytes_are_cast_before_anything_else_is_done_to_them(graphs, tmp_path) -> None:
    inputs = small_inputs(3)
    expected = OnnxRuntimeRunner(graphs[:1], 1).run(inputs)
    cast_bytes_first(graphs[0])
    model = onnx.load(graphs[0])
    assert [node.op_type for node in model.graph.node if 'images' in node.input] == ['Cast']
    onnx.checker.check_model(model, full_check=True)
    told = OnnxRuntimeRunner(graphs[:1], 1).run(inputs)
    np.testing.assert_array_equal(told['features'], expected['features'])


# The doubles against what they stand for


def test_the_doubles_names_are_those_of_the_real_tensorrt() -> None:
    if importlib.util.find_spec('tensorrt') is None:
        pytest.skip('TensorRT is not installed: its names are those that were recorded')
    script = Path(__file__).parents[1] / 'scripts' / 'record_tensorrt_names.py'
    _same_names(script, 'tensorrt', 'tensorrt_names.json', lambda key: key)


def test_the_doubles_names_are_those_of_the_real_cuda() -> None:
    try:
        name = 'cuda.bindings.runtime'
        found = importlib.util.find_spec(name)
    except ImportError:
        found = None
    if found is None:
        pytest.skip('cuda-python is not installed: its names are those that were recorded')
    script = Path(__file__).parents[1] / 'scripts' / 'record_tensorrt_names.py'
    _same_names(script, name, 'cuda_names.json', lambda key: key.split()[-1])


def _same_names(script, name, file, version_of) -> None:
    """The real module, in a process of its own, against the record of its version."""
    known = json.loads((Path(__file__).parent / 'data' / file).read_text())
    code = (
        'import importlib, importlib.util, json, sys\n'
        'spec = importlib.util.spec_from_file_location("record", sys.argv[1])\n'
        'record = importlib.util.module_from_spec(spec); spec.loader.exec_module(record)\n'
        'module = importlib.import_module(sys.argv[2])\n'
        'told = record.cuda_names(module) if "cuda" in sys.argv[2] else record.tensorrt_names(module)\n'
        'from importlib.metadata import version\n'
        'key = version("cuda-python") if "cuda" in sys.argv[2] else module.__version__\n'
        'print(json.dumps([key, told]))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(script), name], capture_output=True, text=True, check=True
    )
    version, told = json.loads(done.stdout)
    recorded = {version_of(key): names for key, names in known.items()}
    if version not in recorded:
        pytest.skip(f'{name} {version} is installed, which is not recorded: {sorted(recorded)}')
    assert told == recorded[version]


def test_the_double_of_cuda_is_made_of_what_is_recorded() -> None:
    for version in (NEWEST, OLD):
        module = cuda_double(version)
        assert not hasattr(module, 'cudaMemcpyToSymbol') and hasattr(module, 'cudaGraphLaunch')
