"""Stands in for the NVIDIA driver and for cuda-python's runtime, on a machine without a GPU.

The module made here has the functions, parameters, enumerations and constants that the real one of a version
has (test/data/cuda_names.json) and no others. Device memory is memory of the process. What is queued in a
stream is done when the stream is waited for and not before, or, while the stream captures, kept in a graph.
"""

from __future__ import annotations

import ctypes
import enum
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

_NAMES = json.loads((Path(__file__).parent / 'data' / 'cuda_names.json').read_text())

NEWEST, OLD = 'cuda.bindings.runtime 13.4.4', 'cuda.cudart 12.2.1'


class Driver:
    """libcuda.so.1 as ctypes shows it."""

    def __init__(self, devices: int = 1, init: int = 0, name: bytes = b'NVIDIA Double') -> None:
        self.devices, self.init, self.name = devices, init, name

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.devices
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return 0 if ordinal < self.devices else 101

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:
        name.value = self.name
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0


class Stream:
    """A ``cudaStream_t``."""

    by_handle: ClassVar[dict[int, Stream]] = {}

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None
        self.by_handle[int(self)] = self

    def __int__(self) -> int:
        return id(self)

    def queue(self, work: Callable[[], None]) -> None:
        """Do it later."""
        (self.work if self.captured is None else self.captured).append(work)


class _Runtime:
    """The functions; each returns its status first."""

    def __init__(self, enumerations: dict[str, type[enum.Enum]]) -> None:
        self._errors = enumerations['cudaError_t']
        self._memory: dict[int, Any] = {}
        self._graphs: list[Any] = []
        self._streams: list[Stream] = []
        #: Functions that fail, by name, and how often they work before.
        self.failing: dict[str, int] = {}

    def _status(self, function: str) -> Any:
        left = self.failing.get(function)
        if left is None:
            return self._errors['cudaSuccess']
        self.failing[function] = left - 1
        return self._errors['cudaSuccess' if left > 0 else 'cudaErrorMemoryAllocation']

    def _allocated(self, function: str, size: int) -> tuple[Any, int | None]:
        status = self._status(function)
        if int(status):
            return status, None
        memory = (ctypes.c_uint8 * size)(*([0xA5] * min(size, 64)))
        self._memory[ctypes.addressof(memory)] = memory
        return status, ctypes.addressof(memory)

    def _within(self, address: int, size: int) -> bool:
        return any(at <= address and address + size <= at + len(m) for at, m in self._memory.items())

    def cudaGetDeviceCount(self) -> Any:
        return self._status('cudaGetDeviceCount'), 1

    def cudaMalloc(self, size: int) -> Any:
        return self._allocated('cudaMalloc', size)

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        return self._allocated('cudaHostAlloc', size)

    def cudaFree(self, devPtr: int) -> Any:
        del self._memory[devPtr]
        return (self._status('cudaFree'),)

    def cudaFreeHost(self, ptr: int) -> Any:
        del self._memory[ptr]
        return (self._status('cudaFreeHost'),)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        self._streams.append(Stream())
        return self._status('cudaStreamCreateWithFlags'), self._streams[-1]

    def cudaStreamDestroy(self, stream: Stream) -> Any:
        del Stream.by_handle[int(stream)]
        self._streams.remove(stream)
        return (self._status('cudaStreamDestroy'),)

    def cudaStreamSynchronize(self, stream: Stream) -> Any:
        if stream.captured is not None:
            return (self._errors['cudaErrorStreamCaptureUnsupported'],)
        while stream.work:
            stream.work.pop(0)()
        return (self._status('cudaStreamSynchronize'),)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: Stream) -> Any:
        if not self._within(dst, count) or not self._within(src, count):
            return (self._errors['cudaErrorInvalidValue'],)
        stream.queue(lambda: ctypes.memmove(dst, src, count) and None)
        return (self._status('cudaMemcpyAsync'),)

    def cudaStreamBeginCapture(self, stream: Stream, mode: Any) -> Any:
        stream.captured = []
        return (self._status('cudaStreamBeginCapture'),)

    def cudaStreamEndCapture(self, stream: Stream) -> Any:
        captured, stream.captured = stream.captured, None
        return self._status('cudaStreamEndCapture'), captured

    def cudaGraphInstantiateWithFlags(self, graph: Any, flags: int) -> Any:
        self._graphs.append(list(graph))
        return self._status('cudaGraphInstantiateWithFlags'), self._graphs[-1]

    def cudaGraphDestroy(self, graph: Any) -> Any:
        graph.clear()
        return (self._status('cudaGraphDestroy'),)

    def cudaGraphLaunch(self, graphExec: Any, stream: Stream) -> Any:
        for work in graphExec:
            stream.queue(work)
        return (self._status('cudaGraphLaunch'),)

    def cudaGraphExecDestroy(self, graphExec: Any) -> Any:
        self._graphs.remove(graphExec)
        return (self._status('cudaGraphExecDestroy'),)

    def cudaGetLastError(self) -> Any:
        return (self._errors['cudaSuccess'],)

    def leaked(self) -> int:
        """Allocations, graphs and streams that nobody gave back."""
        return len(self._memory) + len(self._graphs) + len(self._streams)


def cuda_double(version: str = NEWEST) -> ModuleType:
    """A module of one of the recorded versions. ``double`` in it is what a test looks into."""
    names = _NAMES[version]
    module = ModuleType(version.split()[0])
    enumerations: dict[str, type[enum.Enum]] = {
        name: enum.IntEnum(name, members) for name, members in names['enumerations'].items()
    }
    runtime = _Runtime(enumerations)
    for name, function in inspect.getmembers(runtime, inspect.ismethod):
        if not name.startswith('cuda'):
            continue
        assert list(inspect.signature(function).parameters) == names['functions'][name], name
        setattr(module, name, function)
    for name, value in {**enumerations, **names['constants']}.items():
        setattr(module, name, value)
    module.double = runtime  # type: ignore[attr-defined]
    return module
