"""What nodes that look at pictures have in common: one thread, the newest frame, counts of all."""

from __future__ import annotations

import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NoReturn

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Header

from hand_mesh_ros.errors import EngineError, FrameError
from hand_mesh_ros.ros.diagnostics import Snapshot, Statistics, diagnostics_message
from hand_mesh_ros.ros.inputs import NO_BOXES, NO_DEPTH, Frame, Inputs, Streams
from hand_mesh_ros.ros.running import exit_program, run_program, spin_until
from hand_mesh_ros.ros.worker import NewestFrameWorker

_DIAGNOSTICS_PERIOD_S = 1.0
_JOIN_TIMEOUT_S = 2.0
WARNING_PERIOD_S = 5.0


class Dropped(Exception):
    """Nothing is published of this frame; says why, in a word for the count and in a sentence."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class FrameNode(Node, ABC):
    """Looks at the newest frame there is, in a thread of its own, and publishes what it sees.

    ``configure`` loads, ``activate`` starts to listen; ``deactivate`` and ``cleanup`` undo them. A node
    has a parameter ``no_image_warning_s``, and says in ``_look_at`` what it does with a frame.
    """

    def __init__(self, name: str, what: str) -> None:
        """``what`` the node makes, for its diagnostics: hands."""
        super().__init__(name)
        self._what = what
        self._statistics = Statistics()
        #: What made all further frames impossible.
        self.failure: EngineError | None = None

    @abstractmethod
    def configure(self) -> None:
        """Load what is needed, and announce it."""

    @abstractmethod
    def cleanup(self) -> None:
        """Release what ``configure`` loaded; not while a frame is in work, which uses it."""

    @abstractmethod
    def _streams(self) -> Streams:
        """What to listen to."""

    @abstractmethod
    def _look_at(self, frame: Frame) -> None:
        """Publish what is seen, and count the frame; in the worker's thread.

        :raises Dropped: nothing is to be published.
        :raises FrameError: the frame cannot be used.
        """

    def _own_problems(self) -> list[str]:
        """What seems to be wrong beside missing and dropped pictures, in sentences."""
        return []

    def activate(self) -> None:
        """Listen, and work on what comes.

        :raises ConfigurationError: a QoS override that cannot be.
        """
        self._statistics = Statistics()
        self._worker = NewestFrameWorker(self._process, lambda frame: self._statistics.drop('superseded'))
        self._inputs = Inputs(self, self._streams(), self._statistics, self._worker.offer)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self._diagnostics_timer = self.create_timer(
            _DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._worker.start()
        self.get_logger().info(f'looking for hands on {self._inputs.topic}')

    def deactivate(self) -> bool:
        """Take no more frames, and let the one in work end; whether it did in time."""
        self.destroy_timer(self._diagnostics_timer)
        self.destroy_publisher(self._diagnostics_publisher)
        self._inputs.close()
        if self._worker.stop(_JOIN_TIMEOUT_S):
            return True
        self.get_logger().error(f'the frame in work did not end within {_JOIN_TIMEOUT_S} s')
        return False

    def _age_s(self, header: Header) -> float:
        """Seconds since the picture's stamp, on the clock that stamps are of."""
        now = self.get_clock().now()
        return (now - Time.from_msg(header.stamp, clock_type=now.clock_type)).nanoseconds * 1e-9

    def _process(self, frame: Frame) -> None:
        """One frame, in the worker's thread. Whatever goes wrong with it, the next one gets its turn."""
        stamp = frame.header.stamp
        try:
            if stamp.sec < 0:
                raise FrameError(f'its stamp is negative: {stamp.sec} s')
            if self._inputs.streams.with_depth and frame.depth is None:
                self._statistics.lack(NO_DEPTH)
            self._look_at(frame)
        except Dropped as dropped:
            self._drop(dropped.reason, dropped)
        except FrameError as error:
            self._drop('malformed', error)
        except EngineError as error:  # a GPU that has failed once fails for good, in this process
            self.failure = error
        except Exception:
            self._statistics.drop('error')
            self.get_logger().error(
                f'{self._pictures[:-1]} of stamp {stamp.sec}.{stamp.nanosec:09d} failed:\n'
                f'{traceback.format_exc()}',
                throttle_duration_sec=WARNING_PERIOD_S,
            )

    def _drop(self, reason: str, why: Exception) -> None:
        self._statistics.drop(reason)
        self.get_logger().warning(
            f'{self._pictures[:-1]} dropped: {why}', throttle_duration_sec=WARNING_PERIOD_S
        )

    @property
    def _pictures(self) -> str:
        """What the frames are, for sentences."""
        picture = self._inputs.streams.picture
        return 'depth images' if picture == 'depth' else f'{picture}s'

    def _publish_diagnostics(self) -> None:
        snapshot = self._statistics.snapshot()
        problems = self._problems(snapshot)
        message = diagnostics_message(self, self._what, snapshot, problems)
        self._diagnostics_publisher.publish(message)

    def _problems(self, snapshot: Snapshot) -> list[str]:
        """What seems to be wrong, in sentences."""
        problems = []
        silence_s = self._statistics.silence_s
        if silence_s > self.get_parameter('no_image_warning_s').value:
            problem = f'no {self._pictures[:-1]} for {silence_s:.0f} s: {self._inputs.silence_hint()}'
            self.get_logger().warning(problem, throttle_duration_sec=WARNING_PERIOD_S)
            problems.append(problem)
        problems += self._own_problems()
        why_no_boxes, why_no_depth = self._inputs.why_no_boxes(), self._inputs.why_no_depth()
        for reason, count in sorted(snapshot.new_drops.items()):
            if reason == NO_BOXES:
                problems.append(f'{count} {self._pictures} dropped: {why_no_boxes}')
            elif reason != 'superseded':
                problems.append(f'{count} {self._pictures} dropped: {reason}')
        for what, count in sorted(snapshot.new_lacks.items()):
            why = f': {why_no_depth}' if what == NO_DEPTH else ''
            problems.append(f'{count} {self._pictures} looked at without {what}{why}')
        return problems


def run_frame_node(make_node: Callable[[], FrameNode], args: list[str] | None) -> NoReturn:
    """Run a node until SIGINT or SIGTERM, then end the process."""
    exit_program(run_program(make_node, _work, args))


def _work(node: FrameNode, stopping: threading.Event) -> None:
    node.configure()
    node.activate()
    try:
        spin_until(node, lambda: stopping.is_set() or node.failure is not None)
    finally:
        if node.deactivate():
            node.cleanup()
    if node.failure is not None:
        raise node.failure
