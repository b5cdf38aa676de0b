"""From the player through both nodes: what comes back is compared with the truth of its own frame."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('hand_mesh_ros.msg', reason='the messages are not built')
from ros_rig import ROOT

from hand_mesh_ros.ros.bags import read_bag


def test_depth_becomes_masks_and_masks_become_hands(tmp_path, mask2hand_weights):
    command = [sys.executable, '-m', 'hand_mesh_ros.ros.rgbd_check', '--out', str(tmp_path)]
    command += ['--weights', str(mask2hand_weights), '--runs', 'mask2hand + depth']
    command += ['--seconds', '0.8', '--fps', '5', '--rate', '2']
    ended = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    row = ended.stdout.splitlines()[-1]
    answered = re.search(r'\| mask2hand \+ depth \| (\d) of 4 \|', row)
    assert answered and int(answered[1]) >= 2, row
    bag = tmp_path / 'mask2hand_depth' / 'bag'
    masks = {
        (message.header.stamp.sec, message.header.stamp.nanosec): np.asarray(message.data)
        for _, _, message in read_bag(bag, '/hand_mask')
    }
    hands = {
        (message.header.stamp.sec, message.header.stamp.nanosec): message.hands
        for _, _, message in read_bag(bag, '/hands')
    }
    assert set(hands) <= set(masks), 'a mask keeps the stamp of its depth, hands that of their mask'
    assert any(mask.any() for mask in masks.values())
