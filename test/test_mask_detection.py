"""Which pixels of a mask are a hand."""

from __future__ import annotations

import cv2
import numpy as np

from hand_mesh_ros.detection.detection import HandBox
from hand_mesh_ros.detection.masks import hands_in_mask

SHAPE = (240, 320)


def blob(*ellipses: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of ellipses: x, y, and half axes."""
    mask = np.zeros(SHAPE, np.uint8)
    for x, y, a, b in ellipses:
        cv2.ellipse(mask, (x, y), (a, b), 0, 0, 360, 255, -1)
    return mask > 0


def box(x0: float, y0: float, x1: float, y1: float, side: str = 'left') -> HandBox:
    return HandBox(side, np.array([x0, y0, x1, y1], np.float32))  # type: ignore[arg-type]


def test_each_blob_is_a_hand_the_largest_first():
    small, large = blob((60, 60, 15, 20)), blob((220, 120, 40, 50))
    first, second = hands_in_mask(small | large, side='left')
    np.testing.assert_array_equal(first.mask, large)
    np.testing.assert_array_equal(second.mask, small)
    np.testing.assert_array_equal(first.bbox_px, [180, 70, 260, 170])
    assert {first.side, second.side} == {'left'} and first.keypoints_px is None
    (only,) = hands_in_mask(small | large, max_hands=1)
    np.testing.assert_array_equal(only.mask, large)


def test_pixels_may_be_numbers():
    mask = blob((100, 100, 30, 40))
    (hand,) = hands_in_mask(mask.astype(np.uint8) * 7)
    np.testing.assert_array_equal(hand.mask, mask)


def test_blobs_that_touch_by_a_corner_are_one():
    mask = np.zeros(SHAPE, bool)
    mask[50:80, 50:80] = mask[80:110, 80:110] = True
    (hand,) = hands_in_mask(mask)
    np.testing.assert_array_equal(hand.mask, mask)


def test_a_finger_that_a_ring_cuts_off_is_joined_and_one_far_away_is_not():
    hand = blob((160, 150, 40, 50))
    hand[40:120, 155:168] = True
    cut = hand.copy()
    cut[80:83] = False
    (found,) = hands_in_mask(cut)
    np.testing.assert_array_equal(found.mask, cut)
    far = np.zeros(SHAPE, bool)
    far[10:18, 10:18] = True
    found, other = hands_in_mask(cut | far)
    np.testing.assert_array_equal(found.mask, cut)
    assert np.count_nonzero(other.mask) == 64


def test_two_hands_close_to_each_other_stay_two():
    left, right = blob((100, 120, 40, 50)), blob((184, 120, 40, 45))
    found = hands_in_mask(left | right)
    assert len(found) == 2
    np.testing.assert_array_equal(found[0].mask, left)


def test_what_is_no_hand_is_none():
    rng = np.random.default_rng(0)
    line = np.zeros(SHAPE, bool)
    line[100:102, 20:300] = True
    for nothing in (
        np.zeros(SHAPE, bool),
        np.ones(SHAPE, bool),
        blob((160, 120, 150, 115)),
        line,
        blob((100, 100, 3, 3)),
        *(rng.random(SHAPE) < share for share in (0.05, 0.3, 0.5, 0.95)),
    ):
        assert hands_in_mask(nothing) == ()
        (detection,) = hands_in_mask(nothing, [box(50, 50, 150, 150)])
        assert detection.mask is None and detection.score == 0.0


def test_a_hand_among_specks_and_with_holes_is_found():
    rng = np.random.default_rng(0)
    clean = blob((160, 120, 40, 60))
    spoilt = clean ^ (rng.random(SHAPE) < 0.03)
    (hand,) = hands_in_mask(spoilt)
    assert np.count_nonzero(hand.mask & clean) / np.count_nonzero(hand.mask | clean) > 0.9


def test_boxes_say_where_and_which_side_one_each_in_their_order():
    small, large = blob((60, 60, 15, 20)), blob((220, 120, 40, 50))
    boxes = [box(40, 30, 80, 90, 'left'), box(0, 200, 20, 220, 'left'), box(170, 60, 270, 180, 'right')]
    found = hands_in_mask(small | large, boxes, max_hands=1)
    assert [detection.side for detection in found] == ['left', 'left', 'right']
    np.testing.assert_array_equal(found[0].mask, small)
    assert found[1].mask is None and (found[1].score, found[1].side_score) == (0.0, 0.0)
    np.testing.assert_array_equal(found[1].bbox_px, boxes[1].bbox_px)
    np.testing.assert_array_equal(found[2].mask, large)


def test_of_two_hands_that_touch_each_box_has_its_own_part():
    mask = blob((120, 120, 40, 50), (200, 120, 40, 50))
    assert len(hands_in_mask(mask)) == 1
    left, right = hands_in_mask(mask, [box(80, 70, 160, 170), box(160, 70, 240, 170)])
    assert left.bbox_px[2] <= 170 and right.bbox_px[0] >= 150
    assert np.count_nonzero(left.mask) > 5000


def test_boxes_beyond_the_image_are_no_trouble():
    mask = blob((300, 220, 40, 40))
    (hand, nothing) = hands_in_mask(mask, [box(250, 170, 500, 400), box(-500, -500, -300, -300)])
    assert hand.bbox_px[2] == 319 and nothing.mask is None
