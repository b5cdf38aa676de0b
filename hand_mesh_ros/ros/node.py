"""hand_mesh_node: images in, hands out."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.estimator import HandMeshEstimator
from hand_mesh_ros.msg import HandBoxArray
from hand_mesh_ros.ros import messages
from hand_mesh_ros.ros.camera_info import camera_for_image
from hand_mesh_ros.ros.diagnostics import Statistics, diagnostics_message, silence_hint
from hand_mesh_ros.ros.images import rgb_from_message
from hand_mesh_ros.ros.outputs import Outputs
from hand_mesh_ros.ros.pairing import StampPairing
from hand_mesh_ros.ros.parameters import NodeParameters, declare_parameters, read_parameters
from hand_mesh_ros.ros.running import run_program, spin_until
from hand_mesh_ros.ros.worker import NewestFrameWorker

#: A queued image is a late image.
_INPUT_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
#: How many images and box messages may wait for each other: a third of a second of a 30 Hz camera.
_MAX_UNPAIRED = 10
_KEPT_INFOS = 10
_DIAGNOSTICS_PERIOD_S = 1.0
_JOIN_TIMEOUT_S = 2.0
_WARNING_PERIOD_S = 5.0


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
        """Load hand model and detector, announce them on ~/info.

        :raises ConfigurationError: a parameter that cannot work.
        :raises FileFormatError: a hand model file that is none.
        """
        settings = self._settings
        self._estimator = HandMeshEstimator(
            settings.method,
            hand_model=settings.hand_model_path or None,
            max_hands=settings.max_hands,
            min_score=settings.min_score,
            hand_length_m=settings.hand_length_m or None,
            streaming=True,
        )
        self._estimator.estimate(np.zeros((480, 640, 3), np.uint8))  # the first takes longer
        info = messages.model_info(self._estimator.models, settings.method, backend='numpy')
        self._outputs = Outputs(self, self._estimator.faces, info)

    def activate(self) -> None:
        """Listen, and work on what comes."""
        self._worker = NewestFrameWorker(self._process, lambda frame: self._statistics.drop('superseded'))
        self._pairing: StampPairing[Image | CompressedImage, HandBoxArray] = StampPairing(
            _MAX_UNPAIRED,
            paired=lambda image, boxes: self._worker.offer(_Frame(image, boxes)),
            unpaired=lambda image: self._statistics.drop('no boxes'),
        )
        self._statistics = Statistics()
        self._image_topic = self.resolve_topic_name('image')
        image_type: type = Image
        if self._settings.image_transport == 'compressed':
            self._image_topic += '/compressed'
            image_type = CompressedImage
        # camera_info before image: the executor serves them in this order where both have come.
        self._inputs = [
            self.create_subscription(CameraInfo, 'camera_info', self._on_camera_info, _INPUT_QOS),
            self.create_subscription(
                image_type,
                self._image_topic,
                self._on_image,
                _INPUT_QOS,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            ),
        ]
        if self._settings.detector == 'boxes':
            boxes_qos = QoSProfile(depth=_MAX_UNPAIRED, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._inputs.append(
                self.create_subscription(HandBoxArray, 'hand_boxes', self._on_boxes, boxes_qos)
            )
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self._diagnostics_timer = self.create_timer(
            _DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._worker.start()
        self.get_logger().info(f'looking for hands on {self._image_topic}')

    def deactivate(self) -> None:
        """Take no more images, and let the one in work end."""
        self.destroy_timer(self._diagnostics_timer)
        self.destroy_publisher(self._diagnostics_publisher)
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        if not self._worker.stop(_JOIN_TIMEOUT_S):
            self.get_logger().error(f'the image in work did not end within {_JOIN_TIMEOUT_S} s')

    def cleanup(self) -> None:
        """Release what ``configure`` loaded."""
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
        age_s = self._age_s(frame.image)
        if 0.0 < settings.max_frame_age_s < age_s:
            raise _Dropped('too old', f'{age_s:.3f} s old, max_frame_age_s is {settings.max_frame_age_s}')
        image = rgb_from_message(frame.image)
        height, width = image.shape[:2]
        camera, problem = camera_for_image(
            self._info_of(header), width, height, settings.image_is_rectified, settings.fov_deg
        )
        if problem and problem != self._calibration_problem:
            self.get_logger().warning(f'positions are not metric: {problem}')
        self._calibration_problem = problem
        if problem and settings.require_calibration:
            raise _Dropped('uncalibrated', f'{problem}, and require_calibration is set')
        boxes = None if frame.boxes is None else messages.boxes_from_message(frame.boxes)
        start = time.monotonic()
        estimate = self._estimator.estimate(image, camera, boxes)
        inference_ms = 1e3 * (time.monotonic() - start)
        self._outputs.publish(header, image, camera, estimate.hands, settings)
        self._statistics.frame_out(inference_ms, 1e3 * self._age_s(frame.image))

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
        settings = read_parameters(self, NodeParameters)
        snapshot = self._statistics.snapshot()
        problems = []
        silence_s = self._statistics.silence_s
        if silence_s > settings.no_image_warning_s:
            problem = f'no image for {silence_s:.0f} s: {silence_hint(self, self._image_topic)}'
            self.get_logger().warning(problem, throttle_duration_sec=_WARNING_PERIOD_S)
            problems.append(problem)
        if self._calibration_problem:
            problems.append(f'positions are not metric: {self._calibration_problem}')
        problems += [
            f'{count} images dropped: {reason}'
            for reason, count in sorted(snapshot.new_drops.items())
            if reason != 'superseded'
        ]
        self._diagnostics_publisher.publish(diagnostics_message(self, snapshot, problems))


def _work(node: HandMeshNode, stopping: threading.Event) -> None:
    node.configure()
    node.activate()
    try:
        spin_until(node, stopping.is_set)
    finally:
        node.deactivate()
        node.cleanup()


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. Returns the exit code."""
    return run_program(HandMeshNode, _work, args)


if __name__ == '__main__':
    sys.exit(main())
