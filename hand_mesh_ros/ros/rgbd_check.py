"""How near hands come to the truth on the way through all nodes: a rendered RGB-D clip, played over DDS.

Run as ``python -m hand_mesh_ros.ros.rgbd_check --out DIR [--weights FILE]``. It renders a clip (colour, depth
with a camera's errors, true masks, truth), plays it with hand_mesh_player, lets hand_mask_node make masks of
the depth and hand_mesh_node hands of masks or colour, each with and without depth, and compares what was
recorded with the truth.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from hand_mesh_ros.datasets.rgbd_clip import RgbdClip, render_rgbd_clip
from hand_mesh_ros.depth_files import read_mask
from hand_mesh_ros.errors import HandMeshError
from hand_mesh_ros.msg import HandMesh, HandMeshArray, HandModelInfo
from hand_mesh_ros.ros.bags import Stamp, read_bag, report, stamp_of
from hand_mesh_ros.ros.messages import SIDE_VALUES
from hand_mesh_ros.ros.outputs import LATCHED_QOS, OUTPUT_QOS
from hand_mesh_ros.ros.processes import last_line, node_process, own_domain, spin_for, wait_for_quiet
from hand_mesh_ros.ros.recorder import BagRecorder, Topic

_NAMESPACE = '/check'
_HANDS, _MASK = 'hand_mesh/hands', 'hand_mask'
_TOPICS = (
    Topic('camera_info', CameraInfo, OUTPUT_QOS),
    Topic(_HANDS, HandMeshArray, OUTPUT_QOS),
    Topic('hand_mesh/info', HandModelInfo, LATCHED_QOS),
    Topic(_MASK, Image, OUTPUT_QOS),
    Topic('/diagnostics', DiagnosticArray, OUTPUT_QOS),
)
_NODE_START_S = 120.0
#: Of the 21 keypoints: the wrist, and the tips from thumb to little finger.
_WRIST, _TIPS = [0], [4, 8, 12, 16, 20]


class CheckError(HandMeshError):
    """A run did not do what it is to measure."""


@dataclass(frozen=True)
class Run:
    """One way through the nodes."""

    method: str
    with_depth: bool
    of_masks: bool

    @property
    def name(self) -> str:
        """For tables and folders."""
        return f'{self.method}{" + depth" if self.with_depth else ""}'

    @property
    def listeners(self) -> int:
        """How many nodes subscribe to what is looked at first: to depth for masks, to images else."""
        return 2 if self.of_masks and self.with_depth else 1


@dataclass(frozen=True)
class Row:
    """What came out of a run."""

    run: Run
    frames: int  #: that were sent
    answered: int  #: whose hands were published
    with_hand: int  #: in which the hand that was shown is among them
    measured: int  #: of which depth said where they are
    wrist_mm: np.ndarray  #: (N,) distances from the truth, in the camera's frame, of all frames with a hand
    tips_mm: np.ndarray  #: (5 N,)
    latency_ms: tuple[float, float]  #: median and 95th percentile, from stamp to arrival of the hands
    mask_iou: np.ndarray  #: (M,) of published masks and true ones; empty where no masks were made
    drops: dict[str, int]

    def cells(self) -> list[str]:
        """For a table."""
        return [
            self.run.name,
            f'{self.answered} of {self.frames}',
            f'{self.with_hand}, {self.measured} by depth',
            _spread(self.wrist_mm),
            _spread(self.tips_mm),
            '{:.0f} / {:.0f}'.format(*self.latency_ms),
            f'{np.median(self.mask_iou):.3f} / {self.mask_iou.mean():.3f}' if len(self.mask_iou) else '-',
            ', '.join(f'{count} {reason}' for reason, count in sorted(self.drops.items())) or '-',
        ]


_HEADINGS = (
    'way',
    'frames answered',
    'with a hand',
    'wrist mm, median / p90',
    'fingertips mm, median / p90',
    'latency ms, p50 / p95',
    'mask IoU, median / mean',
    'dropped by hand_mesh',
)
_RUNS = (
    Run('mask2hand', True, True),
    Run('mask2hand', False, True),
    Run('maskhand', True, False),
    Run('maskhand', False, False),
)


def check(
    out: Path,
    mask_weights: Path | None,
    image_weights: Path | None,
    runs: Sequence[Run] = _RUNS,
    *,
    seconds: float = 8.0,
    fps: float = 10.0,
    rate_hz: float = 4.0,
    seed: int = 0,
) -> list[Row]:
    """Render a clip to ``out``/clip, play it once for each of ``runs``, compare with the truth.

    :param mask_weights: of mask2hand; None for those of the package.
    :param image_weights: of maskhand; None for those of the package.
    :param fps: frames of a second of the film.
    :param rate_hz: frames that are played in a second.
    :raises HandMeshError: a node that did not run; says why.
    """
    clip = render_rgbd_clip(out / 'clip', seconds=seconds, fps=fps, seed=seed)
    rows = []
    for run in runs:
        folder = out / run.name.replace(' + ', '_')
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with own_domain():
            _play(clip, run, folder, mask_weights if run.of_masks else image_weights, rate_hz)
        rows.append(_compare(clip, run, folder / 'bag'))
    return rows


def _play(clip: RgbdClip, run: Run, folder: Path, weights: Path | None, rate_hz: float) -> None:
    """Record to ``folder``/bag what the nodes make of the clip."""
    parameters = {'method': run.method, 'use_depth': json.dumps(run.with_depth), 'max_hands': '1'}
    if weights is not None:
        parameters['weights_path'] = json.dumps(str(weights.resolve()))
    player = {
        'source': json.dumps(str(clip.images)),
        'depth': json.dumps(str(clip.depth)),
        'cameras_file': json.dumps(str(clip.cameras)),
        'rate_hz': str(rate_hz),
        'subscribers': '2' if run.of_masks and run.with_depth else '1',  # to images or depth
        'wait_for_subscribers_s': '20.0',
    }
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    watcher = Node('recorder', namespace=_NAMESPACE)
    try:
        with BagRecorder(watcher, folder / 'bag', _TOPICS) as recorder, ExitStack() as nodes:
            logs = {'hand_mesh': folder / 'hand_mesh.log'}
            running = {
                'hand_mesh': nodes.enter_context(
                    node_process(
                        'hand_mesh_ros.ros.node', _NAMESPACE, parameters, logs['hand_mesh'], {'mask': _MASK}
                    )
                )
            }
            if run.of_masks:
                logs['hand_mask'] = folder / 'hand_mask.log'
                running['hand_mask'] = nodes.enter_context(
                    node_process(
                        'hand_mesh_ros.ros.mask_node', _NAMESPACE, {'max_hands': '1'}, logs['hand_mask']
                    )
                )
            print(f'{run.name}: starting', flush=True)

            def dead() -> list[str]:
                return [name for name, process in running.items() if process.poll() is not None]

            def are_ready() -> bool:
                asks = watcher.count_subscribers('depth' if run.of_masks else 'image')
                return recorder.counts['hand_mesh/info'] > 0 and asks >= run.listeners

            spin_for(watcher, _NODE_START_S, lambda: are_ready() or bool(dead()))
            if not are_ready():
                name = next(iter(dead()), 'hand_mesh')
                raise CheckError(f'{name} did not start: {last_line(logs[name])}')
            print(f'{run.name}: playing', flush=True)
            _run_player(watcher, player, folder / 'player.log', dead)
            wait_for_quiet(watcher, recorder, _HANDS)
            for name in dead():
                raise CheckError(f'{name} ended by itself: {last_line(logs[name])}')
    finally:
        watcher.destroy_node()
        rclpy.try_shutdown()


def _run_player(watcher: Node, parameters: dict[str, str], log: Path, dead: Callable[[], list[str]]) -> None:
    with node_process('hand_mesh_ros.ros.player', _NAMESPACE, parameters, log) as player:
        spin_for(watcher, None, lambda: player.poll() is not None or bool(dead()))
    if player.returncode != 0:
        raise CheckError(f'the player failed: {last_line(log)}')


def _compare(clip: RgbdClip, run: Run, bag: Path) -> Row:
    truth = np.load(clip.truth, allow_pickle=False)
    frames = len(truth['keypoints_3d'])
    stamps = [stamp_of(message) for _, _, message in read_bag(bag, '/camera_info')]
    # What the recorder missed are the first ones, before it and the player knew of each other
    frame_of = {stamp: frames - len(stamps) + number for number, stamp in enumerate(stamps)}
    side = SIDE_VALUES['left' if str(truth['sides'][0]) == 'left' else 'right']
    errors, answered, measured = [], 0, 0
    for _, _, message in read_bag(bag, '/hands'):
        answered += 1
        number = frame_of.get(stamp_of(message))
        if number is None:
            continue
        if hand := next((hand for hand in message.hands if hand.side == side), None):
            measured += int(hand.scale_source == HandMesh.SCALE_DEPTH)
            keypoints = np.array(hand.keypoints_3d, np.float64).reshape(21, 3)
            errors.append(1e3 * np.linalg.norm(keypoints - truth['keypoints_3d'][number, 0], axis=1))
    table = np.array(errors).reshape(-1, 21)
    of_run = report(bag, f'{_NAMESPACE}/hand_mesh')
    return Row(
        run=run,
        frames=frames,
        answered=answered,
        with_hand=len(table),
        measured=measured,
        wrist_mm=table[:, _WRIST].ravel(),
        tips_mm=table[:, _TIPS].ravel(),
        latency_ms=of_run.latency_ms,
        mask_iou=np.array(list(_mask_ious(clip, bag, frame_of))),
        drops=of_run.drops,
    )


def _mask_ious(clip: RgbdClip, bag: Path, frame_of: dict[Stamp, int]) -> Iterator[float]:
    files = sorted(clip.masks.glob('*.png'))
    for _, _, message in read_bag(bag, f'/{_MASK}'):
        mask = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width) > 0
        if (number := frame_of.get(stamp_of(message))) is not None:
            true = read_mask(files[number])
            yield float((mask & true).sum() / max((mask | true).sum(), 1))


def _spread(errors_mm: np.ndarray) -> str:
    return '{:.1f} / {:.1f}'.format(*np.percentile(errors_mm, [50, 90])) if len(errors_mm) else '-'


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    lines = [_HEADINGS, ['---'] * len(_HEADINGS), *(row.cells() for row in rows)]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def main() -> int:
    """Command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, help='folder for the clip and what is recorded')
    parser.add_argument('--weights', type=Path, help='of mask2hand; else those of the package')
    parser.add_argument('--maskhand-weights', type=Path, help='of maskhand; else those of the package')
    parser.add_argument('--seconds', type=float, default=8.0, help='length of the film')
    parser.add_argument('--fps', type=float, default=10.0, help='frames of a second of the film')
    parser.add_argument('--rate', type=float, default=4.0, help='frames that are played in a second')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--runs', nargs='+', choices=[run.name for run in _RUNS], help='some of the ways only'
    )
    arguments = parser.parse_args()
    runs = [run for run in _RUNS if arguments.runs is None or run.name in arguments.runs]
    try:
        rows = check(
            arguments.out,
            arguments.weights,
            arguments.maskhand_weights,
            runs,
            seconds=arguments.seconds,
            fps=arguments.fps,
            rate_hz=arguments.rate,
            seed=arguments.seed,
        )
    except HandMeshError as error:
        print(error, file=sys.stderr)
        return 1
    print(as_markdown(rows))
    return 0


if __name__ == '__main__':
    sys.exit(main())
