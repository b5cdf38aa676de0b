"""What a node listens to: messages of several topics, put together by their stamps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.msg import HandBoxArray
from hand_mesh_ros.ros.diagnostics import Statistics, silence_hint
from hand_mesh_ros.ros.pairing import HastyPairing, Stamp, StampPairing, Waiting

#: How far, by their stamps, boxes may be behind the newest picture, or pictures behind the newest boxes.
_MAX_WAIT_S = 1.0
#: How far pictures may be behind the newest depth, by their stamps: masks take time to be made.
_DEPTH_MAX_WAIT_S = 2.0
#: How long a picture waits for its depth, which comes with it or not at all.
_DEPTH_PATIENCE_S = 0.2
_DEPTH_CHECK_S = 0.05
#: How many bytes of pictures or depth, and how many messages of boxes, may wait for each other.
_MAX_WAITING_BYTES = 256 * 2**20
_MAX_WAITING_BOXES = 1000
_BOXES_QUEUE = 10
#: Depth that is queued is not late: a picture may be waiting for it.
_DEPTH_QUEUE = 5
_KEPT_INFOS = 10
#: The reason of a drop, and what a picture had to do without.
NO_BOXES, NO_DEPTH = 'no boxes', 'depth'

Picture: TypeAlias = Image | CompressedImage


@dataclass(frozen=True)
class Streams:
    """Which topics a node listens to, beside camera_info."""

    picture: Literal['image', 'mask', 'depth']  #: the topic that each frame is of
    compressed: bool = False  #: of the pictures
    with_depth: bool = False  #: a picture whose depth does not come soon is looked at without
    with_boxes: bool = False  #: a picture whose boxes do not come is dropped


@dataclass(frozen=True)
class Frame:
    """What belongs to one picture when it is looked at."""

    picture: Picture  #: of the topic that ``Streams.picture`` names
    depth: Image | None = None
    boxes: HandBoxArray | None = None  #: None when hands are looked for in the whole picture

    @property
    def header(self) -> Header:
        """Stamp and frame_id of the picture."""
        return self.picture.header


class Inputs:
    """The subscriptions of a node. Callbacks only store what came."""

    def __init__(
        self, node: Node, streams: Streams, statistics: Statistics, offer: Callable[[Frame], None]
    ) -> None:
        """Listen from now on; ``offer`` is given each frame when all of it is there, in a callback.

        :raises ConfigurationError: a QoS override that cannot be.
        """
        self._node = node
        self.streams = streams
        self._statistics = statistics
        self._offer = offer
        self._infos: tuple[CameraInfo, ...] = ()  #: the last few, newest last
        self._boxes_came = self._depth_came = False  #: since the last look at the problems
        self._boxes_pairing: StampPairing[Frame, HandBoxArray] = StampPairing(
            Waiting(_MAX_WAIT_S, _MAX_WAITING_BYTES, size_of=_size),
            Waiting(_MAX_WAIT_S, _MAX_WAITING_BOXES, size_of=lambda boxes: 1),
            paired=lambda frame, boxes: offer(Frame(frame.picture, frame.depth, boxes)),
            unpaired=lambda frame: statistics.drop(NO_BOXES),
        )
        self._depth_pairing: HastyPairing[Picture, Image] = HastyPairing(
            Waiting(_MAX_WAIT_S, _MAX_WAITING_BYTES, size_of=lambda waiting: len(waiting[1].data)),
            Waiting(_DEPTH_MAX_WAIT_S, _MAX_WAITING_BYTES, size_of=lambda depth: len(depth.data)),
            _DEPTH_PATIENCE_S,
            give_on=self._on_picture_and_depth,
        )
        # camera_info before the picture: the executor serves them in this order where both have come.
        self._info_input = node.create_subscription(
            CameraInfo, 'camera_info', self._on_camera_info, _input_qos()
        )
        with ExitStack() as closing:  # nothing stays if one cannot be
            closing.callback(node.destroy_subscription, self._info_input)
            self._picture_input = self._subscribe_to_pictures()
            closing.callback(node.destroy_subscription, self._picture_input)
            self._depth_input = (
                self._subscribe(Image, node.resolve_topic_name('depth'), self._on_depth, _DEPTH_QUEUE)
                if streams.with_depth
                else None
            )
            closing.pop_all()
        #: Full names of the topics of the pictures and of the calibration. (Asked of a subscription, they
        #: would be gone with it, while a frame is still in work.)
        self.topic: str = self._picture_input.topic_name
        self.info_topic: str = self._info_input.topic_name
        self._boxes_input = (
            node.create_subscription(HandBoxArray, 'hand_boxes', self._on_boxes, _input_qos(_BOXES_QUEUE))
            if streams.with_boxes
            else None
        )
        self._depth_timer = (
            node.create_timer(
                _DEPTH_CHECK_S, self._depth_pairing.expire, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )
            if streams.with_depth
            else None
        )

    def info_of(self, header: Header) -> CameraInfo | None:
        """The CameraInfo of the picture's own stamp; else, as cameras seldom change, the newest."""
        infos = self._infos
        same_stamp = [info for info in infos if info.header.stamp == header.stamp]
        return (same_stamp or infos or (None,))[-1]

    def silence_hint(self) -> str:
        """Why no picture may be coming."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        transport = 'compressed' if self.streams.compressed else 'raw'
        return silence_hint(self.topic, transport, self._picture_input.qos_profile, publishers)

    def why_no_boxes(self) -> str:
        """Why pictures may have been dropped for want of boxes, since the last call."""
        came, self._boxes_came = self._boxes_came, False
        return _why_missing(self._boxes_input, 'boxes', came)

    def why_no_depth(self) -> str:
        """Why pictures may have been looked at without depth, since the last call."""
        came, self._depth_came = self._depth_came, False
        return _why_missing(self._depth_input, 'depth images', came)

    def close(self) -> None:
        """Take the subscriptions down."""
        if self._depth_timer is not None:
            self._node.destroy_timer(self._depth_timer)
        for subscription in (self._info_input, self._picture_input, self._depth_input, self._boxes_input):
            if subscription is not None:
                self._node.destroy_subscription(subscription)

    def _subscribe_to_pictures(self) -> Subscription:
        topic = self._node.resolve_topic_name(self.streams.picture)
        if self.streams.compressed:
            topic = topic.removesuffix('/compressed') + '/compressed'
            return self._subscribe(CompressedImage, topic, self._on_picture)
        return self._subscribe(Image, topic, self._on_picture)

    def _subscribe(
        self, message_type: type, topic: str, callback: Callable[[Picture], None], depth: int = 1
    ) -> Subscription:
        """With a QoS that parameters can override."""
        try:
            return self._node.create_subscription(
                message_type,
                topic,
                callback,
                _input_qos(depth),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        except (ParameterException, RuntimeError) as error:
            raise ConfigurationError(
                f'cannot subscribe to {topic}; see your qos_overrides: {error}'
            ) from error

    def _on_camera_info(self, info: CameraInfo) -> None:
        self._infos = (*self._infos[1 - _KEPT_INFOS :], info)

    def _on_picture(self, picture: Picture) -> None:
        self._statistics.frame_in()
        if self.streams.with_depth:
            self._depth_pairing.add_first(_stamp(picture.header), picture)
        else:
            self._on_frame(Frame(picture))

    def _on_depth(self, depth: Image) -> None:
        self._depth_came = True
        self._depth_pairing.add_second(_stamp(depth.header), depth)

    def _on_boxes(self, boxes: HandBoxArray) -> None:
        self._boxes_came = True
        self._boxes_pairing.add_second(_stamp(boxes.header), boxes)

    def _on_picture_and_depth(self, picture: Picture, depth: Image | None) -> None:
        self._on_frame(Frame(picture, depth))

    def _on_frame(self, frame: Frame) -> None:
        if self.streams.with_boxes:
            self._boxes_pairing.add_first(_stamp(frame.header), frame)
        else:
            self._offer(frame)


def _input_qos(depth: int = 1) -> QoSProfile:
    """A profile of its own for each subscription, as rclpy writes overrides into it.

    The depth is 1 for pictures: one that is queued is late.
    """
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def _stamp(header: Header) -> Stamp:
    return header.stamp.sec, header.stamp.nanosec


def _size(frame: Frame) -> int:
    return len(frame.picture.data) + (0 if frame.depth is None else len(frame.depth.data))


def _why_missing(subscription: Subscription | None, what: str, came: bool) -> str:
    topic = '' if subscription is None else subscription.topic_name
    why = f'{what} come, but not with their stamps' if came else 'none come'
    return f'no {what} for them on {topic}: {why}'
