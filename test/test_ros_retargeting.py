"""Keypoints for robot hands, over DDS: in the axes of the palm, with the stamp of the image."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')
import rclpy
from geometry_msgs.msg import PolygonStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from ros_rig import running_node
from std_msgs.msg import Header

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.demo_clip import render_demo_clip
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.msg import HandMesh
from hand_mesh_ros.retargeting import retargeting_keypoints
from hand_mesh_ros.ros.outputs import OUTPUT_QOS
from hand_mesh_ros.ros.teleoperation import RetargetingPublishers
from hand_mesh_ros.sources import read_frames

CAMERA = Camera(640, 480, 554.0, 554.0, 319.5, 239.5)


def test_each_side_has_a_topic_that_says_what_the_hands_do(tmp_path):
    clip = render_demo_clip(tmp_path / 'clip.mp4', seconds=0.1, fps=30.0)
    image = next(read_frames(clip.video)).image
    got: dict[tuple[str, int, int], PolygonStamped] = {}
    with running_node('/teleoperated') as (rig, _):
        for side in ('left', 'right'):
            rig.node.create_subscription(
                PolygonStamped,
                f'hand_mesh/retargeting/{side}',
                lambda m, side=side: got.update({(side, m.header.stamp.sec, m.header.stamp.nanosec): m}),
                10,
            )
        assert rig.wait(lambda: rig.node.count_publishers('hand_mesh/retargeting/right') == 1)
        rig.spin(1.0)  # the node's publisher learns of the subscription a little later
        hands = rig.answer(image, CAMERA)
        stamp = hands.header.stamp.sec, hands.header.stamp.nanosec
        sides = {'left' if hand.side == HandMesh.LEFT else 'right': hand for hand in hands.hands}
        assert sides
        assert rig.wait(lambda: all((side, *stamp) in got for side in sides)), got
        assert {key[0] for key in got} == set(sides)
    for side, hand in sides.items():
        message = got[(side, *stamp)]
        assert message.header.frame_id == f'{side}_palm'
        points = [(point.x, point.y, point.z) for point in message.polygon.points]
        keypoints = np.reshape(hand.keypoints_3d, (21, 3))
        np.testing.assert_allclose(points, retargeting_keypoints(keypoints, side), atol=1e-5)


def test_a_hand_without_a_palm_costs_no_other_output():
    flat = np.zeros((21, 3))
    model = load_hand_model()
    good = model.posed(np.zeros(3), np.zeros(45), np.zeros(10), np.array([0.0, 0.0, 0.5])).keypoints
    got: list[PolygonStamped] = []
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('palms', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        publishers = RetargetingPublishers(node, OUTPUT_QOS)
        node.create_subscription(PolygonStamped, '~/retargeting/right', got.append, 10)
        deadline = time.monotonic() + 30.0
        while not got and time.monotonic() < deadline:
            for keypoints in (flat, np.full((21, 3), np.nan), good):
                publishers.publish(
                    Header(), [SimpleNamespace(side='right', track_id=1, keypoints_3d=keypoints)]
                )
            executor.spin_once(timeout_sec=0.1)
        publishers.close()
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert np.isfinite([(point.x, point.y, point.z) for point in got[0].polygon.points]).all()
