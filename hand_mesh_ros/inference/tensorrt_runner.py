"""Engines run by TensorRT, one after the other, as one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hand_mesh_ros.errors import EngineError
from hand_mesh_ros.inference.cuda import CudaSession, cuda_device
from hand_mesh_ros.inference.tensorrt_module import errors_said, load_tensorrt

_logger = logging.getLogger(__name__)

#: By the names of TensorRT's types. Its own function for that fails in 8.6 with NumPy 1.24 and later.
_DTYPES: dict[str, np.dtype] = {
    'FLOAT': np.dtype(np.float32),
    'HALF': np.dtype(np.float16),
    'INT64': np.dtype(np.int64),
    'INT32': np.dtype(np.int32),
    'INT8': np.dtype(np.int8),
    'UINT8': np.dtype(np.uint8),
    'BOOL': np.dtype(np.bool_),
}


@dataclass(frozen=True)
class _Tensor:
    """What goes into or out of an engine: room for the largest batch on the device."""

    address: int  #: on the device
    row: tuple[int, ...]  #: shape of what one hand has
    dtype: np.dtype


class TensorRtRunner:
    """A :class:`~hand_mesh_ros.inference.graph.GraphRunner`.

    Everything is allocated once. A batch that no profile of the engines is of is done in several, the last
    one filled up with copies.
    """

    backend = 'tensorrt'

    def __init__(self, engines: Sequence[Any]) -> None:
        """Take engines that ``tensorrt_module.deserialized`` gave, all of the same batches.

        :raises ConfigurationError: no GPU, or a library missing.
        :raises EngineError: the engines do not fit together, or the device has not the memory for them.
        """
        self._trt = load_tensorrt()
        self.device = cuda_device().name
        self._batches = _batches_of(engines[0], self._trt)
        self._contexts: list[dict[int, Any]] = []
        self._inputs: dict[str, _Tensor] = {}
        self._outputs: dict[str, _Tensor] = {}
        self._host: dict[str, np.ndarray] = {}
        self._graphs: dict[int, Any] = {}
        self._session = CudaSession()
        try:
            self._allocate(engines)
            for batch in self._batches:
                self._graphs[batch] = self._recorded(batch)
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See :class:`~hand_mesh_ros.inference.graph.GraphRunner`. Integers come back as int64, as graphs
        declare them, also from TensorRT 8.6, which computes in int32.

        :raises EngineError: the device failed.
        """
        count = len(inputs[next(iter(self._inputs))])
        for name, tensor in self._inputs.items():
            if inputs[name].shape != (count, *tensor.row):
                raise ValueError(f'{name} is {inputs[name].shape}, not {(count, *tensor.row)}')
        results = {
            name: np.empty((count, *tensor.row), np.int64 if tensor.dtype == np.int32 else tensor.dtype)
            for name, tensor in self._outputs.items()
        }
        for start, rows, batch in self._pieces(count):
            for name in self._inputs:
                host = self._host[name]
                np.copyto(host[:rows], inputs[name][start : start + rows], casting='same_kind')
                host[rows:batch] = host[rows - 1]
            graph = self._graphs[batch]
            if graph is None:
                self._queue(batch)
            else:
                self._session.replay(graph)
            self._session.synchronize()
            for name, result in results.items():
                result[start : start + rows] = self._host[name][:rows]
        return results

    def close(self) -> None:
        """See :class:`~hand_mesh_ros.inference.graph.GraphRunner`."""
        self._graphs, self._host = {}, {}
        self._session.close()
        self._contexts = []  # after the graphs, which use their memory

    def _pieces(self, count: int) -> Iterator[tuple[int, int, int]]:
        """First hand, hands, and batch to do them in: the smallest that holds what is left."""
        start = 0
        while start < count:
            left = count - start
            batch = min((b for b in self._batches if b >= left), default=self._batches[-1])
            yield start, min(left, batch), batch
            start += batch

    def _allocate(self, engines: Sequence[Any]) -> None:
        known: dict[str, _Tensor] = {}
        for engine in engines:
            if _batches_of(engine, self._trt) != self._batches:
                raise EngineError('the engines of one chain are of different batches: build them anew')
            names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
            inputs = [name for name in names if _is_input(engine, name, self._trt)]
            outputs = [name for name in names if name not in inputs]
            contexts = {
                batch: self._context(engine, profile, batch, inputs)
                for profile, batch in enumerate(_profiles_of(engine, self._trt))
            }
            for name in inputs:
                wanted = _described(engine, contexts[self._batches[-1]], name)
                if name not in known:
                    known[name] = self._inputs[name] = self._room(*wanted)
                    self._host[name] = self._session.host_array((self._batches[-1], *wanted[0]), wanted[1])
                    # The first run is of these. Of sizes that are 0 Mask2Hand computes NaN, and where the
                    # greatest of NaNs is sought on a GPU, its index may lie outside of what is indexed by it.
                    self._host[name].fill(1)
                elif (known[name].row, known[name].dtype) != wanted:
                    raise EngineError(
                        f'{name} is {known[name].dtype}{known[name].row} where it comes from and '
                        f'{wanted[1]}{wanted[0]} where it goes: the graphs are of different networks'
                    )
            self._outputs = {
                name: self._room(*_described(engine, contexts[self._batches[-1]], name)) for name in outputs
            }
            used = {name: known[name] for name in inputs} | self._outputs
            for context in contexts.values():
                for name, tensor in used.items():
                    if not context.set_tensor_address(name, tensor.address):
                        raise EngineError(f'TensorRT takes no memory for {name}: {errors_said()}')
            known |= self._outputs
            self._contexts.append(contexts)
        for name, tensor in self._outputs.items():
            self._host[name] = self._session.host_array((self._batches[-1], *tensor.row), tensor.dtype)

    def _context(self, engine: Any, profile: int, batch: int, inputs: Sequence[str]) -> Any:
        context = engine.create_execution_context()
        if context is None:
            raise EngineError(f'the GPU has no memory left for the engine: {errors_said()}')
        try:  # that raises where all others return False
            context.set_optimization_profile_async(profile, self._session.stream)
        except RuntimeError as error:
            raise EngineError(f'TensorRT does not take its profile {profile}: {errors_said()}') from error
        self._session.synchronize()
        for name in inputs:
            row = tuple(engine.get_tensor_shape(name))[1:]
            if not context.set_input_shape(name, (batch, *row)):
                raise EngineError(f'TensorRT takes no batch of {batch} for {name}: {errors_said()}')
        return context

    def _room(self, row: tuple[int, ...], dtype: np.dtype) -> _Tensor:
        size = self._batches[-1] * int(np.prod(row)) * dtype.itemsize
        return _Tensor(self._session.device_memory(size), row, dtype)

    def _queue(self, batch: int) -> None:
        """Copies in, all engines, copies out."""
        for name, tensor in self._inputs.items():
            self._session.copy_in(tensor.address, self._host[name][:batch])
        for contexts in self._contexts:
            if not contexts[batch].execute_async_v3(self._session.stream):
                raise EngineError(f'TensorRT cannot run the engine: {errors_said()}')
        for name, tensor in self._outputs.items():
            self._session.copy_out(self._host[name][:batch], tensor.address)

    def _recorded(self, batch: int) -> Any:
        """The work of a batch as a CUDA graph; None where it cannot be one."""
        self._queue(batch)  # TensorRT does at the first run what no graph may hold
        self._session.synchronize()
        try:
            return self._session.captured(lambda: self._queue(batch))
        except EngineError as error:
            _logger.warning('batches of %d run without a CUDA graph, slower: %s', batch, error)
            return None


def _is_input(engine: Any, name: str, trt: Any) -> bool:
    return engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT


def _profiles_of(engine: Any, trt: Any) -> list[int]:
    """The batch of each profile."""
    names = (engine.get_tensor_name(index) for index in range(engine.num_io_tensors))
    first = next(name for name in names if _is_input(engine, name, trt))
    profiles = range(engine.num_optimization_profiles)
    return [engine.get_tensor_profile_shape(first, profile)[1][0] for profile in profiles]


def _batches_of(engine: Any, trt: Any) -> tuple[int, ...]:
    return tuple(sorted(_profiles_of(engine, trt)))


def _described(engine: Any, context: Any, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape of what one hand has, and type."""
    shape = tuple(context.get_tensor_shape(name))
    dtype = _DTYPES.get(engine.get_tensor_dtype(name).name)
    if dtype is None or any(length < 0 for length in shape):
        raise EngineError(f'{name} of the engine has no fixed shape or a type that arrays have not: {shape}')
    return shape[1:], dtype
