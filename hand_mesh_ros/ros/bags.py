"""What a recorded bag says of a run: rates, delays, hands, drops, and pictures of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import Reader

from hand_mesh_ros.camera import DEFAULT_FOV_DEG
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.rendering.overlay import draw_hands
from hand_mesh_ros.ros.camera_info import camera_for_image
from hand_mesh_ros.ros.messages import SIDE_NAMES, hand_from_message
from hand_mesh_ros.ros.recorder import message_types

#: Seconds and nanoseconds of a header.
Stamp = tuple[int, int]


@dataclass(frozen=True)
class RunReport:
    """A run of the node, as recorded."""

    frames_in: int  #: images that were sent
    frames_out: int  #: images whose hands were published
    input_hz: float
    output_hz: float
    latency_ms: tuple[float, float]  #: median and 95th percentile, from stamp to arrival of the hands
    hands: dict[str, int]  #: hands published, by side
    frames_with_hands: int
    drops: dict[str, int]  #: images that the node dropped, by reason

    def table(self) -> str:
        """The report for people to read."""
        share = self.frames_out / self.frames_in if self.frames_in else 0.0
        sides = ', '.join(f'{count} {side}' for side, count in sorted(self.hands.items())) or 'none'
        drops = ', '.join(f'{count} {reason}' for reason, count in sorted(self.drops.items())) or 'none'
        rows = {
            'frames sent': f'{self.frames_in} at {self.input_hz:.1f} Hz',
            'frames out': f'{self.frames_out} at {self.output_hz:.1f} Hz ({share:.0%})',
            'latency': 'p50 {:.1f} ms, p95 {:.1f} ms (stamp to arrival of hands)'.format(*self.latency_ms),
            'hands seen': f'{sum(self.hands.values())} ({sides}), in {self.frames_with_hands} frames',
            'dropped by the node': drops,
        }
        width = max(map(len, rows))
        return '\n'.join(f'{name:<{width}}  {value}' for name, value in rows.items())


def read_bag(path: Path, *suffixes: str) -> Iterator[tuple[str, int, Any]]:
    """Messages of the topics whose names end so: suffix, time of arrival in nanoseconds, message."""
    typestore = message_types()
    with Reader(path) as reader:
        suffix_of = {
            connection.topic: suffix
            for connection in reader.connections
            for suffix in suffixes
            if connection.topic.endswith(suffix)
        }
        wanted = [connection for connection in reader.connections if connection.topic in suffix_of]
        for connection, time_ns, data in reader.messages(wanted):
            yield suffix_of[connection.topic], time_ns, typestore.deserialize_cdr(data, connection.msgtype)


def report(path: Path, node: str) -> RunReport:
    """Read the bag of a run and count; ``node`` is the full name of the one that it is of."""
    sent_ns: list[int] = []
    out_ns: list[int] = []
    latency_ms: list[float] = []
    hands: Counter[str] = Counter()
    frames_with_hands = 0
    drops: dict[str, int] = {}
    for topic, time_ns, message in read_bag(path, '/hands', '/camera_info', '/diagnostics'):
        if topic == '/camera_info':
            sent_ns.append(time_ns)
        elif topic == '/hands':
            out_ns.append(time_ns)
            stamp = message.header.stamp
            latency_ms.append((time_ns - stamp.sec * 10**9 - stamp.nanosec) * 1e-6)
            hands.update(SIDE_NAMES[hand.side] for hand in message.hands)
            frames_with_hands += bool(message.hands)
        else:
            prefix = 'dropped: '
            own = [status for status in message.status if status.name.startswith(f'{node}:')]
            values = {entry.key: entry.value for status in own for entry in status.values}
            drops |= {k.removeprefix(prefix): int(v) for k, v in values.items() if k.startswith(prefix)}
    median, p95 = np.percentile(latency_ms, [50, 95]) if latency_ms else (np.nan, np.nan)
    return RunReport(
        frames_in=len(sent_ns),
        frames_out=len(out_ns),
        input_hz=_rate_hz(sent_ns),
        output_hz=_rate_hz(out_ns),
        latency_ms=(float(median), float(p95)),
        hands=dict(hands),
        frames_with_hands=frames_with_hands,
        drops=drops,
    )


def write_overlays(
    path: Path, folder: Path, models: Mapping[Side, HandModel], faces: Mapping[Side, np.ndarray], count: int
) -> list[Path]:
    """Draw the hands of a bag over its images, as PNGs: ``count`` of them, spread over the run."""
    stamps = [stamp_of(message) for _, _, message in read_bag(path, '/hands') if message.hands]
    wanted = {stamps[i] for i in np.linspace(0, len(stamps) - 1, min(count, len(stamps))).astype(int)}
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[Stamp, dict[str, Any]] = {stamp: {} for stamp in wanted}
    written = []
    for topic, _, message in read_bag(path, '/hands', '/camera_info', '/image/compressed'):
        stamp = stamp_of(message)
        if stamp not in parts:
            continue
        parts[stamp][topic] = message
        if len(parts[stamp]) == 3:
            name = folder / f'{stamp[0]}_{stamp[1]:09d}.png'
            cv2.imwrite(str(name), _overlay(parts.pop(stamp), models, faces))
            written.append(name)
    return written


def _overlay(
    parts: Mapping[str, Any], models: Mapping[Side, HandModel], faces: Mapping[Side, np.ndarray]
) -> np.ndarray:
    """Picture (H,W,3) uint8 BGR of one image with its hands."""
    image = cv2.cvtColor(cv2.imdecode(parts['/image/compressed'].data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    camera, _ = camera_for_image(parts['/camera_info'], width, height, False, DEFAULT_FOV_DEG)
    hands = [hand_from_message(message, models) for message in parts['/hands'].hands]
    return cv2.cvtColor(draw_hands(image, hands, faces, camera), cv2.COLOR_RGB2BGR)


def stamp_of(message: Any) -> Stamp:
    """Of the header of a message that was read from a bag."""
    return message.header.stamp.sec, message.header.stamp.nanosec


def _rate_hz(times_ns: list[int]) -> float:
    return (len(times_ns) - 1) / ((times_ns[-1] - times_ns[0]) * 1e-9) if len(times_ns) > 1 else 0.0
