"""From the player through the node into a bag and pictures; what the bag holds is what was published."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from mcap.reader import make_reader
from ros_rig import ROOT, Rig
from rosbags.highlevel import AnyReader
from test_ros_messages import MODELS, make_hand
from tf2_msgs.msg import TFMessage

from hand_mesh_ros.datasets.demo_clip import DemoClip, render_demo_clip
from hand_mesh_ros.msg import HandMeshArray, HandModelInfo
from hand_mesh_ros.ros.bags import RunReport, read_bag, report
from hand_mesh_ros.ros.messages import message_from_hands, model_info
from hand_mesh_ros.ros.outputs import LATCHED_QOS, OUTPUT_QOS, TF_QOS
from hand_mesh_ros.ros.recorder import BagRecorder, Topic, message_types
from hand_mesh_ros.ros.share import share_directory
from hand_mesh_ros.ros.transforms import message_from_hands as frames_from_hands


@pytest.fixture(scope='module')
def clip(tmp_path_factory) -> DemoClip:
    return render_demo_clip(tmp_path_factory.mktemp('clip') / 'hands.mp4', seconds=1.5, fps=20.0)


def hand_mesh_demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'hand_mesh_ros.cli.main', 'demo', *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=120, check=False)


def test_a_bag_holds_the_numbers_that_were_published(tmp_path):
    """Written from bytes as they come; read by rosbags and by the mcap library, by its definitions alone."""
    rig = Rig('/taped')
    hands = [make_hand('right', 1), make_hand('left', 2)]
    publisher = rig.node.create_publisher(HandMeshArray, 'hands', OUTPUT_QOS)
    latched = rig.node.create_publisher(HandModelInfo, 'info', LATCHED_QOS)
    tf = rig.node.create_publisher(TFMessage, '/tf', TF_QOS)
    latched.publish(model_info(MODELS, 'fit', 'numpy'))
    topics = [
        Topic('hands', HandMeshArray, OUTPUT_QOS),
        Topic('info', HandModelInfo, LATCHED_QOS),
        Topic('/tf', TFMessage, TF_QOS),
    ]
    sent = []
    with BagRecorder(rig.node, tmp_path / 'bag', topics) as recorder:
        assert rig.wait(lambda: publisher.get_subscription_count() and tf.get_subscription_count() >= 2)
        for count in range(3):
            sent.append(message_from_hands(rig.header(), hands[:count]))
            publisher.publish(sent[-1])
            tf.publish(frames_from_hands(sent[-1].header, hands[: max(count, 1)]))
        assert rig.wait(lambda: recorder.counts == {'hands': 3, 'info': 1, '/tf': 3}), recorder.counts
    rig.close()

    found = [message for _, _, message in read_bag(tmp_path / 'bag', '/hands')]
    assert [len(message.hands) for message in found] == [0, 1, 2]
    for message, original in zip(found, sent, strict=True):
        assert message.header.frame_id == original.header.frame_id
        assert message.header.stamp.sec == original.header.stamp.sec
        for hand, own in zip(message.hands, original.hands, strict=True):
            for name in own.get_fields_and_field_types():
                np.testing.assert_array_equal(getattr(hand, name), getattr(own, name), err_msg=name)

    with AnyReader([tmp_path / 'bag']) as reader:  # knows our types from the bag itself
        assert {c.topic: c.msgtype for c in reader.connections} == {
            '/taped/hands': 'hand_mesh_ros/msg/HandMeshArray',
            '/taped/info': 'hand_mesh_ros/msg/HandModelInfo',
            '/tf': 'tf2_msgs/msg/TFMessage',
        }
        (connection,) = (c for c in reader.connections if c.topic == '/taped/info')
        ((_, _, data),) = reader.messages([connection])
        info = reader.deserialize(data, connection.msgtype)
        np.testing.assert_array_equal(info.faces_right.reshape(-1, 3), MODELS['right'].faces)
        assert 'TRANSIENT_LOCAL' in str(connection.ext.offered_qos_profiles)

    (file,) = (tmp_path / 'bag').glob('*.mcap')
    with open(file, 'rb') as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None and summary.statistics is not None and summary.statistics.message_count == 7
    definitions = {schema.name: schema for schema in summary.schemas.values()}
    definition = definitions['hand_mesh_ros/msg/HandMeshArray']
    assert definition.encoding == 'ros2msg' and b'MSG: hand_mesh_ros/HandMesh' in definition.data


def test_drops_are_those_of_the_node_asked_for(tmp_path):
    rig = Rig('/counted')
    publisher = rig.node.create_publisher(DiagnosticArray, '/diagnostics', OUTPUT_QOS)
    topics = [Topic('/diagnostics', DiagnosticArray, OUTPUT_QOS)]
    with BagRecorder(rig.node, tmp_path / 'bag', topics) as recorder:
        assert rig.wait(lambda: publisher.get_subscription_count() >= 2)
        for name, count in (('/demo/hand_mesh: hands', '3'), ('/demo/hand_mesh_2: hands', '70')):
            value = KeyValue(key='dropped: superseded', value=count)
            publisher.publish(DiagnosticArray(status=[DiagnosticStatus(name=name, values=[value])]))
        assert rig.wait(lambda: recorder.counts['/diagnostics'] == 2)
    rig.close()
    assert report(tmp_path / 'bag', '/demo/hand_mesh').drops == {'superseded': 3}


@pytest.mark.parametrize('message_type', [HandMeshArray, HandModelInfo])
def test_definitions_have_the_hashes_that_ros_computed(message_type):
    """With another type hash, ros2 bag would not play the bag to a node."""
    description = share_directory() / 'msg' / f'{message_type.__name__}.json'
    if not description.is_file():
        pytest.skip('this ROS distribution is from before type hashes')
    name = f'hand_mesh_ros/msg/{message_type.__name__}'
    hashes = {
        entry['type_name']: entry['hash_string']
        for entry in json.loads(description.read_text())['type_hashes']
    }
    assert message_types().hash_rihs01(name) == hashes[name]


@pytest.mark.parametrize('method', ['fit', 'maskhand'])
def test_demo_ends_with_a_bag_pictures_and_a_table(tmp_path, clip, method, maskhand_weights):
    of_method = ['--method', method, '--weights', maskhand_weights]
    ended = hand_mesh_demo(clip.video, '--out', tmp_path / 'out', *of_method)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for row in ('frames sent', 'frames out', 'latency', 'hands seen', 'dropped'):
        assert row in ended.stdout
    result = report(tmp_path / 'out' / 'bag', '/demo/hand_mesh')
    assert isinstance(result, RunReport)
    assert 28 <= result.frames_in <= 30 and 0 < result.frames_out <= 30
    assert result.hands['right'] > 0 and result.latency_ms[0] > 0
    pictures = sorted((tmp_path / 'out' / 'overlays').glob('*.png'))
    assert pictures
    assert cv2.imread(str(pictures[0])).shape == (480, 640, 3)
    topics = {
        topic for topic, _, _ in read_bag(tmp_path / 'out' / 'bag', '/tf', '/markers', '/info', '/hands')
    }
    assert topics == {'/tf', '/markers', '/info', '/hands'}
    ((_, _, info),) = read_bag(tmp_path / 'out' / 'bag', '/info')
    assert info.method == method
    assert (tmp_path / 'out' / 'bag' / 'metadata.yaml').is_file()


def test_demo_says_why_nothing_came(tmp_path):
    ended = hand_mesh_demo(tmp_path / 'nothing.mp4', '--out', tmp_path / 'out', '--method', 'fit')
    assert ended.returncode != 0 and 'nothing.mp4' in ended.stderr and 'Traceback' not in ended.stderr
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    ended = hand_mesh_demo(tmp_path / 'broken.mp4', '--out', tmp_path / 'out', '--method', 'fit')
    assert ended.returncode != 0 and 'Traceback' not in ended.stderr
    assert 'broken.mp4' in ended.stderr
