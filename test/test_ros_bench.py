"""The benchmark over DDS: every stage of the node is told. No speed is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')

from hand_mesh_ros.benchmark.footage import rendered_footage
from hand_mesh_ros.benchmark.report import Report
from hand_mesh_ros.ros.bench import node_figures
from hand_mesh_ros.ros.demo import DemoError

MACHINE = {'cpu': '', 'cores': 1, 'threads': 1, 'memory_gib': 1, 'gpu': None, 'os': '', 'python': ''}


def test_the_node_tells_its_own_share_and_how_late_hands_come(tmp_path: Path) -> None:
    parameters = {'method': 'maskhand', 'backend': 'onnxruntime', 'threads': 1, 'max_hands': 1}
    node = node_figures(rendered_footage(6), tmp_path, parameters, seconds=3.0)
    assert 0 < node['frames_out'] <= node['frames_in'] == 90
    assert 0.0 < node['latency_ms'][0] <= node['latency_ms'][1]
    median_ms = {stage: pair[0] for stage, pair in node['stages_ms'].items()}
    assert {'decode', 'crop', 'network', 'place', 'message', 'publish', 'own'} < set(median_ms)
    parts = sum(median_ms[stage] for stage in ('decode', 'crop', 'place', 'message', 'publish'))
    assert 0.0 < 0.5 * parts < median_ms['own']
    report = Report(MACHINE, {'count': 6, 'name': 'rendered', 'rounds': 1})
    report.add_node('onnxruntime', node)
    assert json.loads(json.dumps(report.as_json()))['ratios']['node_share_ms'] == median_ms['own']
    assert 'stamp to arrival' in report.as_markdown()


def test_a_node_that_does_not_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match='the node did not start: .*method'):
        node_figures(rendered_footage(2), tmp_path, {'method': 'no_such_method'}, seconds=1.0)
