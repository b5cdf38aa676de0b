"""The node measured over DDS: frames played to it at a camera's rate, in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo

from hand_mesh_ros.benchmark.footage import Footage
from hand_mesh_ros.msg import HandMeshArray, HandModelInfo
from hand_mesh_ros.ros.bags import read_bag, report
from hand_mesh_ros.ros.demo import NODE, record_run
from hand_mesh_ros.ros.outputs import LATCHED_QOS, OUTPUT_QOS
from hand_mesh_ros.ros.processes import own_domain
from hand_mesh_ros.ros.recorder import Topic

_RATE_HZ = 30.0

#: So long the frames are played, forth and back.
_SECONDS = 8.0

_TOPICS = (
    Topic('camera_info', CameraInfo, OUTPUT_QOS),
    Topic('hand_mesh/hands', HandMeshArray, OUTPUT_QOS),
    Topic('hand_mesh/info', HandModelInfo, LATCHED_QOS),
    Topic('/diagnostics', DiagnosticArray, OUTPUT_QOS),
)

#: Of what the node says of a second; the first one is still of its start.
_P50, _P95 = ' p50 (ms)', ' p95 (ms)'
_SKIPPED = 1


def node_figures(
    footage: Footage,
    folder: Path,
    parameters: Mapping[str, object],
    transport: str = 'raw',
    seconds: float = _SECONDS,
) -> dict[str, Any]:
    """Play the frames once to a node that is started for it.

    As JSON holds it: ``frames_in``, ``frames_out``, ``input_hz``, ``output_hz``, ``latency_ms`` (median and
    95th percentile, from a frame's stamp to the arrival of its hands), ``drops`` by reason, ``said``, a table
    of these for people, and ``stages_ms``, median and 95th percentile by stage, each the median over the
    seconds of the run of what the node says of them: "own" is all that it does to a frame but detection and
    network.

    :param folder: for the frames, the bag and what the processes say.
    :param parameters: of the node, by name, besides its transport.
    :param transport: ``raw`` or ``compressed``.
    :param seconds: of the film: the node tells its times once a second.
    :raises HandMeshError: a process that did not do its part; says why.
    """
    frames = folder / 'frames'
    frames.mkdir(parents=True)
    forth_and_back = [*footage.frames, *footage.frames[-2:0:-1]]
    count = round(seconds * _RATE_HZ)
    for number, frame in zip(range(count), cycle(forth_and_back), strict=False):
        (frames / f'{number:06d}.jpg').write_bytes(frame)
    camera = footage.camera
    player = {
        'source': json.dumps(str(frames.resolve())),
        'rate_hz': str(_RATE_HZ),
        'camera': json.dumps([camera.fx, camera.fy, camera.cx, camera.cy]),
        'subscribers': '1',
        'wait_for_subscribers_s': '20.0',
    }
    node = {name: json.dumps(value) for name, value in parameters.items()}
    with own_domain():
        record_run(folder, {**node, 'image_transport': transport}, player, None, _TOPICS)
    # Of the first frames the recorder may miss that they were sent
    run = replace(report(folder / 'bag', NODE), frames_in=count)
    return {
        'transport': transport,
        'frames_in': run.frames_in,
        'frames_out': run.frames_out,
        'input_hz': run.input_hz,
        'output_hz': run.output_hz,
        'latency_ms': run.latency_ms,
        'drops': run.drops,
        'said': run.table(),
        'stages_ms': _stages(folder / 'bag'),
    }


def _stages(bag: Path) -> dict[str, tuple[float, float]]:
    said: dict[str, list[tuple[float, float]]] = {}
    for _, _, message in read_bag(bag, '/diagnostics'):
        for status in message.status:
            values = {entry.key: entry.value for entry in status.values}
            for key in values if status.name.startswith(f'{NODE}:') else ():
                if key.endswith(_P50) and 'nan' not in values[key]:
                    stage = key.removesuffix(_P50)
                    said.setdefault(stage, []).append((float(values[key]), float(values[stage + _P95])))
    return {stage: _medians(pairs[_SKIPPED:] or pairs) for stage, pairs in said.items()}


def _medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    median, p95 = np.median(np.array(pairs), axis=0)
    return float(median), float(p95)
