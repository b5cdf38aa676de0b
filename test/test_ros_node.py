"""hand_mesh_node in a process of its own, over real DDS: what a robot relies on."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')
from ros_rig import ROOT, NodeProcess, Rig, check_hands, node_process, resident_mib, running_node
from sensor_msgs.msg import Image

from hand_mesh_ros import HandMeshEstimator
from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.demo_clip import render_demo_clip
from hand_mesh_ros.detection.detection import HandBox
from hand_mesh_ros.msg import HandMesh
from hand_mesh_ros.ros.images import jpeg_from_rgb, message_from_rgb, rgb_from_message
from hand_mesh_ros.ros.messages import message_from_boxes
from hand_mesh_ros.sources import read_frames

CAMERA = Camera(640, 480, 554.0, 554.0, 319.5, 239.5)


@pytest.fixture(scope='module')
def frames(tmp_path_factory) -> list[np.ndarray]:
    """A few images (480,640,3) of moving hands."""
    clip = render_demo_clip(tmp_path_factory.mktemp('clip') / 'clip.mp4', seconds=0.2, fps=30.0)
    return [frame.image for frame in read_frames(clip.video)]


@pytest.fixture(scope='module')
def node() -> Iterator[tuple[Rig, NodeProcess]]:
    with running_node('/robot/camera') as rig_and_process:
        yield rig_and_process


def test_published_hands_are_those_that_the_library_computes(node, frames):
    rig, _ = node
    with HandMeshEstimator('fit', streaming=True) as estimator:
        check_hands(rig, frames, CAMERA, estimator)
    (info,) = rig.model_infos
    assert (info.method, info.backend, info.weights_hash) == ('fit', 'numpy', '')


def test_an_image_without_hands_is_answered_too(node):
    rig, _ = node
    assert rig.answer(np.full((480, 640, 3), 90, np.uint8), CAMERA).hands == []


def test_without_calibration_hands_are_flagged(node, frames):
    rig, _ = node
    hands = rig.answer(frames[0], Camera.from_fov(640, 480)).hands
    assert hands and all(hand.scale_source == HandMesh.SCALE_UNKNOWN for hand in hands)
    hands = rig.answer(frames[0], Camera(320, 240, 300, 300, 160, 120)).hands  # of another image size
    assert hands and all(hand.scale_source == HandMesh.SCALE_UNKNOWN for hand in hands)
    assert rig.wait(lambda: '320x240' in rig.diagnostics_message, 5.0), rig.diagnostics_message
    assert rig.answer(frames[0], CAMERA).hands[0].scale_source == HandMesh.SCALE_NOMINAL_HAND


def test_frames_go_out_once_with_the_stamp_of_the_image(node, frames):
    rig, _ = node
    hands = rig.answer(frames[0], CAMERA)
    stamp = hands.header.stamp.sec, hands.header.stamp.nanosec
    assert rig.wait(lambda: stamp in rig.tf)
    first = rig.tf.pop(stamp).transforms
    assert {
        transform.header.frame_id for transform in first if transform.child_frame_id.endswith('_hand')
    } == {'camera_optical_frame'}
    rig.hands.clear()
    again = message_from_rgb(frames[0])
    again.header = hands.header
    rig.image.publish(again)
    assert rig.wait(lambda: stamp in rig.hands)
    rig.spin(0.2)
    assert stamp not in rig.tf


def test_frames_go_out_once_when_stamps_go_back(node, frames):
    rig, _ = node
    header = rig.header()
    base = header.stamp.sec + 100
    rig.tf_stamps.clear()
    # Two late ones again and again, as of two drivers on one topic; then a bag that starts over.
    order = [base, base - 1, base, base - 1, base - 50, base]
    for seconds in order:
        rig.hands.clear()
        header.stamp.sec = seconds
        rig.send(frames[0], CAMERA, header)
        assert rig.wait(lambda: rig.hands), rig.diagnostics
    rig.spin(0.3)
    sent = [seconds for seconds, _ in rig.tf_stamps if seconds in order]
    assert sent == [base, base - 1, base - 50, base]


@pytest.mark.parametrize(('field', 'problem'), [('frame_id', 'no frame_id'), ('stamp', 'no stamp')])
def test_headers_that_tf_cannot_use_are_told(node, frames, field, problem):
    rig, _ = node
    header = rig.header()
    setattr(header, field, type(getattr(header, field))())
    rig.tf_stamps.clear()
    rig.hands.clear()
    rig.send(frames[0], CAMERA, header)
    assert rig.wait(lambda: rig.hands) and next(iter(rig.hands.values())).hands
    assert rig.wait(lambda: problem in rig.diagnostics_message, 5.0), rig.diagnostics_message
    assert not rig.tf_stamps
    rig.answer(frames[0], CAMERA)
    assert rig.wait(lambda: problem not in rig.diagnostics_message, 5.0), rig.diagnostics_message


def test_a_negative_stamp_is_a_malformed_image(node, frames):
    rig, process = node
    header = rig.header()
    header.stamp.sec = -5
    rig.send(frames[0], CAMERA, header)
    assert rig.wait(lambda: 'its stamp is negative' in process.output(), 5.0), process.output()
    rig.answer(frames[0], CAMERA)
    rig.spin(1.2)
    assert 'dropped: error' not in rig.diagnostics and 'Traceback' not in process.output()


def test_the_debug_image_shows_the_hands(node, frames):
    rig, _ = node
    pictures: list[Image] = []
    subscription = rig.node.create_subscription(Image, 'hand_mesh/debug_image', pictures.append, 5)
    assert rig.wait(lambda: rig.node.count_publishers('hand_mesh/debug_image'))
    hands = rig.answer(frames[0], CAMERA)
    while not pictures:
        hands = rig.answer(frames[0], CAMERA)
    rig.node.destroy_subscription(subscription)
    picture = rgb_from_message(pictures[-1])
    assert pictures[-1].header.frame_id == hands.header.frame_id and picture.shape == frames[0].shape
    x0, y0, x1, y1 = hands.hands[0].bbox_px.astype(int)
    changed = (picture != frames[0]).any(axis=2)
    assert changed[y0:y1, x0:x1].mean() > 0.2 and not changed[-5:].any()


def check_fingertips(hands_topic: str, send: Callable[[], object]) -> None:
    """Run the example while images are sent: what it reads from TF is what it reads from hands."""
    command = [sys.executable, str(ROOT / 'examples' / 'print_fingertips.py'), '--once']
    command += ['--ros-args', '-r', f'hands:={hands_topic}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as printer:
        deadline = time.monotonic() + 20.0
        while printer.poll() is None and time.monotonic() < deadline:
            send()
        if printer.poll() is None:
            printer.kill()
        assert printer.stdout is not None
        lines = printer.stdout.read().splitlines()
    assert len(lines) >= 5, lines
    for line in lines:
        numbers = [float(number) for number in re.findall(r'[+-]\d\.\d{6}', line)]
        assert len(numbers) == 6, line
        np.testing.assert_allclose(numbers[:3], numbers[3:], atol=1e-5)


def test_another_process_reads_the_same_fingertips_from_hands_and_from_tf(node, frames):
    rig, _ = node
    check_fingertips('/robot/camera/hand_mesh/hands', lambda: rig.answer(frames[0], CAMERA))


def test_30_images_a_second_arrive(node, frames):
    rig, _ = node
    rig.answer(frames[0], CAMERA)
    assert rig.wait(lambda: rig.diagnostics)
    rig.spin(1.2)
    before, count = int(rig.diagnostics['frames in']), 90
    start = time.monotonic()
    for i in range(count):
        rig.send(frames[i % len(frames)], CAMERA)
        rig.spin(max(start + (i + 1) / 30.0 - time.monotonic(), 0.0))
    rig.spin(1.5)
    arrived = int(rig.diagnostics['frames in']) - before
    assert arrived >= 0.95 * count, f'{arrived} of {count}: {rig.diagnostics}'


def garbage() -> dict[str, Image]:
    """Images that are none, of many kinds."""
    kinds = {
        name: message_from_rgb(np.zeros((48, 64, 3), np.uint8))
        for name in ('short', 'long', 'unknown', 'step')
    }
    kinds['short'].data = kinds['short'].data[:100]
    kinds['long'].data.extend(array('B', bytes(1000)))
    kinds['unknown'].encoding = 'plaid8'
    kinds['step'].step = 7
    kinds['zero'] = Image()
    kinds['zero width'] = Image(height=48, encoding='rgb8')
    kinds['huge header'] = Image(height=2**31, width=2**31, step=2**32 - 1, encoding='rgb8')
    kinds['1x1'] = message_from_rgb(np.zeros((1, 1, 3), np.uint8))
    return kinds


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is read from /proc')
def test_garbage_neither_stops_nor_grows_the_node(node, frames):
    rig, process = node

    def pour(rounds: int) -> None:
        for _ in range(rounds):
            for message in garbage().values():
                message.header = rig.header()
                rig.image.publish(message)
                rig.spin(0.01)

    pour(5)
    rig.answer(frames[0], CAMERA)
    before = resident_mib(process)
    for _ in range(3):
        pour(10)
    assert rig.answer(frames[0], CAMERA).hands
    assert resident_mib(process) < before + 40.0
    assert rig.wait(lambda: int(rig.diagnostics.get('dropped: malformed', 0)) > 50, 3.0), rig.diagnostics
    assert 'dropped: error' not in rig.diagnostics


def test_an_8k_image_is_looked_at():
    """It does not fit into shared memory, and of best-effort UDP fragments some are lost."""
    reliable = 'qos_overrides./large/image.subscription.reliability:=reliable'
    with running_node('/large', [reliable]) as (rig, process):
        rig.answer(np.zeros((4320, 7680, 3), np.uint8), seconds=20.0)
        assert rig.wait(lambda: rig.diagnostics.get('frames out') == '1', 5.0), rig.diagnostics
        assert process.poll() is None


def test_the_node_tells_when_no_image_comes():
    with running_node('/dark', ['no_image_warning_s:=0.5']) as (rig, process):
        assert rig.wait(lambda: 'no image for' in rig.diagnostics_message, 5.0)
        assert '/dark/image has' in rig.diagnostics_message and 'QoS fit' in rig.diagnostics_message
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0 and '/dark/image' in process.output()


def test_compressed_images_with_boxes_of_another_detector(frames):
    parameters = [
        'image_transport:=compressed',
        'detector:=boxes',
        'require_calibration:=true',
        'publish_vertices:=false',
        'tf_prefix:=front_',
    ]
    image = frames[0]
    with HandMeshEstimator('fit') as estimator:
        hand = estimator.estimate(image, CAMERA).hands[0]
    with running_node('/boxed', parameters) as (rig, _):
        assert rig.wait(lambda: rig.boxes.get_subscription_count() > 0)

        def publish() -> tuple[int, int]:
            jpeg = jpeg_from_rgb(image, quality=98)
            jpeg.header = rig.header()
            rig.jpeg.publish(jpeg)
            rig.boxes.publish(message_from_boxes(jpeg.header, [HandBox(hand.side, hand.bbox_px)]))
            return jpeg.header.stamp.sec, 0

        publish()
        assert rig.wait(lambda: rig.diagnostics.get('dropped: uncalibrated') == '1', 5.0), rig.diagnostics
        assert not rig.hands
        info_stamp = rig.send(image, CAMERA)  # the raw image goes nowhere
        stamp = publish()
        assert rig.wait(lambda: stamp in rig.hands and stamp in rig.tf), rig.diagnostics
        (published,) = rig.hands[stamp].hands
        assert info_stamp not in rig.hands
        assert len(published.vertices) == 0 and published.scale_source == HandMesh.SCALE_NOMINAL_HAND
        # The JPEG's pixels differ a little from the image's.
        assert np.abs(published.keypoints_2d - hand.keypoints_2d.reshape(-1)).mean() < 3.0
        assert rig.tf[stamp].transforms[0].child_frame_id == f'front_{hand.side}_hand'

        def send() -> None:
            stamp = publish()
            assert rig.wait(lambda: stamp in rig.hands), rig.diagnostics

        check_fingertips('/boxed/hand_mesh/hands', send)

        def told_of_missing_boxes() -> bool:
            # Images alone, and more than one: their stamps are seconds apart, and best effort may lose some.
            jpeg = jpeg_from_rgb(image)
            jpeg.header = rig.header()
            rig.jpeg.publish(jpeg)
            return rig.wait(lambda: '/boxed/hand_boxes' in rig.diagnostics_message, 0.3)

        assert any(told_of_missing_boxes() for _ in range(30)), rig.diagnostics_message


@pytest.mark.parametrize(
    ('number', 'is_drawn'), [(signal.SIGINT, True), (signal.SIGTERM, False)], ids=['SIGINT, drawn', 'SIGTERM']
)
def test_signals_end_the_node_in_time_while_images_come(number, is_drawn, frames, tmp_path):
    # As on a machine on which no hand was drawn yet: nothing of it may be left to compile.
    environment = {'NUMBA_CACHE_DIR': str(tmp_path)} if is_drawn else {}
    with running_node('/ending', environment=environment) as (rig, process):
        if is_drawn:
            rig.node.create_subscription(Image, 'hand_mesh/debug_image', lambda image: None, 5)
        for _ in range(15):
            rig.send(frames[0], CAMERA)
            rig.spin(0.02)
        start = time.monotonic()
        process.send_signal(number)
        while process.poll() is None and time.monotonic() < start + 10.0:
            rig.send(frames[0], CAMERA)
            rig.spin(0.02)
        assert time.monotonic() - start < 3.0
        assert process.returncode == 0, process.output()
        assert 'Traceback' not in process.output(), process.output()


@pytest.mark.parametrize(
    ('parameter', 'told'),
    [
        ('hand_model_path:=~/nowhere/MANO_RIGHT.pkl', str(Path.home() / 'nowhere/MANO_RIGHT.pkl')),
        ('method:=magic', 'method'),
        ('weights_path:=~/nowhere/maskhand.safetensors', str(Path.home() / 'nowhere/maskhand.safetensors')),
        ('qos_overrides./broken/image.subscription.reliability:=foo', 'reliability'),
        ('method=fit', 'arguments for ROS cannot be used'),
    ],
)
def test_what_cannot_work_is_told_at_the_start(parameter, told):
    parameters = ['method:=maskhand', parameter] if parameter.startswith('weights_path') else [parameter]
    with node_process('/broken', parameters) as process:
        assert process.wait(60) == 1
        assert told in process.output() and 'Traceback' not in process.output()
