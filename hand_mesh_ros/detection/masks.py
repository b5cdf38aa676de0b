"""Hands in a mask: each blob of it may be one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from hand_mesh_ros.detection.detection import Detection, HandBox
from hand_mesh_ros.hand import Side
from hand_mesh_ros.mask_view import LEAST_PIXELS

#: What covers more of the image is no hand but a mask gone wrong.
_LARGEST_SHARE = 0.6

#: Of a blob's pixels, so many at least lie in full squares of 3 by 3: else it is noise, or a line.
_LEAST_SOLID = 0.5

#: A piece that is smaller than this share of a hand belongs to it, if the gap between them is not wider than
#: this share of the root of the hand's area: as a ring, or a line of missing depth, cuts a finger off.
_PIECE_SHARE, _GAP_SHARE = 0.25, 0.08

#: A blob of which a box holds less than this share is more than the hand of that box, which then reaches so
#: much further than the box, as a share of its sides.
_OWN_SHARE, _BOX_MARGIN = 0.7, 0.1

#: So many blobs, largest first, are looked at: a mask of more of them is noise.
_MOST_BLOBS = 16

#: A mask tells nothing of the side.
_SIDE_SCORE = 0.5


def hands_in_mask(
    mask: np.ndarray, boxes: Sequence[HandBox] | None = None, side: Side = 'right', max_hands: int = 2
) -> tuple[Detection, ...]:
    """The hands of ``mask`` (H,W) bool, largest first; their ``Detection.mask`` holds the pixels of each.

    Pixels that touch, corners counting, are one hand; pieces close to a hand are joined to it. Blobs of too
    few pixels, noise, lines, and what fills most of the image are no hands.

    :param boxes: look for hands there only, one each, and take their sides from them: as
        :class:`~hand_mesh_ros.detection.detection.Detector` says.
    :param side: of all hands where there are no boxes. A mask alone does not tell.
    :param max_hands: the most to return where there are no boxes.
    """
    hands = sorted(_hands(np.ascontiguousarray(mask, bool)), key=lambda hand: -np.count_nonzero(hand))
    if boxes is None:
        return tuple(_detection(side, hand) for hand in hands[:max_hands])
    return tuple(_in_box(hands, box) for box in boxes)


def _hands(mask: np.ndarray) -> Iterator[np.ndarray]:
    pixels = mask.view(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    full = cv2.morphologyEx(pixels, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    solid = np.bincount(labels[full > 0], minlength=count) >= _LEAST_SOLID * areas
    solid[0] = False
    left = solid & (areas <= _LARGEST_SHARE * mask.size)
    large = [k for k in np.argsort(-areas, kind='stable') if left[k] and areas[k] >= LEAST_PIXELS]
    for label in large[:_MOST_BLOBS]:
        if left[label]:
            near = np.unique(labels[_surroundings(labels == label, int(areas[label]))])
            own = [k for k in near if left[k] and (k == label or areas[k] < _PIECE_SHARE * areas[label])]
            left[own] = False
            yield np.isin(labels, own)


def _surroundings(blob: np.ndarray, area: int) -> np.ndarray:
    """Pixels (H,W) bool that are in a blob or not far from it."""
    reach = max(2, round(_GAP_SHARE * area**0.5))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    x0, y0, x1, y1 = _bbox(blob).astype(int)
    window = np.s_[max(y0 - reach, 0) : y1 + reach + 1, max(x0 - reach, 0) : x1 + reach + 1]
    around = np.zeros_like(blob)
    around[window] = cv2.dilate(blob[window].view(np.uint8), kernel) > 0
    return around


def _in_box(hands: list[np.ndarray], box: HandBox) -> Detection:
    nothing = Detection(box.side, 0.0, 0.0, np.asarray(box.bbox_px, np.float32), None, None, None)
    if not hands or not np.isfinite(box.bbox_px).all():
        return nothing
    inside = _pixels_of(hands[0].shape, box.bbox_px, 0.0)
    counts = [np.count_nonzero(hand[inside]) for hand in hands]
    best = int(np.argmax(counts))
    if counts[best] < LEAST_PIXELS:
        return nothing
    hand = hands[best]
    if counts[best] < _OWN_SHARE * np.count_nonzero(hand):
        own = np.zeros_like(hand)
        there = _pixels_of(hand.shape, box.bbox_px, _BOX_MARGIN)
        own[there] = hand[there]
        hand = own
    return _detection(box.side, hand)


def _pixels_of(shape: tuple[int, ...], bbox_px: np.ndarray, margin: float) -> tuple[slice, slice]:
    """Rows and columns of a box that is enlarged by ``margin`` of its sides."""
    x0, y0, x1, y1 = (float(v) for v in bbox_px)
    across, down = margin * (x1 - x0), margin * (y1 - y0)
    starts = np.clip([y0 - down, x0 - across], 0, shape).round().astype(int)
    ends = np.clip([y1 + down + 1, x1 + across + 1], 0, shape).round().astype(int)
    return slice(starts[0], ends[0]), slice(starts[1], ends[1])


def _detection(side: Side, mask: np.ndarray) -> Detection:
    return Detection(side, _SIDE_SCORE, 1.0, _bbox(mask), None, None, None, mask)


def _bbox(mask: np.ndarray) -> np.ndarray:
    """x0, y0, x1, y1 (4,) float32 of the pixels of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float32)
