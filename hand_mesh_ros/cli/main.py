"""``hand-mesh``: the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hand_mesh_ros import __version__
from hand_mesh_ros.cli import adapt, bag, bench, demo, engine, evaluate, export, run, train
from hand_mesh_ros.errors import HandMeshError

_COMMANDS = (run, evaluate, demo, train, adapt, export, engine, bench, bag)


def make_parser() -> argparse.ArgumentParser:
    """The parser of ``hand-mesh`` with all its commands."""
    parser = argparse.ArgumentParser(prog='hand-mesh', description='Hands as meshes, from camera images.')
    parser.add_argument('--version', action='version', version=f'hand_mesh_ros {__version__}')
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    for module in _COMMANDS:
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, or 1 where a part of the work failed, or 2 where none could be done."""
    arguments = make_parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except HandMeshError as error:
        print(f'hand-mesh: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == '__main__':
    sys.exit(main())
