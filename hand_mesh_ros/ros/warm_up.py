"""What is slow the first time, done before the first image comes."""

from __future__ import annotations

import dataclasses

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.detection import Detection, HandBox
from hand_mesh_ros.estimator import Estimate, HandMeshEstimator
from hand_mesh_ros.hand import Hand, ScaleSource
from hand_mesh_ros.reconstruction import assemble_hand
from hand_mesh_ros.rendering.overlay import draw_hands

_CAMERA = Camera.from_fov(640, 480)
#: Turns a left hand at rest so that its fingers point up and its palm faces the camera.
_UPRIGHT = np.array([1.0, -1.0, -1.0]) * (2.0 * np.pi / 3.0 / np.sqrt(3.0))
#: At the first the hand fills the picture, for which Numba compiles code of its own.
_DISTANCES_M = (0.1, 0.45)


def warm_up(estimator: HandMeshEstimator) -> Estimate:
    """Run every stage, and the drawing of hands, once; what was seen in the picture of a hand.

    The picture is drawn from the estimator's own hand model. A stream is left without hands to follow.
    """
    for distance_m in _DISTANCES_M:
        hand = _hand(estimator, distance_m)
        draw_hands(np.zeros((480, 640, 3), np.uint8), [hand], estimator.faces, _CAMERA)
    # A hand behind coloured bones is none to a detector.
    bare = dataclasses.replace(hand, keypoints_2d=np.full((21, 2), np.nan, np.float32))
    picture = draw_hands(np.full((480, 640, 3), 128, np.uint8), [bare], estimator.faces, _CAMERA)
    seen = estimator.estimate(picture, _CAMERA, [HandBox(hand.side, hand.bbox_px)])
    estimator.estimate(np.zeros((480, 640, 3), np.uint8), _CAMERA)
    return seen


def _hand(estimator: HandMeshEstimator, distance_m: float) -> Hand:
    """A flat left hand before ``_CAMERA``; of the two, its colour in pictures is nearer to skin."""
    model = estimator.models['left']
    flat, betas = np.zeros(45), np.zeros(10)
    knuckle = model.posed(_UPRIGHT, flat, betas, np.zeros(3)).keypoints[9]
    transl = np.array([0.0, 0.0, distance_m]) - knuckle
    keypoints_px = _CAMERA.project(model.posed(_UPRIGHT, flat, betas, transl).keypoints)
    return assemble_hand(
        model,
        _CAMERA,
        Detection(
            side='left',
            side_score=1.0,
            score=1.0,
            bbox_px=np.concatenate([keypoints_px.min(axis=0), keypoints_px.max(axis=0)]),
            keypoints_px=None,
            keypoints_depth=None,
            landmarks_world=None,
        ),
        global_orient=_UPRIGHT,
        hand_pose=flat,
        betas=betas,
        transl=transl,
        confidence=np.ones(21),
        scale=ScaleSource.UNKNOWN,
    )
