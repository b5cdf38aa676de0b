"""``hand-mesh demo``: a stream played through the node over DDS; a bag, pictures and a table come out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from hand_mesh_ros.datasets.demo_clip import render_demo_clip
from hand_mesh_ros.errors import HandMeshError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.msg import HandMeshArray, HandModelInfo
from hand_mesh_ros.ros.bags import report, write_overlays
from hand_mesh_ros.ros.outputs import LATCHED_QOS, OUTPUT_QOS, TF_QOS
from hand_mesh_ros.ros.processes import last_line, node_process, own_domain, spin_for, wait_for_quiet
from hand_mesh_ros.ros.recorder import BagRecorder, Topic
from hand_mesh_ros.sources import list_sources

_NAMESPACE = '/demo'
#: Full name of the node.
NODE = f'{_NAMESPACE}/hand_mesh'
_TOPICS = (
    Topic('image/compressed', CompressedImage, OUTPUT_QOS),
    Topic('camera_info', CameraInfo, OUTPUT_QOS),
    Topic('hand_mesh/hands', HandMeshArray, OUTPUT_QOS),
    Topic('hand_mesh/info', HandModelInfo, LATCHED_QOS),
    Topic('hand_mesh/markers', MarkerArray, OUTPUT_QOS),
    Topic('/tf', TFMessage, TF_QOS),
    Topic('/diagnostics', DiagnosticArray, OUTPUT_QOS),
)
_OVERLAYS = 24
_NODE_START_S = 60.0
#: A webcam has no end of its own.
_WEBCAM_S = 20.0


class DemoError(HandMeshError):
    """The demo ran and did not do what it is to show."""


def run_demo(source: str | None, out: Path, method: str, weights: Path | None) -> int:
    """Play ``source`` through the node; write ``out``/bag and ``out``/overlays, print a table.

    :param source: an image, a video, a folder of both or the number of a webcam (for 20 s); None renders
        a clip of moving hands.
    :param out: a folder; what an earlier demo left there is replaced.
    :param method: of the node.
    :param weights: of that method; None for those of the package.
    :return: 0.
    :raises HandMeshError: a source that is none, or nothing came out; says why.
    """
    for name in ('bag', 'overlays'):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    player_parameters = {'subscribers': '2', **_player_parameters(source, out)}  # the node and the recorder
    node_parameters = {'method': method}
    if weights is not None:
        node_parameters['weights_path'] = json.dumps(str(weights.resolve()))
    seconds = None if source is None or not source.isdecimal() else _WEBCAM_S
    with own_domain():
        record_run(out, node_parameters, player_parameters, seconds)
    result = report(out / 'bag', NODE)
    if result.frames_in == 0 or result.frames_out == 0:
        raise DemoError(
            f'{result.frames_in} images were sent and the hands of {result.frames_out} came back; '
            f'the node last said: {last_line(out / "node.log")}'
        )
    sides: tuple[Side, ...] = ('right', 'left')
    models = {side: load_hand_model(None, side) for side in sides}
    faces = {side: model.faces for side, model in models.items()}
    pictures = write_overlays(out / 'bag', out / 'overlays', models, faces, _OVERLAYS)
    print(result.table())
    print(f'bag       {out / "bag"} (open it in Foxglove, or: ros2 bag play)')
    print(f'overlays  {len(pictures)} in {out / "overlays"}')
    return 0


def _player_parameters(source: str | None, out: Path) -> dict[str, str]:
    if source is not None:
        if not source.isdecimal():
            list_sources([Path(source)])  # tells at once if there is nothing to play
            source = str(Path(source).resolve())
        return {'source': json.dumps(source)}  # quoted: as YAML, a webcam's number would be a number
    print('rendering a clip of moving hands')
    clip = render_demo_clip(out / 'clip.mp4')
    return {'source': str(clip.video), 'cameras_file': str(clip.cameras)}


def record_run(
    out: Path,
    node_parameters: Mapping[str, str],
    player_parameters: Mapping[str, str],
    seconds: float | None = None,
    topics: Sequence[Topic] = _TOPICS,
) -> None:
    """Run node and player, record to ``out``/bag what they publish; both have ended when this returns.

    :param seconds: to end the player after; None to let it play to its end.
    :raises DemoError: one of them did not do its part; says why.
    """
    node_log, player_log = out / 'node.log', out / 'player.log'
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    recorder_node = Node('recorder', namespace=_NAMESPACE)
    try:
        with (
            BagRecorder(recorder_node, out / 'bag', topics) as recorder,
            node_process('hand_mesh_ros.ros.node', _NAMESPACE, node_parameters, node_log) as node,
        ):
            print('starting the node')

            def node_is_ready() -> bool:
                return recorder.counts['hand_mesh/info'] > 0

            spin_for(recorder_node, _NODE_START_S, lambda: node_is_ready() or node.poll() is not None)
            if not node_is_ready():
                raise DemoError(f'the node did not start: {last_line(node_log)}')
            with node_process(
                'hand_mesh_ros.ros.player', _NAMESPACE, player_parameters, player_log
            ) as player:
                print('playing')
                spin_for(recorder_node, seconds, lambda: player.poll() is not None or node.poll() is not None)
            wait_for_quiet(recorder_node, recorder, 'hand_mesh/hands')
            if node.poll() is not None:
                raise DemoError(f'the node ended by itself: {last_line(node_log)}')
    finally:
        recorder_node.destroy_node()
        rclpy.try_shutdown()
    if player.returncode != 0:
        raise DemoError(f'the player failed: {last_line(player_log)}')
