"""Where in the camera frame a hand of known shape and orientation is, and what its metres rest on."""

from __future__ import annotations

import math

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.compiled import compiled
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
    points = np.ascontiguousarray(points, np.float64)
    rays = np.ascontiguousarray(camera.rays(keypoints_px))
    given = np.ones(len(points)) if weights is None else np.ascontiguousarray(weights, np.float64)
    if not (np.isfinite(points).all() and np.isfinite(rays).all() and np.isfinite(given).all()):
        raise FrameError('cannot place the hand: a keypoint, its pixel or its weight is not finite')
    if np.count_nonzero(given > 0) < 2:
        raise FrameError('cannot place the hand: fewer than two of its keypoints have a weight')
    centre = np.average(rays, axis=0, weights=given)
    size = np.sqrt(np.average(np.sum((rays - centre) ** 2, axis=1), weights=given))
    if size < 1e-9:
        raise FrameError('cannot place the hand: its keypoints are all on one pixel')

    transl = _placed(points, rays, given, size)
    if not np.min(points[:, 2] + transl[2]) >= _NEAREST:
        raise FrameError('cannot place the hand: its keypoints would lie behind the camera')
    return transl


@compiled
def _placed(points, rays, given, size):  # type: ignore[no-untyped-def]
    """The translation (3,) that ``place`` finds; NaN where numbers are too large or small for that."""
    transl, trust = np.empty(3), np.ones(len(points))
    for _ in range(_ROUNDS):
        # At any distance z the best shift is that of the weighted means, which leaves an equation in z alone
        total = mean_u = mean_v = mean_x = mean_y = 0.0
        for n in range(len(points)):
            weight = given[n] * trust[n]
            total += weight
            mean_u += weight * rays[n, 0]
            mean_v += weight * rays[n, 1]
            mean_x += weight * (rays[n, 0] * points[n, 2] - points[n, 0])
            mean_y += weight * (rays[n, 1] * points[n, 2] - points[n, 1])
        if not total > 0.0:
            transl[:] = np.nan
            break
        mean_u, mean_v, mean_x, mean_y = mean_u / total, mean_v / total, mean_x / total, mean_y / total
        spread = along = 0.0
        for n in range(len(points)):
            weight, u, v = given[n] * trust[n], rays[n, 0] - mean_u, rays[n, 1] - mean_v
            spread += weight * (u * u + v * v)
            along += weight * u * (rays[n, 0] * points[n, 2] - points[n, 0] - mean_x)
            along += weight * v * (rays[n, 1] * points[n, 2] - points[n, 1] - mean_y)
        if not spread > 0.0:
            transl[:] = np.nan
            break
        transl[2] = -along / spread
        transl[0], transl[1] = mean_x + mean_u * transl[2], mean_y + mean_v * transl[2]
        for n in range(len(points)):
            x, y, z = points[n, 0] + transl[0], points[n, 1] + transl[1], points[n, 2] + transl[2]
            # Errors of the equations are in metres; at the point's depth they are distances in the image
            depth = max(z, _NEAREST)
            error = math.hypot(x - rays[n, 0] * z, y - rays[n, 1] * z) / (depth * size)
            trust[n] = 1.0 / (max(error, _INLIER) * depth**2)
    return transl
