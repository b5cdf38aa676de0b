"""TensorRT's Python module, imported only where there is a device for it."""

from __future__ import annotations

import atexit
import functools
import logging
from collections import deque
from typing import Any

from hand_mesh_ros.errors import ConfigurationError, EngineError
from hand_mesh_ros.inference.cuda import cuda_device, cuda_runtime

_logger = logging.getLogger(__name__)

_OLDEST = (8, 6)

#: What TensorRT said last of its errors: its calls return nothing but None or False.
_errors: deque[str] = deque(maxlen=5)


def load_tensorrt() -> Any:
    """The module ``tensorrt``. Its 8.6 ends the process where there is no device: that is asked for first.

    :raises ConfigurationError: in one line, what is missing: driver, device, cuda-python or TensorRT 8.6 or
        later.
    """
    cuda_device()
    cuda_runtime()
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise ConfigurationError(
            f'backend tensorrt needs TensorRT 8.6 or later and its Python module ({error})'
        ) from error
    if version_of(tensorrt) < _OLDEST:
        raise ConfigurationError(
            f'backend tensorrt needs TensorRT 8.6 or later, and {tensorrt.__version__} is installed'
        )
    return tensorrt


def version_of(trt: Any) -> tuple[int, int]:
    """Major and minor version of the module."""
    major, minor = trt.__version__.split('.')[:2]
    return int(major), int(minor)


@functools.cache
def tensorrt_logger(trt: Any) -> Any:
    """The logger for TensorRT, one for the process: builders, parsers and runtimes must have the same."""

    class Log(trt.ILogger):
        """Takes what TensorRT says to Python's logging."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            """One message. TensorRT warns of much that is as it should be: the loader of this package's
            engines checks what they compute, so a warning is not one for the user."""
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                _errors.append(message)
                _logger.error('TensorRT: %s', message)
            elif severity == trt.ILogger.WARNING:
                _logger.info('TensorRT: %s', message)
            elif severity == trt.ILogger.INFO:
                _logger.debug('TensorRT: %s', message)

    return Log()


def errors_said() -> str:
    """What TensorRT said of its errors since this was last asked, in one line."""
    said = '; '.join(message.strip() for message in _errors)
    _errors.clear()
    return said or 'TensorRT says no reason'


def made(kind: Any, *arguments: Any) -> Any:
    """An object of one of TensorRT's classes.

    :raises EngineError: TensorRT makes none, as with a driver that is too old for its CUDA.
    """
    try:
        return kind(*arguments)
    except (TypeError, RuntimeError) as error:  # what its module makes of a null pointer
        raise EngineError(
            f'TensorRT makes no {kind.__name__}, is the NVIDIA driver new enough for it? {errors_said()} '
            f'({error})'
        ) from error


@functools.cache
def _runtime(trt: Any) -> Any:
    # One for the process: it must outlive every engine that it made. But not Python, whose logger it calls.
    runtime = made(trt.Runtime, tensorrt_logger(trt))
    atexit.register(_runtime.cache_clear)
    return runtime


def deserialized(trt: Any, data: bytes, what: str) -> Any:
    """The engine in ``data``, which was checked to be whole and of this TensorRT and device.

    :param what: for messages.
    :raises EngineError: TensorRT cannot load it.
    """
    _errors.clear()
    engine = _runtime(trt).deserialize_cuda_engine(data)
    if engine is None:
        raise EngineError(f'{what}: TensorRT {trt.__version__} cannot load the engine: {errors_said()}')
    return engine
