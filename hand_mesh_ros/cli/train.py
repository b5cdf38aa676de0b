"""``hand-mesh train``: train the networks."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model

#: Commands: what they train, the module, the configuration in it and the function.
_NETWORKS = {
    'vq-mano': ('the tokeniser of hand poses', 'vq_mano', 'VqManoTrainingConfiguration', 'train_vq_mano'),
    'lifter': ('the first guess from cues alone', 'lifter', 'LifterTrainingConfiguration', 'train_lifter'),
    'maskhand': (
        'the whole of MaskHand, on the two others',
        'maskhand',
        'MaskHandTrainingConfiguration',
        'train_maskhand',
    ),
    'mask2hand': (
        'Mask2Hand, on silhouettes',
        'mask2hand',
        'Mask2HandTrainingConfiguration',
        'train_mask2hand',
    ),
    'mask2hand-refinement': (
        'what moves the vertices of its hands, on a trained Mask2Hand',
        'refine_net',
        'RefineNetTrainingConfiguration',
        'train_refine_net',
    ),
}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``train``, its networks and their options."""
    parser = commands.add_parser('train', help='train a network (under torchrun: on several GPUs)')
    networks = parser.add_subparsers(metavar='NETWORK', required=True)
    for name, (what, *_) in _NETWORKS.items():
        network = networks.add_parser(name, help=what)
        network.add_argument(
            '--config',
            type=Path,
            required=True,
            metavar='FILE',
            help=f'YAML, such as config/training/{name.replace("-", "_")}.yaml',
        )
        network.add_argument(
            '--out',
            type=Path,
            required=True,
            metavar='DIR',
            help='folder for checkpoints, best weights and logs',
        )
        network.add_argument('--resume', action='store_true', help='go on from the checkpoint in DIR, if any')
        network.add_argument(
            '--steps', type=int, metavar='N', help="train so many steps in all, not the file's"
        )
        network.add_argument(
            '--hand-model', type=Path, metavar='FILE', help='MANO .pkl or .npz; default: the open hand model'
        )
        network.set_defaults(command=partial(train, name))


def train(name: str, arguments: argparse.Namespace) -> int:
    """Train a network of that name. Returns 1 where SIGTERM ended it early."""
    _, module_name, configuration_name, function = _NETWORKS[name]
    try:
        from hand_mesh_ros.training.configuration import load_configuration
        from hand_mesh_ros.training.processes import process_group

        module = import_module(f'hand_mesh_ros.training.{module_name}')
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"training needs {error.name}: pip install 'hand-mesh-ros[train]'"
        ) from error
    configuration = load_configuration(arguments.config, getattr(module, configuration_name))
    if arguments.steps is not None:
        loop = replace(configuration.loop, steps=arguments.steps)
        configuration = replace(configuration, loop=loop)
    model = load_hand_model(arguments.hand_model)
    with process_group() as group:
        done = getattr(module, function)(configuration, model, arguments.out, group, arguments.resume)
    return 0 if done else 1
