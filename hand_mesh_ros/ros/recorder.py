"""Records topics into a bag that ``ros2 bag`` and Foxglove open, without rosbag2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from hand_mesh_ros.ros.share import share_directory

_FOREVER = QosTime(9223372036, 854775807)


@dataclass(frozen=True)
class Topic:
    """What to record."""

    name: str  #: relative to the recording node
    message_type: type
    qos: QoSProfile


def message_types() -> Typestore:
    """Definitions of ROS's common messages and of this package's, for writing and reading bags."""
    typestore = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted((share_directory() / 'msg').glob('*.msg')):
        name = f'hand_mesh_ros/msg/{path.stem}'
        typestore.register(get_types_from_msg(path.read_text(encoding='utf-8'), name))
    return typestore


class BagRecorder:
    """Writes messages as they come, without decoding them, into an MCAP bag, while ``node`` is spun.

    The time of a message in the bag is that of its arrival, on the node's clock. A context manager:
    the bag is complete when it has been left.
    """

    def __init__(self, node: Node, path: Path, topics: Sequence[Topic]) -> None:
        """``path``: the bag's folder, which must not exist yet."""
        self._node = node
        self._topics = topics
        # Version 8 is the newest that Humble's rosbag2 reads, too.
        self._writer = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)
        self.counts = {topic.name: 0 for topic in topics}  #: messages recorded so far

    def __enter__(self) -> BagRecorder:
        self._writer.__enter__()
        typestore = message_types()
        self._subscriptions = [self._record(topic, typestore) for topic in self._topics]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._writer.__exit__(kind, error, trace)

    def _record(self, topic: Topic, typestore: Typestore) -> Subscription:
        package = topic.message_type.__module__.split('.')[0]
        connection: Connection = self._writer.add_connection(
            self._node.resolve_topic_name(topic.name),
            f'{package}/msg/{topic.message_type.__name__}',
            typestore=typestore,
            offered_qos_profiles=[_bag_qos(topic.qos)],
        )

        def write(data: bytes) -> None:
            self._writer.write(connection, self._node.get_clock().now().nanoseconds, data)
            self.counts[topic.name] += 1

        return self._node.create_subscription(topic.message_type, topic.name, write, topic.qos, raw=True)


def _bag_qos(qos: QoSProfile) -> Qos:
    """The profile as a bag holds it; durability matters most, or a latched topic is played unlatched."""
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=qos.depth,
        reliability=QosReliability[qos.reliability.name],
        durability=QosDurability[qos.durability.name],
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )
