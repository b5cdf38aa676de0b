"""``hand-mesh train``: train the networks."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``train``, its networks and their options."""
    parser = commands.add_parser('train', help='train a network (under torchrun: on several GPUs)')
    networks = parser.add_subparsers(metavar='NETWORK', required=True)
    vq_mano = networks.add_parser('vq-mano', help='the tokeniser of hand poses')
    vq_mano.add_argument(
        '--config',
        type=Path,
        required=True,
        metavar='FILE',
        help='YAML, such as config/training/vq_mano.yaml',
    )
    vq_mano.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='folder for checkpoints, best weights and logs'
    )
    vq_mano.add_argument('--resume', action='store_true', help='go on from the checkpoint in DIR, if any')
    vq_mano.add_argument('--steps', type=int, metavar='N', help="train so many steps in all, not the file's")
    vq_mano.add_argument(
        '--hand-model', type=Path, metavar='FILE', help='MANO .pkl or .npz; default: the open hand model'
    )
    vq_mano.set_defaults(command=train_vq_mano)


def train_vq_mano(arguments: argparse.Namespace) -> int:
    """Train VQ-MANO. Returns 1 where SIGTERM ended it early."""
    try:
        from hand_mesh_ros.training import vq_mano
        from hand_mesh_ros.training.configuration import load_configuration
        from hand_mesh_ros.training.processes import process_group
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"training needs {error.name}: pip install 'hand-mesh-ros[torch]'"
        ) from error
    configuration = load_configuration(arguments.config, vq_mano.VqManoTrainingConfiguration)
    if arguments.steps is not None:
        loop = replace(configuration.loop, steps=arguments.steps)
        configuration = replace(configuration, loop=loop)
    model = load_hand_model(arguments.hand_model)
    with process_group() as group:
        done = vq_mano.train_vq_mano(configuration, model, arguments.out, group, arguments.resume)
    return 0 if done else 1
