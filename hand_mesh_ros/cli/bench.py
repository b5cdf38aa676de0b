"""``hand-mesh bench``: how long every stage takes on this machine, beside MediaPipe Hands."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from hand_mesh_ros.benchmark.estimation import Task, measured
from hand_mesh_ros.benchmark.footage import Footage, footage_of, rendered_footage
from hand_mesh_ros.benchmark.machine import copy_bandwidth, cores, machine
from hand_mesh_ros.benchmark.report import Report, float32_weights_bytes
from hand_mesh_ros.errors import ConfigurationError, EngineError
from hand_mesh_ros.inference.engine import BACKENDS, PRECISIONS, EngineSettings, missing
from hand_mesh_ros.reconstruction import MASK_METHODS

_BACKENDS = BACKENDS[1:]
_METHODS = ('maskhand', 'mask2hand')

_T = TypeVar('_T')


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``bench`` and its options."""
    parser = commands.add_parser('bench', help='measure every stage on this machine, beside MediaPipe Hands')
    parser.add_argument(
        '--source',
        type=Path,
        metavar='FILE',
        help='video, image or folder of one hand, always in view (default: a rendered one)',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there, too')
    parser.add_argument('--backend', nargs='+', choices=_BACKENDS, default=_BACKENDS, help='default: all')
    parser.add_argument('--method', nargs='+', choices=_METHODS, default=_METHODS, help='default: both')
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="of TensorRT's engines (default: %(default)s)",
    )
    parser.add_argument(
        '--threads',
        type=int,
        default=0,
        metavar='N',
        help='of the networks on the CPU (default: one each core)',
    )
    parser.add_argument('--frames', type=int, default=90, metavar='N', help='default: %(default)s')
    parser.add_argument(
        '--rounds', type=int, default=3, metavar='N', help='looks at all frames (default: %(default)s)'
    )
    parser.add_argument(
        '--warm-up', type=int, default=30, metavar='N', help='frames before (default: %(default)s)'
    )
    parser.add_argument('--node', action='store_true', help='measure the node over DDS, too; needs ROS')
    parser.add_argument(
        '--transport',
        choices=('raw', 'compressed'),
        default='raw',
        help='of the images for --node (default: %(default)s)',
    )
    parser.add_argument(
        '--paper-size',
        action='store_true',
        help='a MaskHand of the size of the paper (ViT-H/16) with random weights, by PyTorch, too: 3 GB of '
        'memory',
    )
    parser.add_argument(
        '--gpu',
        action='store_true',
        help='nothing but MaskHand on an NVIDIA GPU, in both sizes: PyTorch, torch.compile and TensorRT',
    )
    parser.set_defaults(command=bench)


def bench(arguments: argparse.Namespace) -> int:
    """Returns 1 where nothing could be measured, else 0.

    :raises HandMeshError: options that cannot work, or a source that is none.
    """
    _check(arguments)
    if arguments.gpu:
        return _on_gpu(arguments)
    count = arguments.frames
    footage = rendered_footage(count) if arguments.source is None else footage_of(arguments.source, count)
    threads = arguments.threads or cores()
    report = Report(
        machine(threads),
        {'name': footage.name, 'count': len(footage.frames), 'rounds': arguments.rounds},
    )
    for backend in arguments.backend:
        _measure(arguments, report, footage, EngineSettings(backend, arguments.precision, True, threads))
    _add_floors(arguments, report, threads)
    if arguments.node:
        _measure_node(arguments, report, footage, threads)
    print(report.as_markdown())
    _write(arguments.json, report.as_json())
    return 0 if report.rows else 1


def _check(arguments: argparse.Namespace) -> None:
    for name, least in (('frames', 2), ('rounds', 1), ('warm_up', 0), ('threads', 0)):
        if getattr(arguments, name) < least:
            raise ConfigurationError(f'--{name.replace("_", "-")} must be at least {least}')
    if arguments.json is not None and not arguments.json.resolve().parent.is_dir():
        raise ConfigurationError(f'{arguments.json}: there is no such folder to write to')
    if arguments.json is not None and arguments.json.is_dir():
        raise ConfigurationError(f'{arguments.json}: is a folder, and no file to write to')


def _measure(
    arguments: argparse.Namespace, report: Report, footage: Footage, settings: EngineSettings
) -> None:
    """Every method by one backend, each in a process of its own, so that their memory does not add up."""
    why = missing(settings.backend)
    if why:
        report.missing[settings.backend] = why
        return
    for method in arguments.method:
        if method in MASK_METHODS and not footage.masks:
            report.missing[method] = 'it looks at masks, of which the source has none'
            continue
        _say(f'{settings.backend}, {method}')
        task = Task(method, settings, footage, arguments.warm_up, arguments.rounds)
        try:
            report.add(settings.backend, method, _by_itself(measured, task))
        except (ConfigurationError, EngineError) as error:
            report.missing[f'{settings.backend}, {method}'] = str(error)


def _by_itself(work: Callable[..., _T], *arguments: object) -> _T:
    """What ``work`` gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            raise EngineError('the process that measured it ended by itself: out of memory?') from error


def _add_floors(arguments: argparse.Namespace, report: Report, threads: int) -> None:
    """How near MaskHand comes to the time in which its weights are read once, in float32, on the CPU."""
    bandwidth = copy_bandwidth()
    report.machine['memory_bandwidth_gb_s'] = round(bandwidth / 1e9, 1)
    report.add_floors('maskhand', 1e3 * float32_weights_bytes() / bandwidth)
    if not arguments.paper_size:
        return
    why = missing('torch')
    if why:
        report.missing['paper-size'] = why
        return
    from hand_mesh_ros.benchmark.network_sizes import paper_row

    _say('torch, paper-size: this takes a minute')
    row, weights = _by_itself(paper_row, threads)
    report.rows.append(row)
    report.add_floors(row.method, 1e3 * weights / bandwidth)


def _measure_node(arguments: argparse.Namespace, report: Report, footage: Footage, threads: int) -> None:
    try:
        from hand_mesh_ros.ros.bench import node_figures
    except ImportError as error:
        raise ConfigurationError(
            f'--node needs ROS 2: pip install "hand-mesh-ros[ros]", or source your ROS ({error})'
        ) from error
    backend = report.backend or 'auto'
    parameters = {
        'method': 'maskhand',
        'backend': backend,
        'precision': arguments.precision,
        'threads': threads,
        'max_hands': 1,
    }
    _say(f'{backend}, maskhand, over DDS')
    with tempfile.TemporaryDirectory() as folder:
        report.add_node(backend, node_figures(footage, Path(folder), parameters, arguments.transport))


def _on_gpu(arguments: argparse.Namespace) -> int:
    why = missing('torch')
    if why:
        raise ConfigurationError(f'--gpu: {why}')
    from hand_mesh_ros.benchmark.gpu import as_markdown, measured_on_gpu

    figures = measured_on_gpu(say=_say)
    print(as_markdown(figures))
    _write(arguments.json, figures)
    return 0


def _write(path: Path | None, figures: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')


def _say(text: str) -> None:
    """Progress, which is none of the result."""
    print(text, file=sys.stderr, flush=True)
