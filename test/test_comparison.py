"""Which detection counts for which annotated hand."""

from pathlib import Path

import numpy as np

from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.detection.detection import Detection
from hand_mesh_ros.evaluation.comparison import Score, match, summarise

SHAPE = np.random.default_rng(0).uniform(0.0, 100.0, (21, 2))


def annotated(offset, side='right', with_pixels=True):
    pixels = SHAPE + offset if with_pixels else None
    return AnnotatedHand('id', 'set', Path('image.png'), side, None, None, pixels, np.ones(21, bool))


def detected(offset, side='right', score=1.0):
    pixels = (SHAPE + offset).astype(np.float32)
    return Detection(side, 1.0, score, np.zeros(4, np.float32), pixels, None, None)


def test_the_nearest_pairs_first_and_one_to_one():
    near, far = detected([5.0, 0.0]), detected([60.0, 0.0])
    # Both annotated hands are nearest to ``near``; the one that is nearer takes it.
    assert match([annotated([20.0, 0.0]), annotated([0.0, 0.0])], [near, far]) == [far, near]


def test_a_detection_elsewhere_is_no_match():
    assert match([annotated([0.0, 0.0])], [detected([300.0, 0.0])]) == [None]


def test_one_detection_does_not_count_for_two_hands():
    hand = detected([0.0, 0.0])
    assert match([annotated([0.0, 0.0]), annotated([10.0, 0.0])], [hand]) == [hand, None]


def test_a_single_annotated_keypoint_measures_no_hand():
    hand = annotated([0.0, 0.0])
    hand.visible[1:] = False
    assert match([hand], [detected([0.0, 0.0])]) == [None]


def test_without_annotated_pixels_the_side_decides():
    left, right = detected([0.0, 0.0], 'left'), detected([300.0, 0.0], 'right')
    hands = [annotated(0.0, 'right', with_pixels=False), annotated(0.0, 'left', with_pixels=False)]
    assert match(hands, [left, right]) == [right, left]


def score(id_, method, side_correct, error):
    return Score(id_, 'set', method, not np.isnan(error), side_correct, error, *[float('nan')] * 5)


def test_means_are_over_the_hands_that_every_method_found():
    scores = [score('easy', 'a', True, 4.0), score('easy', 'b', True, 5.0)]
    scores += [score('hard', 'a', True, 20.0), score('hard', 'b', True, float('nan'))]
    first, second = summarise(scores, ['a', 'b'])
    assert (first['pa_mpjpe_mm'], second['pa_mpjpe_mm']) == (4.0, 5.0)
    assert (first['found'], second['found']) == (2, 1)


def test_means_leave_out_what_is_unknown():
    nan = float('nan')
    scores = [score('a', 'fit', True, 4.0), score('b', 'fit', None, 6.0), score('c', 'fit', False, nan)]
    (row,) = summarise(scores, ['fit'])
    assert (row['n'], row['found'], row['side_correct'], row['side_known']) == (3, 2, 1, 2)
    assert row['pa_mpjpe_mm'] == 5.0
    assert np.isnan(row['mpjpe_mm'])
