"""hand_mesh_node on masks and depth, in a process of its own, over real DDS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')
pytest.importorskip('torch', reason='PyTorch is not installed')
from ros_rig import NodeProcess, Rig, running_node
from sensor_msgs.msg import Image

from hand_mesh_ros import HandMeshEstimator
from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.detection import HandBox
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.msg import HandMesh, HandMeshArray
from hand_mesh_ros.ros.images import message_from_depth, message_from_mask, rgb_from_message
from hand_mesh_ros.ros.messages import message_from_boxes
from hand_mesh_ros.ros.warm_up import WARM_UP_CAMERA as CAMERA
from hand_mesh_ros.ros.warm_up import depth_image

#: The hand lies in one plane so far away, half a metre before a wall.
DISTANCE_M = 0.45
RNG = np.random.default_rng(5)


@pytest.fixture(scope='module')
def depth_m() -> np.ndarray:
    """Depth (480,640) float32 of a flat left hand before a wall."""
    return depth_image(load_hand_model(None, 'left'))


@pytest.fixture(scope='module')
def mask(depth_m) -> np.ndarray:
    """Its mask (480,640) bool."""
    return depth_m < 0.9


@pytest.fixture(scope='module')
def node(mask2hand_weights) -> Iterator[tuple[Rig, NodeProcess]]:
    """A node that looks at masks and depth."""
    parameters = [
        'method:=mask2hand',
        f'weights_path:={mask2hand_weights}',
        'side:=left',
        'use_depth:=true',
        'threads:=1',
    ]
    with running_node('/silhouette', parameters) as (rig, process):
        assert rig.wait(rig.depth.get_subscription_count)
        yield rig, process


def send_both(
    rig: Rig, mask: np.ndarray, depth: np.ndarray | Image, camera: Camera | None = CAMERA
) -> HandMeshArray:
    """Send a mask and depth of one stamp and wait for their hands."""
    header = rig.header()
    message = depth if isinstance(depth, Image) else message_from_depth(depth)
    rig.publish(rig.depth, message, header=header)
    return rig.hands_of(rig.publish(rig.mask, message_from_mask(mask), camera, header))


def counted(rig: Rig, key: str) -> int:
    return int(rig.diagnostics.get(key, 0))


def counts_more(rig: Rig, key: str, act: Callable[[], object], more: int = 1) -> bool:
    """Whether a count of the diagnostics grows when something is done."""
    rig.diagnostics.clear()
    assert rig.wait(lambda: rig.diagnostics, 5.0)
    before = counted(rig, key)
    act()
    return rig.wait(lambda: counted(rig, key) >= before + more, 5.0)


def test_a_mask_with_depth_becomes_a_hand_where_depth_was_measured(node, mask, depth_m, mask2hand_weights):
    rig, _ = node
    (hand,) = send_both(rig, mask, depth_m).hands
    assert (hand.side, hand.scale_source) == (HandMesh.LEFT, HandMesh.SCALE_DEPTH)
    keypoints = np.array(hand.keypoints_3d).reshape(21, 3)
    assert abs(np.median(keypoints[:, 2]) - DISTANCE_M) < 0.03
    (info,) = rig.model_infos
    assert info.method == 'mask2hand'
    with HandMeshEstimator('mask2hand', weights=mask2hand_weights, side='left', streaming=True) as estimator:
        rounded = np.rint(1e3 * depth_m).astype(np.float32) / 1e3
        (own,) = estimator.estimate(None, CAMERA, mask=mask, depth_m=rounded).hands
    np.testing.assert_allclose(keypoints, own.keypoints_3d, atol=0.002)


def test_without_depth_the_hand_is_published_soon_and_the_lack_counted(node, mask):
    rig, _ = node

    def answer() -> None:
        start = time.monotonic()
        stamp = rig.publish(rig.mask, message_from_mask(mask), CAMERA)
        (hand,) = rig.hands_of(stamp).hands
        assert time.monotonic() - start < 5.0
        assert hand.scale_source == HandMesh.SCALE_NOMINAL_HAND

    assert counts_more(rig, 'without depth', answer), rig.diagnostics
    assert rig.wait(lambda: 'no depth images for them on /silhouette/depth' in rig.diagnostics_message, 3.0)


def test_a_mask_that_is_older_than_the_depth_is_answered_without_it(node, mask, depth_m):
    rig, _ = node

    def answer() -> None:
        old, new = rig.header(), rig.header()
        new.stamp.sec, new.stamp.nanosec = old.stamp.sec, 5 * 10**8
        rig.publish(rig.depth, message_from_depth(depth_m), header=new)
        rig.spin(0.1)
        stamp = rig.publish(rig.mask, message_from_mask(mask), CAMERA, old)
        (hand,) = rig.hands_of(stamp).hands
        assert hand.scale_source == HandMesh.SCALE_NOMINAL_HAND

    assert counts_more(rig, 'without depth', answer), rig.diagnostics


@pytest.mark.parametrize('kind', ['black', 'white', 'speckled', 'a dot', 'a line'])
def test_masks_without_a_hand_are_answered_too(node, kind, depth_m, mask):
    rig, process = node
    empty = np.zeros_like(mask)
    if kind == 'white':
        empty[:] = True
    elif kind == 'speckled':
        empty[RNG.random(mask.shape) < 0.02] = True
    elif kind == 'a dot':
        empty[100:104, 100:104] = True
    elif kind == 'a line':
        empty[200, 50:600] = True
    assert send_both(rig, empty, depth_m).hands == []
    assert send_both(rig, mask, depth_m).hands, 'the next one is seen'
    assert 'Traceback' not in process.output()


def test_a_mask_of_another_size_than_its_camera_info_is_dropped(node, mask, depth_m):
    rig, process = node

    def send() -> None:
        rig.publish(rig.mask, message_from_mask(mask[:240]), CAMERA)

    assert counts_more(rig, 'dropped: malformed', send), rig.diagnostics
    assert 'mask dropped: camera_info is of 640x480, the image of 640x240' in process.output()
    assert send_both(rig, mask, depth_m).hands


def test_malformed_masks_are_dropped(node, mask, depth_m):
    rig, process = node
    cut, colour, step = (message_from_mask(mask) for _ in range(3))
    cut.data = cut.data[:1000]
    colour.encoding = 'rgb8'
    step.step = 7

    def send() -> None:
        for message in (cut, colour, step, Image()):
            rig.publish(rig.mask, message, CAMERA)
            rig.spin(0.4)  # each one has its turn

    assert counts_more(rig, 'dropped: malformed', send, 4), rig.diagnostics
    assert send_both(rig, mask, depth_m).hands
    assert 'Traceback' not in process.output() and 'dropped: error' not in rig.diagnostics


@pytest.mark.parametrize('kind', ['size', 'encoding', 'cut', 'nothing measured', 'big endian'])
def test_depth_that_cannot_be_used_is_left_out(node, mask, depth_m, kind):
    rig, process = node
    depth = message_from_depth(depth_m)
    if kind == 'size':
        depth = message_from_depth(depth_m[::2, ::2])
    elif kind == 'encoding':
        depth.encoding = 'mono8'
    elif kind == 'cut':
        depth.data = depth.data[:1000]
    elif kind == 'nothing measured':
        depth = message_from_depth(np.zeros_like(depth_m))
    elif kind == 'big endian':  # which is no reason to leave it out
        swapped = np.frombuffer(depth.data, np.uint16).byteswap()
        depth.data = type(depth.data)('B', swapped.tobytes())
        depth.is_bigendian = 1

    def answer() -> None:
        (hand,) = send_both(rig, mask, depth).hands
        expected = HandMesh.SCALE_DEPTH if kind == 'big endian' else HandMesh.SCALE_NOMINAL_HAND
        assert hand.scale_source == expected

    if kind in ('nothing measured', 'big endian'):
        answer()
    else:
        assert counts_more(rig, 'without usable depth', answer), rig.diagnostics
    assert 'Traceback' not in process.output()


def test_without_calibration_hands_are_flagged_and_depth_is_not_used(node, mask, depth_m):
    rig, _ = node
    uncalibrated = Camera.from_fov(640, 480)
    (hand,) = send_both(rig, mask, depth_m, uncalibrated).hands
    assert hand.scale_source == HandMesh.SCALE_UNKNOWN
    (hand,) = send_both(rig, mask, depth_m).hands
    assert hand.scale_source == HandMesh.SCALE_DEPTH


def test_the_debug_image_shows_hands_over_the_mask(node, mask, depth_m):
    rig, _ = node
    pictures: list[Image] = []
    subscription = rig.node.create_subscription(Image, 'hand_mesh/debug_image', pictures.append, 5)
    assert rig.wait(lambda: rig.node.count_publishers('hand_mesh/debug_image'))
    empty = np.zeros_like(mask)
    empty[10:14, 10:14] = True
    while not pictures:
        send_both(rig, empty, depth_m)
    rig.spin(0.3)
    grey = rgb_from_message(pictures[-1])
    assert len(np.unique(grey[empty])) == 1 and 50 < grey[12, 12, 0] < 220 and not grey[~empty].any()
    count = len(pictures)
    send_both(rig, mask, depth_m)
    assert rig.wait(lambda: len(pictures) > count)
    rig.node.destroy_subscription(subscription)
    drawn = rgb_from_message(pictures[-1])
    assert (np.ptp(drawn.astype(int), axis=2) > 0).mean() > 0.02, 'coloured where a hand is'


def test_images_with_depth_and_boxes(depth_m, mask):
    """Three streams, whichever comes first."""
    model = load_hand_model(None, 'left')
    image = np.full((480, 640, 3), 128, np.uint8)
    image[mask] = (215, 170, 140)
    rows, columns = np.nonzero(mask)
    box = HandBox('left', np.array([columns.min(), rows.min(), columns.max(), rows.max()], np.float32))
    with running_node('/rgbd', ['detector:=boxes', 'use_depth:=true']) as (rig, process):
        assert rig.wait(lambda: rig.depth.get_subscription_count() and rig.boxes.get_subscription_count())
        for order in ('image depth boxes', 'boxes depth image', 'depth boxes image', 'boxes image'):
            header = rig.header()
            for part in order.split():
                if part == 'image':
                    rig.send(image, CAMERA, header)
                elif part == 'depth':
                    rig.publish(rig.depth, message_from_depth(depth_m), header=header)
                else:
                    rig.boxes.publish(message_from_boxes(header, [box]))
                rig.spin(0.05)
            (hand,) = rig.hands_of((header.stamp.sec, header.stamp.nanosec)).hands
            depth_is_there = 'depth' in order
            assert hand.side == HandMesh.LEFT
            assert (hand.scale_source == HandMesh.SCALE_DEPTH) == depth_is_there, order
            if depth_is_there:
                vertices = np.array(hand.vertices).reshape(-1, 3)
                assert abs(np.median(vertices[:, 2]) - DISTANCE_M) < 0.03
        assert len(vertices) == len(model.v_template) and 'Traceback' not in process.output()
