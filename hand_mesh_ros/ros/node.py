"""hand_mesh_node: images in, hands out."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from hand_mesh_ros.errors import ConfigurationError, FrameError
from hand_mesh_ros.estimator import HandMeshEstimator
from hand_mesh_ros.msg import HandBoxArray
from hand_mesh_ros.ros import messages
from hand_mesh_ros.ros.camera_info import camera_for_image
from hand_mesh_ros.ros.diagnostics import Snapshot, Statistics, diagnostics_message, silence_hint
from hand_mesh_ros.ros.images import rgb_from_message
from hand_mesh_ros.ros.outputs import Outputs
from hand_mesh_ros.ros.pairing import StampPairing, Waiting
from hand_mesh_ros.ros.parameters import NodeParameters, declare_parameters, read_parameters
from hand_mesh_ros.ros.running import exit_program, run_program, spin_until
from hand_mesh_ros.ros.warm_up import warm_up
from hand_mesh_ros.ros.worker import NewestFrameWorker

#: How far, by their stamps, boxes may be behind the newest image, or images behind the newest boxes.
_MAX_WAIT_S = 1.0
#: How many bytes of images, and how many messages of boxes, may wait for each other.
_MAX_WAITING_IMAGES = 256 * 2**20
_MAX_WAITING_BOXES = 1000
_BOXES_QUEUE = 10
_KEPT_INFOS = 10
_DIAGNOSTICS_PERIOD_S = 1.0
_JOIN_TIMEOUT_S = 2.0
_WARNING_PERIOD_S = 5.0
#: The reason of a drop.
_NO_BOXES = 'no boxes'


@dataclass(frozen=True)
class _Frame:
    """What belongs to one image when it is looked at."""

    image: Image | CompressedImage
    boxes: HandBoxArray | None  #: None when hands are looked for in the whole image


class _Dropped(Exception):
    """Nothing is published of this frame; says why, in a word for the count and in a sentence."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class HandMeshNode(Node):
    """Looks at the newest image there is, in a thread of its own, and publishes the hands in it.

    Callbacks only store what came. ``configure`` loads, ``activate`` starts to listen; ``deactivate``
    and ``cleanup`` undo them.
    """

    def __init__(self) -> None:
        """Declare the parameters. Raises ConfigurationError for values that cannot be."""
        super().__init__('hand_mesh')
        self._settings = declare_parameters(self, NodeParameters)
        self._statistics = Statistics()
        self._infos: tuple[CameraInfo, ...] = ()  #: the last few, newest last
        self._calibration_problem = ''

    def configure(self) -> None:
        """Load hand model, detector and network, run them once, announce them on ~/info.

        :raises ConfigurationError: a parameter that cannot work.
        :raises FileFormatError: a file of a hand model or of weights that is none.
        """
        settings = self._settings
        self._estimator = HandMeshEstimator(
            settings.method,
            hand_model=_path(settings.hand_model_path),
            weights=_path(settings.weights_path),
            sampling_steps=settings.sampling_steps,
            threads=settings.threads,
            max_hands=settings.max_hands,
            min_score=settings.min_score,
            hand_length_m=settings.hand_length_m or None,
            streaming=True,
        )
        warm_up(self._estimator)
        estimator = self._estimator
        info = messages.model_info(
            estimator.models, estimator.method, estimator.backend, estimator.weights_hash
        )
        self._outputs = Outputs(self, self._estimator.faces, info)

    def activate(self) -> None:
        """Listen, and work on what comes.

        :raises ConfigurationError: a QoS override that cannot be.
        """
        self._worker = NewestFrameWorker(self._process, lambda frame: self._statistics.drop('superseded'))
        self._pairing: StampPairing[Image | CompressedImage, HandBoxArray] = StampPairing(
            Waiting(_MAX_WAIT_S, _MAX_WAITING_IMAGES, size_of=lambda image: len(image.data)),
            Waiting(_MAX_WAIT_S, _MAX_WAITING_BOXES, size_of=lambda boxes: 1),
            paired=lambda image, boxes: self._worker.offer(_Frame(image, boxes)),
            unpaired=lambda image: self._statistics.drop(_NO_BOXES),
        )
        self._statistics = Statistics()
        # camera_info before image: the executor serves them in this order where both have come.
        self._info_input = self.create_subscription(
            CameraInfo, 'camera_info', self._on_camera_info, _input_qos()
        )
        self._image_input = self._subscribe_to_images()
        self._boxes_input = (
            self.create_subscription(HandBoxArray, 'hand_boxes', self._on_boxes, _input_qos(_BOXES_QUEUE))
            if self._settings.detector == 'boxes'
            else None
        )
        self._boxes_came = False  #: since the last diagnostics
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self._diagnostics_timer = self.create_timer(
            _DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._worker.start()
        self.get_logger().info(f'looking for hands on {self._image_input.topic_name}')

    def _subscribe_to_images(self) -> Subscription:
        topic, image_type = self.resolve_topic_name('image'), Image
        if self._settings.image_transport == 'compressed':
            topic, image_type = topic.removesuffix('/compressed') + '/compressed', CompressedImage
        try:
            return self.create_subscription(
                image_type,
                topic,
                self._on_image,
                _input_qos(),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        except (ParameterException, RuntimeError) as error:
            raise ConfigurationError(
                f'cannot subscribe to {topic}; see your qos_overrides: {error}'
            ) from error

    def deactivate(self) -> bool:
        """Take no more images, and let the one in work end; whether it did in time."""
        self.destroy_timer(self._diagnostics_timer)
        self.destroy_publisher(self._diagnostics_publisher)
        for subscription in (self._info_input, self._image_input, self._boxes_input):
            if subscription is not None:
                self.destroy_subscription(subscription)
        if self._worker.stop(_JOIN_TIMEOUT_S):
            return True
        self.get_logger().error(f'the image in work did not end within {_JOIN_TIMEOUT_S} s')
        return False

    def cleanup(self) -> None:
        """Release what ``configure`` loaded; not while an image is in work, which uses it."""
        self._outputs.close()
        self._estimator.close()

    def _on_image(self, image: Image | CompressedImage) -> None:
        self._statistics.frame_in()
        if self._settings.detector == 'boxes':
            self._pairing.add_first((image.header.stamp.sec, image.header.stamp.nanosec), image)
        else:
            self._worker.offer(_Frame(image, None))

    def _on_camera_info(self, info: CameraInfo) -> None:
        self._infos = (*self._infos[1 - _KEPT_INFOS :], info)

    def _on_boxes(self, boxes: HandBoxArray) -> None:
        self._boxes_came = True
        self._pairing.add_second((boxes.header.stamp.sec, boxes.header.stamp.nanosec), boxes)

    def _process(self, frame: _Frame) -> None:
        """One frame, in the worker's thread. Whatever goes wrong with it, the next one gets its turn."""
        stamp = frame.image.header.stamp
        try:
            self._look_at(frame)
        except _Dropped as dropped:
            self._statistics.drop(dropped.reason)
            self.get_logger().warning(f'image dropped: {dropped}', throttle_duration_sec=_WARNING_PERIOD_S)
        except FrameError as error:
            self._statistics.drop('malformed')
            self.get_logger().warning(f'image dropped: {error}', throttle_duration_sec=_WARNING_PERIOD_S)
        except Exception:
            self._statistics.drop('error')
            self.get_logger().error(
                f'image of stamp {stamp.sec}.{stamp.nanosec:09d} failed:\n{traceback.format_exc()}',
                throttle_duration_sec=_WARNING_PERIOD_S,
            )

    def _look_at(self, frame: _Frame) -> None:
        settings = read_parameters(self, NodeParameters)
        header = frame.image.header
        if header.stamp.sec < 0:
            raise FrameError(f'its stamp is negative: {header.stamp.sec} s')
        age_s = self._age_s(frame.image)
        if 0.0 < settings.max_frame_age_s < age_s:
            raise _Dropped('too old', f'{age_s:.3f} s old, max_frame_age_s is {settings.max_frame_age_s}')
        image = rgb_from_message(frame.image)
        height, width = image.shape[:2]
        camera, problem = camera_for_image(
            self._info_of(header), width, height, settings.image_is_rectified, settings.fov_deg
        )
        if problem:
            problem = f'{problem} (topic {self._info_input.topic_name})'
        if problem and problem != self._calibration_problem:
            self.get_logger().warning(
                f'positions are not metric: {problem}', throttle_duration_sec=_WARNING_PERIOD_S
            )
        self._calibration_problem = problem
        if problem and settings.require_calibration:
            raise _Dropped('uncalibrated', f'{problem}, and require_calibration is set')
        boxes = None if frame.boxes is None else messages.boxes_from_message(frame.boxes)
        start = time.monotonic()
        estimate = self._estimator.estimate(image, camera, boxes)
        inference_ms = 1e3 * (time.monotonic() - start)
        network_ms = estimate.timing_ms.get('network') if estimate.hands else None
        self._outputs.publish(header, image, camera, estimate.hands, settings)
        self._statistics.frame_out(inference_ms, 1e3 * self._age_s(frame.image), network_ms)

    def _info_of(self, header: Header) -> CameraInfo | None:
        """The CameraInfo of the image's own stamp; else, as cameras seldom change, the newest."""
        infos = self._infos
        same_stamp = [info for info in infos if info.header.stamp == header.stamp]
        return (same_stamp or infos or (None,))[-1]

    def _age_s(self, image: Image | CompressedImage) -> float:
        """Seconds since the image's stamp, on the clock that stamps are of."""
        now = self.get_clock().now()
        return (now - Time.from_msg(image.header.stamp, clock_type=now.clock_type)).nanoseconds * 1e-9

    def _publish_diagnostics(self) -> None:
        snapshot = self._statistics.snapshot()
        problems = self._problems(snapshot)
        self._diagnostics_publisher.publish(diagnostics_message(self, snapshot, problems))

    def _problems(self, snapshot: Snapshot) -> list[str]:
        """What seems to be wrong, in sentences."""
        problems = []
        silence_s = self._statistics.silence_s
        if silence_s > read_parameters(self, NodeParameters).no_image_warning_s:
            problem = f'no image for {silence_s:.0f} s: {self._silence_hint()}'
            self.get_logger().warning(problem, throttle_duration_sec=_WARNING_PERIOD_S)
            problems.append(problem)
        if self._calibration_problem:
            problems.append(f'positions are not metric: {self._calibration_problem}')
        if self._outputs.tf_problem:
            problems.append(self._outputs.tf_problem)
        boxes_came, self._boxes_came = self._boxes_came, False
        for reason, count in sorted(snapshot.new_drops.items()):
            if reason == _NO_BOXES and self._boxes_input is not None:
                topic = self._boxes_input.topic_name
                why = 'boxes come, but none with their stamps' if boxes_came else 'none come'
                problems.append(f'{count} images dropped: no boxes for them on {topic}: {why}')
            elif reason != 'superseded':
                problems.append(f'{count} images dropped: {reason}')
        return problems

    def _silence_hint(self) -> str:
        topic = self._image_input.topic_name
        publishers = self.get_publishers_info_by_topic(topic)
        return silence_hint(topic, self._settings.image_transport, self._image_input.qos_profile, publishers)


def _input_qos(depth: int = 1) -> QoSProfile:
    """A profile of its own for each subscription, as rclpy writes overrides into it.

    The depth is 1 for images: one that is queued is late.
    """
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def _path(parameter: str) -> Path | None:
    return Path(parameter).expanduser() if parameter else None


def _work(node: HandMeshNode, stopping: threading.Event) -> None:
    node.configure()
    node.activate()
    try:
        spin_until(node, stopping.is_set)
    finally:
        if node.deactivate():
            node.cleanup()


def main(args: list[str] | None = None) -> NoReturn:
    """Run the node until SIGINT or SIGTERM, then end the process."""
    exit_program(run_program(HandMeshNode, _work, args))


if __name__ == '__main__':
    main()
