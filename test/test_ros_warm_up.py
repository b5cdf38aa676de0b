"""Before the first image everything has run once, and nothing of that is left."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from hand_mesh_ros import HandMeshEstimator
from hand_mesh_ros.ros.warm_up import warm_up


def test_the_hand_that_warms_up_is_found_and_forgotten():
    with HandMeshEstimator(streaming=True) as estimator:
        seen = warm_up(estimator).hands
        assert [hand.side for hand in seen] == ['left'], 'a hand was drawn that the detector knows as one'
        assert not estimator.estimate(np.full((480, 640, 3), 128, np.uint8)).hands
