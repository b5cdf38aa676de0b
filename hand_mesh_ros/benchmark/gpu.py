"""MaskHand on an NVIDIA GPU: PyTorch, compiled PyTorch and TensorRT, in the package's size and the paper's.

Run as ``hand-mesh bench --gpu``, or, where neither ROS nor MediaPipe is installed, as
``python -m hand_mesh_ros.benchmark.gpu FILE``, which writes the JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hand_mesh_ros.benchmark.machine import copy_bandwidth, cores, machine
from hand_mesh_ros.benchmark.network_sizes import (
    SIZES,
    floor_ms,
    random_inputs,
    weight_count,
    write_paper_weights,
)
from hand_mesh_ros.benchmark.timing import alternately, ratio
from hand_mesh_ros.errors import ConfigurationError, HandMeshError
from hand_mesh_ros.evaluation.tables import markdown
from hand_mesh_ros.inference.graph import GraphRunner
from hand_mesh_ros.inference.graph_files import maskhand_graphs
from hand_mesh_ros.inference.network import DEFAULT_STEPS
from hand_mesh_ros.inference.torch_runner import TorchRunner
from hand_mesh_ros.networks.parts import Part
from hand_mesh_ros.networks.shipped import MASKHAND_PATH

BATCHES = (1, 2, 4)

_WARM_UP = 10
_COPIED_BYTES = 1 << 30
_COPIES = 20

#: Precisions of an engine's name to bytes of a weight.
_BYTES = {'fp32': 4, 'fp16': 2}


@dataclass(frozen=True)
class GpuRow:
    """From host to host, with all copies."""

    network: str  #: of ``network_sizes.SIZES``
    engine: str
    precision: str
    batch: int
    median_ms: float
    p95_ms: float
    floor_ms: float  #: of reading the weights once
    gpu_memory_mib: float  #: that loading it and running all batches took


def measured_on_gpu(
    sizes: Sequence[str] = tuple(SIZES),
    repeats: int = 100,
    device: str = 'cuda',
    say: Callable[[str], None] = print,
) -> dict[str, object]:
    """Figures as JSON can hold them: ``rows``, ``missing`` (engine to reason), ``ratios``, ``machine``.

    :param device: as PyTorch names it; TensorRT is left out where it is no GPU.
    :raises ConfigurationError: no GPU that PyTorch can use.
    """
    if device != 'cpu' and not torch.cuda.is_available():
        raise ConfigurationError('--gpu needs an NVIDIA GPU and a build of PyTorch that can use it')
    bandwidth = _copy_bandwidth(device)
    say(f'memory bandwidth {bandwidth / 1e9:.0f} GB/s')
    rows: list[GpuRow] = []
    missing: dict[str, str] = {}
    for size in sizes:
        parts = SIZES[size]()
        weights, inputs = weight_count(parts), [random_inputs(parts, batch) for batch in BATCHES]
        say(f'{size}: {weights / 1e6:.0f} million weights')
        for engine, precision, load in _engines(size, parts, device):
            name = f'{size} {engine} {precision}'
            before = _used_mib(device)
            try:
                with load() as runner:
                    times = [_times(runner, of_batch, repeats) for of_batch in inputs]
                    memory = _used_mib(device) - before
            except Exception as error:  # of every kind: compilers and drivers have their own
                missing[name] = (str(error).strip() or repr(error)).splitlines()[0]
                say(f'{name}: {missing[name]}')
                continue
            floor = floor_ms(weights, _BYTES[precision], bandwidth)
            for batch, (median, p95) in zip(BATCHES, times, strict=True):
                rows.append(GpuRow(size, engine, precision, batch, median, p95, floor, memory))
                say(f'{name}, batch {batch}: {median:.3f} ms (floor {floor:.3f} ms)')
        del parts
        _free(device)
    return {
        'rows': [asdict(row) for row in rows],
        'missing': missing,
        'ratios': _ratios(rows),
        'memory_bandwidth_gb_s': bandwidth / 1e9,
        'tf32': {
            'matmul': torch.backends.cuda.matmul.allow_tf32,
            'convolutions': torch.backends.cudnn.allow_tf32,
        },
        'machine': machine(cores()),
    }


def _engines(
    size: str, parts: Sequence[Part], device: str
) -> Iterator[tuple[str, str, Callable[[], AbstractContextManager[GraphRunner]]]]:
    """Engines and precisions, with what loads them."""
    yield 'torch', 'fp32', lambda: _closing(TorchRunner(parts, device=device))
    if device == 'cpu':
        return
    yield 'torch.compile', 'fp32', lambda: _closing(TorchRunner(_compiled(parts), device=device))
    for part in parts:  # TensorRT has weights of its own
        part.to('cpu')
    torch.compiler.reset()
    _free(device)
    for precision in ('fp16', 'fp32') if size == 'default' else ('fp16',):
        yield 'tensorrt', precision, partial(_tensorrt, size, precision)


@contextmanager
def _closing(runner: GraphRunner) -> Iterator[GraphRunner]:
    try:
        yield runner
    finally:
        runner.close()


def _compiled(parts: Sequence[Part]) -> Sequence[Part]:
    """As CUDA graphs, for each batch anew."""
    return [torch.compile(part, mode='reduce-overhead', dynamic=False) for part in parts]  # type: ignore[misc]


@contextmanager
def _tensorrt(size: str, precision: str) -> Iterator[GraphRunner]:
    """Engines, which are built first where the user's cache has none."""
    from hand_mesh_ros.inference.tensorrt_engines import tensorrt_runner

    with tempfile.TemporaryDirectory() as folder:
        graphs: Sequence[Path] = maskhand_graphs(MASKHAND_PATH, DEFAULT_STEPS)
        if size != 'default':
            from hand_mesh_ros.inference.export_networks import export_weights

            weights = write_paper_weights(Path(folder, 'paper.safetensors'))
            graphs = export_weights(weights, steps=DEFAULT_STEPS)
        with _closing(tensorrt_runner(graphs, precision, True)) as runner:
            yield runner


def _times(runner: GraphRunner, inputs: dict[str, np.ndarray], repeats: int) -> tuple[float, float]:
    """Median and 95th percentile, milliseconds."""
    (row,) = alternately({'run': lambda: runner.run(inputs)}, _WARM_UP, repeats).rows('', '')
    return row.median_ms, row.p95_ms


def _ratios(rows: Sequence[GpuRow]) -> dict[str, float | None]:
    """How many times as fast as PyTorch, uncompiled and in float32, others are."""
    of = {(row.network, row.engine, row.precision, row.batch): row.median_ms for row in rows}
    return {
        f'torch_over_{engine}_{precision}, {network}, batch {batch}': ratio(
            of.get((network, 'torch', 'fp32', batch), float('nan')), median
        )
        for (network, engine, precision, batch), median in of.items()
        if engine != 'torch'
    }


def as_markdown(figures: dict[str, Any]) -> str:
    """The rows as a table, then the ratios and what is missing."""
    lines = [markdown(figures['rows']), '', *(f'- {k}: {v:.2f}' for k, v in figures['ratios'].items() if v)]
    return '\n'.join([*lines, *(f'- without {name}: {why}' for name, why in figures['missing'].items())])


def _copy_bandwidth(device: str) -> float:
    """Bytes a second that the device's memory moves, read or written."""
    if device == 'cpu':
        return copy_bandwidth()
    source = torch.empty(_COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    target.copy_(source)
    start.record()
    for _ in range(_COPIES):
        target.copy_(source)
    end.record()
    end.synchronize()
    del source, target
    _free(device)
    return 2.0 * _COPIES * _COPIED_BYTES / (start.elapsed_time(end) * 1e-3)


def _used_mib(device: str) -> float:
    """Memory of the GPU that is taken, by whomever; 0 without one."""
    if device == 'cpu':
        return 0.0
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**20


def _free(device: str) -> None:
    gc.collect()
    if device != 'cpu':
        torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the JSON to the file that is named. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('file', type=Path)
    parser.add_argument('--sizes', nargs='+', choices=tuple(SIZES), default=tuple(SIZES))
    parser.add_argument('--repeats', type=int, default=100)
    chosen = parser.parse_args(arguments)
    try:
        figures = measured_on_gpu(chosen.sizes, chosen.repeats)
    except HandMeshError as error:
        print(error, file=sys.stderr)
        return 1
    chosen.file.write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')
    print(as_markdown(figures))
    return 0


if __name__ == '__main__':
    sys.exit(main())
