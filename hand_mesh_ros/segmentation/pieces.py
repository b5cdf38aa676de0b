"""What else is of a hand: fingers that stand before or behind it with a gap, so that they are surfaces of
their own."""

from __future__ import annotations

import cv2
import numpy as np

from hand_mesh_ros.segmentation.surfaces import Surfaces

#: A part of the reduced image: (h,w) bool, and the window that it is of.
Part = tuple[np.ndarray, tuple[slice, slice]]

#: No larger than two fingers, no further from the hand's middle, nor in depth from where it touches the hand.
_PIECE_AREA_M2, _PIECE_AWAY_M, _PIECE_DEPTH_M = 0.0035, 0.13, 0.09
#: How far beside the hand a piece may begin, in pixels: depth cameras see nothing on one side of things.
_GAP_PX = 3
_LEAST_PIXELS = 6


def with_pieces(surfaces: Surfaces, hand: Part) -> Part:
    """A hand with the small surfaces that touch it."""
    own, (rows, columns) = hand
    ys, xs = np.nonzero(own)
    around = _around(rows, ys, surfaces.label.shape[0]), _around(columns, xs, surfaces.label.shape[1])
    whole = np.zeros(surfaces.label.shape, bool)
    whole[rows, columns] = own
    whole = whole[around]
    label, depth, points = surfaces.label[around], surfaces.depth_m[around], surfaces.points[around]
    own_labels = np.unique(label[whole])
    size = 2 * _GAP_PX + 1
    box = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    beside = (cv2.dilate(whole.view(np.uint8), box) > 0) & ~whole & (label > 0)
    middle = points[whole].mean(0)
    for other in np.setdiff1d(label[beside], own_labels):
        pixels = int(surfaces.sizes[other, 4])
        piece = label == other
        # One that goes on outside of the window is too large
        if not _LEAST_PIXELS <= pixels == piece.sum():
            continue
        touching = cv2.dilate((piece & beside).view(np.uint8), box) > 0
        gap = abs(float(np.median(depth[touching & whole])) - float(np.median(depth[piece & beside])))
        area = float((surfaces.pitch[around][piece] ** 2).sum())
        away = float(np.linalg.norm(points[piece].mean(0) - middle))
        if area <= _PIECE_AREA_M2 and away <= _PIECE_AWAY_M and gap <= _PIECE_DEPTH_M:
            whole = whole | piece
    return whole, around


def _around(of: slice, places: np.ndarray, length: int) -> slice:
    """A slice of a picture's axis with room for pieces about the ``places`` in ``of``."""
    extent = int(np.ptp(places)) // 2 + 4 * _GAP_PX
    first, last = of.start + int(places.min()), of.start + int(places.max())
    return slice(max(first - extent, 0), min(last + extent + 1, length))
