"""Which engine runs a network, and how."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from hand_mesh_ros.errors import ConfigurationError

#: Names of the engines; ``auto`` takes the fastest that works on the machine.
BACKENDS = ('auto', 'tensorrt', 'onnxruntime', 'torch')

#: Of the engines that TensorRT builds.
PRECISIONS = ('fp16', 'fp32')

HOW_TO_INSTALL = {
    'tensorrt': 'TensorRT does not load: see "Engines" in README.md',
    'onnxruntime': 'it needs ONNX Runtime: pip install onnxruntime',
    'torch': 'it needs PyTorch: pip install "hand-mesh-ros[torch]"',
}

_PACKAGES = {'onnxruntime': ('onnxruntime',), 'torch': ('safetensors', 'timm', 'torch', 'torchvision')}


@dataclass(frozen=True)
class EngineSettings:
    """How networks are to be run.

    :raises ConfigurationError: a setting that cannot be.
    """

    backend: str = BACKENDS[0]
    precision: str = PRECISIONS[0]  #: of TensorRT's engines
    build: bool = True  #: let TensorRT build an engine where there is none, which takes minutes
    threads: int = 0  #: of the networks on the CPU; 0 for one each core

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ConfigurationError(f'backend must be one of {", ".join(BACKENDS)}, got {self.backend!r}')
        if self.precision not in PRECISIONS:
            raise ConfigurationError(
                f'precision must be one of {", ".join(PRECISIONS)}, got {self.precision!r}'
            )
        if self.threads < 0:
            raise ConfigurationError(f'threads must be 0 or more, got {self.threads}')


def missing(backend: str) -> str:
    """What this machine lacks to run ``backend``, in one line; empty if nothing is seen to be missing."""
    if backend == 'tensorrt':
        from hand_mesh_ros.inference.tensorrt_engines import missing_for_tensorrt

        return missing_for_tensorrt()
    lacking = [name for name in _PACKAGES[backend] if find_spec(name) is None]
    return f'{HOW_TO_INSTALL[backend]} (no {", ".join(lacking)})' if lacking else ''
