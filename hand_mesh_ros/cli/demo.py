"""``hand-mesh demo``: a stream of images through the node, over DDS, into a bag and pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from hand_mesh_ros.cli.options import add_method_options
from hand_mesh_ros.errors import ConfigurationError


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``demo`` and its options."""
    parser = commands.add_parser('demo', help='play a stream through the node; record a bag and pictures')
    parser.add_argument(
        'source',
        nargs='?',
        metavar='SOURCE',
        help='image, folder, video or webcam number (default: a clip rendered from the hand model)',
    )
    parser.add_argument(
        '--out', type=Path, default=Path('out/demo'), metavar='DIR', help='default: %(default)s'
    )
    add_method_options(parser)
    parser.set_defaults(command=demo)


def demo(arguments: argparse.Namespace) -> int:
    """Needs rclpy; everything else of ``hand-mesh`` does not."""
    try:
        from hand_mesh_ros.ros.demo import run_demo
    except ImportError as error:
        raise ConfigurationError(
            f'the demo needs ROS 2: pip install "hand-mesh-ros[ros]", or source your ROS ({error})'
        ) from error
    return run_demo(arguments.source, arguments.out, arguments.method, arguments.weights)
