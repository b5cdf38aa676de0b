"""What is slow the first time, done before the first image comes."""

from __future__ import annotations

import dataclasses

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.detection import Detection, HandBox
from hand_mesh_ros.estimator import Estimate, HandMeshEstimator
from hand_mesh_ros.hand import Hand, ScaleSource
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.reconstruction import MASK_METHODS, assemble_hand
from hand_mesh_ros.rendering.overlay import draw_hands
from hand_mesh_ros.rendering.zbuffer import rasterise

WARM_UP_CAMERA = dataclasses.replace(Camera.from_fov(640, 480), calibrated=True)
#: Turns a left hand at rest so that its fingers point up and its palm faces the camera.
_UPRIGHT = np.array([1.0, -1.0, -1.0]) * (2.0 * np.pi / 3.0 / np.sqrt(3.0))
#: At the first the hand fills the picture, for which Numba compiles code of its own.
_DISTANCES_M = (0.1, 0.45)
_WALL_M = 1.0


def warm_up(estimator: HandMeshEstimator, with_depth: bool = False) -> Estimate:
    """Run every stage, and the drawing of hands, once; what was seen in the picture of a hand.

    The picture is drawn from the estimator's own hand model. A stream is left without hands to follow.

    :param with_depth: depth will come with the images or masks.
    """
    for distance_m in _DISTANCES_M:
        hand = _hand(estimator.models['left'], distance_m)
        draw_hands(np.zeros((480, 640, 3), np.uint8), [hand], estimator.faces, WARM_UP_CAMERA)
    depth_m = depth_image(estimator.models['left'])
    box = HandBox(hand.side, hand.bbox_px)
    if estimator.method in MASK_METHODS:
        return _seen(estimator, None, box, depth_m < _WALL_M, depth_m if with_depth else None)
    # A hand behind coloured bones is none to a detector.
    bare = dataclasses.replace(hand, keypoints_2d=np.full((21, 2), np.nan, np.float32))
    picture = draw_hands(np.full((480, 640, 3), 128, np.uint8), [bare], estimator.faces, WARM_UP_CAMERA)
    return _seen(estimator, picture, box, None, depth_m if with_depth else None)


def depth_image(model: HandModel) -> np.ndarray:
    """Depth (H,W) float32 metres that ``WARM_UP_CAMERA`` measures of a flat hand before a wall."""
    hand = rasterise(_hand(model, _DISTANCES_M[-1]).vertices, model.faces, WARM_UP_CAMERA)
    return np.where(hand.mask, hand.depth, np.float32(_WALL_M))


def _seen(
    estimator: HandMeshEstimator,
    image: np.ndarray | None,
    box: HandBox,
    mask: np.ndarray | None,
    depth_m: np.ndarray | None,
) -> Estimate:
    """What is seen of the hand in a box; then nothing is, so that no hand is followed."""
    seen = estimator.estimate(image, WARM_UP_CAMERA, [box], mask=mask, depth_m=depth_m)
    nothing = [None if picture is None else np.zeros_like(picture) for picture in (image, mask)]
    estimator.estimate(nothing[0], WARM_UP_CAMERA, mask=nothing[1])
    return seen


def _hand(model: HandModel, distance_m: float) -> Hand:
    """A flat left hand before ``WARM_UP_CAMERA``; of the two, its colour in pictures is nearer to skin."""
    flat, betas = np.zeros(45), np.zeros(10)
    knuckle = model.posed(_UPRIGHT, flat, betas, np.zeros(3)).keypoints[9]
    transl = np.array([0.0, 0.0, distance_m]) - knuckle
    keypoints_px = WARM_UP_CAMERA.project(model.posed(_UPRIGHT, flat, betas, transl).keypoints)
    return assemble_hand(
        model,
        WARM_UP_CAMERA,
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
