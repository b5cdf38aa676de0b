"""What nodes that look at pictures have in common: one thread, the newest frame, counts of all."""

from __future__ import annotations

import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NoReturn

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.time import Time
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from hand_mesh_ros.errors import EngineError, FrameError, HandMeshError
from hand_mesh_ros.ros.diagnostics import Snapshot, Statistics, diagnostics_message
from hand_mesh_ros.ros.inputs import NO_BOXES, NO_DEPTH, Frame, Inputs, Streams
from hand_mesh_ros.ros.running import exit_program, run_program, spin_until
from hand_mesh_ros.ros.worker import NewestFrameWorker

_DIAGNOSTICS_PERIOD_S = 1.0
#: So long a frame in work may take to end, when the program ends.
_JOIN_TIMEOUT_S = 2.0
#: The same, when the node is deactivated: nobody is about to kill it.
_DEACTIVATE_TIMEOUT_S = 5.0
#: Frames that come while ~/set_enabled says false.
_PAUSED = 'paused'
WARNING_PERIOD_S = 5.0


class Dropped(Exception):
    """Nothing is published of this frame; says why, in a word for the count and in a sentence."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class FrameNode(LifecycleNode, ABC):
    """Looks at the newest frame there is, in a thread of its own, and publishes what it sees.

    Its lifecycle: configure loads, activate starts to listen; deactivate and cleanup undo them; shutdown
    does both, and the program ends. What fails is told in one line, and leaves the node in the state it was
    in. A node has parameters ``autostart`` and ``no_image_warning_s``, and says in ``_look_at`` what it does
    with a frame.
    """

    def __init__(self, name: str, what: str) -> None:
        """``what`` the node makes, for its diagnostics: hands."""
        super().__init__(name)
        self._what = what
        self._statistics = Statistics()
        self._is_loaded = self._is_listening = False
        self._worker: NewestFrameWorker[Frame] | None = None
        self._is_enabled = True
        self._is_starting = False
        self._start_error: Exception | None = None
        #: What made all further frames impossible.
        self.failure: EngineError | None = None
        #: Whether it was shut down.
        self.has_ended = False
        self._refuse_impossible_transitions()
        self.create_service(SetBool, '~/set_enabled', self._on_set_enabled)

    @abstractmethod
    def _load(self) -> None:
        """Load what is needed by what the parameters are now, and announce it; nothing stays if it fails.

        :raises HandMeshError: a parameter or a file that cannot be used.
        """

    @abstractmethod
    def _unload(self) -> None:
        """Release what ``_load`` loaded; not while a frame is in work, which uses it."""

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

    def start(self) -> None:
        """Configure and activate.

        :raises HandMeshError: what is in the way, which is then not logged.
        """
        self._is_starting = True
        try:
            for transition in (self.trigger_configure, self.trigger_activate):
                if transition() != TransitionCallbackReturn.SUCCESS:
                    assert self._start_error is not None
                    raise self._start_error
        finally:
            self._is_starting = False

    def end(self) -> None:
        """Stop and unload, whatever state it is in."""
        if not self.has_ended:
            self.trigger_shutdown()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, run once what is slow the first time, and announce the outputs."""
        return self._attempt('configure', self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen, and work on what comes."""
        return self._attempt('activate', self._listen)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen no longer, let the frame in work end, and drop those that wait."""
        if self._stop_listening(_DEACTIVATE_TIMEOUT_S):
            self.get_logger().info('deactivated')
            return TransitionCallbackReturn.SUCCESS
        # No thread can be stopped from outside: it is for launch to start the program anew.
        self.failure = EngineError(f'the frame in work did not end within {_DEACTIVATE_TIMEOUT_S:.0f} s')
        return TransitionCallbackReturn.FAILURE

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release what configure loaded."""
        return self._attempt('cleanup', self._cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and release, from any state."""
        self.has_ended = True
        return self._attempt('shutdown', self._shutdown)

    def _attempt(self, transition: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        """Do what a transition is to do. rclpy would not tell what goes wrong."""
        try:
            action()
        except Exception as error:
            if self._is_starting:
                self._start_error = error
            elif isinstance(error, HandMeshError):
                self.get_logger().error(f'cannot {transition}: {error}')
            else:
                self.get_logger().error(f'cannot {transition}:\n{traceback.format_exc()}')
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        self._load()
        self._is_loaded = True

    def _cleanup(self) -> None:
        self._is_loaded = False
        self._unload()
        self.get_logger().info('unloaded')

    def _shutdown(self) -> None:
        if not self._stop_listening(_JOIN_TIMEOUT_S):
            self.get_logger().error(f'the frame in work did not end within {_JOIN_TIMEOUT_S} s')
        elif self._is_loaded:
            self._cleanup()

    def _listen(self) -> None:
        """Raises ConfigurationError for a QoS override that cannot be."""
        self._statistics = Statistics()
        self._is_enabled = True
        worker = NewestFrameWorker(self._process, lambda frame: self._statistics.drop('superseded'))
        self._inputs = Inputs(self, self._streams(), self._statistics, worker.offer)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self._diagnostics_timer = self.create_timer(
            _DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._worker = worker
        self._is_listening = True
        worker.start()
        self.get_logger().info(f'looking for hands on {self._inputs.topic}')

    def _stop_listening(self, timeout_s: float) -> bool:
        """Take no more frames, and let the one in work end; whether it did in time."""
        if self._is_listening:
            self._is_listening = False
            self.destroy_timer(self._diagnostics_timer)
            self.destroy_publisher(self._diagnostics_publisher)
            self._inputs.close()
        if self._worker is not None:
            if not self._worker.stop(timeout_s):
                return False
            self._worker = None
            del self._inputs  # and with them all frames that wait for their other halves
        return True

    def _refuse_impossible_transitions(self) -> None:
        """Have ~/change_state answer what the state does not allow, which in rclpy ends the program."""
        service = self._service_change_state
        change_state = service.callback

        def change_state_if_possible(
            request: ChangeState.Request, response: ChangeState.Response
        ) -> ChangeState.Response:
            try:
                return change_state(request, response)
            except RuntimeError:  # rclpy's RCLError, which has no public name; rcl has told more
                asked = request.transition.label or request.transition.id
                self.get_logger().warning(f'transition {asked} is not possible in this state')
                response.success = False
                return response

        service.callback = change_state_if_possible

    def _on_set_enabled(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Pause, or go on; only while active, as activating goes on."""
        response.success = self._is_listening
        response.message = 'the node is not active'
        if self._is_listening:
            self._is_enabled = request.data
            response.message = 'looking at frames' if request.data else 'paused'
        return response

    def _age_s(self, header: Header) -> float:
        """Seconds since the picture's stamp, on the clock that stamps are of."""
        now = self.get_clock().now()
        return (now - Time.from_msg(header.stamp, clock_type=now.clock_type)).nanoseconds * 1e-9

    def _process(self, frame: Frame) -> None:
        """One frame, in the worker's thread. Whatever goes wrong with it, the next one gets its turn."""
        stamp = frame.header.stamp
        if not self._is_enabled:
            self._statistics.drop(_PAUSED)
            return
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
        if self._is_enabled:
            message = diagnostics_message(self, self._what, snapshot, self._problems(snapshot))
        else:
            message = diagnostics_message(self, self._what, snapshot, [], _PAUSED)
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
            elif reason not in ('superseded', _PAUSED):
                problems.append(f'{count} {self._pictures} dropped: {reason}')
        for what, count in sorted(snapshot.new_lacks.items()):
            why = f': {why_no_depth}' if what == NO_DEPTH else ''
            problems.append(f'{count} {self._pictures} looked at without {what}{why}')
        return problems


def run_frame_node(make_node: Callable[[], FrameNode], args: list[str] | None) -> NoReturn:
    """Run a node until SIGINT, SIGTERM or its shutdown, then end the process."""
    exit_program(run_program(make_node, _work, args))


def _work(node: FrameNode, stopping: threading.Event) -> None:
    try:
        if node.get_parameter('autostart').value:
            node.start()
        spin_until(node, lambda: stopping.is_set() or node.failure is not None or node.has_ended)
    finally:
        node.end()
    if node.failure is not None:
        raise node.failure
