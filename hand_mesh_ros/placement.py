"""Where in the camera frame a hand of known shape and orientation is, and what its metres rest on."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand import ScaleSource

_ROUNDS = 20

#: Error, as a share of the hand's size in the image, below which a keypoint pulls with its full weight.
_INLIER = 0.01

#: Points nearer to the camera than this, metres, are not in its view.
_NEAREST = 1e-3


def scale_source(camera: Camera, hand_length_given: bool) -> ScaleSource:
    """What the metres of a hand rest on when no depth was measured.

    In one picture a large hand far away looks like a small one close by. Intrinsics fix the ratio of size and
    distance, a hand length (the user's, or else the model's mean) the size.
    """
    if not camera.calibrated:
        return ScaleSource.UNKNOWN
    return ScaleSource.HAND_LENGTH if hand_length_given else ScaleSource.NOMINAL_HAND


def place(
    points: np.ndarray, keypoints_px: np.ndarray, camera: Camera, weights: np.ndarray | None = None
) -> np.ndarray:
    """Translation (3,) float64, metres, that makes ``points`` appear at ``keypoints_px``.

    ``points`` (N,3) are metric and turned as the camera sees them; ``keypoints_px`` (N,2) are pixels of
    ``camera``; ``weights`` (N,) are not negative, ones by default. Least squares of the projection equations
    ``x + tx = u (z + tz)``, ``y + ty = v (z + tz)`` for rays (u, v), which are linear in the translation,
    reweighted towards the least sum of distances in the image: a few wrong keypoints do no harm.

    Raises FrameError where no place in front of the camera explains the pixels.
    """
    points = np.asarray(points, np.float64)
    rays = camera.rays(keypoints_px)
    given = np.ones(len(points)) if weights is None else np.asarray(weights, np.float64)
    if not (np.isfinite(points).all() and np.isfinite(rays).all() and np.isfinite(given).all()):
        raise FrameError('cannot place the hand: a keypoint, its pixel or its weight is not finite')
    if np.count_nonzero(given > 0) < 2:
        raise FrameError('cannot place the hand: fewer than two of its keypoints have a weight')
    centre = np.average(rays, axis=0, weights=given)
    size = np.sqrt(np.average(np.sum((rays - centre) ** 2, axis=1), weights=given))
    if size < 1e-9:
        raise FrameError('cannot place the hand: its keypoints are all on one pixel')

    equations = np.zeros((len(points), 2, 3))
    equations[:, 0, 0] = equations[:, 1, 1] = 1.0
    equations[:, :, 2] = -rays
    targets = rays * points[:, 2:] - points[:, :2]
    trust = np.ones(len(points))
    for _ in range(_ROUNDS):
        scale = np.sqrt(given * trust)
        left = (equations * scale[:, None, None]).reshape(-1, 3)
        right = (targets * scale[:, None]).reshape(-1)
        transl = np.linalg.lstsq(left, right, rcond=None)[0]
        # Errors of the equations are in metres; at the point's depth they are distances in the image
        depth = np.maximum(points[:, 2] + transl[2], _NEAREST)
        error = np.linalg.norm(equations @ transl - targets, axis=1) / (depth * size)
        trust = 1.0 / (np.maximum(error, _INLIER) * depth**2)
    if np.min(points[:, 2] + transl[2]) < _NEAREST:
        raise FrameError('cannot place the hand: its keypoints would lie behind the camera')
    return transl
