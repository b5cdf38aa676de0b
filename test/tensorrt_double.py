"""Stands in for TensorRT's Python module, on a machine without a GPU.

The module made here has the classes, methods, parameters and enumerations that the real one of a version has
(test/data/tensorrt_names.json), and keeps rules of the real one that are easily broken. An engine is an ONNX
file with a few words before it, and ONNX Runtime computes what it computes.
"""

from __future__ import annotations

import ctypes
import enum
import inspect
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from cuda_double import Stream
from recorded_names import Enumeration, Kept, restricted

_NAMES = json.loads((Path(__file__).parent / 'data' / 'tensorrt_names.json').read_text())

VERSIONS = tuple(sorted(_NAMES, key=lambda version: [int(part) for part in version.split('.')]))

_TYPES = {
    onnx.TensorProto.FLOAT: ('FLOAT', np.float32),
    onnx.TensorProto.FLOAT16: ('HALF', np.float16),
    onnx.TensorProto.UINT8: ('UINT8', np.uint8),
    onnx.TensorProto.BOOL: ('BOOL', np.bool_),
    onnx.TensorProto.INT64: ('INT64', np.int64),
}


class Faults:
    """What the double does wrong, for tests of what is then done."""

    def __init__(self) -> None:
        self.builds = 0  #: how often an engine was built
        self.build_s = 0.0  #: how long that takes
        self.no_engine = False  #: building fails
        self.no_driver = False  #: CUDA cannot be initialised, as with a driver that is too old
        self.scale = 1.0  #: engines give this times what they should
        self.refused = 0  #: engines that the runtime will not load
        self.constraints: dict[str, list[str]] = {}  #: names of float32's layers of the last network
        self.flags: set[str] = set()  #: of the last build
        self.network_flags = 0


def tensorrt_double(version: str) -> ModuleType:
    """A module ``tensorrt`` of one of the recorded versions. ``double`` in it is what a test looks into."""
    names, faults = _NAMES[version], Faults()
    module: Any = ModuleType('tensorrt')
    module.__version__, module.double = version, faults
    for name, members in names['classes'].items():
        if members and all(isinstance(value, int) for value in members.values()):
            setattr(module, name, Enumeration(name, members))
    major = int(version.split('.')[0])

    class ILogger:
        Severity = enum.Enum('Severity', 'INTERNAL_ERROR ERROR WARNING INFO VERBOSE')
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

        def log(self, severity: Any, msg: str) -> None: ...

    class IProgressMonitor:
        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None: ...
        def phase_finish(self, phase_name: str) -> None: ...
        def step_complete(self, phase_name: str, step: int) -> bool: ...

    class IHostMemory(Kept):
        def __init__(self, data: bytes) -> None:
            self._data = data

        def __bytes__(self) -> bytes:
            return self._data

        nbytes = property(lambda self: len(self._data))

    class ITensor(Kept):
        def __init__(self, name: str, kind: int, shape: tuple[int, ...] = ()) -> None:
            self._name, self._kind, self._shape = name, kind, shape

        name = property(lambda self: self._name)
        shape = property(lambda self: self._shape)
        is_shape_tensor = property(lambda self: False)

        @property
        def dtype(self) -> Any:
            kind = _TYPES[self._kind][0]
            return module.DataType.of('INT32' if kind == 'INT64' and major < 10 else kind)

    class ILayer(Kept):
        def __init__(self, kind: str, outputs: list[ITensor], taken: str = '') -> None:
            self._kind, self._outputs, self._taken = kind, outputs, taken

        type = property(lambda self: module.LayerType.of(self._kind))
        num_outputs = property(lambda self: len(self._outputs))

        def get_input(self, index: int) -> ITensor:
            return ITensor(self._taken, onnx.TensorProto.FLOAT)

        def get_output(self, index: int) -> ITensor:
            return self._outputs[index]

        @property
        def precision(self) -> Any:
            raise AttributeError('read by nobody')

        @precision.setter
        def precision(self, value: Any) -> None:
            assert value is module.DataType.FLOAT
            assert self._kind not in ('CONSTANT', 'CAST')
            faults.constraints.setdefault('precision', []).append(self._outputs[0].name)

        def set_output_type(self, index: int, dtype: Any) -> None:
            assert dtype is module.DataType.FLOAT
            faults.constraints.setdefault('output', []).append(self._outputs[index].name)

    class INetworkDefinition(Kept):
        def __init__(self, flags: int) -> None:
            self._flags, self._model, self._inputs, self._layers = flags, b'', [], []

        num_inputs = property(lambda self: len(self._inputs))
        num_layers = property(lambda self: len(self._layers))

        def get_input(self, index: int) -> ITensor:
            return self._inputs[index]

        def get_layer(self, index: int) -> ILayer:
            return self._layers[index]

    class ParserError(Kept):
        def __init__(self, text: str) -> None:
            self._text = text

        def desc(self) -> str:
            return self._text

        def node(self) -> int:
            return 3

    class OnnxParser(Kept):
        def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
            assert isinstance(logger, ILogger)
            self._network, self._errors = network, []

        num_errors = property(lambda self: len(self._errors))

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

        def parse_from_file(self, model: str) -> bool:
            assert isinstance(model, str)
            proto = onnx.load(model)
            typed = onnx.shape_inference.infer_shapes(proto).graph
            values = (*typed.value_info, *typed.output)
            kinds = {value.name: value.type.tensor_type.elem_type for value in values}
            of_bytes = {v.name for v in typed.input if v.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
            for node in proto.graph.node:
                if major < 10 and node.op_type != 'Cast' and of_bytes & set(node.input):
                    self._errors.append(ParserError(f'{node.op_type} of UINT8'))
                    return False
                if node.op_type == 'Det':
                    self._errors.append(ParserError('No importer registered for op: Det'))
                    return False
                kind = {'Cast': 'CAST', 'Constant': 'CONSTANT'}.get(node.op_type, 'ELEMENTWISE')
                outputs = [ITensor(name, kinds[name]) for name in node.output]
                # As the real parser: layers of its own before that which gives the node's value.
                unnamed = ITensor(
                    f'(Unnamed Layer* {len(self._network._layers)})_output', kinds[node.output[0]]
                )
                first = ILayer('SHUFFLE', [unnamed])
                if node.op_type == 'ArgMax':
                    values = ITensor(f'(Unnamed Layer* {node.input[0]})_values', onnx.TensorProto.FLOAT)
                    first = ILayer('TOPK', [values, unnamed], node.input[0])
                self._network._layers += [first, ILayer(kind, outputs)]
            for value in typed.input:
                dims = value.type.tensor_type.shape.dim
                shape = tuple(-1 if dim.dim_param else dim.dim_value for dim in dims)
                kind = value.type.tensor_type.elem_type
                self._network._inputs.append(ITensor(value.name, kind, shape))
            self._network._model = proto.SerializeToString()
            return True

    class IOptimizationProfile(Kept):
        def __init__(self) -> None:
            self._shapes: dict[str, Any] = {}

        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
            assert min == opt == max
            self._shapes[input] = list(min)

    class ITimingCache(Kept):
        def __init__(self, data: bytes) -> None:
            self._data = data

        def serialize(self) -> IHostMemory:
            return IHostMemory(self._data)

    class IBuilderConfig(Kept):
        def __init__(self) -> None:
            self._flags, self._profiles, self._timings = {'TF32'}, [], None
            self._monitor: Any = None
            self._sources = sum(1 << int(source) for source in module.TacticSource)

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            assert pool is module.MemoryPoolType.WORKSPACE and pool_size >= 1 << 20

        def set_flag(self, flag: Any) -> None:
            self._flags.add(flag.name)

        def clear_flag(self, flag: Any) -> None:
            self._flags.discard(flag.name)

        def get_tactic_sources(self) -> int:
            return self._sources

        def set_tactic_sources(self, tactic_sources: int) -> bool:
            self._sources = tactic_sources
            return True

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            self._profiles.append(profile)
            return len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            if cache._data == b'of another version':
                return False
            self._timings = cache
            return True

        progress_monitor = property(
            lambda self: self._monitor, lambda self, monitor: setattr(self, '_monitor', monitor)
        )

    def _needs_driver(logger: ILogger) -> None:
        if faults.no_driver:
            logger.log(ILogger.ERROR, 'CUDA initialization failure with error: 35')
            raise TypeError('pybind11::init(): factory function returned nullptr')

    class Builder(Kept):
        def __init__(self, logger: ILogger) -> None:
            _needs_driver(logger)
            self._logger = logger

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            faults.network_flags = flags
            return INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any:
            if config._monitor is not None:
                config._monitor.phase_start('Building', None, 2)
                assert config._monitor.step_complete('Building', 1)
                config._monitor.phase_finish('Building')
            time.sleep(faults.build_s)
            if faults.no_engine:
                self._logger.log(ILogger.ERROR, 'no kernel for node 7')
                return None
            faults.builds += 1
            faults.flags = config._flags
            config._timings._data += b'timed;'
            told = {
                'version': version,
                'profiles': [profile._shapes for profile in config._profiles],
                'scale': faults.scale,
            }
            return IHostMemory(json.dumps(told).encode() + b'\n' + network._model)

    class Runtime(Kept):
        def __init__(self, logger: ILogger) -> None:
            _needs_driver(logger)
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
            head, model = serialized_engine.split(b'\n', 1)
            told = json.loads(head)
            assert told['version'] == version, 'the real one ends the process here'
            if faults.refused:
                faults.refused -= 1
                self._logger.log(ILogger.ERROR, 'magic tag does not match')
                return None
            return ICudaEngine(told, model)

    class ICudaEngine(Kept):
        def __init__(self, told: Any, model: bytes) -> None:
            self._told, self._in_use = told, set()
            self._session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
            graph = onnx.load_from_string(model).graph
            self._kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
            self._shapes = {
                v.name: tuple(-1 if d.dim_param else d.dim_value for d in v.type.tensor_type.shape.dim)
                for v in (*graph.input, *graph.output)
            }
            self._inputs = [v.name for v in graph.input]

        num_io_tensors = property(lambda self: len(self._kinds))
        num_optimization_profiles = property(lambda self: len(self._told['profiles']))

        def get_tensor_name(self, index: int) -> str:
            return list(self._kinds)[index]

        def get_tensor_mode(self, name: str) -> Any:
            return module.TensorIOMode.of('INPUT' if name in self._inputs else 'OUTPUT')

        def get_tensor_dtype(self, name: str) -> Any:
            return ITensor(name, self._kinds[name]).dtype

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return self._shapes[name]

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
            return [self._told['profiles'][profile_index][name]] * 3

        def create_execution_context(self) -> IExecutionContext:
            return IExecutionContext(self)

    class IExecutionContext(Kept):
        def __init__(self, engine: ICudaEngine) -> None:
            self._engine, self._profile, self._ran = engine, -1, False
            self._addresses: dict[str, int] = {}
            self._given: dict[str, tuple[int, ...]] = {}

        def __del__(self) -> None:
            self._engine._in_use.discard(self._profile)

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            assert stream_handle in Stream.by_handle
            if profile_index in self._engine._in_use:  # each context needs one of its own
                raise RuntimeError('Error in set optimization profile async.')
            self._engine._in_use.add(profile_index)
            self._profile = profile_index
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self._given[name] = tuple(shape)
            return list(shape) == self._engine._told['profiles'][self._profile][name]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            batch = next(iter(self._given.values()))[0] if self._given else -1
            return (batch, *self._engine._shapes[name][1:])

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return name in self._engine._kinds

        def execute_async_v3(self, stream_handle: int) -> bool:
            stream = Stream.by_handle[stream_handle]
            if set(self._addresses) != set(self._engine._kinds) or set(self._given) != set(
                self._engine._inputs
            ):
                return False
            if stream.captured is not None and not self._ran:
                return False  # it allocates at its first run, which no graph may hold
            self._ran = True
            stream.queue(self._compute)
            return True

        def _array(self, name: str) -> np.ndarray:
            dtype = np.dtype(_TYPES[self._engine._kinds[name]][1])
            if dtype == np.int64 and major < 10:
                dtype = np.dtype(np.int32)
            shape = self.get_tensor_shape(name)
            size = int(np.prod(shape)) * dtype.itemsize
            memory = (ctypes.c_uint8 * size).from_address(self._addresses[name])
            return np.ctypeslib.as_array(memory).view(dtype).reshape(shape)

        def _compute(self) -> None:
            engine = self._engine
            given = {
                name: self._array(name).astype(_TYPES[engine._kinds[name]][1]) for name in engine._inputs
            }
            names = [name for name in engine._kinds if name not in engine._inputs]
            for name, value in zip(names, engine._session.run(names, given), strict=True):
                scale = engine._told['scale'] if value.dtype != np.int64 else 1
                self._array(name)[...] = value * scale if scale != 1 else value

    for kind in list(locals().values()):
        if inspect.isclass(kind) and kind.__name__ in names['classes']:
            setattr(module, kind.__name__, restricted(kind, names['classes'][kind.__name__]))
    return module
