"""``hand-mesh export``: networks to ONNX files, which run without PyTorch."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.inference.engine import PRECISIONS
from hand_mesh_ros.inference.network import DEFAULT_STEPS, MAX_STEPS, MIN_STEPS
from hand_mesh_ros.networks.shipped import MASK2HAND_PATH, MASKHAND_PATH, REFINE_NET_PATH

#: What is exported for each method.
_SHIPPED = {'maskhand': (MASKHAND_PATH,), 'mask2hand': (MASK2HAND_PATH, REFINE_NET_PATH)}

_PACKAGES = ('onnx', 'onnxscript', 'safetensors', 'timm', 'torch', 'torchvision')


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``export`` and its options."""
    parser = commands.add_parser('export', help='write networks as ONNX files, for ONNX Runtime and TensorRT')
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        '--method',
        choices=tuple(_SHIPPED),
        help="the package's own networks of that method (default: all)",
    )
    what.add_argument('--weights', type=Path, metavar='FILE', help='the network of a file of weights')
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='fp32',
        help='fp16 writes files in half precision besides, with all weights in them (default: %(default)s)',
    )
    parser.add_argument(
        '--batch',
        type=int,
        default=0,
        metavar='N',
        help='hands of every batch; needs --out (default: any number)',
    )
    parser.add_argument(
        '--iterations',
        type=int,
        default=DEFAULT_STEPS,
        metavar='T',
        help="of maskhand's sampling, unrolled (default: %(default)s)",
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help='folder to write to, the weights too (default: where the weights are, and they are looked for)',
    )
    parser.set_defaults(command=_export)


def _export(arguments: argparse.Namespace) -> int:
    if not MIN_STEPS <= arguments.iterations <= MAX_STEPS:
        raise ConfigurationError(
            f'--iterations must be {MIN_STEPS} to {MAX_STEPS}, got {arguments.iterations}'
        )
    if arguments.batch < 0:
        raise ConfigurationError(f'--batch must be 0 or more, got {arguments.batch}')
    if arguments.batch and arguments.out is None:
        raise ConfigurationError('--batch N needs --out DIR: else graphs that take any batch were replaced')
    lacking = [name for name in _PACKAGES if find_spec(name) is None]
    if lacking:
        raise ConfigurationError(f'export needs {", ".join(lacking)}: pip install "hand-mesh-ros[export]"')
    methods = [arguments.method] if arguments.method else list(_SHIPPED)
    shipped = [file for method in methods for file in _SHIPPED[method]]
    for weights in shipped if arguments.weights is None else [arguments.weights]:
        try:
            _export_weights(weights, arguments)
        except OSError as error:
            raise ConfigurationError(f'{error}: give another folder with --out DIR') from error
    return 0


def _export_weights(weights: Path, arguments: argparse.Namespace) -> None:
    from hand_mesh_ros.inference.engine_graph import write_engine_graph
    from hand_mesh_ros.inference.export_networks import export_weights

    for path in export_weights(weights, steps=arguments.iterations, batch=arguments.batch, out=arguments.out):
        print(_described(path), flush=True)
        if arguments.precision == 'fp16':
            half = path.with_suffix('.fp16.onnx')
            write_engine_graph(path, 'fp16', half)
            print(_described(half), flush=True)


def _described(path: Path) -> str:
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    graph = onnx.load(path, load_external_data=False).graph
    kinds = {node.op_type for node in graph.node}
    outside = {ExternalDataInfo(t).location for t in graph.initializer if uses_external_data(t)}
    weights = f', weights in {", ".join(sorted(outside))}' if outside else ''
    size = path.stat().st_size / 1e6
    return f'{path}: {size:.1f} MB{weights}, {len(graph.node)} operators of {len(kinds)} kinds'
