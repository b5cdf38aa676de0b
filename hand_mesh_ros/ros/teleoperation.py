"""Keypoints for retargeting to robot hands, as a message a side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from geometry_msgs.msg import Point32, Polygon, PolygonStamped
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.retargeting import retargeting_keypoints


def retargeting_message(header: Header, hand: Hand) -> PolygonStamped:
    """Keypoints (21) of ``hand`` in the axes of its palm, from its wrist: see ``hand_mesh_ros.retargeting``.

    Under the stamp of ``header``, in the frame ``<side>_palm``, which is not on TF: where the hand is they do
    not say.

    :raises FrameError: keypoints of the palm that have no axes.
    """
    points = retargeting_keypoints(hand.keypoints_3d, hand.side).tolist()
    return PolygonStamped(
        header=Header(stamp=header.stamp, frame_id=f'{hand.side}_palm'),
        polygon=Polygon(points=[Point32(x=x, y=y, z=z) for x, y, z in points]),
    )


class RetargetingPublishers:
    """One topic a side, ``~/retargeting/left`` and ``right``, each made while somebody listens."""

    def __init__(self, node: Node, qos: QoSProfile) -> None:
        """Make the publishers."""
        self._node = node
        self._publishers: Mapping[Side, Publisher] = {
            'left': node.create_publisher(PolygonStamped, '~/retargeting/left', qos),
            'right': node.create_publisher(PolygonStamped, '~/retargeting/right', qos),
        }

    def publish(self, header: Header, hands: Sequence[Hand]) -> None:
        """Publish, of each side, the hand that has been followed longest; none whose palm has no axes."""
        for side, publisher in self._publishers.items():
            of_side = [hand for hand in hands if hand.side == side]
            if of_side and publisher.get_subscription_count() > 0:
                oldest = min(of_side, key=lambda hand: hand.track_id)
                with suppress(FrameError):  # the other outputs of the frame are not to be lost by it
                    publisher.publish(retargeting_message(header, oldest))

    def close(self) -> None:
        """Take the publishers down."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
