"""Graphs to a runner on the GPU: engines from the cache, or built, checked and kept."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hand_mesh_ros.errors import ConfigurationError, EngineError, FileFormatError
from hand_mesh_ros.inference.cuda import cuda_device
from hand_mesh_ros.inference.engine import PRECISIONS
from hand_mesh_ros.inference.engine_cache import EngineCache, EngineKey
from hand_mesh_ros.inference.engine_check import Case, deviations, reference_cases, require_accepted
from hand_mesh_ros.inference.engine_graph import write_engine_graph
from hand_mesh_ros.inference.graph_files import checked_description, sha256_of
from hand_mesh_ros.inference.tensorrt_build import RECIPE, build_engine
from hand_mesh_ros.inference.tensorrt_graph import cast_bytes_first
from hand_mesh_ros.inference.tensorrt_module import deserialized, load_tensorrt
from hand_mesh_ros.inference.tensorrt_runner import TensorRtRunner

_logger = logging.getLogger(__name__)

#: Hands that engines take at a time; other numbers are split into these and filled up.
BATCHES = (1, 2, 4)


@dataclass(frozen=True)
class EngineOptions:
    """How engines are come by."""

    precision: str = 'fp16'  #: fp16 or fp32
    batches: tuple[int, ...] = BATCHES
    cache_folder: Path | None = None  #: None for the user's cache directory
    may_build: bool = True  #: False refuses where the cache has no engine that fits
    rebuild: bool = False  #: True takes none from the cache
    workspace_mib: int = 2048  #: see ``build_engine``
    wait_s: float = 3600.0  #: for another process that builds the same engine

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigurationError(f'precision must be one of {PRECISIONS}, got {self.precision!r}')
        if not self.batches or list(self.batches) != sorted({b for b in self.batches if b > 0}):
            raise ConfigurationError(f'batches must be positive, rising and at least one, got {self.batches}')


def missing_for_tensorrt() -> str:
    """What this machine lacks to run TensorRT, in one line; empty if nothing. Nothing of TensorRT is imported
    unless there is a GPU."""
    try:
        load_tensorrt()
    except ConfigurationError as error:
        return str(error)
    lacking = [name for name in ('onnx', 'onnxruntime') if find_spec(name) is None]
    return f'no {", ".join(lacking)} (pip install {" ".join(lacking)})' if lacking else ''


def tensorrt_runner(
    graphs: Sequence[Path], precision: str = 'fp16', may_build: bool = True
) -> TensorRtRunner:
    """A runner of a chain of graphs, engines of the user's cache. Building takes minutes, loading a second.

    :param may_build: False refuses where the cache has no engine that fits.
    :raises ConfigurationError: no GPU, or a library that is missing.
    :raises FileFormatError: a graph that cannot be used.
    :raises EngineError: an engine that cannot be built or loaded, or is off, or is damaged in the cache and
        may not be built anew.
    """
    return TensorRtRunner(engines_of(graphs, EngineOptions(precision, may_build=may_build)))


def engines_of(graphs: Sequence[Path], options: EngineOptions) -> list[Any]:
    """The engines of a chain of graphs, loaded. See :func:`tensorrt_runner`."""
    source = _Source(graphs, options, load_tensorrt())
    return [source.engine(index) for index in range(len(graphs))]


def engine_key(graph: Path, options: EngineOptions) -> EngineKey:
    """What the engine of a graph must be of, on this machine.

    :raises ConfigurationError: no GPU, or a library that is missing.
    :raises FileFormatError: the graph, or the file of its weights, is damaged or missing, or they do not
        belong together.
    """
    device = cuda_device()
    graph_sha256, weights_sha256 = hashes_of(graph)
    return EngineKey(
        graph_sha256=graph_sha256,
        weights_sha256=weights_sha256,
        tensorrt=load_tensorrt().__version__,
        gpu=device.name,
        compute_capability=device.compute_capability,
        precision=options.precision,
        batches=options.batches,
        recipe=RECIPE,
        places_sha256=_places_sha256() if options.precision == 'fp16' else '',
    )


def _places_sha256() -> str:
    from hand_mesh_ros.inference.half_types import FLOAT32_PLACES  # needs onnx

    return hashlib.sha256('\n'.join(place.modules for place in FLOAT32_PLACES).encode()).hexdigest()


def hashes_of(graph: Path) -> tuple[str, str]:
    """SHA-256 of an ONNX file and of its external data, "" if it has none.

    :raises ConfigurationError: onnx is not installed.
    :raises FileFormatError: one of them is damaged or missing, or they do not belong together.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx.external_data_helper import ExternalDataInfo, uses_external_data
    except ImportError as error:
        raise ConfigurationError(f'backend tensorrt needs onnx: pip install onnx ({error})') from error
    digest = sha256_of(graph)
    try:
        model = onnx.load(graph, load_external_data=False)
    except DecodeError as error:
        raise FileFormatError(
            f'{graph}: no ONNX file, or cut off ({error}): hand-mesh export makes it anew'
        ) from error
    constants = [a.t for node in model.graph.node for a in node.attribute if a.HasField('t')]
    outside = {
        ExternalDataInfo(tensor).location
        for tensor in (*model.graph.initializer, *constants)
        if uses_external_data(tensor)
    }
    if not model.graph.output:
        raise FileFormatError(f'{graph}: no ONNX graph: hand-mesh export makes it anew')
    if not outside:
        return digest, ''
    name = outside.pop()
    if outside or Path(name).name != name:
        raise FileFormatError(f'{graph}: its weights must be in one file beside it: {[name, *outside]}')
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    weights = graph.parent / name
    description = checked_description(graph, metadata, weights)
    return digest, str(description['weights_sha256'])


class _Source:
    """Engines of one chain of graphs."""

    def __init__(self, graphs: Sequence[Path], options: EngineOptions, trt: Any) -> None:
        self._graphs, self._options, self._trt = [Path(graph) for graph in graphs], options, trt
        self._cache = EngineCache(options.cache_folder)
        self._cases: list[dict[int, Case]] | None = None

    def engine(self, index: int) -> Any:
        """The engine of one of the graphs, loaded."""
        graph, name = self._graphs[index], self._graphs[index].stem
        key = engine_key(graph, self._options)
        if not self._options.rebuild:
            engine = self._from_cache(name, key)
            if engine is not None:
                return engine
        if not self._options.may_build:
            raise EngineError(
                f'{self._cache.path_of(name, key)} is missing and may not be built now: run hand-mesh engine '
                f'build --precision {self._options.precision} {graph}'
            )
        with self._cache.building(name, key, self._options.wait_s):
            # Another may have built it while this one waited.
            engine = None if self._options.rebuild else self._from_cache(name, key)
            return engine if engine is not None else self._build(index, name, key)

    def _from_cache(self, name: str, key: EngineKey) -> Any | None:
        try:
            data = self._cache.load(name, key)
            if data is None:
                return None
            engine = deserialized(self._trt, data, name)
        except (FileFormatError, EngineError) as error:
            if not self._options.may_build:
                raise EngineError(str(error)) from error
            _logger.warning('the engine of %s is built anew: %s', name, error)
            return None
        _logger.info('engine of %s from %s', name, self._cache.path_of(name, key))
        return engine

    def _build(self, index: int, name: str, key: EngineKey) -> Any:
        if self._cases is None:
            self._cases = reference_cases(self._graphs, self._options.batches)
        with tempfile.TemporaryDirectory(prefix='hand_mesh_ros.') as folder:
            prepared = Path(folder) / self._graphs[index].name
            half = self._options.precision == 'fp16'
            try:
                write_engine_graph(self._graphs[index], 'fp16' if half else 'fp32', prepared)
                cast_bytes_first(prepared)
            except (OSError, ValueError) as error:  # a full disk; a number that float16 cannot hold
                raise EngineError(f'{name} cannot be prepared for TensorRT in {folder}: {error}') from error
            built = build_engine(
                prepared, self._options.batches, self._cache.load_timings(key), self._options.workspace_mib
            )
        engine = deserialized(self._trt, built.engine, name)
        check_engine(engine, self._cases[index], self._options.precision, name)
        if self._cache.store(name, key, built.engine):
            _logger.info('engine of %s kept in %s', name, self._cache.path_of(name, key))
        if built.timings:
            self._cache.store_timings(key, built.timings)
        return engine


def check_engine(engine: Any, cases: dict[int, Case], precision: str, what: str) -> None:
    """Compare an engine with its graph.

    :param cases: of its graph, from ``engine_check.reference_cases``.
    :raises EngineError: it is off by more than its precision explains.
    """
    runner = TensorRtRunner([engine])
    try:
        require_accepted(deviations(runner.run, cases, precision), what)
    finally:
        runner.close()
