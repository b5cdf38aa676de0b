"""Ids of hands go on from one segment of a bag to the next."""

import numpy as np

from hand_mesh_ros.bag_labelling.identities import Identities, seen
from hand_mesh_ros.hand import Hand, ScaleSource


def hand_at(x_px, track_id):
    numbers = {'global_orient': 3, 'hand_pose': 45, 'betas': 10, 'transl': 3, 'joint_confidence': 21}
    grid = np.stack(np.meshgrid(np.arange(7.0), np.arange(3.0)), axis=-1).reshape(21, 2)
    return Hand(
        side='right',
        side_score=1.0,
        score=1.0,
        bbox_px=np.array([x_px, 0.0, x_px + 6.0, 2.0]),
        keypoints_3d=np.zeros((21, 3)),
        keypoints_2d=grid + [x_px, 0.0],
        vertices=np.zeros((0, 3)),
        T_camera_hand=np.eye(4),
        T_camera_fingertips=np.tile(np.eye(4), (5, 1, 1)),
        scale_source=ScaleSource.NOMINAL_HAND,
        track_id=track_id,
        **{name: np.zeros(size) for name, size in numbers.items()},
    )


def test_hands_are_matched_in_the_frames_just_before_a_short_segment():
    # One hand leaves to the right, and the other takes its place: only the same frames tell them apart.
    places = [(0.0, 100.0), (50.0, 150.0), (100.0, 200.0), (150.0, 250.0)]
    own = [[hand_at(left, 1), hand_at(right, 2)] for left, right in places]
    known = [seen([hand_at(left, 8), hand_at(right, 9)]) for left, right in places[2:]]
    identities = Identities(10, known)
    identities.warmed_up(own)
    assert [hand.track_id for hand in identities.named(own[-1])] == [8, 9]
