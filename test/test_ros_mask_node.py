"""hand_mask_node in a process of its own, over real DDS: depth in, masks out."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')
from ros_rig import NodeProcess, Rig, Stamp, node_process, running_mask_node
from sensor_msgs.msg import Image

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.detection import HandBox
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.ros.images import mask_from_message, message_from_depth
from hand_mesh_ros.ros.messages import message_from_boxes
from hand_mesh_ros.ros.warm_up import WARM_UP_CAMERA as CAMERA
from hand_mesh_ros.ros.warm_up import depth_image

WALL_M = 1.0


@pytest.fixture(scope='module')
def depth_m() -> np.ndarray:
    """Depth (480,640) float32 of a hand before a wall, with a forearm that comes in from below."""
    depth = depth_image(load_hand_model(None, 'left'))
    rows, columns = np.nonzero(depth < WALL_M)
    middle = round(columns[rows > rows.max() - 10].mean())
    arm = np.s_[rows.max() - 5 :, middle - 30 : middle + 30]
    depth[arm] = np.minimum(depth[arm], 0.47)
    return depth


class MaskRig:
    """Sends depth, keeps masks."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.masks: dict[Stamp, Image] = {}
        rig.node.create_subscription(Image, 'hand_mask', self._on_mask, 10)
        assert rig.wait(lambda: rig.node.count_publishers('hand_mask'))
        assert rig.wait(lambda: rig.depth.get_subscription_count() and rig.info.get_subscription_count())
        # A writer knows of a reader before the reader knows of it; what comes between is lost
        assert rig.wait(lambda: rig.diagnostics)
        rig.spin(1.0)

    def _on_mask(self, message: Image) -> None:
        self.masks[message.header.stamp.sec, message.header.stamp.nanosec] = message

    def answer(self, depth: np.ndarray | Image, camera: Camera | None = CAMERA) -> Image:
        """Send depth and wait for its mask."""
        message = depth if isinstance(depth, Image) else message_from_depth(depth)
        return self.mask_of(self.rig.publish(self.rig.depth, message, camera))

    def mask_of(self, stamp: Stamp) -> Image:
        """Wait for the mask of a stamp."""
        assert self.rig.wait(lambda: stamp in self.masks), self.rig.diagnostics
        return self.masks[stamp]


@pytest.fixture(scope='module')
def node() -> Iterator[tuple[MaskRig, NodeProcess]]:
    with running_mask_node('/depth_camera') as (rig, process):
        yield MaskRig(rig), process


def test_a_hand_has_a_mask_with_the_header_and_size_of_the_depth(node, depth_m):
    masks, _ = node
    message = masks.answer(depth_m)
    assert (message.encoding, message.width, message.height) == ('mono8', 640, 480)
    assert message.header.frame_id == 'camera_optical_frame' and set(message.data) == {0, 255}
    mask = mask_from_message(message)
    hand = depth_image(load_hand_model(None, 'left')) < WALL_M
    assert (mask & hand).sum() / (mask | hand).sum() > 0.7


def test_an_empty_scene_has_an_empty_mask(node, depth_m):
    masks, process = node
    for empty in (np.full_like(depth_m, WALL_M), np.zeros_like(depth_m)):
        message = masks.answer(empty)
        assert not any(message.data) and (message.width, message.height) == (640, 480)
    assert any(masks.answer(depth_m).data) and 'Traceback' not in process.output()


def test_metres_do_as_well_as_millimetres(node, depth_m):
    masks, _ = node
    metres = message_from_depth(depth_m)
    metres.encoding, metres.step = '32FC1', 4 * 640
    metres.data = type(metres.data)('B', np.where(depth_m < WALL_M, depth_m, np.nan).tobytes())
    assert any(masks.answer(metres).data)


@pytest.mark.parametrize('kind', ['size', 'encoding', 'cut', 'step', 'empty'])
def test_malformed_depth_is_dropped_and_counted(node, depth_m, kind):
    masks, process = node
    rig = masks.rig
    message, camera = message_from_depth(depth_m), CAMERA
    if kind == 'size':
        camera = Camera(320, 240, 277.0, 277.0, 159.5, 119.5)
    elif kind == 'encoding':
        message.encoding = 'rgb8'
    elif kind == 'cut':
        message.data = message.data[:1000]
    elif kind == 'step':
        message.step = 3
    elif kind == 'empty':
        message = Image()
    rig.diagnostics.clear()
    assert rig.wait(lambda: rig.diagnostics, 5.0)
    before = int(rig.diagnostics.get('dropped: malformed', 0))
    stamp = rig.publish(rig.depth, message, camera)
    assert rig.wait(lambda: int(rig.diagnostics.get('dropped: malformed', 0)) == before + 1, 5.0)
    assert stamp not in masks.masks
    if kind == 'size':
        told = 'depth image dropped: camera_info is of 320x240, the image of 640x480'
        assert told in process.output()
    assert any(masks.answer(depth_m).data), 'the node lives on'
    assert 'Traceback' not in process.output()


def test_without_calibration_there_is_no_mask(node, depth_m):
    masks, _ = node
    rig = masks.rig
    stamp = rig.publish(rig.depth, message_from_depth(depth_m), Camera.from_fov(640, 480))
    assert rig.wait(lambda: int(rig.diagnostics.get('dropped: uncalibrated', 0)) == 1, 5.0), rig.diagnostics
    assert stamp not in masks.masks
    assert any(masks.answer(depth_m).data)


def test_the_depth_that_hands_may_have_can_be_changed(node, depth_m):
    masks, _ = node
    farther = np.where(depth_m < WALL_M, depth_m + 1.0, 2.5).astype(np.float32)
    assert not any(masks.answer(farther).data), 'beyond max_depth_m'
    assert masks.rig.wait(lambda: 'inference p50 (ms)' in masks.rig.diagnostics, 5.0)
    assert int(masks.rig.diagnostics['frames out']) > 0


def test_boxes_say_where_hands_are(depth_m):
    hand = depth_image(load_hand_model(None, 'left')) < WALL_M
    rows, columns = np.nonzero(hand)
    here = np.array([columns.min(), rows.min(), columns.max(), rows.max()], np.float32)
    elsewhere = np.array([10, 10, 90, 90], np.float32)
    with running_mask_node('/boxed_depth', ['use_boxes:=true']) as (rig, process):
        masks = MaskRig(rig)
        assert rig.wait(rig.boxes.get_subscription_count)
        for bbox_px, is_seen in ((here, True), (elsewhere, False)):
            header = rig.header()
            rig.boxes.publish(message_from_boxes(header, [HandBox('left', bbox_px)]))
            stamp = rig.publish(rig.depth, message_from_depth(depth_m), CAMERA, header)
            assert any(masks.mask_of(stamp).data) == is_seen
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0 and 'Traceback' not in process.output(), process.output()


def test_depths_that_cannot_be_are_told_at_the_start():
    with node_process('/broken_depth', ['min_depth_m:=2.0'], module='mask_node') as process:
        assert process.wait(60) == 1
        assert 'min_depth_m' in process.output() and 'Traceback' not in process.output()
