"""The lifecycle of the nodes, their services, and streams that falter, over real DDS."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros_rig import NodeProcess, Rig, node_process, resident_mib, running_node
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.demo_clip import render_demo_clip
from hand_mesh_ros.msg import HandMesh
from hand_mesh_ros.sources import read_frames

CAMERA = Camera(640, 480, 554.0, 554.0, 319.5, 239.5)
HALF_CAMERA = Camera(320, 240, 277.0, 277.0, 159.5, 119.5)


@pytest.fixture(scope='module')
def frames(tmp_path_factory) -> list[np.ndarray]:
    """A few images (480,640,3) of moving hands."""
    clip = render_demo_clip(tmp_path_factory.mktemp('clip') / 'clip.mp4', seconds=0.2, fps=30.0)
    return [frame.image for frame in read_frames(clip.video)]


class Manager:
    """Asks the services of a node."""

    def __init__(self, rig: Rig, name: str = 'hand_mesh') -> None:
        self.rig = rig
        self._name = name
        self._clients: dict[str, Any] = {}

    def ask(self, service: str, kind: Any, request: Any) -> Any:
        """What a service answers."""
        if service not in self._clients:
            self._clients[service] = self.rig.node.create_client(kind, f'{self._name}/{service}')
        client = self._clients[service]
        assert self.rig.wait(client.service_is_ready, 60.0), f'no service {service}'
        future = client.call_async(request)
        assert self.rig.wait(future.done, 60.0), f'{service} gives no answer'
        return future.result()

    def change(self, transition: int) -> bool:
        """Ask for a transition; whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.ask('change_state', ChangeState, request).success)

    @property
    def state(self) -> str:
        return str(self.ask('get_state', GetState, GetState.Request()).current_state.label)

    def set_enabled(self, enabled: bool) -> SetBool.Response:
        return self.ask('set_enabled', SetBool, SetBool.Request(data=enabled))

    def reset_tracks(self) -> Trigger.Response:
        return self.ask('reset_tracks', Trigger, Trigger.Request())

    def activate(self) -> None:
        """Configured or deactivated before; ready for frames after."""
        assert self.change(Transition.TRANSITION_ACTIVATE) and self.state == 'active'
        assert self.rig.wait(self.rig.image.get_subscription_count)
        assert self.rig.wait(self.rig.info.get_subscription_count)
        self.rig.spin(1.0)  # a writer knows of a reader before the reader knows of it


@contextmanager
def waiting_node(
    namespace: str,
    *parameters: str,
    environment: Mapping[str, str] | None = None,
    module: str = 'node',
    name: str = 'hand_mesh',
) -> Iterator[tuple[Manager, NodeProcess]]:
    """A node that waits for its transitions."""
    with node_process(namespace, ['autostart:=false', *parameters], environment, module) as process:
        rig = Rig(namespace, name)
        try:
            yield Manager(rig, name), process
        finally:
            rig.close()


@pytest.fixture(scope='module')
def active(frames) -> Iterator[tuple[Manager, NodeProcess]]:
    """A node that came up active."""
    with running_node('/lively', ['no_image_warning_s:=0.5']) as (rig, process):
        yield Manager(rig), process


def is_answered(rig: Rig, frame: np.ndarray, seconds: float = 1.0) -> bool:
    """Whether an image's hands are published; those of one that is not are waited for so long."""
    stamp = rig.send(frame, CAMERA)
    return rig.wait(lambda: stamp in rig.hands, seconds)


def moment(count: int) -> Header:
    """The header of the image of that number in a stream at 30 Hz."""
    header = Header(frame_id='camera_optical_frame')
    header.stamp.sec, header.stamp.nanosec = 5000 + count // 30, count % 30 * 33_000_000
    return header


def test_a_node_goes_through_all_states_and_back(frames):
    with waiting_node('/managed') as (manager, process):
        rig = manager.rig
        assert manager.state == 'unconfigured' and rig.model_infos == []
        assert manager.change(Transition.TRANSITION_CONFIGURE) and manager.state == 'inactive'
        assert rig.wait(lambda: len(rig.model_infos) == 1), 'configured is announced'
        assert rig.image.get_subscription_count() == 0
        manager.activate()
        assert rig.answer(frames[0], CAMERA).hands
        for _ in range(2):
            for _ in range(5):  # so that some wait
                rig.send(frames[0], CAMERA)
            assert manager.change(Transition.TRANSITION_DEACTIVATE) and manager.state == 'inactive'
            assert not is_answered(rig, frames[0])
            manager.activate()
            assert rig.answer(frames[1], CAMERA).hands
        assert manager.change(Transition.TRANSITION_DEACTIVATE)
        assert manager.change(Transition.TRANSITION_CLEANUP) and manager.state == 'unconfigured'
        assert rig.wait(lambda: rig.node.count_publishers('hand_mesh/info') == 0)
        assert manager.change(Transition.TRANSITION_CONFIGURE) and manager.state == 'inactive'
        assert rig.wait(lambda: len(rig.model_infos) == 2)
        manager.activate()
        assert rig.answer(frames[0], CAMERA).hands
        assert manager.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert process.wait(10) == 0, 'shut down, the program ends'
        assert 'Traceback' not in process.output() and '[ERROR]' not in process.output(), process.output()


def test_what_is_in_the_way_of_configure_is_told_and_it_can_be_tried_again(maskhand_weights, tmp_path):
    weights = tmp_path / 'maskhand.safetensors'
    parameters = ('method:=maskhand', f'weights_path:={weights}', 'sampling_steps:=2', 'threads:=1')
    with waiting_node('/patient', *parameters) as (manager, process):
        for count in (1, 2):
            assert not manager.change(Transition.TRANSITION_CONFIGURE)
            assert manager.state == 'unconfigured' and process.poll() is None
            told = [line for line in process.output().splitlines() if 'cannot configure' in line]
            assert len(told) == count and '[ERROR]' in told[-1] and str(weights) in told[-1], told
        assert 'Traceback' not in process.output()
        shutil.copy(maskhand_weights, weights)
        assert manager.change(Transition.TRANSITION_CONFIGURE) and manager.state == 'inactive'
        assert manager.rig.wait(lambda: manager.rig.model_infos)
        assert manager.rig.model_infos[0].method == 'maskhand'
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_configure_takes_parameters_that_were_changed_since_it_failed():
    depths = ('min_depth_m:=2.0', 'max_depth_m:=1.0')
    with waiting_node('/mask', *depths, module='mask_node', name='hand_mask') as (manager, process):
        assert not manager.change(Transition.TRANSITION_CONFIGURE) and manager.state == 'unconfigured'
        assert 'cannot configure' in process.output() and 'depth' in process.output()
        change = Parameter('min_depth_m', value=0.2).to_parameter_msg()
        answer = manager.ask('set_parameters', SetParameters, SetParameters.Request(parameters=[change]))
        assert answer.results[0].successful
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.change(Transition.TRANSITION_ACTIVATE) and manager.state == 'active'
        assert manager.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        assert process.wait(10) == 0


def test_activate_fails_for_a_quality_of_service_that_cannot_be():
    with waiting_node('/strict', 'qos_overrides./strict/image.subscription.reliability:=foo') as (manager, _):
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert not manager.change(Transition.TRANSITION_ACTIVATE) and manager.state == 'inactive'
        manager.rig.spin(1.0)
        assert not manager.rig.info.get_subscription_count(), 'it still listens'
        assert manager.change(Transition.TRANSITION_CLEANUP) and manager.state == 'unconfigured'


def test_a_frame_that_never_ends_ends_the_node(frames, tmp_path):
    """So that launch starts it anew: no thread can be stopped from outside."""
    (tmp_path / 'sitecustomize.py').write_text(
        'import time\n'
        'from hand_mesh_ros.estimator import HandMeshEstimator\n'
        'estimate = HandMeshEstimator.estimate\n'
        'def hanging(self, image, *arguments, **options):\n'
        '    if image.min() == 200:\n'
        '        time.sleep(600)\n'
        '    return estimate(self, image, *arguments, **options)\n'
        'HandMeshEstimator.estimate = hanging\n'
    )
    with waiting_node('/hanging', environment={'PYTHONPATH': str(tmp_path)}) as (manager, process):
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        manager.activate()
        manager.rig.send(np.full((480, 640, 3), 200, np.uint8), CAMERA)
        manager.rig.spin(0.5)
        assert not manager.change(Transition.TRANSITION_DEACTIVATE)
        assert process.wait(10) == 1
        assert '[FATAL]' in process.output() and 'did not end' in process.output()


def test_transitions_that_the_state_does_not_allow_are_refused():
    with waiting_node('/wilful') as (manager, process):
        for transition in (
            Transition.TRANSITION_ACTIVATE,
            Transition.TRANSITION_DEACTIVATE,
            Transition.TRANSITION_CLEANUP,
            200,
        ):
            assert not manager.change(transition)
            assert manager.state == 'unconfigured'
        unknown = ChangeState.Request(transition=Transition(label='levitate'))
        assert not manager.ask('change_state', ChangeState, unknown).success
        assert not manager.set_enabled(True).success, 'it is not active'
        assert process.poll() is None and 'is not possible in this state' in process.output()
        assert manager.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        assert process.wait(10) == 0


def test_a_node_pauses_and_goes_on(active, frames):
    manager, _ = active
    rig = manager.rig
    assert manager.state == 'active', 'that is how it starts'
    assert rig.answer(frames[0], CAMERA).hands
    assert manager.set_enabled(False).success
    assert not is_answered(rig, frames[0])
    assert rig.wait(lambda: rig.diagnostics_message == 'paused'), rig.diagnostics_message
    assert rig.wait(lambda: int(rig.diagnostics.get('dropped: paused', 0)) >= 1)
    assert manager.set_enabled(True).success
    assert rig.answer(frames[0], CAMERA).hands


def test_reset_tracks_gives_hands_new_ids(active, frames):
    manager, _ = active
    rig = manager.rig

    def ids(count: int) -> set[int]:
        hands = rig.hands_of(rig.send(frames[0], CAMERA, moment(count))).hands
        return {hand.track_id for hand in hands}

    before = ids(0)
    assert before and HandMesh.NOT_TRACKED not in before
    assert ids(1) == before, 'the same hands'
    assert manager.reset_tracks().success
    after = ids(2)
    assert len(after) == len(before) and min(after) > max(before), 'no id is used twice'
    assert ids(3) == after


def test_a_stream_that_stops_and_returns(active, frames):
    manager, process = active
    rig = manager.rig

    def is_well() -> bool:
        return is_answered(rig, frames[0]) and rig.diagnostics_message == 'running'

    for _ in range(2):
        assert rig.wait(is_well, 5.0), rig.diagnostics_message
        assert rig.wait(lambda: 'no image for' in rig.diagnostics_message, 5.0), rig.diagnostics_message
    assert rig.wait(is_well, 5.0), rig.diagnostics_message
    assert process.poll() is None


def test_a_camera_that_changes_its_size_in_mid_stream(active, frames):
    manager, _ = active
    rig = manager.rig
    small = np.ascontiguousarray(frames[0][::2, ::2])

    def scales(image: np.ndarray, camera: Camera) -> set[int]:
        return {hand.scale_source for hand in rig.answer(image, camera).hands}

    for _ in range(2):
        assert scales(frames[0], CAMERA) == {HandMesh.SCALE_NOMINAL_HAND}
        assert scales(frames[0], HALF_CAMERA) == {HandMesh.SCALE_UNKNOWN}, 'calibration of another size'
        assert scales(small, HALF_CAMERA) == {HandMesh.SCALE_NOMINAL_HAND}
        assert scales(small, CAMERA) == {HandMesh.SCALE_UNKNOWN}


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is read from /proc')
def test_100_images_a_second_are_counted_and_memory_stays_flat(active, frames):
    """More than the method can look at: the newest is, and the rest is counted."""
    manager, process = active
    rig = manager.rig
    small = np.ascontiguousarray(frames[0][::2, ::2])
    seen: list[dict[str, str]] = []  #: what the node says of each second

    def send() -> None:
        header = Header(frame_id='camera_optical_frame', stamp=rig.node.get_clock().now().to_msg())
        rig.send(small, HALF_CAMERA, header)
        if not seen or seen[-1] is not rig.diagnostics:
            seen.append(rig.diagnostics)

    def pour(seconds: float) -> None:
        timer = rig.node.create_timer(0.01, send)
        rig.spin(seconds)
        rig.node.destroy_timer(timer)

    pour(3.0)
    before = resident_mib(process)
    seen.clear()
    pour(10.0)
    after = resident_mib(process)
    assert after < before + 10.0, f'{before} MiB grew to {after} MiB'
    for said in seen[2:]:
        # What waits is the newest frame, so none is older than the frame in work and its own one take.
        assert float(said['stamp to publish p50 (ms)']) < 2.0 * float(said['inference p95 (ms)']) + 50.0, said
    rig.spin(2.5)  # until the node has said all
    counts = {key: int(value) for key, value in rig.diagnostics.items() if value.isdigit()}
    dropped = {key: count for key, count in counts.items() if key.startswith('dropped: ')}
    assert dropped['dropped: superseded'] > 0
    assert counts['frames in'] == counts['frames out'] + sum(dropped.values()), counts
    assert counts['frames in'] > 500, counts
    assert rig.answer(frames[0], CAMERA).hands
