"""``hand-mesh adapt``: adapt Mask2Hand to masks of one's own, which nobody needs to label."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from hand_mesh_ros.cli.cameras import CameraChoice, add_camera_options
from hand_mesh_ros.datasets.mask_bags import DEFAULT_TOPIC, is_bag, masks_in_bag
from hand_mesh_ros.datasets.mask_sources import (
    CollectedMasks,
    MaskPicture,
    Unusable,
    collect_masks,
    masks_in_folder,
)
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model

#: Files that could not be read, and that show no hand, which are named at most.
_NAMED = 10


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``adapt`` and its options."""
    parser = commands.add_parser(
        'adapt', help='adapt the network of method mask2hand to masks of your own, without labels'
    )
    parser.add_argument(
        'source',
        type=Path,
        metavar='SOURCE',
        help='folder of pictures, bright where hands are, or a ROS 2 bag with such images',
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='folder for checkpoints, best weights and logs'
    )
    parser.add_argument(
        '--weights', type=Path, metavar='FILE', help='what to adapt (default: the weights of the package)'
    )
    parser.add_argument(
        '--config', type=Path, metavar='FILE', help='YAML, such as config/training/adapt.yaml'
    )
    parser.add_argument('--steps', type=int, metavar='N', help="train so many steps in all, not the file's")
    parser.add_argument('--resume', action='store_true', help='go on from the checkpoint in DIR, if any')
    parser.add_argument(
        '--side', choices=('right', 'left'), default='right', help='of all hands (default: %(default)s)'
    )
    parser.add_argument(
        '--topic', metavar='NAME', help=f'of a bag (default: the one whose name ends in {DEFAULT_TOPIC})'
    )
    add_camera_options(parser)
    parser.add_argument(
        '--hand-model', type=Path, metavar='FILE', help='MANO .pkl or .npz; default: the open hand model'
    )
    parser.set_defaults(command=adapt)


def adapt(arguments: argparse.Namespace) -> int:
    """Adapt, and say what came of it. Returns 1 where SIGTERM ended it early."""
    try:
        import torch

        from hand_mesh_ros.networks.mask2hand import MASK2HAND_PATH, load_mask2hand
        from hand_mesh_ros.training.adaptation import (
            AdaptationConfiguration,
            AdaptationObjective,
            MaskCrops,
            adapt_mask2hand,
        )
        from hand_mesh_ros.training.configuration import load_configuration
        from hand_mesh_ros.training.processes import process_group
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"adapting needs {error.name}: pip install 'hand-mesh-ros[train]'"
        ) from error
    configuration = AdaptationConfiguration()
    if arguments.config is not None:
        configuration = load_configuration(arguments.config, AdaptationConfiguration)
    if arguments.steps is not None:
        configuration = replace(configuration, loop=replace(configuration.loop, steps=arguments.steps))
    model = load_hand_model(arguments.hand_model)
    weights: Path = arguments.weights or MASK2HAND_PATH
    size = load_mask2hand(weights)[0].configuration.image_size
    found = collect_masks(tqdm(_pictures(arguments), unit='mask', disable=None), size, arguments.side)
    _report(found, arguments)
    crops = MaskCrops(torch.from_numpy(found.crops)[:, None], torch.from_numpy(found.half_sides))
    with process_group() as group:
        objective = AdaptationObjective(configuration, crops, model, group.device, weights)
        before = objective.judged(weights)
        if not adapt_mask2hand(objective, arguments.out, group, arguments.resume):
            print(f'ended early: --resume goes on from {arguments.out}')
            return 1
        if group.is_first:
            best = arguments.out / 'best.safetensors'
            _report_gain(before, objective.judged(best), objective.held_out)
            side = '' if arguments.side == 'right' else f' --side {arguments.side}'
            print(f'use it: hand-mesh run --method mask2hand --weights {best}{side}')
    return 0


def _pictures(arguments: argparse.Namespace) -> Iterator[MaskPicture | Unusable]:
    camera_of = CameraChoice(arguments)
    if is_bag(arguments.source):
        if arguments.cameras is not None:
            raise ConfigurationError('--cameras is of pictures; of a bag --camera takes the intrinsics')
        return masks_in_bag(arguments.source, camera_of, arguments.topic, arguments.camera is None)
    if arguments.topic is not None:
        raise ConfigurationError(f'--topic is of a bag, and {arguments.source} is none')
    return masks_in_folder(arguments.source, camera_of, [arguments.out])


def _report(found: CollectedMasks, arguments: argparse.Namespace) -> None:
    print(
        f'{len(found.crops)} hands in {found.pictures} masks, {len(found.handless)} of them without a hand; '
        f'{len(found.unusable)} could not be read'
    )
    _name([f'{name}: nothing in it looks like a hand' for name in found.handless])
    _name(found.unusable)
    if found.guessed:
        print(
            f'{found.guessed} masks without intrinsics: a field of view of {arguments.fov:g} degrees is '
            'guessed (see --camera, --cameras)'
        )


def _name(problems: list[str] | tuple[str, ...]) -> None:
    for problem in problems[:_NAMED]:
        print(f'hand-mesh: {problem}', file=sys.stderr)
    if len(problems) > _NAMED:
        print(f'hand-mesh: and {len(problems) - _NAMED} more such', file=sys.stderr)


def _report_gain(before: dict[str, float], after: dict[str, float], held_out: int) -> None:
    print(
        f'overlap of hands and the {held_out} masks that were held out: '
        f'{before["overlap"]:.3f} before, {after["overlap"]:.3f} after'
    )
    name = 'synthetic_keypoint_mm'
    if name in after:
        print(
            f'error of keypoints on synthetic masks: {before[name]:.1f} mm before, {after[name]:.1f} mm after'
        )
    if after['overlap'] <= before['overlap']:
        print('that is no gain: keep the weights that you had, or try --steps and --config')
