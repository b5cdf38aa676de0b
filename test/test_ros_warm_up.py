"""Before the first image everything has run once, and nothing of that is left."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from hand_mesh_ros import HandMeshEstimator
from hand_mesh_ros.ros.warm_up import warm_up


@pytest.mark.parametrize('method', ['fit', 'maskhand'])
def test_the_hand_that_warms_up_is_found_and_forgotten(method, maskhand_weights):
    with HandMeshEstimator(method, weights=maskhand_weights, streaming=True) as estimator:
        seen = warm_up(estimator)
        assert [hand.side for hand in seen.hands] == ['left'], (
            'a hand was drawn that the detector knows as one'
        )
        assert (seen.timing_ms.get('network', 0.0) > 0.0) == (method == 'maskhand')
        assert not estimator.estimate(np.full((480, 640, 3), 128, np.uint8)).hands


@pytest.mark.parametrize('with_depth', [False, True])
def test_a_mask_and_depth_warm_up_what_looks_at_them(with_depth, mask2hand_weights):
    with HandMeshEstimator('mask2hand', weights=mask2hand_weights, streaming=True) as estimator:
        seen = warm_up(estimator, with_depth)
        assert [hand.side for hand in seen.hands] == ['left']
        assert seen.timing_ms['network'] > 0.0 and ('surface' in seen.timing_ms) == with_depth
