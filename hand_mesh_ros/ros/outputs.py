"""What the node publishes of each image."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.msg import HandMeshArray, HandModelInfo
from hand_mesh_ros.rendering.overlay import draw_hands
from hand_mesh_ros.ros import messages, transforms
from hand_mesh_ros.ros.images import message_from_rgb
from hand_mesh_ros.ros.markers import HandMarkers
from hand_mesh_ros.ros.parameters import NodeParameters
from hand_mesh_ros.ros.teleoperation import RetargetingPublishers
from hand_mesh_ros.stage_clock import StageClock

#: Of all outputs: everything arrives, a few wait.
OUTPUT_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
#: Of ~/info: who comes late gets it too.
LATCHED_QOS = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
#: Of /tf: what tf2's own broadcaster offers.
TF_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
#: How many stamps of frames on /tf are remembered, so that none goes out twice.
_KEPT_STAMPS = 10
#: Frames older than this are no late ones (tf2 itself keeps no older ones): a bag began again.
_TF_MEMORY_S = 10
_WARNING_PERIOD_S = 10.0
#: Of masks in the debug image.
_MASK_GREY = 140


class Outputs:
    """The publishers of a node. Markers and the debug image are made only while somebody subscribes."""

    def __init__(self, node: Node, faces: Mapping[Side, np.ndarray], info: HandModelInfo) -> None:
        """``faces``: (F,3) vertex numbers of each side's mesh; ``info`` is published now, once."""
        self._node = node
        self._faces = faces
        self._markers = HandMarkers(faces)
        self._tf_stamps: deque[tuple[int, int]] = deque(maxlen=_KEPT_STAMPS)
        self.tf_problem = ''  #: why the last image's frames could not go to /tf; empty if they could
        self._hands_publisher = node.create_publisher(HandMeshArray, '~/hands', OUTPUT_QOS)
        self._info_publisher = node.create_publisher(HandModelInfo, '~/info', LATCHED_QOS)
        self._marker_publisher = node.create_publisher(MarkerArray, '~/markers', OUTPUT_QOS)
        self._image_publisher = node.create_publisher(Image, '~/debug_image', OUTPUT_QOS)
        self._tf_publisher = node.create_publisher(TFMessage, '/tf', TF_QOS)
        self._retargeting = RetargetingPublishers(node, OUTPUT_QOS)
        self._info_publisher.publish(info)

    def publish(
        self,
        header: Header,
        image: np.ndarray,
        camera: Camera,
        hands: Sequence[Hand],
        parameters: NodeParameters,
        clock: StageClock,
    ) -> None:
        """Publish the hands of one image, or of one mask, under its header. No hands is news, too.

        :param image: (H,W,3) uint8 RGB, or (H,W) bool: what hands are drawn over.
        :param clock: its stages ``message``, making messages, and ``publish``, sending them.
        """
        with clock('message'):
            message = messages.message_from_hands(header, hands, parameters.publish_vertices)
        with clock('publish'):
            self._hands_publisher.publish(message)
        tf_problem = ''
        if parameters.publish_tf:
            tf_problem = self._publish_tf(header, hands, parameters.tf_prefix, clock)
        if tf_problem:
            self._node.get_logger().warning(tf_problem, throttle_duration_sec=_WARNING_PERIOD_S)
        self.tf_problem = tf_problem
        with clock('publish'):
            self._retargeting.publish(header, hands)
        if self._marker_publisher.get_subscription_count() > 0:
            with clock('message'):
                markers = self._markers.message(header, hands)
            with clock('publish'):
                self._marker_publisher.publish(markers)
        if self._image_publisher.get_subscription_count() > 0:
            with clock('message'):
                ground = image if image.ndim == 3 else _picture_of_mask(image)
                picture = message_from_rgb(draw_hands(ground, hands, self._faces, camera))
                picture.header = header
            with clock('publish'):
                self._image_publisher.publish(picture)

    def close(self) -> None:
        """Take the publishers down."""
        for publisher in (
            self._hands_publisher,
            self._info_publisher,
            self._marker_publisher,
            self._image_publisher,
            self._tf_publisher,
        ):
            self._node.destroy_publisher(publisher)
        self._retargeting.close()

    def _publish_tf(self, header: Header, hands: Sequence[Hand], prefix: str, clock: StageClock) -> str:
        """Publish the frames of one image; why they cannot be published, or empty."""
        stamp = (header.stamp.sec, header.stamp.nanosec)
        if not header.frame_id:
            return 'images have no frame_id, so that /tf cannot say where their hands are'
        if stamp == (0, 0):
            return 'images have no stamp (it is zero), so that /tf cannot say when their hands were there'
        if not hands:
            return ''
        if self._tf_stamps and stamp[0] < max(self._tf_stamps)[0] - _TF_MEMORY_S:
            self._tf_stamps.clear()
        if stamp in self._tf_stamps:  # tf2 warns of data that comes twice, and ignores it
            return 'images come with stamps that came before, of which /tf takes the first only'
        self._tf_stamps.append(stamp)
        with clock('message'):
            message = transforms.message_from_hands(header, hands, prefix)
        with clock('publish'):
            self._tf_publisher.publish(message)
        return ''


def _picture_of_mask(mask: np.ndarray) -> np.ndarray:
    """Picture (H,W,3) uint8 RGB, grey where a mask (H,W) bool holds."""
    return np.repeat((mask * np.uint8(_MASK_GREY))[..., None], 3, axis=2)
