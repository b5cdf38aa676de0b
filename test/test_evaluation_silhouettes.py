"""Mask2Hand on masks of rendered hands: that the truth is met by what knows it, and what rows are worth."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from hand_mesh_ros.crop_image import crop_image
from hand_mesh_ros.datasets.masks import SyntheticMasks
from hand_mesh_ros.evaluation.scores import summarise
from hand_mesh_ros.evaluation.silhouettes import ROWS, SilhouetteRows, compare_on_silhouettes
from hand_mesh_ros.evaluation.synthetic import TEST_SEED
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.inference.network import SilhouetteHand
from hand_mesh_ros.mask_view import view_of_mask

COUNT = 6
MODEL = load_hand_model()


def masks(worn_share: float) -> SyntheticMasks:
    """Of hands that are as long as the mean one: no mask tells how long a hand is."""
    return SyntheticMasks(TEST_SEED, worn_share=worn_share, betas_scale=0.0, model=MODEL)


class Knowing:
    """Tells the truth second, and something else first and last."""

    backend, device, image_size, weights_hash, hand_model_hash = 'none', 'CPU', 96, '', MODEL.sha256

    def __init__(self, worn_share: float) -> None:
        batch = masks(worn_share).batch(np.arange(COUNT))
        self._batch, self._asked = batch, 0

    def infer(self, crops: np.ndarray, half_sides: np.ndarray) -> tuple[tuple[SilhouetteHand, ...], ...]:
        k, self._asked = self._asked, self._asked + 1
        truth = SilhouetteHand(
            *(self._batch[name][k].astype(float) for name in ('global_orient', 'hand_pose', 'betas')),
            wrist=self._batch['keypoints'][k, 0].astype(float),
            confidence=np.full(21, 0.7),
            score=0.3,
        )
        other = replace(truth, hand_pose=np.zeros(45), global_orient=np.zeros(3))
        return ((replace(other, score=0.5), truth, replace(other, score=0.2)),)


@pytest.fixture(scope='module')
def table() -> dict[tuple[str, str], dict[str, str | float]]:
    scores = []
    for dataset, share in (('perfect', 0.0), ('ragged', 1.0)):
        rows = SilhouetteRows(MODEL, Knowing(share))
        for of_mask in compare_on_silhouettes(masks(share), rows, dataset, COUNT):
            assert [score.method for score in of_mask] == [*ROWS]
            scores += of_mask
    return {(str(row['dataset']), str(row['method'])): row for row in summarise(scores, ROWS)}


def test_what_knows_the_truth_meets_it(table):
    for row in ('mask2hand', 'mask2hand-best'):
        found = table['perfect', row]
        assert found['found'] == found['compared'] == COUNT
        for measure in ('pa_mpjpe_mm', 'root_mpjpe_mm', 'mpjpe_mm', 'mpvpe_mm'):
            assert found[measure] < 0.01  # the truth is float32
        assert found['iou'] > 0.999 and found['iou_true'] > 0.999
    assert table['perfect', 'mask2hand-first']['root_mpjpe_mm'] > 20.0


def test_ragged_masks_are_compared_with_what_was_given_and_with_what_is_true(table):
    best = table['ragged', 'mask2hand-best']
    assert best['mpjpe_mm'] < 1.0  # of a mask that fell to pieces the largest is looked at
    assert 0.7 < best['iou'] < 0.98 < best['iou_true']


def test_the_mean_hand_is_neither_turned_nor_placed(table):
    mean = table['perfect', 'mean-pose']
    assert 5.0 < mean['pa_mpjpe_mm'] < 30.0
    for measure in ('mpjpe_mm', 'root_mpjpe_mm', 'iou'):
        assert mean[measure] != mean[measure]  # not told


def test_an_empty_mask_is_no_hand():
    drawn = masks(0.0).drawn(np.arange(1))[0]
    scores = SilhouetteRows(MODEL, Knowing(0.0)).scores(
        '0', 'perfect', replace(drawn, mask=np.zeros_like(drawn.mask))
    )
    assert [score.found for score in scores] == [False, False, False, True]


@pytest.mark.parametrize('worn_share', [0.0, 1.0])
def test_masks_as_drawn_are_those_of_the_crops(worn_share):
    drawn = SyntheticMasks(5, worn_share=worn_share, model=MODEL).drawn(np.arange(3))
    batch = SyntheticMasks(5, worn_share=worn_share, model=MODEL).batch(np.arange(3))
    for k, whole in enumerate(drawn):
        view = view_of_mask(whole.mask, whole.camera, 96)
        crop = crop_image(whole.mask, whole.camera, view, border=cv2.BORDER_CONSTANT)
        assert (crop == batch['mask'][k]).all()
        np.testing.assert_allclose(whole.keypoints @ view.R_crop_camera.T, batch['keypoints'][k], atol=1e-6)
        assert whole.hand_mask.shape == whole.mask.shape
        same = ((whole.mask > 0) == whole.hand_mask).all()
        assert same == (worn_share == 0.0)
