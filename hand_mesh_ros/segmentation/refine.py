"""From the reduced image's hand back to the whole image's pixels."""

from __future__ import annotations

import cv2
import numpy as np

from hand_mesh_ros.compiled import compiled
from hand_mesh_ros.segmentation.surfaces import Surfaces, jump

#: Holes of fewer pixels than this share of the hand's are filled.
_HOLE_SHARE = 0.01
#: Pieces smaller than this share of the largest go.
_PIECE_SHARE = 0.03


def full_mask(
    hand: np.ndarray, window: tuple[slice, slice], surfaces: Surfaces, depth_m: np.ndarray
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """One hand's mask, uint8 0 or 255, and the window of the whole image that it is of.

    :param hand: (h,w) bool, in ``window`` of the reduced image.
    :param depth_m: (H,W) float32, the whole image; what is no positive number is missing.
    """
    stride = surfaces.stride
    rows, columns = np.nonzero(hand)
    # One reduced pixel more on each side, since it took half of its pixels to make one
    y0, y1 = max(window[0].start + rows.min() - 1, 0), window[0].start + rows.max() + 2
    x0, x1 = max(window[1].start + columns.min() - 1, 0), window[1].start + columns.max() + 2
    grown = np.zeros(surfaces.label.shape, np.bool_)
    grown[window] = hand
    grown = np.ascontiguousarray(grown[y0:y1, x0:x1])
    other = surfaces.label[y0:y1, x0:x1] > 0
    whole = np.s_[y0 * stride : (y1 * stride), x0 * stride : (x1 * stride)]
    rough = _near(grown, other & ~grown, surfaces.depth_m[y0:y1, x0:x1], depth_m[whole], stride)
    return _tidy(rough), (
        slice(y0 * stride, y0 * stride + rough.shape[0]),
        slice(x0 * stride, x0 * stride + rough.shape[1]),
    )


@compiled
def _near(hand, other, reduced, depth, stride):  # type: ignore[no-untyped-def]
    """Pixels (H,W) uint8 0 or 255 whose depth is that of a hand's pixel of the reduced image beside them."""
    height, width = depth.shape
    mask = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            z = depth[y, x]
            row, column = min(y // stride, hand.shape[0] - 1), min(x // stride, hand.shape[1] - 1)
            if not 0.0 < z < np.inf:
                continue
            if hand[row, column]:
                if abs(z - reduced[row, column]) <= 1.5 * jump(z):
                    mask[y, x] = 255
                    continue
            elif other[row, column] and abs(z - reduced[row, column]) <= jump(z):
                continue  # it belongs to what is behind, or to the arm
            for r in range(max(row - 1, 0), min(row + 2, hand.shape[0])):
                for c in range(max(column - 1, 0), min(column + 2, hand.shape[1])):
                    if hand[r, c] and abs(z - reduced[r, c]) <= jump(z):
                        mask[y, x] = 255
    return mask


def _tidy(rough: np.ndarray) -> np.ndarray:
    """Smooth outline, small holes filled, specks gone."""
    smooth = cv2.medianBlur(rough, 5)
    count, pieces, statistics, _ = cv2.connectedComponentsWithStats(smooth, connectivity=8)
    if count < 2:
        return smooth
    areas = statistics[:, cv2.CC_STAT_AREA]
    kept = areas >= _PIECE_SHARE * areas[1:].max()
    kept[0] = False
    mask = np.where(kept[pieces], np.uint8(255), np.uint8(0))
    count, holes, statistics, _ = cv2.connectedComponentsWithStats(255 - mask, connectivity=4)
    small = statistics[:, cv2.CC_STAT_AREA] < _HOLE_SHARE * areas[1:].max()
    small[0] = False
    mask[small[holes]] = 255
    return mask
