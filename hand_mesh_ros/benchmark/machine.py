"""What the benchmark runs on, and how much memory it takes there."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from hand_mesh_ros import __version__
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.inference.cuda import cuda_device

_PACKAGES = ('numpy', 'onnxruntime', 'torch', 'mediapipe', 'tensorrt', 'numba', 'opencv-contrib-python')

#: Of the array that is copied to learn the memory's bandwidth: more than any cache holds.
_COPIED_BYTES = 256 << 20
_COPIES = 8


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def machine(threads: int) -> dict[str, object]:
    """Names, sizes and versions. ``threads`` are those of the networks on the CPU."""
    try:
        device = cuda_device()
        gpu = f'{device.name} (compute capability {device.compute_capability})'
    except ConfigurationError:
        gpu = None
    return {
        'cpu': _cpu_name(),
        'cores': cores(),
        'threads': threads,
        'memory_gib': round(_meminfo_kib('MemTotal') / 2**20, 1),
        'gpu': gpu,
        'os': f'{_os_name()}, Linux {platform.release()}',
        'python': platform.python_version(),
        'versions': {'hand_mesh_ros': __version__, **{name: _version(name) for name in _PACKAGES}},
        'load_average': [round(load, 2) for load in os.getloadavg()],
    }


def resident_mib() -> float:
    """Memory of this process now."""
    return _status_kib('VmRSS') / 1024.0


def peak_mib() -> float:
    """The most that this process ever had. Not getrusage's, which begins with that of the parent."""
    return _status_kib('VmHWM') / 1024.0


def copy_bandwidth() -> float:
    """Bytes a second that the CPU's memory moves, read or written, as a large copy by one thread shows."""
    source = np.ones(_COPIED_BYTES, np.uint8)
    target = np.empty_like(source)
    target[:] = source  # the pages come with the first write
    fastest = float('inf')
    for _ in range(_COPIES):
        start = time.perf_counter()
        np.copyto(target, source)
        fastest = min(fastest, time.perf_counter() - start)
    return 2.0 * _COPIED_BYTES / fastest


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    for line in _lines(Path('/proc/cpuinfo')):
        if line.startswith('model name'):
            return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get('PRETTY_NAME', 'Linux')
    except OSError:
        return 'Linux'


def _status_kib(key: str) -> int:
    return _kib(Path('/proc/self/status'), key)


def _meminfo_kib(key: str) -> int:
    return _kib(Path('/proc/meminfo'), key)


def _kib(path: Path, key: str) -> int:
    return next((int(line.split()[1]) for line in _lines(path) if line.startswith(f'{key}:')), 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding='utf-8').splitlines()
    except OSError:
        return []
