"""TensorRT from ONNX file to hands, by doubles of its module that have the names of the real versions."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_double import NEWEST, OLD, Driver
from engine_rig import VERTICES, machines, small_inputs, write_graphs
from tensorrt_double import VERSIONS

from hand_mesh_ros.cli.main import main
from hand_mesh_ros.errors import ConfigurationError, EngineError, FileFormatError
from hand_mesh_ros.inference import cuda, engine_check, half_types
from hand_mesh_ros.inference.cuda import cuda_device
from hand_mesh_ros.inference.engine import EngineSettings
from hand_mesh_ros.inference.loading import load_silhouette_network
from hand_mesh_ros.inference.onnx_runtime import OnnxRuntimeRunner
from hand_mesh_ros.inference.tensorrt_engines import (
    EngineOptions,
    engine_key,
    engines_of,
    hashes_of,
    missing_for_tensorrt,
    tensorrt_runner,
)
from hand_mesh_ros.inference.tensorrt_runner import TensorRtRunner

OLDEST, LATEST = VERSIONS[0], VERSIONS[-1]


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


@pytest.mark.parametrize('cuda_version', [NEWEST, OLD])
@pytest.mark.parametrize('version', VERSIONS)
def test_graphs_become_engines_that_compute_the_same(version, cuda_version, machine, graphs, options) -> None:
    trt, runtime = machine(version, cuda_version)
    reference = OnnxRuntimeRunner(graphs, 1)
    runner = TensorRtRunner(engines_of(graphs, options))
    assert (runner.backend, runner.device) == ('tensorrt', 'NVIDIA Double')
    assert trt.double.builds == 2
    for count in (1, 2, 3, 4, 5, 7, 11):
        inputs = small_inputs(count, seed=count)
        told, expected = runner.run(inputs), reference.run(inputs)
        assert list(told) == ['vertices', 'tokens']
        assert told['vertices'].shape == (count, VERTICES, 3) and told['tokens'].dtype == np.int64
        np.testing.assert_allclose(told['vertices'], expected['vertices'], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(told['tokens'], expected['tokens'])
    before = runner.run(small_inputs(2, seed=1))['vertices']
    kept = before.copy()
    runner.run(small_inputs(2, seed=2))
    np.testing.assert_array_equal(before, kept)  # results stay as they are
    runner.close()
    runner.close()
    assert runtime.double.leaked() == 0


@pytest.mark.parametrize('version', VERSIONS)
def test_engines_are_built_once(version, machine, graphs, options, caplog) -> None:
    caplog.set_level(logging.INFO)
    trt, _ = machine(version)
    engines_of(graphs, options)
    assert 'builds an engine of small.encoder' in caplog.text and 'kept in' in caplog.text
    engines_of(graphs, options)
    assert trt.double.builds == 2 and 'engine of small.decoder from' in caplog.text
    engines_of(graphs, EngineOptions('fp32', cache_folder=options.cache_folder, rebuild=True))
    assert trt.double.builds == 4


@pytest.mark.parametrize('version', VERSIONS)
def test_half_precision_is_built_checked_and_run(version, machine, graphs, tmp_path) -> None:
    machine(version)
    runner = TensorRtRunner(engines_of(graphs, EngineOptions('fp16', cache_folder=tmp_path / 'cache')))
    inputs = small_inputs(3)
    told, expected = runner.run(inputs), OnnxRuntimeRunner(graphs, 1).run(inputs)
    scale = np.ptp(expected['vertices'])
    assert np.abs(told['vertices'] - expected['vertices']).max() < 2e-2 * scale
    assert told['vertices'].dtype == np.float32
    runner.close()


@pytest.mark.parametrize('damage', [lambda data: data[:-9], lambda data: b'an engine of TensorRT itself'])
def test_a_bad_engine_is_built_anew_or_refused(damage, machine, graphs, options, caplog) -> None:
    trt, _ = machine()
    engines_of(graphs[:1], options)
    (path,) = options.cache_folder.glob('*.engine')
    path.write_bytes(damage(path.read_bytes()))
    refusing = EngineOptions('fp32', cache_folder=options.cache_folder, may_build=False)
    with pytest.raises(EngineError, match=str(path)):  # which lets another backend be taken
        engines_of(graphs[:1], refusing)
    engines_of(graphs[:1], options)
    assert trt.double.builds == 2 and 'is built anew' in caplog.text
    engines_of(graphs[:1], refusing)


def test_an_engine_that_tensorrt_refuses_is_built_anew(machine, graphs, options, caplog) -> None:
    trt, _ = machine()
    engines_of(graphs[:1], options)
    trt.double.refused = 2  # once more under the lock
    engines_of(graphs[:1], options)
    assert trt.double.builds == 2 and 'magic tag does not match' in caplog.text


def test_an_engine_of_another_version_is_not_loaded(machine, graphs, options) -> None:
    machine(OLDEST)
    engines_of(graphs[:1], options)
    trt, _ = machine(LATEST)
    with pytest.raises(EngineError, match='hand-mesh engine build --precision fp32'):
        engines_of(graphs[:1], EngineOptions('fp32', cache_folder=options.cache_folder, may_build=False))
    engines_of(graphs[:1], options)
    assert trt.double.builds == 1
    assert len(list(options.cache_folder.glob('*.engine'))) == 2


def test_a_folder_that_cannot_be_written_costs_a_build_but_no_engine(
    machine, graphs, tmp_path, caplog
) -> None:
    machine()
    (tmp_path / 'file').write_text('in the way')
    options = EngineOptions('fp32', cache_folder=tmp_path / 'file' / 'engines')
    runner = TensorRtRunner(engines_of(graphs, options))
    assert runner.run(small_inputs(1))['vertices'].shape == (1, VERTICES, 3)
    assert 'used from memory' in caplog.text


def test_an_engine_that_is_off_is_refused_and_not_kept(machine, graphs, options) -> None:
    trt, runtime = machine()
    trt.double.scale = 1.01
    with pytest.raises(
        EngineError, match=r'small.encoder: .*not used: output .* is off by 0\.01 of its range'
    ):
        engines_of(graphs, options)
    assert not list(options.cache_folder.glob('*.engine'))
    assert runtime.double.leaked() == 0


def test_what_stays_in_float32_is_of_the_key_of_half_precision(machine, graphs, monkeypatch) -> None:
    machine()
    before = [engine_key(graphs[0], EngineOptions(precision)) for precision in ('fp16', 'fp32')]
    monkeypatch.setattr(half_types, 'FLOAT32_PLACES', half_types.FLOAT32_PLACES[:-1])
    after = [engine_key(graphs[0], EngineOptions(precision)) for precision in ('fp16', 'fp32')]
    assert before[0] != after[0] and before[1] == after[1]


def test_a_profile_that_is_taken_is_an_error_and_gives_all_back(machine, graphs, options) -> None:
    _, runtime = machine()
    engines = engines_of(graphs, options)
    runner = TensorRtRunner(engines)
    with pytest.raises(EngineError, match='does not take its profile 0'):
        TensorRtRunner(engines)
    runner.close()
    assert runtime.double.leaked() == 0
    TensorRtRunner(engines).close()


def test_the_first_run_is_of_numbers_that_can_be_divided_by(machine, graphs, options) -> None:
    machine()
    runner = TensorRtRunner(engines_of(graphs, options))
    assert all((array == 1).all() for name, array in runner._host.items() if name in runner._inputs)


def test_a_graph_and_weights_that_are_not_of_each_other_are_refused(graphs, tmp_path) -> None:
    encoder, decoder = graphs
    assert hashes_of(encoder)[1] == hashes_of(decoder)[1] != ''
    assert hashes_of(encoder)[0] != hashes_of(decoder)[0]
    weights = encoder.parent / 'small.safetensors'
    whole = weights.read_bytes()
    for changed in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(changed)
        with pytest.raises(FileFormatError, match='made of other weights.*hand-mesh export'):
            hashes_of(encoder)
    weights.unlink()
    with pytest.raises(FileFormatError, match='small.safetensors: cannot be read'):
        hashes_of(encoder)
    for bad in (encoder.read_bytes()[:-40], b'', b'no ONNX'):
        encoder.write_bytes(bad)
        with pytest.raises(FileFormatError, match='small.encoder.onnx: no ONNX'):
            hashes_of(encoder)
    with pytest.raises(FileFormatError, match='none.onnx: cannot be read'):
        hashes_of(tmp_path / 'none.onnx')


def test_without_a_cuda_graph_it_runs_all_the_same(machine, graphs, options, caplog) -> None:
    _, runtime = machine()
    engines = engines_of(graphs, options)
    runtime.double.failing = {'cudaGraphInstantiateWithFlags': 1}
    runner = TensorRtRunner(engines)
    assert 'batches of 2 run without a CUDA graph' in caplog.text
    inputs = small_inputs(7)
    expected = OnnxRuntimeRunner(graphs, 1).run(inputs)
    np.testing.assert_allclose(runner.run(inputs)['vertices'], expected['vertices'], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('function', ['cudaMalloc', 'cudaHostAlloc', 'cudaStreamSynchronize'])
def test_what_the_gpu_refuses_is_an_error_and_gives_all_back(function, machine, graphs, options) -> None:
    _, runtime = machine()
    engines = engines_of(graphs, options)
    runtime.double.failing = {function: 1}
    with pytest.raises(EngineError, match=f'{function} failed on the GPU: cudaErrorMemoryAllocation'):
        TensorRtRunner(engines)
    assert runtime.double.leaked() == 0


def test_inputs_of_another_shape_are_not_read_past_their_end(machine, graphs, options) -> None:
    machine()
    runner = TensorRtRunner(engines_of(graphs, options))
    with pytest.raises(ValueError, match='confidence'):
        runner.run({**small_inputs(3), 'confidence': np.zeros((2, 4), np.float32)})
    with pytest.raises(TypeError):
        runner.run({**small_inputs(3), 'images': np.zeros((3, 8, 8, 3), np.float32)})


def test_rotations_are_compared_as_such() -> None:
    near = np.array([[0.0, np.pi - 1e-6, 0.0]])
    for name, accepted in (('global_orient', True), ('vertices', False)):
        case = engine_check.Case({}, {name: near})
        (found,) = engine_check.deviations(lambda _, name=name: {name: -near}, {1: case}, 'fp32')
        assert found.accepted is accepted


def test_nothing_that_is_no_number_is_accepted() -> None:
    case = engine_check.Case({}, {'vertices': np.ones((1, 400, 3))})
    wrong = np.ones((1, 400, 3))
    wrong[0, 0, 0] = np.nan
    (found,) = engine_check.deviations(lambda _: {'vertices': wrong}, {1: case}, 'fp32')
    assert not found.accepted
    (found,) = engine_check.deviations(lambda _: {'vertices': wrong[:, :2]}, {1: case}, 'fp16')
    assert not found.accepted


def test_what_a_graph_says_is_compared_where_it_says_nothing_elsewhere() -> None:
    expected = np.linspace(0, 1, 400)
    expected[7] = np.nan
    case = engine_check.Case({}, {'vertices': expected})
    for told, accepted in ((expected, True), (expected + 0.1, False), (np.full(400, np.nan), False)):
        (found,) = engine_check.deviations(lambda _, told=told: {'vertices': told}, {1: case}, 'fp16')
        assert found.accepted is accepted
    nothing = engine_check.Case({}, {'vertices': np.full(4, np.nan)})
    (found,) = engine_check.deviations(lambda _: {'vertices': np.ones(4)}, {1: nothing}, 'fp16')
    assert not found.accepted


def test_what_engines_are_compared_on_is_always_the_same(graphs) -> None:
    first, second = (engine_check.reference_cases(graphs, (1, 4)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        for batch in (1, 4):
            for name, value in a[batch].inputs.items():
                assert len(value) == batch
                np.testing.assert_array_equal(value, b[batch].inputs[name])
    np.testing.assert_array_equal(first[1][4].inputs['features'], first[0][4].outputs['features'])
    images = first[0][4].inputs['images']
    assert images.dtype == np.uint8 and np.ptp(images) > 100


# What a machine may lack


def test_no_driver_no_device_and_no_module_are_each_told_in_one_line(machine, monkeypatch) -> None:
    assert 'tensorrt' not in sys.modules
    told = missing_for_tensorrt()
    assert 'no driver' in told and '\n' not in told
    assert 'tensorrt' not in sys.modules
    machine()
    assert missing_for_tensorrt() == ''
    monkeypatch.setattr(cuda, '_driver', lambda: Driver(devices=0))
    assert 'CUDA_VISIBLE_DEVICES' in missing_for_tensorrt()
    monkeypatch.setattr(cuda, '_driver', lambda: Driver(init=100))
    assert 'cuInit returned 100' in missing_for_tensorrt()
    monkeypatch.setattr(cuda, '_driver', Driver)
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    assert 'TensorRT 8.6 or later' in missing_for_tensorrt()
    for name in ('cuda.bindings', 'cuda'):
        monkeypatch.setitem(sys.modules, name, None)
    assert 'pip install "cuda-python>=12,<14"' in missing_for_tensorrt()


def test_a_cuda_python_that_is_newer_than_the_driver_is_told_before_anything_is_built(machine) -> None:
    for version in (NEWEST, OLD):
        _, runtime = machine(cuda_version=version)
        runtime.double.failing = {'cudaGetDeviceCount': 0}
        told = missing_for_tensorrt()
        assert 'cuda-python and the NVIDIA driver do not go together' in told and '\n' not in told


def test_an_older_tensorrt_is_refused(machine) -> None:
    trt, _ = machine()
    trt.__version__ = '8.5.3'
    assert '8.5.3 is installed' in missing_for_tensorrt()


def test_tensorrt_is_not_imported_where_there_is_no_gpu(graphs) -> None:
    script = (
        'import sys; from pathlib import Path\n'
        'from hand_mesh_ros.errors import ConfigurationError\n'
        'from hand_mesh_ros.inference.tensorrt_engines import tensorrt_runner\n'
        'try: tensorrt_runner([Path(sys.argv[1])])\n'
        'except ConfigurationError as error: print(error)\n'
        'print([name for name in sys.modules if name.split(".")[0] in ("tensorrt", "cuda", "torch")])\n'
    )
    if Path('/dev/nvidia0').exists():
        pytest.skip('this machine has a GPU')
    done = subprocess.run(
        [sys.executable, '-c', script, str(graphs[0])],
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
    )
    told, modules = done.stdout.splitlines()
    assert 'NVIDIA GPU' in told and modules == '[]', done


def test_the_runner_of_the_users_cache(machine, graphs, monkeypatch, tmp_path) -> None:
    machine()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    with pytest.raises(EngineError, match='hand-mesh engine build'):
        tensorrt_runner(graphs, 'fp32', may_build=False)
    tensorrt_runner(graphs, 'fp32').close()
    tensorrt_runner(graphs, 'fp32', may_build=False).close()
    assert len(list((tmp_path / 'hand_mesh_ros' / 'engines').glob('*.engine'))) == 2


def test_a_tensorrt_that_is_there_and_does_not_work_is_no_secret(machine, monkeypatch, tmp_path, caplog):
    """Another engine is taken, and all is slower than it might be."""
    machine()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    caplog.set_level(logging.INFO)
    network = load_silhouette_network(None, EngineSettings('auto', build=False, threads=1))
    assert network.backend == 'onnxruntime'
    (said,) = (record for record in caplog.records if 'runs on' in record.getMessage())
    assert said.levelname == 'WARNING' and 'hand-mesh engine build' in said.getMessage()


@pytest.mark.parametrize(
    'wrong', [{'precision': 'int8'}, {'batches': ()}, {'batches': (2, 1)}, {'batches': (0,)}]
)
def test_options_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(ConfigurationError):
        EngineOptions(**wrong)


def test_the_device_is_described(machine) -> None:
    machine()
    assert (cuda_device().name, cuda_device().compute_capability) == ('NVIDIA Double', '9.0')


def test_engines_by_the_command_line(machine, graphs, tmp_path, capsys) -> None:
    trt, _ = machine()
    files, where = [str(path) for path in graphs], ['--cache', str(tmp_path / 'cache')]
    fp32 = ['--precision', 'fp32']
    assert main(['engine', 'check', *files, *where, *fp32]) == 1
    assert main(['engine', 'build', *files, *where, *fp32]) == 0
    assert main(['engine', 'check', *files, *where, *fp32, '--runs', '3']) == 0
    told = capsys.readouterr().out
    print(told)
    assert told.count('  ok\n') == 12 and '  OFF\n' not in told and told.count('median') == 3
    assert main(['engine', 'list', *where]) == 0
    assert 'NVIDIA Double' in capsys.readouterr().out
    assert main(['engine', 'clear', *where]) == 0
    assert '3 files deleted' in capsys.readouterr().out
    trt.double.scale = 2.0
    assert main(['engine', 'build', *files, *where, *fp32]) == 1
    assert 'not used' in capsys.readouterr().out
