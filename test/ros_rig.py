"""A node under test in a process of its own, and the camera and listener that the tests are to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from hand_mesh_ros import HandMeshEstimator
from hand_mesh_ros.camera import Camera
from hand_mesh_ros.msg import HandBoxArray, HandMesh, HandMeshArray, HandModelInfo
from hand_mesh_ros.ros.camera_info import info_from_camera
from hand_mesh_ros.ros.images import message_from_rgb
from hand_mesh_ros.ros.messages import message_from_hands

Stamp = tuple[int, int]
ROOT = Path(__file__).resolve().parent.parent


class Rig:
    """Publishes images as a camera driver would, and keeps what the node publishes, by stamp."""

    def __init__(self, namespace: str, node_name: str = 'hand_mesh') -> None:
        """``node_name``: of the node whose diagnostics are kept."""
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = Node('rig', namespace=namespace, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.image = self.node.create_publisher(Image, 'image', 5)
        self.jpeg = self.node.create_publisher(CompressedImage, 'image/compressed', 5)
        self.mask = self.node.create_publisher(Image, 'mask', 5)
        self.depth = self.node.create_publisher(Image, 'depth', 5)
        self.info = self.node.create_publisher(CameraInfo, 'camera_info', 5)
        self.boxes = self.node.create_publisher(HandBoxArray, 'hand_boxes', 5)
        self.hands: dict[Stamp, HandMeshArray] = {}
        self.tf: dict[Stamp, TFMessage] = {}
        self.tf_stamps: list[Stamp] = []  #: as they came
        self.model_infos: list[HandModelInfo] = []
        self.diagnostics: dict[str, str] = {}
        self.diagnostics_message = ''
        latched = QoSProfile(
            depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE
        )
        self.node.create_subscription(HandMeshArray, 'hand_mesh/hands', self._on_hands, 10)
        self.node.create_subscription(HandModelInfo, 'hand_mesh/info', self.model_infos.append, latched)
        self.node.create_subscription(TFMessage, '/tf', self._on_tf, 100)
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._seconds = 0
        self._node_name = f'{namespace}/{node_name}'

    def _on_hands(self, message: HandMeshArray) -> None:
        self.hands[message.header.stamp.sec, message.header.stamp.nanosec] = message

    def _on_tf(self, message: TFMessage) -> None:
        stamp = message.transforms[0].header.stamp
        self.tf[stamp.sec, stamp.nanosec] = message
        self.tf_stamps.append((stamp.sec, stamp.nanosec))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        if not message.status[0].name.startswith(self._node_name + ':'):
            return
        self.diagnostics = {entry.key: entry.value for entry in message.status[0].values}
        self.diagnostics_message = message.status[0].message

    def wait(self, condition: Callable[[], object], seconds: float = 10.0) -> bool:
        """Spin until the condition holds; whether it does."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.02)
        return bool(condition())

    def spin(self, seconds: float) -> None:
        """Serve callbacks for a while."""
        self.wait(lambda: False, seconds)

    def header(self) -> Header:
        """A header with a stamp that no other has."""
        self._seconds += 1
        header = Header(frame_id='camera_optical_frame')
        header.stamp.sec = self._seconds
        return header

    def send(self, image: np.ndarray, camera: Camera | None = None, header: Header | None = None) -> Stamp:
        """Publish an image, and its camera if given; its stamp."""
        return self.publish(self.image, message_from_rgb(image), camera, header)

    def publish(
        self,
        publisher: Publisher,
        message: Image,
        camera: Camera | None = None,
        header: Header | None = None,
    ) -> Stamp:
        """Publish a message under a header, and a camera if given; its stamp."""
        header = header or self.header()
        if camera is not None:
            info = info_from_camera(camera)
            info.header = header
            self.info.publish(info)
        message.header = header
        publisher.publish(message)
        return header.stamp.sec, header.stamp.nanosec

    def answer(self, image: np.ndarray, camera: Camera | None = None, seconds: float = 10.0) -> HandMeshArray:
        """Send an image and wait for its hands."""
        return self.hands_of(self.send(image, camera), seconds)

    def hands_of(self, stamp: Stamp, seconds: float = 10.0) -> HandMeshArray:
        """Wait for the hands of a stamp."""
        assert self.wait(lambda: stamp in self.hands, seconds), (
            f'no hands within {seconds} s: {self.diagnostics}'
        )
        return self.hands[stamp]

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def check_hands(rig: Rig, frames: list[np.ndarray], camera: Camera, estimator: HandMeshEstimator) -> None:
    """The node publishes what the estimator, which is set up alike, says of the same images."""
    for image in frames:
        published = rig.answer(image, camera)
        expected = message_from_hands(published.header, estimator.estimate(image, camera).hands)
        assert published.header.frame_id == 'camera_optical_frame'
        assert len(published.hands) == len(expected.hands) > 0
        for hand, own in zip(published.hands, expected.hands, strict=True):
            assert (hand.side, hand.scale_source) == (own.side, HandMesh.SCALE_NOMINAL_HAND)
            for name in ('keypoints_3d', 'keypoints_2d', 'vertices', 'hand_pose', 'global_orient', 'transl'):
                np.testing.assert_allclose(getattr(hand, name), getattr(own, name), atol=1e-5, err_msg=name)


class NodeProcess(subprocess.Popen[bytes]):
    """A node in a process."""

    def __init__(
        self,
        namespace: str,
        parameters: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        module: str = 'node',
    ) -> None:
        """``module``: of hand_mesh_ros.ros, with the node's main."""
        command = [sys.executable, '-m', f'hand_mesh_ros.ros.{module}', '--ros-args']
        command += ['-r', f'__ns:={namespace}']
        if module == 'node':
            # Most tests are about what is around the method. One given by parameters comes later, and counts.
            parameters = ('method:=fit', *parameters)
        for parameter in parameters:
            command += ['-p', parameter]
        self._log = log
        with open(log, 'wb') as stream:  # a pipe that nobody reads would stop the process
            super().__init__(
                command, cwd=ROOT, env={**os.environ, **environment}, stdout=stream, stderr=subprocess.STDOUT
            )

    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text()


def resident_mib(process: subprocess.Popen[bytes]) -> float:
    """Memory that a process holds now; on Linux."""
    found = re.search(r'VmRSS:\s+(\d+) kB', Path(f'/proc/{process.pid}/status').read_text())
    assert found
    return int(found[1]) / 1024


@contextmanager
def node_process(
    namespace: str,
    parameters: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    module: str = 'node',
) -> Iterator[NodeProcess]:
    """A node's process, from its start; killed if the test has not ended it."""
    with tempfile.TemporaryDirectory() as folder:
        process = NodeProcess(namespace, parameters, environment or {}, Path(folder, 'node.log'), module)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@contextmanager
def running_node(
    namespace: str, parameters: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[tuple[Rig, NodeProcess]]:
    """A node that has loaded, and a rig that it listens to."""
    with node_process(namespace, parameters, environment) as process:
        rig = Rig(namespace)
        try:
            compressed = 'image_transport:=compressed' in parameters
            of_masks = 'method:=mask2hand' in parameters
            publisher = rig.mask if of_masks else rig.jpeg if compressed else rig.image
            await_start(rig, process, lambda: rig.model_infos and publisher.get_subscription_count())
            yield rig, process
        finally:
            rig.close()


@contextmanager
def running_mask_node(namespace: str, parameters: Sequence[str] = ()) -> Iterator[tuple[Rig, NodeProcess]]:
    """A hand_mask_node that has loaded, and a rig that it listens to."""
    with node_process(namespace, parameters, module='mask_node') as process:
        rig = Rig(namespace, 'hand_mask')
        try:
            await_start(rig, process, rig.depth.get_subscription_count)
            yield rig, process
        finally:
            rig.close()


def await_start(rig: Rig, process: NodeProcess, is_ready: Callable[[], object]) -> None:
    """Wait until a node listens."""
    rig.wait(lambda: process.poll() is not None or (is_ready() and rig.info.get_subscription_count()), 60.0)
    assert is_ready() and process.poll() is None, process.output()
