"""All that was measured, as one table and as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hand_mesh_ros.benchmark.estimation import Measured
from hand_mesh_ros.benchmark.timing import ONE_HAND, Row
from hand_mesh_ros.evaluation.tables import markdown
from hand_mesh_ros.networks.shipped import MASKHAND_PATH

#: Ratios and times that are judged, with the most that they should be.
BARS = {
    'crop_to_vertices_ms': 15.0,
    'library_over_mediapipe': 1.5,
    'two_hands_over_one': 1.6,
    'node_share_ms': 3.0,
}

#: Backends by which ``ratios`` are told, the first that was measured.
_JUDGED = ('onnxruntime', 'tensorrt', 'torch')


@dataclass
class Report:
    """Filled as measurements come."""

    machine: dict[str, object]
    frames: dict[str, object]
    rows: list[Row] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  #: backend to why it was not measured
    peer: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)  #: of ``backend``
    by_backend: dict[str, dict[str, float]] = field(default_factory=dict)  #: the same of each
    backend: str | None = None
    memory: list[dict[str, str | float]] = field(default_factory=list)
    floors: list[dict[str, str | float]] = field(default_factory=list)
    node: dict[str, Any] | None = None

    def add(self, backend: str, method: str, measured: Measured) -> None:
        """What came out of one task."""
        self.rows += measured.rows
        mib: Mapping[str, float] = {f'{moment} MiB': value for moment, value in measured.memory_mib.items()}
        self.memory.append({'backend': backend, 'method': method, **mib})
        self.frames[f'hands seen, {backend} {method}'] = round(measured.hands_seen, 3)
        if measured.peer is None:
            return  # a method of masks, of which there are no ratios
        known = {name: value for name, value in measured.figures.items() if value is not None}
        self.by_backend[backend] = known
        self.backend = next(name for name in _JUDGED if name in self.by_backend)
        if self.backend == backend:
            self.ratios |= known
            self.peer = {'mediapipe_ms': measured.peer.median_ms, 'mediapipe_p95_ms': measured.peer.p95_ms}

    def add_node(self, backend: str, node: dict[str, Any]) -> None:
        """What came of the way over DDS, see ``ros.bench.node_figures``."""
        self.node = node
        stages = {f'node: {stage}': pair for stage, pair in node['stages_ms'].items()}
        self.rows += [Row(backend, 'maskhand', stage, *pair) for stage, pair in stages.items()]
        if 'node: own' in stages:
            self.ratios['node_share_ms'] = stages['node: own'][0]

    def add_floors(self, method: str, floor_ms: float) -> None:
        """The least that reading a network's weights once takes, beside what was measured of it."""
        for row in self.rows:
            if (row.method, row.stage) == (method, ONE_HAND):
                self.floors.append(
                    {
                        'network': method,
                        'backend': row.backend,
                        'median ms': row.median_ms,
                        'floor ms': floor_ms,
                        'times the floor': row.median_ms / floor_ms,
                    }
                )

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` writes."""
        return asdict(self)

    def as_markdown(self) -> str:
        """What is printed."""
        rows = [_cells(row) for row in self.rows]
        if self.peer:
            of_peer = self.peer['mediapipe_ms'], self.peer['mediapipe_p95_ms']
            rows.append(_cells(Row('mediapipe', 'hands', 'tracking (the peer)', *of_peer)))
        parts = [_title(self.machine, self.frames), markdown(rows) if rows else '(nothing was measured)']
        parts += [f'without {name}: {why}' for name, why in self.missing.items()]
        if self.ratios:
            parts.append(markdown([_judged(name, value) for name, value in self.ratios.items()]))
        parts += [markdown(table) for table in (self.memory, self.floors) if table]
        if self.node is not None:
            parts.append(str(self.node['said']))
        return '\n\n'.join(parts)


def _cells(row: Row) -> dict[str, str | float]:
    return {name.replace('_', ' '): value for name, value in asdict(row).items()}


def _title(machine: Mapping[str, Any], frames: Mapping[str, Any]) -> str:
    gpu = f', {machine["gpu"]}' if machine['gpu'] else ''
    return (
        f'{machine["cpu"]}, {machine["cores"]} cores, {machine["threads"]} threads, '
        f'{machine["memory_gib"]} GiB{gpu}; {machine["os"]}, Python {machine["python"]}; '
        f'{frames["count"]} frames of 640x480 ({frames["name"]}), {frames["rounds"]} rounds'
    )


def _judged(name: str, value: float) -> dict[str, str | float]:
    bar = BARS.get(name)
    verdict = '' if bar is None else 'yes' if value <= bar else 'no'
    return {
        'figure': name,
        'value': f'{value:.2f}',
        'at most': '' if bar is None else f'{bar:g}',
        'reached': verdict,
    }


def float32_weights_bytes() -> int:
    """Of the package's MaskHand: its file holds them in half of that precision."""
    return 2 * MASKHAND_PATH.stat().st_size
