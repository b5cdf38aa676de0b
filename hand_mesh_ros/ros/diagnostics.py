"""What the node says of itself: rates, drops, delays, and what seems to be wrong."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

#: An older image comes from a bag that is played without its clock: that says nothing of delays.
_LONGEST_LATENCY_MS = 3.6e6
#: What each transport of images takes.
_IMAGE_TYPES = {'raw': 'sensor_msgs/msg/Image', 'compressed': 'sensor_msgs/msg/CompressedImage'}


@dataclass(frozen=True)
class Snapshot:
    """Counts since the start, and rates and times since the snapshot before."""

    frames_in: int
    frames_out: int
    drops: dict[str, int]  #: by reason
    input_hz: float
    output_hz: float
    new_drops: dict[str, int]
    lacks: dict[str, int]  #: frames that were looked at without something, by what was not there
    new_lacks: dict[str, int]
    inference_ms: tuple[float, float]  #: median and 95th percentile; NaN where there was no frame
    latency_ms: tuple[float, float]  #: the same, from the image's stamp to the publishing of its hands
    #: the same, by stage, of frames with a hand; "own" is all that was done to one but detection and network
    stages_ms: dict[str, tuple[float, float]]


class Statistics:
    """Counts the frames of a stream. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames_in = 0
        self._frames_out = 0
        self._drops: Counter[str] = Counter()
        self._lacks: Counter[str] = Counter()
        self._last_frame_s = time.monotonic()
        self._start_window()

    def frame_in(self) -> None:
        """An image came."""
        with self._lock:
            self._frames_in += 1
            self._last_frame_s = time.monotonic()

    def frame_out(
        self, inference_ms: float, latency_ms: float, stages_ms: Mapping[str, float] | None = None
    ) -> None:
        """The hands of an image were published; ``stages_ms`` by stage, where there was a hand."""
        with self._lock:
            self._frames_out += 1
            self._inference_ms.append(inference_ms)
            for stage, spent_ms in (stages_ms or {}).items():
                self._stages_ms.setdefault(stage, []).append(spent_ms)
            if abs(latency_ms) < _LONGEST_LATENCY_MS:
                self._latency_ms.append(latency_ms)

    def drop(self, reason: str) -> None:
        """An image was not looked at, or nothing was published of it."""
        with self._lock:
            self._drops[reason] += 1

    def lack(self, what: str) -> None:
        """An image is looked at without something that should belong to it."""
        with self._lock:
            self._lacks[what] += 1

    @property
    def silence_s(self) -> float:
        """Seconds since the last image came, or since the start."""
        with self._lock:
            return time.monotonic() - self._last_frame_s

    def snapshot(self) -> Snapshot:
        """What was counted; starts the next window."""
        with self._lock:
            duration = max(time.monotonic() - self._window_start_s, 1e-3)
            snapshot = Snapshot(
                frames_in=self._frames_in,
                frames_out=self._frames_out,
                drops=dict(self._drops),
                input_hz=(self._frames_in - self._window_in) / duration,
                output_hz=(self._frames_out - self._window_out) / duration,
                new_drops=dict(self._drops - self._window_drops),
                lacks=dict(self._lacks),
                new_lacks=dict(self._lacks - self._window_lacks),
                inference_ms=_median_and_p95(self._inference_ms),
                latency_ms=_median_and_p95(self._latency_ms),
                stages_ms={stage: _median_and_p95(spent) for stage, spent in self._stages_ms.items()},
            )
            self._start_window()
            return snapshot

    def _start_window(self) -> None:
        self._window_start_s = time.monotonic()
        self._window_in = self._frames_in
        self._window_out = self._frames_out
        self._window_drops = self._drops.copy()
        self._window_lacks = self._lacks.copy()
        self._inference_ms: list[float] = []
        self._latency_ms: list[float] = []
        self._stages_ms: dict[str, list[float]] = {}


def silence_hint(topic: str, transport: str, qos: QoSProfile, publishers: Sequence[TopicEndpointInfo]) -> str:
    """Why no image may be coming on ``topic``: what a person would look at first.

    :param transport: the image_transport that the subscription is for: raw or compressed.
    :param qos: that of the subscription.
    :param publishers: who publishes on ``topic``.
    """
    if not publishers:
        return f'nobody publishes {topic}; is the camera running, is the name remapped right?'
    of_type = [publisher for publisher in publishers if publisher.topic_type == _IMAGE_TYPES[transport]]
    if not of_type:
        found = publishers[0].topic_type
        remedies = [f'; set image_transport: {name}' for name, kind in _IMAGE_TYPES.items() if kind == found]
        return f'{topic} publishes {found}, not {_IMAGE_TYPES[transport]}{"".join(remedies)}'
    verdicts = [qos_check_compatible(publisher.qos_profile, qos) for publisher in of_type]
    if all(compatibility == QoSCompatibility.ERROR for compatibility, _ in verdicts):
        return f'the QoS of who publishes {topic} does not fit (see qos_overrides): {verdicts[0][1]}'
    return (
        f'{topic} has {len(of_type)} publisher(s), whose type and QoS fit; do they send, '
        'and do large images get through DDS (see the Fast DDS profile in config/)?'
    )


def diagnostics_message(
    node: Node, what: str, snapshot: Snapshot, problems: list[str], state: str = 'running'
) -> DiagnosticArray:
    """The ``state`` of the node, which makes ``what``; a warning for ``problems``, one sentence each."""
    values = {
        'frames in': snapshot.frames_in,
        'frames out': snapshot.frames_out,
        'input rate (Hz)': f'{snapshot.input_hz:.1f}',
        'output rate (Hz)': f'{snapshot.output_hz:.1f}',
        'inference p50 (ms)': f'{snapshot.inference_ms[0]:.1f}',
        'inference p95 (ms)': f'{snapshot.inference_ms[1]:.1f}',
        'stamp to publish p50 (ms)': f'{snapshot.latency_ms[0]:.1f}',
        'stamp to publish p95 (ms)': f'{snapshot.latency_ms[1]:.1f}',
        **_stage_times(snapshot.stages_ms),
        **{f'dropped: {reason}': count for reason, count in sorted(snapshot.drops.items())},
        **{f'without {part}': count for part, count in sorted(snapshot.lacks.items())},
    }
    status = DiagnosticStatus(
        level=DiagnosticStatus.WARN if problems else DiagnosticStatus.OK,
        name=f'{node.get_fully_qualified_name()}: {what}',
        hardware_id='none',
        message='; '.join(problems) or state,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    message = DiagnosticArray(status=[status])
    message.header.stamp = node.get_clock().now().to_msg()
    return message


def _stage_times(stages_ms: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """None where there was no hand."""
    times: dict[str, str] = {}
    for stage, (median, p95) in stages_ms.items():
        times |= {f'{stage} p50 (ms)': f'{median:.2f}', f'{stage} p95 (ms)': f'{p95:.2f}'}
    return times


def _median_and_p95(values: list[float]) -> tuple[float, float]:
    if not values:
        return float('nan'), float('nan')
    median, p95 = np.percentile(values, [50, 95])
    return float(median), float(p95)
