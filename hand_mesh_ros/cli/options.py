"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from hand_mesh_ros.estimator import HandMeshEstimator
from hand_mesh_ros.inference.engine import BACKENDS, PRECISIONS
from hand_mesh_ros.inference.network import DEFAULT_STEPS, MAX_STEPS, MIN_STEPS
from hand_mesh_ros.reconstruction import METHODS, REFINEMENTS
from hand_mesh_ros.tracking.tracker import DETECT_EVERY


def add_estimator_options(parser: argparse.ArgumentParser) -> None:
    """Options of HandMeshEstimator."""
    group = parser.add_argument_group('reconstruction')
    add_method_options(group)
    add_model_options(group)
    group.add_argument(
        '--sampling-steps',
        type=int,
        default=DEFAULT_STEPS,
        metavar='N',
        help=f'of maskhand: iterations of the sampling of a pose, {MIN_STEPS} to {MAX_STEPS} '
        '(default: %(default)s)',
    )
    group.add_argument(
        '--backend',
        choices=BACKENDS,
        default=BACKENDS[0],
        help='what runs the networks; auto takes the fastest that works (default: %(default)s)',
    )
    group.add_argument(
        '--precision',
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="of TensorRT's engines (default: %(default)s)",
    )
    group.add_argument(
        '--threads',
        type=int,
        default=0,
        metavar='N',
        help='of the networks on the CPU (default: one each core)',
    )
    group.add_argument('--max-hands', type=int, default=2, metavar='N', help='default: %(default)s')
    group.add_argument(
        '--detect-every',
        type=int,
        default=DETECT_EVERY,
        metavar='N',
        help='of maskhand, in videos: while hands are followed, others are searched for in one frame of so '
        'many (default: %(default)s)',
    )
    group.add_argument(
        '--min-score',
        type=float,
        default=0.5,
        metavar='S',
        help='detections below are left out (default: %(default)s)',
    )
    group.add_argument(
        '--side',
        choices=('left', 'right'),
        default='right',
        help='of mask2hand: side of hands without a box, as a mask does not tell it (default: %(default)s)',
    )
    group.add_argument(
        '--refinement',
        choices=REFINEMENTS,
        default=REFINEMENTS[0],
        help='of mask2hand without depth: how a hand is made to fill its mask; vertices moves these alone, '
        'which parameters then give no longer (default: %(default)s)',
    )
    group.add_argument(
        '--refinement-weights',
        type=Path,
        metavar='FILE',
        help='of --refinement vertices: what hand-mesh train mask2hand-refinement wrote (default: that of '
        'the package)',
    )


def add_method_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Options that say how hands are reconstructed."""
    parser.add_argument(
        '--method',
        choices=METHODS,
        default=METHODS[0],
        help='maskhand is a network; fit is the baseline without one; mask2hand, another network, sees masks '
        'or depth images only (default: %(default)s)',
    )
    parser.add_argument(
        '--weights',
        type=Path,
        metavar='FILE',
        help='of the networks: what hand-mesh train wrote (default: the weights of the package)',
    )


def add_model_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Options that say which hand is fitted."""
    parser.add_argument(
        '--hand-model',
        type=Path,
        metavar='FILE',
        help='your MANO_RIGHT.pkl, or an npz with its fields (default: the open hand model of the package)',
    )
    parser.add_argument(
        '--hand-length',
        type=float,
        metavar='M',
        help='length of the hands, wrist to tip of the middle finger, in metres (default: a mean hand)',
    )


def make_estimator(
    arguments: argparse.Namespace, *, streaming: bool, smoothing: bool = False
) -> HandMeshEstimator:
    """The estimator that the options of :func:`add_estimator_options` ask for."""
    return HandMeshEstimator(
        arguments.method,
        hand_model=arguments.hand_model,
        weights=arguments.weights,
        sampling_steps=arguments.sampling_steps,
        backend=arguments.backend,
        precision=arguments.precision,
        threads=arguments.threads,
        max_hands=arguments.max_hands,
        min_score=arguments.min_score,
        detect_every=arguments.detect_every,
        streaming=streaming,
        smoothing=smoothing,
        hand_length_m=arguments.hand_length,
        side=arguments.side,
        refinement=arguments.refinement,
        refinement_weights=arguments.refinement_weights,
    )


def camera_numbers(text: str) -> tuple[float, float, float, float]:
    """``fx,fy,cx,cy`` as numbers, for argparse."""
    try:
        fx, fy, cx, cy = (float(part) for part in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not four numbers fx,fy,cx,cy') from None
    return fx, fy, cx, cy
