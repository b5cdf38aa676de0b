"""An ONNX graph to an engine, by TensorRT 8.6 to 11.

From 10 on networks are strongly typed: each layer computes in the types that the file gives. 8.6 knows no
such networks. It may then choose, so it is told to compute in float32 what the file has in float32, and is
free to use half precision for what the file has in that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hand_mesh_ros.errors import ConfigurationError, EngineError, FileFormatError
from hand_mesh_ros.inference.tensorrt_module import (
    errors_said,
    load_tensorrt,
    made,
    tensorrt_logger,
    version_of,
)

_logger = logging.getLogger(__name__)

#: Raised when what is built of the same graph changes, so that engines of before are not used any more.
RECIPE = 1

#: Seconds between two messages of progress.
_PROGRESS_S = 10.0


@dataclass(frozen=True)
class BuiltEngine:
    """What a build gives."""

    engine: bytes
    timings: bytes  #: of kernels on this GPU, those given before and those measured now


def build_engine(
    graph: Path, batches: Sequence[int], timings: bytes = b'', workspace_mib: int = 2048
) -> BuiltEngine:
    """An engine that runs as many hands at a time as one of ``batches`` says, in the types of the file.

    :param graph: ONNX; weights outside of it are found beside it.
    :param timings: ``BuiltEngine.timings`` of earlier builds with this version and GPU.
    :param workspace_mib: what a layer may use of the device's memory beside its tensors.
    :raises ConfigurationError: no GPU or no TensorRT.
    :raises FileFormatError: a graph with an open length that is not the batch.
    :raises EngineError: TensorRT cannot read the graph, or builds no engine of it.
    """
    trt = load_tensorrt()
    errors_said()  # of earlier work
    started = time.monotonic()
    _logger.info('TensorRT %s builds an engine of %s: this can take minutes', trt.__version__, graph.name)
    builder = made(trt.Builder, tensorrt_logger(trt))
    network = builder.create_network(_network_flags(trt))
    parser = made(trt.OnnxParser, network, tensorrt_logger(trt))  # must live on: it holds the weights
    if not parser.parse_from_file(str(graph)):
        raise EngineError(f'{graph}: TensorRT {trt.__version__} cannot read it: {_errors_of(parser)}')
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 is asked for where its precision is needed
    _without_other_libraries(trt, config)
    if not hasattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED'):
        _keep_types(trt, config, network, graph)
    _add_profiles(builder, config, network, batches, graph)
    cache = _timing_cache(config, timings)
    if hasattr(trt, 'IProgressMonitor'):
        monitor = _progress_monitor(trt, graph.name)  # must live on: TensorRT only points to it
        config.progress_monitor = monitor
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError(f'{graph}: TensorRT {trt.__version__} builds no engine of it: {errors_said()}')
    built = BuiltEngine(bytes(engine), bytes(cache.serialize()) if cache is not None else b'')
    _logger.info(
        'TensorRT built the engine of %s in %.0f s: %.1f MiB',
        graph.name,
        time.monotonic() - started,
        len(built.engine) / 2**20,
    )
    return built


def _network_flags(trt: Any) -> int:
    """Both are the only way in the versions that do not have them."""
    kinds = trt.NetworkDefinitionCreationFlag
    flags = 0
    if version_of(trt) < (10, 0):
        flags |= 1 << int(kinds.EXPLICIT_BATCH)
    if hasattr(kinds, 'STRONGLY_TYPED'):
        flags |= 1 << int(kinds.STRONGLY_TYPED)
    return flags


def _errors_of(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    said = '; '.join(f'node {error.node()}: {error.desc()}' for error in errors)
    return said or errors_said()


def _without_other_libraries(trt: Any, config: Any) -> None:
    """No kernels of cuBLAS and cuDNN: their libraries need not be there where the engine runs, nor match.
    TensorRT has its own for all that these graphs do, and has dropped theirs since."""
    sources = config.get_tactic_sources()
    for name in ('CUBLAS', 'CUBLAS_LT', 'CUDNN'):
        source = getattr(trt.TacticSource, name, None)
        if source is not None:
            sources &= ~(1 << int(source))
    config.set_tactic_sources(sources)


def _add_profiles(builder: Any, config: Any, network: Any, batches: Sequence[int], graph: Path) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for tensor in inputs:
        first, *rest = tuple(tensor.shape)
        if any(length < 0 for length in rest) or (first >= 0 and list(batches) != [first]):
            raise FileFormatError(
                f'{graph}: input {tensor.name} has the shape {tuple(tensor.shape)}: only the first length, '
                f'that of the batch, may be open, and one that is not must be the batch asked for, {batches}'
            )
    for batch in batches:
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            shape = (batch, *tuple(tensor.shape)[1:])
            profile.set_shape(tensor.name, shape, shape, shape)
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f'{graph}: TensorRT takes no batch of {batch}: {errors_said()}')


def _timing_cache(config: Any, timings: bytes) -> Any:
    """The cache that the build uses and adds to."""
    cache = config.create_timing_cache(timings)
    if cache is not None and config.set_timing_cache(cache, False):
        return cache
    if timings:
        _logger.warning(
            'TensorRT refuses the timings of earlier builds, and measures anew: %s', errors_said()
        )
        return _timing_cache(config, b'')
    _logger.warning('TensorRT keeps no timings: %s', errors_said())
    return None


def _progress_monitor(trt: Any, name: str) -> Any:
    class Progress(trt.IProgressMonitor):
        """Says every few seconds how far the outermost phase is."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._said = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """True: go on."""
            if time.monotonic() - self._said >= _PROGRESS_S:
                self._said = time.monotonic()
                steps = self._steps.get(phase_name, 0)
                _logger.info('TensorRT builds %s: %s, step %d of %d', name, phase_name, step, steps)
            return True

    return Progress()


def _keep_types(trt: Any, config: Any, network: Any, graph: Path) -> None:
    """Have a network that is not strongly typed compute in float32 what the file has in float32."""
    types = _types_of_values(graph)
    if 'FLOAT16' not in types.values():
        return  # then float32 is all that it may use
    config.set_flag(trt.BuilderFlag.FP16)
    # Not OBEY: a layer that has no kernel in the precision asked for ends the build then. What such a layer
    # costs shows when the engine is compared with its graph.
    config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    fixed = (trt.LayerType.CONSTANT, trt.LayerType.SHAPE, trt.LayerType.CAST, trt.LayerType.IDENTITY)
    pending: list[Any] = []
    kept = 0
    # The parser adds the layers of one node after those of the other, and the last of them gives the value
    # that the file names: so those before it, which have no names, are of that node.
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        pending.append(layer)
        named = [types[name] for name in _output_names(layer) if name in types]
        if not named:
            continue
        for of_node in pending:
            if of_node.type == trt.LayerType.TOPK and types.get(of_node.get_input(0).name) == 'FLOAT':
                of_node.precision = trt.DataType.FLOAT  # the greatest of float32, though an index is given
                of_node.set_output_type(0, trt.DataType.FLOAT)
                kept += 1
            elif named[0] == 'FLOAT' and of_node.type not in fixed and _is_of_floats(trt, of_node):
                of_node.precision = trt.DataType.FLOAT
                for output in range(of_node.num_outputs):
                    of_node.set_output_type(output, trt.DataType.FLOAT)
                kept += 1
        pending.clear()
    _logger.info('%d of %d layers of %s stay in float32', kept, network.num_layers, graph.name)


def _output_names(layer: Any) -> list[str]:
    return [layer.get_output(output).name for output in range(layer.num_outputs)]


def _is_of_floats(trt: Any, layer: Any) -> bool:
    """Whether all that a layer gives are numbers that may be in float32 or half precision."""
    outputs = [layer.get_output(output) for output in range(layer.num_outputs)]
    return bool(outputs) and all(
        output.dtype in (trt.DataType.FLOAT, trt.DataType.HALF) and not output.is_shape_tensor
        for output in outputs
    )


def _types_of_values(graph: Path) -> dict[str, str]:
    """Name of every value of an ONNX file to the name of its type."""
    try:
        import onnx
    except ImportError as error:
        raise ConfigurationError(f'TensorRT 8.6 needs onnx, too: pip install onnx ({error})') from error
    model = onnx.shape_inference.infer_shapes(onnx.load(graph, load_external_data=False))
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {name: onnx.TensorProto.DataType.Name(number) for name, number in types.items()}
