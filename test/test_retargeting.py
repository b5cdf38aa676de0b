"""Keypoints for robot hands are those that dex-retargeting's own way from keypoints to its frame gives."""

from __future__ import annotations

import numpy as np
import pytest

from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles, mirrored_points
from hand_mesh_ros.retargeting import retargeting_axes, retargeting_keypoints

MODELS = {'right': load_hand_model(), 'left': load_hand_model(side='left')}

#: dex_retargeting.constants.OPERATOR2MANO_RIGHT and _LEFT: from its frame of the operator's hand to MANO's.
OPERATOR_TO_MANO = {
    'right': np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]]),
    'left': np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]),
}


def hand(side, seed):
    rng = np.random.default_rng(seed)
    orient, pose = rng.normal(0.0, 1.5, 3), rng.normal(0.0, 0.3, 45)
    if side == 'left':
        orient, pose = mirrored_axis_angles(orient), mirrored_axis_angles(pose)
    return MODELS[side].posed(orient, pose, rng.normal(0.0, 1.0, 10), rng.normal(0.0, 1.0, 3))


def by_least_squares(points, side):
    """The plane through wrist and two knuckles by its normal's least squares, turned to face the index."""
    three = points[[0, 5, 9]]
    normal = np.linalg.svd(three - three.mean(0))[2][2]
    x = three[0] - three[2]
    x = x - (x @ normal) * normal
    x /= np.linalg.norm(x)
    z = np.cross(x, normal)
    if z @ (three[1] - three[2]) < 0:
        normal, z = -normal, -z
    return (points - points[0]) @ np.stack([x, normal, z], axis=1) @ OPERATOR_TO_MANO[side]


@pytest.mark.parametrize('side', ['right', 'left'])
@pytest.mark.parametrize('seed', range(5))
def test_keypoints_are_in_the_frame_of_dex_retargeting(side, seed):
    points = hand(side, seed).keypoints
    expected = by_least_squares(points, side)
    np.testing.assert_allclose(retargeting_keypoints(points, side), expected, atol=1e-12)


@pytest.mark.parametrize('side', ['right', 'left'])
def test_they_are_of_the_pose_alone_and_axes_are_those_of_the_hand(side):
    model = MODELS[side]
    rest = model.posed(np.zeros(3), np.zeros(45), np.zeros(10), np.zeros(3))
    turned = model.posed(np.array([0.4, -1.9, 0.8]), np.zeros(45), np.zeros(10), np.array([0.1, 0.2, 0.6]))
    points = retargeting_keypoints(turned.keypoints, side)
    np.testing.assert_allclose(points, retargeting_keypoints(rest.keypoints, side), atol=1e-9)
    axes = retargeting_axes(turned.keypoints, side)
    assert np.linalg.det(axes) == pytest.approx(1.0)
    # The hand frame: x to the fingers, z out of the back of the hand
    R_camera_hand = turned.T_camera_hand[:3, :3]
    assert axes[:, 2] @ R_camera_hand[:, 0] > 0.95 and axes[:, 0] @ R_camera_hand[:, 2] < -0.9
    assert points[12, 2] > 0.1 and np.sign(points[4, 1]) == (1.0 if side == 'right' else -1.0)


def test_a_left_hand_is_the_mirror_image_of_a_right_one():
    points = hand('right', 7).keypoints
    left = retargeting_keypoints(mirrored_points(points), 'left')
    np.testing.assert_allclose(left, retargeting_keypoints(points, 'right') * (1, -1, 1), atol=1e-12)


@pytest.mark.parametrize('value', [0.0, np.nan, np.inf])
def test_what_has_no_palm_is_refused(value):
    with pytest.raises(FrameError, match='palm|one line'):
        retargeting_keypoints(np.full((21, 3), value), 'right')
