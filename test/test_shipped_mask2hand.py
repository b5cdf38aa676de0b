"""Mask2Hand's weights that come with the package: that they are what the model card says, and their worth."""

import hashlib

import numpy as np
import pytest

from hand_mesh_ros.datasets.masks import SyntheticMasks
from hand_mesh_ros.evaluation.scores import summarise
from hand_mesh_ros.evaluation.silhouettes import BEST_ROW, METHOD_ROW, ROWS, SilhouetteRows
from hand_mesh_ros.evaluation.synthetic import TEST_SEED
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.inference.loading import load_silhouette_network, load_silhouette_refinement
from hand_mesh_ros.networks.mask2hand import MASK2HAND_PATH, load_mask2hand
from hand_mesh_ros.networks.refine_net import REFINE_NET_PATH

MODEL = load_hand_model()
COUNT = 60


def test_the_model_card_is_of_these_files():
    contents = [path.read_bytes() for path in (MASK2HAND_PATH, REFINE_NET_PATH)]
    assert sum(map(len, contents)) < 25e6
    card = (MASK2HAND_PATH.parent / 'MODEL_CARD_MASK2HAND.md').read_text()
    assert all(hashlib.sha256(content).hexdigest() in card for content in contents)


def test_they_are_of_the_open_hand_model():
    _, description = load_mask2hand()
    assert description['hand_model']['sha256'] == MODEL.sha256
    assert description['calibration']['slope'] > 0
    assert load_silhouette_refinement(None).hand_model_hash == MODEL.sha256


@pytest.mark.parametrize(('worn', 'overlap', 'aligned_mm', 'wrist_mm'), [(0, 0.85, 15, 28), (1, 0.8, 19, 50)])
def test_hands_of_masks_that_training_never_had(worn, overlap, aligned_mm, wrist_mm):
    """Bounds are what chance may make of 60 masks, beyond the model card's means."""
    rows = SilhouetteRows(MODEL, load_silhouette_network(None))
    drawn = SyntheticMasks(TEST_SEED, worn_share=worn, model=MODEL).drawn(np.arange(COUNT))
    scores = [score for k, mask in enumerate(drawn) for score in rows.scores(f'{k}', 'test', mask)]
    of = {row['method']: row for row in summarise(scores, ROWS)}
    assert of[METHOD_ROW]['found'] == COUNT
    assert of[METHOD_ROW]['iou'] > overlap
    assert of[METHOD_ROW]['pa_mpjpe_mm'] < aligned_mm
    assert of[METHOD_ROW]['root_mpjpe_mm'] < wrist_mm
    assert of[BEST_ROW]['root_mpjpe_mm'] < of[METHOD_ROW]['root_mpjpe_mm']
    assert of[METHOD_ROW]['ece'] < 0.1
