"""hand_mesh_player publishes as a camera driver does: one stamp, right calibration, right pixels, depth."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')
from ros_rig import ROOT, Rig
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from hand_mesh_ros.msg import HandBox, HandBoxArray
from hand_mesh_ros.ros.images import depth_from_message, rgb_from_message

NAMES = ('a.png', 'b.png', 'c.png')


def test_a_folder_is_played_with_the_camera_and_the_boxes_of_each_image(tmp_path):
    rng = np.random.default_rng(3)
    pictures = {name: rng.integers(0, 255, (48, 64 + 8 * i, 3), np.uint8) for i, name in enumerate(NAMES)}
    (tmp_path / 'images').mkdir()
    for name, picture in pictures.items():
        cv2.imwrite(str(tmp_path / 'images' / name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    (tmp_path / 'cameras.json').write_text(json.dumps({'a.png': [50, 51, 31, 23], 'b.png': [60, 61, 32, 24]}))
    (tmp_path / 'boxes.json').write_text(json.dumps({'b.png': [{'side': 'left', 'bbox': [1, 2, 30, 40]}]}))

    rig = Rig('/played')
    got: dict[type, list] = {Image: [], CompressedImage: [], CameraInfo: [], HandBoxArray: []}
    topics = ('image', 'image/compressed', 'camera_info', 'hand_boxes')
    for message_type, topic in zip(got, topics, strict=True):
        rig.node.create_subscription(message_type, topic, got[message_type].append, 10)
    rig.node.create_subscription(CameraInfo, 'camera_info', lambda info: None, 10)  # the second of two
    command = [sys.executable, '-m', 'hand_mesh_ros.ros.player', '--ros-args', '-r', '__ns:=/played']
    for parameter in (
        f'source:={tmp_path / "images"}',
        f'cameras_file:={tmp_path / "cameras.json"}',
        f'boxes_file:={tmp_path / "boxes.json"}',
        'fov_deg:=90.0',
        'rate_hz:=10',
        'frame_id:=left_eye',
        'subscribers:=2',
        'wait_for_subscribers_s:=20.0',
    ):
        command += ['-p', parameter]
    with subprocess.Popen(command, cwd=ROOT) as player:
        rig.wait(lambda: player.poll() is not None, 30.0)
    rig.spin(0.2)
    rig.close()
    assert player.returncode == 0
    assert [len(messages) for messages in got.values()] == [3, 3, 3, 3]

    stamps = [(message.header.stamp.sec, message.header.stamp.nanosec) for message in got[Image]]
    assert len(set(stamps)) == 3 and stamps == sorted(stamps)
    for messages in got.values():
        assert [(message.header.stamp.sec, message.header.stamp.nanosec) for message in messages] == stamps
        assert {message.header.frame_id for message in messages} == {'left_eye'}
    for message, picture in zip(got[Image], pictures.values(), strict=True):
        np.testing.assert_array_equal(rgb_from_message(message), picture)
    for message, picture in zip(got[CompressedImage], pictures.values(), strict=True):
        assert rgb_from_message(message).shape == picture.shape

    first, second, third = got[CameraInfo]
    assert (first.width, first.height, *first.k[[0, 4, 2, 5]]) == (64, 48, 50, 51, 31, 23)
    assert (second.width, second.height, *second.k[[0, 4, 2, 5]]) == (72, 48, 60, 61, 32, 24)
    assert third.k[0] == pytest.approx(40.0), '80 pixels in 90 degrees, for want of an entry in the file'
    boxes = [[(box.side, box.bbox_px.tolist()) for box in message.boxes] for message in got[HandBoxArray]]
    assert boxes == [[], [(HandBox.LEFT, [1, 2, 30, 40])], []]


def test_depth_and_masks_go_out_with_their_image(tmp_path):
    rng = np.random.default_rng(5)
    for folder in ('images', 'depth', 'masks'):
        (tmp_path / folder).mkdir()
    for name in ('a', 'b'):
        cv2.imwrite(str(tmp_path / 'images' / f'{name}.jpg'), rng.integers(0, 255, (48, 64, 3), np.uint8))
    millimetres = rng.integers(0, 2000, (48, 64)).astype(np.uint16)
    metres = rng.uniform(0.4, 0.8, (48, 64)).astype(np.float32)
    metres[0] = np.nan
    cv2.imwrite(str(tmp_path / 'depth' / 'a.png'), millimetres)
    np.save(tmp_path / 'depth' / 'b.npy', metres)
    masks = {name: rng.random((48, 64)) > 0.5 for name in ('a', 'b')}
    for name, mask in masks.items():
        cv2.imwrite(str(tmp_path / 'masks' / f'{name}.png'), mask * np.uint8(255))

    rig = Rig('/measured')
    got: dict[str, list] = {'depth': [], 'mask': [], 'camera_info': []}
    for topic, messages in got.items():
        message_type = CameraInfo if topic == 'camera_info' else Image
        rig.node.create_subscription(message_type, topic, messages.append, 10)
    command = [sys.executable, '-m', 'hand_mesh_ros.ros.player', '--ros-args', '-r', '__ns:=/measured']
    for parameter in (
        f'source:={tmp_path / "images"}',
        f'depth:={tmp_path / "depth"}',
        f'masks:={tmp_path / "masks"}',
        'camera:=[50,51,31,23]',
        'rate_hz:=10',
        'wait_for_subscribers_s:=25.0',  # for one of depth alone: nobody wants the colours
    ):
        command += ['-p', parameter]
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT) as player:
        rig.wait(lambda: player.poll() is not None, 30.0)
    took = time.monotonic() - started
    rig.spin(0.2)
    rig.close()
    assert player.returncode == 0 and took < 25.0
    stamps = [[(m.header.stamp.sec, m.header.stamp.nanosec) for m in messages] for messages in got.values()]
    assert len(stamps[0]) == 2 and stamps[0] == stamps[1] == stamps[2]
    assert {m.header.frame_id for messages in got.values() for m in messages} == {'camera_optical_frame'}
    assert {m.encoding for m in got['depth']} == {'16UC1'} and {m.encoding for m in got['mask']} == {'mono8'}
    first, second = (depth_from_message(message) for message in got['depth'])
    np.testing.assert_allclose(first, np.where(millimetres > 0, millimetres / 1000, np.nan), atol=1e-6)
    np.testing.assert_allclose(second, metres, atol=0.0005001)
    for message, mask in zip(got['mask'], masks.values(), strict=True):
        np.testing.assert_array_equal(rgb_from_message(message)[..., 0], mask * np.uint8(255))


@pytest.mark.parametrize('parameter', ['depth', 'masks'])
def test_depth_and_masks_that_do_not_belong_to_the_images_are_told(tmp_path, parameter):
    topic = {'depth': 'depth', 'masks': 'mask'}[parameter]
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), np.zeros((48, 64, 3), np.uint8))
    dtype = np.uint16 if parameter == 'depth' else np.uint8
    for folder, name, size in (('other', 'b', (48, 64)), ('smaller', 'a', (24, 32))):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / f'{name}.png'), np.ones(size, dtype))
    rig = Rig(f'/wrong_{parameter}')
    rig.node.create_subscription(Image, topic, lambda message: None, 10)
    rig.node.create_subscription(CameraInfo, 'camera_info', lambda message: None, 10)
    told = {}
    for folder in ('other', 'smaller', 'nowhere'):
        command = [sys.executable, '-m', 'hand_mesh_ros.ros.player', '--ros-args']
        for argument in (f'source:={tmp_path / "images"}', f'{parameter}:={tmp_path / folder}'):
            command += ['-p', argument]
        command += ['-r', f'__ns:=/wrong_{parameter}']
        with subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE) as player:
            rig.wait(lambda: player.poll() is not None, 30.0)
            told[folder] = player.stderr.read()
        assert player.returncode == 1 and 'Traceback' not in told[folder], told[folder]
    rig.close()
    assert 'a.png' in told['other'] and '32x24' in told['smaller'] and 'nowhere' in told['nowhere']


@pytest.mark.parametrize(
    ('parameter', 'told'),
    [
        ('source:=""', 'empty'),
        ('source:=/nowhere/at/all.mp4', '/nowhere/at/all.mp4'),
        ('source:=77', 'webcam 77'),
        ('camera:=[-600,600,320,240]', 'camera'),
        ('camera:=[600.0]', 'camera'),
        ('fov_deg:=0.5', 'fov_deg'),
    ],
)
def test_what_cannot_be_played_is_told(parameter, told):
    command = [sys.executable, '-m', 'hand_mesh_ros.ros.player', '--ros-args', '-p', parameter]
    command += ['-p', 'wait_for_subscribers_s:=0']
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=60, check=False)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1 and 'Traceback' not in said, said
    assert told in said
