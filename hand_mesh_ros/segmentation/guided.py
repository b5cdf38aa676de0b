"""Hands where a detector saw them: below its keypoints, or in its box."""

from __future__ import annotations

import cv2
import numpy as np

from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS
from hand_mesh_ros.segmentation.pieces import Part
from hand_mesh_ros.segmentation.surfaces import Surfaces

_PALM = [0, 1, 5, 9, 13, 17]
_KNUCKLES = [5, 9, 13, 17]

#: The hand model ends so far behind its wrist keypoint.
_BEHIND_WRIST_M = 0.035
#: From wrist to knuckles, in metres, in a hand; what is measured to be else is of other things.
_PALM_LENGTHS_M = (0.05, 0.13)
#: How far from a bone, and from the palm's outline, skin may be.
_FINGER_RADIUS_M, _PALM_RADIUS_M, _WRIST_RADIUS_M = 0.015, 0.022, 0.038
#: No larger than a hand without its palm.
_FINGERS_AREA_M2 = 0.008
#: How much nearer or farther than the palm the rest of a hand may be.
_HAND_DEPTH_M = 0.17

#: Of a box's middle, how much a surface must be of; and by how much more than the box a hand may reach.
_MIDDLE_SHARE, _BOX_MARGIN = 0.25, 0.08


def hand_at_keypoints(surfaces: Surfaces, keypoints_px: np.ndarray) -> Part | None:
    """The hand (h,w) bool that has the keypoints (21,2), in pixels of the whole image, and its window."""
    stride, shape = surfaces.stride, surfaces.label.shape
    places = (keypoints_px - (stride - 1) / 2.0) / stride
    if not np.isfinite(places).all():
        return None
    palm = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(palm, np.asarray(cv2.convexHull(_pixels(places[_PALM]))), (1,))
    depths = surfaces.depth_m[(palm > 0) & (surfaces.depth_m > 0)]
    if not len(depths):
        return None
    # The nearer part of what lies below the palm, which may have gaps to what is behind
    depth = float(np.quantile(depths, 0.3))
    pitch = float(surfaces.pitch.max() / surfaces.depth_m.max()) * depth
    corridor = np.asarray(cv2.dilate(palm, _disc(_PALM_RADIUS_M / pitch)))
    for keypoint, parent in enumerate(KEYPOINT_PARENTS):
        if parent > 0:
            _draw_bone(corridor, places[parent], places[keypoint], _FINGER_RADIUS_M / pitch)
    wrist, knuckles = places[0], places[_KNUCKLES].mean(0)
    up = (knuckles - wrist) / max(float(np.linalg.norm(knuckles - wrist)), 1e-6)
    # Its end is round and the hand's is not: that is cut off below
    end = wrist - (_BEHIND_WRIST_M + _WRIST_RADIUS_M) / pitch * up
    _draw_bone(corridor, wrist, end, _WRIST_RADIUS_M / pitch)
    hand = (corridor > 0) & (np.abs(surfaces.depth_m - depth) < _HAND_DEPTH_M)
    hand &= _before_wrist(surfaces, wrist, knuckles, pitch)
    labels = np.bincount(surfaces.label[hand & (palm > 0)])
    if len(labels) < 2:
        return None
    areas = surfaces.sizes[:, 4] * pitch**2
    # Small surfaces are fingers before or behind the palm
    hand &= (surfaces.label == labels[1:].argmax() + 1) | (areas[surfaces.label] < _FINGERS_AREA_M2)
    hand &= surfaces.label > 0
    return hand, (slice(0, shape[0]), slice(0, shape[1]))


def _before_wrist(surfaces: Surfaces, wrist: np.ndarray, knuckles: np.ndarray, pitch: float) -> np.ndarray:
    """(h,w) bool: on the fingers' side of the hand model's end."""
    start, end = _point_at(surfaces, wrist), _point_at(surfaces, knuckles)
    if start is not None and end is not None:
        direction = end - start
        length = float(np.linalg.norm(direction))
        if _PALM_LENGTHS_M[0] <= length <= _PALM_LENGTHS_M[1]:
            beyond = (surfaces.points - start) @ (direction / length).astype(np.float32)
            return np.asarray(beyond > -_BEHIND_WRIST_M)
    ys, xs = np.mgrid[: surfaces.label.shape[0], : surfaces.label.shape[1]]
    across = (knuckles - wrist) / max(float(np.linalg.norm(knuckles - wrist)), 1e-6)
    along = (xs - wrist[0]) * across[0] + (ys - wrist[1]) * across[1]
    # Seen nearly along the arm, its end is not far behind in the picture
    return np.asarray(along > -0.7 * _BEHIND_WRIST_M / pitch)


def _point_at(surfaces: Surfaces, place: np.ndarray) -> np.ndarray | None:
    """Point (3,) in metres near a place of the reduced image."""
    x, y = np.rint(place).astype(int)
    window = np.s_[max(y - 1, 0) : max(y + 2, 0), max(x - 1, 0) : max(x + 2, 0)]
    points = surfaces.points[window][surfaces.depth_m[window] > 0]
    return np.median(points, axis=0) if len(points) else None


def surface_in_box(surfaces: Surfaces, bbox_px: np.ndarray) -> tuple[int, np.ndarray] | None:
    """The nearest surface in the middle of a box (4,) in pixels, and the box, made wider, (h,w) bool."""
    box = (np.asarray(bbox_px, np.float64) - (surfaces.stride - 1) / 2.0) / surfaces.stride
    if not np.isfinite(box).all():
        return None
    middle, half = (box[2:] + box[:2]) / 2, (box[2:] - box[:2]) / 2
    window = _window(middle, 0.5 * half, surfaces.label.shape)
    labels, depths = surfaces.label[window].ravel(), surfaces.depth_m[window].ravel()
    counts = np.bincount(labels, minlength=1)
    counts[0] = 0
    large = np.nonzero(counts >= max(_MIDDLE_SHARE * len(labels), 1))[0]
    if not len(large):
        return None
    nearest = min(large, key=lambda label: float(np.median(depths[labels == label])))
    inside = np.zeros(surfaces.label.shape, bool)
    inside[_window(middle, (1.0 + _BOX_MARGIN) * half, inside.shape)] = True
    return int(nearest), inside


def _window(middle: np.ndarray, half: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice]:
    x0, y0 = np.clip(np.floor(middle - half), 0, (shape[1], shape[0])).astype(int)
    x1, y1 = np.clip(np.ceil(middle + half) + 1, 0, (shape[1], shape[0])).astype(int)
    return slice(int(y0), int(y1)), slice(int(x0), int(x1))


def _draw_bone(corridor: np.ndarray, start: np.ndarray, end: np.ndarray, radius_px: float) -> None:
    (x0, y0), (x1, y1) = _pixels(np.stack([start, end])).tolist()
    cv2.line(corridor, (x0, y0), (x1, y1), (1,), max(1, round(2 * radius_px)))


def _pixels(places: np.ndarray) -> np.ndarray:
    # Lines may begin outside, but not at any distance
    return np.clip(np.rint(places), -10_000, 10_000).astype(np.int32)


def _disc(radius_px: float) -> np.ndarray:
    size = 2 * max(1, round(radius_px)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
