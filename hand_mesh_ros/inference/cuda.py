"""A CUDA device: whether there is one, and its memory, stream and graphs through NVIDIA's cuda-python."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hand_mesh_ros.errors import ConfigurationError, EngineError

# Of CUdevice_attribute in cuda.h.
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True)
class CudaDevice:
    """The first device that CUDA shows to this process: ``CUDA_VISIBLE_DEVICES`` chooses another."""

    name: str  #: e.g. "NVIDIA H100 80GB HBM3"
    compute_capability: str  #: e.g. "9.0"


def cuda_device() -> CudaDevice:
    """The device, asked of the driver itself: nothing else of CUDA or TensorRT need be installed.

    :raises ConfigurationError: no driver, or no device.
    """
    try:
        driver = _driver()
    except OSError as error:
        raise ConfigurationError(
            f'TensorRT needs an NVIDIA GPU, and there is no driver of one here ({error})'
        ) from error
    status = driver.cuInit(0)
    if status != 0:
        raise ConfigurationError(
            f'TensorRT needs an NVIDIA GPU, and the driver finds none to use (cuInit returned {status})'
        )
    count, device = ctypes.c_int(0), ctypes.c_int(0)
    _told(driver.cuDeviceGetCount(ctypes.byref(count)), 'cuDeviceGetCount')
    if count.value == 0:
        raise ConfigurationError(
            'TensorRT needs an NVIDIA GPU, and the driver shows none to this process (CUDA_VISIBLE_DEVICES?)'
        )
    _told(driver.cuDeviceGet(ctypes.byref(device), 0), 'cuDeviceGet')
    name = ctypes.create_string_buffer(256)
    _told(driver.cuDeviceGetName(name, len(name), device), 'cuDeviceGetName')
    numbers = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        number = ctypes.c_int(0)
        _told(driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device), 'cuDeviceGetAttribute')
        numbers.append(str(number.value))
    return CudaDevice(name.value.decode(errors='replace'), '.'.join(numbers))


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL('libcuda.so.1')


def _told(status: int, function: str) -> None:
    if status != 0:
        raise ConfigurationError(f'the NVIDIA driver does not answer: {function} returned {status}')


def cuda_runtime() -> Any:
    """cuda-python's module of the CUDA runtime, of any of its versions.

    :raises ConfigurationError: it is not installed, or newer than the driver.
    """
    runtime = _imported_runtime()
    status, *_ = runtime.cudaGetDeviceCount()
    if int(status) != 0:
        raise ConfigurationError(
            f'cuda-python and the NVIDIA driver do not go together ({getattr(status, "name", status)}): '
            "install the cuda-python of the driver's CUDA version, which nvidia-smi tells"
        )
    return runtime


def _imported_runtime() -> Any:
    try:
        from cuda.bindings import runtime  # 12.6 and later

        return runtime
    except ImportError:
        pass
    try:
        from cuda import cudart

        return cudart
    except ImportError as error:
        raise ConfigurationError(
            f'TensorRT needs cuda-python: pip install "cuda-python>=12,<14" ({error})'
        ) from error


class CudaSession:
    """A stream, and memory of the device and of the host, given back together. Not thread-safe."""

    def __init__(self) -> None:
        """Make the stream.

        :raises ConfigurationError: no cuda-python.
        :raises EngineError: the device refuses.
        """
        self._api = cuda_runtime()
        self._device_addresses: list[int] = []
        self._host_addresses: list[int] = []
        self._graphs: list[Any] = []
        self._stream = self._call('cudaStreamCreateWithFlags', self._api.cudaStreamNonBlocking)

    @property
    def stream(self) -> int:
        """The stream's handle, as TensorRT takes it."""
        return int(self._stream)

    def device_memory(self, size: int) -> int:
        """Address of ``size`` bytes of the device.

        :raises EngineError: it has not as many left.
        """
        address = int(self._call('cudaMalloc', size))
        self._device_addresses.append(address)
        return address

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of zeros in page-locked memory, which the device reads and writes by itself. Not to be
        touched after :meth:`close`."""
        size = int(np.prod(shape)) * dtype.itemsize
        address = int(self._call('cudaHostAlloc', size, self._api.cudaHostAllocDefault))
        self._host_addresses.append(address)
        memory = (ctypes.c_uint8 * size).from_address(address)
        array = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        array.fill(0)
        return array

    def copy_in(self, address: int, array: np.ndarray) -> None:
        """Queue a copy of a contiguous array of :meth:`host_array` to the device."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call('cudaMemcpyAsync', address, array.ctypes.data, array.nbytes, kind, self._stream)

    def copy_out(self, array: np.ndarray, address: int) -> None:
        """Queue a copy from the device to a contiguous array of :meth:`host_array`."""
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call('cudaMemcpyAsync', array.ctypes.data, address, array.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        """Wait until all that was queued is done.

        :raises EngineError: some of it failed.
        """
        self._call('cudaStreamSynchronize', self._stream)

    def captured(self, work: Callable[[], None]) -> Any:
        """What ``work`` queues, not done but kept as a CUDA graph for :meth:`replay`.

        :raises EngineError: it cannot be kept so.
        """
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call('cudaStreamBeginCapture', self._stream, mode)
        try:
            work()
        except BaseException:
            self._api.cudaStreamEndCapture(self._stream)  # else nothing runs in the stream any more
            self._api.cudaGetLastError()
            raise
        try:
            graph = self._call('cudaStreamEndCapture', self._stream)
        except EngineError:
            self._api.cudaGetLastError()
            raise
        try:
            executable = self._call('cudaGraphInstantiateWithFlags', graph, 0)
        finally:
            self._api.cudaGraphDestroy(graph)
        self._graphs.append(executable)
        return executable

    def replay(self, graph: Any) -> None:
        """Queue what :meth:`captured` kept."""
        self._call('cudaGraphLaunch', graph, self._stream)

    def close(self) -> None:
        """Give everything back. May be called again."""
        if self._stream is None:
            return
        self._api.cudaStreamSynchronize(self._stream)
        for graph in self._graphs:
            self._api.cudaGraphExecDestroy(graph)
        for address in self._device_addresses:
            self._api.cudaFree(address)
        for address in self._host_addresses:
            self._api.cudaFreeHost(address)
        self._api.cudaStreamDestroy(self._stream)
        self._graphs, self._device_addresses, self._host_addresses = [], [], []
        self._stream = None

    def _call(self, function: str, *arguments: Any) -> Any:
        """The result of a function of the runtime, which returns its status first."""
        status, *results = getattr(self._api, function)(*arguments)
        if int(status) != 0:
            raise EngineError(f'{function} failed on the GPU: {getattr(status, "name", status)}')
        return results[0] if results else None
