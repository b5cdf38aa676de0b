"""``hand-mesh engine``: TensorRT's engines, built ahead, checked, listed and deleted."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hand_mesh_ros.errors import EngineError, FileFormatError
from hand_mesh_ros.inference.engine import PRECISIONS
from hand_mesh_ros.inference.engine_cache import EngineCache
from hand_mesh_ros.inference.engine_check import Deviation, deviations, reference_cases
from hand_mesh_ros.inference.graph_files import maskhand_graphs, single_graph
from hand_mesh_ros.inference.network import DEFAULT_STEPS
from hand_mesh_ros.networks.shipped import MASK2HAND_PATH, MASKHAND_PATH, REFINE_NET_PATH

_WARM_UP = 10


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``engine``, what it does and their options."""
    parser = commands.add_parser('engine', help="build, check, list or delete TensorRT's engines")
    actions = parser.add_subparsers(metavar='ACTION', required=True)
    build = actions.add_parser('build', help='build what the cache lacks, and compare it with ONNX Runtime')
    check = actions.add_parser('check', help='compare engines of the cache with ONNX Runtime, and time them')
    for action in (build, check):
        action.add_argument(
            'graphs',
            nargs='*',
            type=Path,
            metavar='GRAPH',
            help='ONNX files of one network in the order in which they run (default: all networks of the '
            'package)',
        )
        action.add_argument(
            '--precision', choices=PRECISIONS, default=PRECISIONS[0], help='default: %(default)s'
        )
    build.add_argument('--rebuild', action='store_true', help='what the cache has, too')
    build.add_argument(
        '--workspace',
        type=int,
        default=2048,
        metavar='MIB',
        help="what a layer may use of the GPU's memory beside its tensors (default: %(default)s)",
    )
    check.add_argument(
        '--runs', type=int, default=200, metavar='N', help='to time; 0 for none (default: %(default)s)'
    )
    list_ = actions.add_parser('list', help='what the cache holds; needs no GPU')
    clear = actions.add_parser('clear', help='delete what the cache holds; needs no GPU')
    for action, command in ((build, _build), (check, _check), (list_, _list), (clear, _clear)):
        action.add_argument(
            '--cache',
            type=Path,
            metavar='DIR',
            help='folder of the engines (default: hand_mesh_ros/engines in $XDG_CACHE_HOME or ~/.cache)',
        )
        action.set_defaults(command=command)


def _build(arguments: argparse.Namespace) -> int:
    from hand_mesh_ros.inference.tensorrt_engines import EngineOptions, engines_of

    _log_to_terminal()
    options = EngineOptions(
        precision=arguments.precision,
        cache_folder=arguments.cache,
        rebuild=arguments.rebuild,
        workspace_mib=arguments.workspace,
    )

    def build(graphs: Sequence[Path]) -> None:
        engines_of(graphs, options)
        print(f'{", ".join(path.stem for path in graphs)}: ready')

    return _for_each(_chains(arguments.graphs), build)


def _check(arguments: argparse.Namespace) -> int:
    from hand_mesh_ros.inference.tensorrt_engines import EngineOptions, engines_of
    from hand_mesh_ros.inference.tensorrt_runner import TensorRtRunner

    _log_to_terminal()
    options = EngineOptions(precision=arguments.precision, cache_folder=arguments.cache, may_build=False)

    def check(graphs: Sequence[Path]) -> None:
        engines = engines_of(graphs, options)
        cases = reference_cases(graphs, options.batches)
        found: list[Deviation] = []
        for graph, engine, of_graph in zip(graphs, engines, cases, strict=True):
            runner = TensorRtRunner([engine])
            of_engine = deviations(runner.run, of_graph, options.precision)
            runner.close()
            for line in _lines(of_engine):
                print(f'{graph.stem:<32} {line}')
            found += of_engine
        chain = TensorRtRunner(engines)
        for batch in options.batches if arguments.runs else ():
            given = {name: value for case in cases for name, value in case[batch].inputs.items()}
            times = _times_ms(chain.run, given, arguments.runs)
            print(
                f'{"+".join(path.stem for path in graphs)}: {options.precision} on {chain.device}, '
                f'batch {batch}: median {np.median(times):.3f} ms, p95 {np.percentile(times, 95):.3f} ms'
            )
        chain.close()
        if not all(deviation.accepted for deviation in found):
            raise EngineError(
                f'{", ".join(path.stem for path in graphs)}: off by more than {options.precision} explains: '
                'build anew with hand-mesh engine build --rebuild'
            )

    return _for_each(_chains(arguments.graphs), check)


def _list(arguments: argparse.Namespace) -> int:
    cache = EngineCache(arguments.cache)
    files = cache.files()
    for file in files:
        told = {name: value for name, value in file.key.items() if not name.endswith('sha256')}
        print(f'{file.path.name}  {file.size / 2**20:.1f} MiB  {json.dumps(told) if told else "damaged"}')
    print(f'{len(files)} files in {cache.folder}')
    return 0


def _clear(arguments: argparse.Namespace) -> int:
    cache = EngineCache(arguments.cache)
    print(f'{len(cache.clear())} files deleted from {cache.folder}')
    return 0


def _chains(graphs: Sequence[Path]) -> list[tuple[Path, ...]]:
    """The graphs asked for, as one network; where none are, those of the package."""
    if graphs:
        return [tuple(graphs)]
    return [
        maskhand_graphs(MASKHAND_PATH, DEFAULT_STEPS),
        single_graph(MASK2HAND_PATH),
        single_graph(REFINE_NET_PATH),
    ]


def _for_each(chains: Sequence[Sequence[Path]], work: Callable[[Sequence[Path]], None]) -> int:
    """1 where an engine failed, whatever became of the others."""
    failed = 0
    for graphs in chains:
        try:
            work(graphs)
        except (EngineError, FileFormatError) as error:
            print(f'hand-mesh: {error}')
            failed = 1
    return failed


def _lines(found: Sequence[Deviation]) -> list[str]:
    return [
        f'batch {deviation.batch}  {deviation.output:<20} largest error {deviation.error:9.2e} of the range, '
        f'beyond the tolerance {deviation.beyond:6.2%}  {"ok" if deviation.accepted else "OFF"}'
        for deviation in found
    ]


def _times_ms(
    run: Callable[[Mapping[str, np.ndarray]], object], inputs: Mapping[str, np.ndarray], runs: int
) -> list[float]:
    """Of each run, host to host."""
    times = []
    for index in range(_WARM_UP + runs):
        start = time.perf_counter()
        run(inputs)
        if index >= _WARM_UP:
            times.append((time.perf_counter() - start) * 1e3)
    return times


def _log_to_terminal() -> None:
    logging.basicConfig(level=logging.INFO, format='%(message)s')
