"""Pictures of the worst hands."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.detection.detection import Detection
from hand_mesh_ros.evaluation.comparison import ComparedHand
from hand_mesh_ros.evaluation.pages import WorstHands
from hand_mesh_ros.evaluation.scores import UNKNOWN, Score
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.reconstruction import make_reconstructor
from hand_mesh_ros.rendering.overlay import SIDE_COLOURS

MODELS = {side: load_hand_model(None, side) for side in ('right', 'left')}
CAMERA = Camera(200, 150, 200.0, 200.0, 99.5, 74.5)
FACES = {side: model.faces for side, model in MODELS.items()}


def compared(number, error, found=True):
    """A small right hand at the right edge of a grey picture."""
    model = MODELS['right']
    posed = model.posed(np.full(3, 1.2), model.hands_mean, np.zeros(10), np.array([0.12, 0.0, 0.6]))
    pixels = CAMERA.project(posed.keypoints)
    image = np.full((150, 200, 3), 128, np.uint8)
    box = np.concatenate([pixels.min(0), pixels.max(0)])
    detection = Detection('right', 1.0, 1.0, box, pixels, None, posed.keypoints) if found else None
    hand = None
    if detection is not None:
        hand = make_reconstructor('fit', MODELS).reconstruct(Observation(CAMERA, image), [detection])[0]
    sample = AnnotatedHand(
        f'<{number}>', 'set', Path('image.png'), 'right', None, posed.keypoints, pixels, np.ones(21, bool)
    )
    scores = [
        Score(sample.id, 'set', name, found, True, {'pa_mpjpe_mm': value} if found else {}, UNKNOWN, UNKNOWN)
        for name, value in (('mediapipe', 99.0), ('fit', error))
    ]
    return ComparedHand(sample, image, CAMERA, detection, scores, {'fit': hand})


def test_the_worst_come_first_and_the_best_not_at_all(tmp_path):
    worst = WorstHands(2, FACES)
    for number, (error, found) in enumerate([(5.0, True), (9.0, True), (0.0, False), (7.0, True)]):
        worst.add(compared(number, error, found))
    worst.write(tmp_path / 'worst')
    page = (tmp_path / 'worst/index.html').read_text()
    assert re.findall(r'set &lt;(\d)&gt;', page) == ['1', '3', '2']
    assert 'by the error of fit' in page and '9.0 mm' in page and '<script' not in page
    sheet = cv2.imread(str(tmp_path / 'worst/sheet_001.png'))
    assert sheet.shape == (2 * 300, 3 * 256, 3)


def test_hands_not_found_do_not_crowd_out_the_worst(tmp_path):
    worst = WorstHands(4, FACES)
    for number in range(5):
        worst.add(compared(number, 0.0, found=False))
    worst.add(compared(5, 9.0))
    worst.write(tmp_path)
    page = (tmp_path / 'index.html').read_text()
    assert re.findall(r'set &lt;(\d)&gt;', page) == ['5', '0']
    assert 'not found' in page
    assert sorted(path.name for path in tmp_path.glob('*.png')) == ['not_found_001.png', 'sheet_001.png']


def test_a_mesh_lies_where_its_hand_is_seen(tmp_path):
    worst = WorstHands(1, FACES)
    worst.add(compared(0, 5.0))
    worst.write(tmp_path)
    sheet = cv2.imread(str(tmp_path / 'sheet_001.png'))[44:, :, ::-1].astype(int)
    truth, mesh = sheet[:, :256], sheet[:, 512:]
    blue = np.subtract(*(np.array(SIDE_COLOURS['right'])[i] for i in (2, 0)))
    covered = mesh[..., 2] - mesh[..., 0] > 0.2 * blue
    drawn = np.ptp(truth, axis=2) > 60  # the skeleton's colours on grey
    assert 0.1 < covered.mean() < 0.6
    middles = [np.argwhere(where).mean(0) for where in (covered, drawn)]
    assert np.linalg.norm(middles[0] - middles[1]) < 25  # of 256 pixels
    assert covered[drawn].mean() > 2 * covered.mean()


def test_hands_without_a_truth_in_space_are_sorted_by_the_image(tmp_path):
    worst = WorstHands(9, FACES)
    for number, error in enumerate((0.05, 0.2, np.nan)):
        hand = compared(number, 0.0)
        for score in hand.scores:
            score.measures.clear()
            if np.isfinite(error):
                score.measures['error_2d_box'] = error
        worst.add(hand)
    worst.write(tmp_path)
    page = (tmp_path / 'index.html').read_text()
    assert re.findall(r'set &lt;(\d)&gt;', page) == ['1', '0']
    assert '20.0 %' in page


def test_hands_of_which_only_a_mask_is_annotated_are_sorted_by_what_is_not_shared(tmp_path):
    worst = WorstHands(9, FACES)
    mask = np.zeros((150, 200), bool)
    mask[40:80, 20:60] = True
    for number, overlap in enumerate((0.9, 0.4, None)):
        hand = compared(number, 0.0)
        sample = replace(hand.sample, keypoints_2d=None, keypoints_3d=None)
        hand = replace(hand, sample=sample, mask=mask, hands=hand.hands | {'mask2hand': None})
        for score in hand.scores:
            score.measures.clear()
            if overlap is not None:
                score.measures['iou'] = overlap
        worst.add(hand)
    worst.write(tmp_path)
    page = (tmp_path / 'index.html').read_text()
    assert re.findall(r'set &lt;(\d)&gt;', page) == ['1', '0']
    assert 'IoU 0.40' in page and 'no mask' in page
    sheet = cv2.imread(str(tmp_path / 'sheet_001.png'))
    assert sheet.shape == (2 * 300, 4 * 256, 3)
    # The square of 40 pixels in the middle of a panel of 1.7 times its side, but for its border
    truth = sheet[44:300, :256]
    white = np.argwhere((truth > 250).all(2))
    assert abs(np.ptp(white, axis=0) - 256 / 1.7).max() < 5
    assert abs(white.mean(0) - 128).max() < 5


def test_no_hands_make_an_empty_page(tmp_path):
    WorstHands(5, FACES).write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['index.html']
