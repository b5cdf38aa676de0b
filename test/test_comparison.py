"""Which detection counts for which annotated hand, and means over hands."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from mask2hand_file import write_mask2hand
from maskhand_file import UPRIGHT

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.detection.detection import Detection
from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.evaluation.comparison import compare, match
from hand_mesh_ros.evaluation.scores import UNKNOWN, Score, found_everywhere, reliability_of, summarise
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.reconstruction import make_reconstructor
from hand_mesh_ros.rendering.zbuffer import rasterise

MODELS = {side: load_hand_model(side=side) for side in ('right', 'left')}
FACES = {side: model.faces for side, model in MODELS.items()}
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


def test_a_hand_of_which_only_the_box_is_annotated_is_what_lies_in_it():
    hand = replace(annotated(0.0, with_pixels=False), bbox_px=np.array([0.0, 0.0, 110.0, 110.0]))
    elsewhere, there = detected([300.0, 0.0]), detected([5.0, 5.0], 'left', score=0.5)
    assert match([hand], [elsewhere, there]) == [there]


class Seeing:
    """A detector that sees hands exactly where they are told to be."""

    def __init__(self, detections):
        self.detections = detections

    def detect(self, image, boxes=None):
        return self.detections

    def close(self):
        pass


@pytest.mark.parametrize('same_vertices', [True, False])
def test_every_method_is_measured_on_the_same_detection(tmp_path, same_vertices):
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((240, 320, 3), np.uint8))
    model = MODELS['right']
    posed = model.posed(np.full(3, 1.2), model.hands_mean, np.zeros(10), np.array([0.05, 0.0, 0.5]))
    intrinsics = (300.0, 300.0, 160.0, 120.0)
    camera, everywhere = Camera(320, 240, *intrinsics), np.ones(21, bool)
    pixels, path = camera.project(posed.keypoints), tmp_path / 'image.png'
    hand = AnnotatedHand('a', 'set', path, 'right', intrinsics, posed.keypoints, pixels, everywhere)
    hand = replace(hand, vertices=posed.vertices)
    missed = replace(hand, id='b', keypoints_2d=pixels - 500.0)
    seen = replace(detected(0.0), keypoints_px=pixels, landmarks_world=posed.keypoints)
    methods = {'fit': make_reconstructor('fit', MODELS)}
    found, lost = compare([hand, missed], Seeing([seen]), methods, FACES, same_vertices=same_vertices)
    detector, fit = found.scores
    assert (detector.method, fit.method, fit.found, fit.side_correct) == ('mediapipe', 'fit', True, True)
    assert detector.measures['pa_mpjpe_mm'] < 0.01 and 'mpjpe_mm' not in detector.measures
    assert fit.measures['pa_mpjpe_mm'] < 6.0 and fit.measures['mpjpe_mm'] < 20.0
    assert ('pa_mpvpe_mm' in fit.measures) == ('f_5' in fit.measures) == same_vertices
    assert fit.measures['f_15_by_joints'] > 0.9 and fit.measures['pck_2d_10'] == 1.0
    assert [pair.method for pair in found.pairs()] == ['mediapipe', 'fit']
    assert [score.found for score in lost.scores] == [False, False] and not lost.pairs()


@pytest.fixture(scope='module')
def mask2hand(tmp_path_factory):
    weights = write_mask2hand(tmp_path_factory.mktemp('weights') / 'mask2hand.safetensors')
    return make_reconstructor('mask2hand', MODELS, weights=weights)


def masked(folder, shape=(240, 320)):
    """A hand of which only the mask is annotated."""
    cv2.imwrite(str(folder / 'image.png'), np.zeros((240, 320, 3), np.uint8))
    posed = MODELS['left'].posed(UPRIGHT, np.zeros(45), np.zeros(10), np.array([0.0, 0.0, 0.5]))
    camera = Camera(320, 240, 300.0, 300.0, 160.0, 120.0)
    mask = rasterise(posed.vertices, FACES['left'], camera).mask
    cv2.imwrite(str(folder / 'mask.png'), mask[: shape[0], : shape[1]] * np.uint8(255))
    everywhere, path = np.ones(21, bool), folder / 'image.png'
    hand = AnnotatedHand('a', 'set', path, 'left', (300.0, 300.0, 160.0, 120.0), None, None, everywhere)
    return replace(hand, mask=folder / 'mask.png'), mask, camera.project(posed.keypoints), posed.keypoints


def test_where_a_mask_is_annotated_every_silhouette_is_compared_with_it(tmp_path, mask2hand):
    hand, mask, pixels, keypoints = masked(tmp_path)
    seen = Detection('left', 1.0, 1.0, np.zeros(4, np.float32), pixels, None, keypoints)
    methods = {'fit': make_reconstructor('fit', MODELS), 'mask2hand': mask2hand}
    with_mask, without = compare([hand, replace(hand, mask=None)], Seeing([seen]), methods, FACES)
    assert (with_mask.mask == mask).all()
    detector, fit, of_mask = with_mask.scores
    assert 'iou' not in detector.measures and fit.measures['iou'] > 0.7
    assert of_mask.found and 0.3 < of_mask.measures['iou'] <= 1.0
    assert (fit.side_correct, of_mask.side_correct) == (True, None)  # which was told
    assert with_mask.hands['mask2hand'].side == 'left'
    assert [score.method for score in without.scores] == ['mediapipe', 'fit']
    assert without.hands['mask2hand'] is None and without.mask is None


def test_a_mask_is_enough_where_the_detector_sees_nothing(tmp_path, mask2hand):
    hand, *_ = masked(tmp_path)
    methods = {'fit': make_reconstructor('fit', MODELS), 'mask2hand': mask2hand}
    (compared,) = compare([hand], Seeing([]), methods, FACES)
    assert [score.found for score in compared.scores] == [False, False, True]


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path, mask2hand):
    hand, *_ = masked(tmp_path, shape=(200, 320))
    with pytest.raises(FileFormatError, match='mask.png: is 320x200, its image 320x240'):
        next(compare([hand], Seeing([]), {'mask2hand': mask2hand}, FACES))


def score(id_, method, side_correct, error):
    found = not np.isnan(error)
    measures = {'pa_mpjpe_mm': error} if found else {}
    return Score(id_, 'set', method, found, side_correct, measures, UNKNOWN, UNKNOWN)


def test_means_are_over_the_hands_that_every_method_found():
    scores = [score('easy', 'a', True, 4.0), score('easy', 'b', True, 5.0)]
    scores += [score('hard', 'a', True, 20.0), score('hard', 'b', True, float('nan'))]
    first, second = summarise(scores, ['a', 'b'])
    assert (first['pa_mpjpe_mm'], second['pa_mpjpe_mm']) == (4.0, 5.0)
    assert (first['found'], second['found'], first['compared'], first['n']) == (2, 1, 1, 2)


def test_a_method_that_lacks_what_it_looks_at_keeps_no_hand_from_being_compared():
    scores = [score(id_, method, True, 4.0) for id_ in 'ab' for method in ('fit', 'mask2hand')]
    scores += [replace(score(id_, 'fit', True, 8.0), dataset='no masks') for id_ in 'cd']
    scores.append(score('e', 'fit', True, 9.0))  # of the first data set, without a mask
    rows = summarise(scores, ['fit', 'mask2hand'])
    assert [
        (row['dataset'], row['method'], row['n'], row['compared'], row['pa_mpjpe_mm']) for row in rows
    ] == [
        ('set', 'fit', 3, 2, 4.0),
        ('set', 'mask2hand', 2, 2, 4.0),
        ('no masks', 'fit', 2, 2, 8.0),
        ('all', 'fit', 5, 4, 6.0),
    ]


def test_hands_of_several_data_sets_are_the_same_by_their_ids():
    scores = [score(id_, 'fit', True, 4.0) for id_ in 'abc']
    scores += [replace(score(id_, 'fit', True, 8.0), dataset='covered') for id_ in 'abd']
    scores.append(replace(score('b', 'other', True, float('nan')), dataset='covered'))
    same = found_everywhere(scores)
    assert [(s.dataset, s.id) for s in same] == [('set', 'a'), ('covered', 'a')]


def test_reliability_is_of_the_hands_that_every_method_found():
    known = {'joint_errors_m': np.zeros(21), 'confidence': np.ones(21)}
    scores = [replace(score(id_, 'a', True, 4.0), **known) for id_ in ('easy', 'hard')]
    scores += [score('easy', 'b', True, 5.0), score('hard', 'b', True, float('nan'))]
    assert reliability_of(scores, 'a').counts.sum() == 21


def test_means_leave_out_what_is_unknown():
    nan = float('nan')
    scores = [score('a', 'fit', True, 4.0), score('b', 'fit', None, 6.0), score('c', 'fit', False, nan)]
    (row,) = summarise(scores, ['fit'])
    assert (row['n'], row['found'], row['side_correct'], row['side_known']) == (3, 2, 1, 2)
    assert row['pa_mpjpe_mm'] == 5.0
    assert 'mpjpe_mm' not in row  # nothing is known of it


def test_what_confidence_is_worth_is_told_apart_for_hidden_joints():
    rng = np.random.default_rng(0)
    errors = rng.uniform(0.0, 0.02, (30, 21))
    hidden = np.arange(21) < 7
    # Of what is seen the confidence knows all, of what is hidden it believes the contrary
    confidence = np.where(hidden, errors, -errors) / 0.02 + ~hidden
    scores = [Score(f'{k}', 'set', 'a', True, None, {}, errors[k], confidence[k], hidden) for k in range(30)]
    (row,) = summarise(scores, ['a'])
    assert row['spearman_hidden'] > 0.999
    assert -0.8 < row['spearman'] < 0.0
