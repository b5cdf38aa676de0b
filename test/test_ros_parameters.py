"""Parameters are declared with what they mean, checked, and the shipped YAML file lists them all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.ros.parameters import (
    MaskNodeParameters,
    NodeParameters,
    PlayerParameters,
    as_markdown,
    as_yaml,
    declare_parameters,
    meaning_of,
    read_parameters,
)

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / 'config' / 'hand_mesh.yaml'


@pytest.fixture
def make_node():
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(*arguments: str, name: str = 'probe', namespace: str = '') -> Node:
        # None of these nodes talks to anybody: no services, no clock.
        nodes.append(
            Node(
                name,
                context=context,
                namespace=namespace,
                cli_args=['--ros-args', *arguments],
                start_parameter_services=False,
            )
        )
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize('table', [NodeParameters, MaskNodeParameters, PlayerParameters])
def test_defaults_are_those_of_the_table_and_described(make_node, table):
    node = make_node()
    assert declare_parameters(node, table) == table()
    for field in dataclasses.fields(table):
        descriptor = node.describe_parameter(field.name)
        assert descriptor.description.endswith('.')
        assert descriptor.read_only == meaning_of(field).read_only


def test_values_come_from_the_command_line(make_node):
    values = declare_parameters(make_node('-p', 'max_hands:=4', '-p', 'tf_prefix:=left_'), NodeParameters)
    assert (values.max_hands, values.tf_prefix) == (4, 'left_')


def test_integers_will_do_where_floats_or_a_webcam_are_meant(make_node):
    values = declare_parameters(make_node('-p', 'min_score:=1', '-p', 'fov_deg:=70'), NodeParameters)
    assert (values.min_score, values.fov_deg) == (1.0, 70.0) and isinstance(values.fov_deg, float)
    arguments = ('source:=0', 'rate_hz:=10', 'camera:=[600,600,320,240]')
    player = declare_parameters(
        make_node(*(word for argument in arguments for word in ('-p', argument))), PlayerParameters
    )
    assert (player.source, player.rate_hz, player.camera) == ('0', 10.0, [600.0, 600.0, 320.0, 240.0])


def test_the_shipped_file_holds_every_parameter_with_its_default(make_node):
    assert CONFIG.read_text() == as_yaml(NodeParameters), (
        'write it anew: python -c "from hand_mesh_ros.ros.parameters import *; '
        'print(as_yaml(NodeParameters), end=str())" > config/hand_mesh.yaml'
    )
    assert declare_parameters(make_node('--params-file', str(CONFIG)), NodeParameters) == NodeParameters()


def test_the_shipped_file_of_an_rgbd_camera_turns_depth_on(make_node):
    file = str(CONFIG.with_name('hand_mesh_rgbd.yaml'))
    changed = dataclasses.replace(
        NodeParameters(), use_depth=True, require_depth=True, require_calibration=True
    )
    assert declare_parameters(make_node('--params-file', file), NodeParameters) == changed


@pytest.mark.parametrize('namespace', ['', 'robot/left_camera'])
def test_the_shipped_file_of_a_depth_camera_is_for_two_nodes(make_node, namespace):
    file = CONFIG.with_name('silhouette.yaml')
    arguments = ('--params-file', str(file))
    changed = dataclasses.replace(
        NodeParameters(), method='mask2hand', use_depth=True, require_depth=True, require_calibration=True
    )
    hand_mesh = make_node(*arguments, name='hand_mesh', namespace=namespace)
    assert declare_parameters(hand_mesh, NodeParameters) == changed
    hand_mask = make_node(*arguments, name='hand_mask', namespace=namespace)
    assert declare_parameters(hand_mask, MaskNodeParameters) == MaskNodeParameters()
    assert file.read_text().endswith(as_yaml(MaskNodeParameters, '/**/hand_mask')), (
        'its end is what this prints: python -c "from hand_mesh_ros.ros.parameters import *; '
        "print(as_yaml(MaskNodeParameters, '/**/hand_mask'), end=str())\""
    )


@pytest.mark.parametrize(
    'setting',
    [
        'max_hands:=0',
        'max_hands:=2.5',
        'method:=magic',
        'fov_deg:=.nan',
        'fov_deg:=171',
        'fov_deg:=wide',
        'min_score:=1.5',
        'min_score:=true',
        'tf_prefix:=3',
    ],
)
def test_values_that_cannot_be_stop_the_start(make_node, setting):
    with pytest.raises(ConfigurationError, match=setting.split(':')[0]):
        declare_parameters(make_node('-p', setting), NodeParameters)


def test_later_changes_are_checked(make_node):
    node = make_node()
    declare_parameters(node, NodeParameters)

    def change(name: str, value: object) -> bool:
        return node.set_parameters([Parameter(name, value=value)])[0].successful

    assert change('fov_deg', 90.0) and read_parameters(node, NodeParameters).fov_deg == 90.0
    assert change('fov_deg', 80) and read_parameters(node, NodeParameters).fov_deg == 80.0
    assert change('fov_deg', 90.0)
    assert not change('fov_deg', 500.0)
    assert not change('fov_deg', 500)
    assert not change('fov_deg', 'wide')
    assert not change('fov_deg', None)
    assert not change('fov_deg', float('nan'))
    assert not change('method', 'fit'), 'read-only'
    assert change('publish_tf', False) and not read_parameters(node, NodeParameters).publish_tf
    assert read_parameters(node, NodeParameters).fov_deg == 90.0


@pytest.mark.parametrize('table', [NodeParameters, MaskNodeParameters, PlayerParameters])
def test_the_readme_documents_every_parameter(table):
    assert as_markdown(table) in (ROOT / 'README.md').read_text(encoding='utf-8'), (
        'regenerate: python -c "from hand_mesh_ros.ros.parameters import *; print(as_markdown('
        f'{table.__name__}))" into README.md'
    )
