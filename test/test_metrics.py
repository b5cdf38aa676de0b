"""Metrics against SciPy and against cases worked out by hand."""

import numpy as np
import pytest
from scipy.spatial import cKDTree, procrustes
from scipy.spatial.transform import Rotation

from hand_mesh_ros.evaluation.fscores import f_scores
from hand_mesh_ros.evaluation.metrics import (
    aligned,
    bone_angle_deg,
    box_size,
    mpjpe,
    pa_mpjpe,
    pck,
    pck_auc,
    root_relative_mpjpe,
    similarity,
)
from hand_mesh_ros.evaluation.scores import Points, pixel_measures, spatial_measures, surface_measures
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS

RNG = np.random.default_rng(1)
HAND = RNG.normal(0.0, 0.05, (21, 3))


def test_a_similarity_is_recovered():
    rotation = Rotation.random(random_state=3).as_matrix()
    scale, found, shift = similarity(HAND, 1.7 * HAND @ rotation.T + [0.1, -0.2, 0.5])
    np.testing.assert_allclose(scale, 1.7)
    np.testing.assert_allclose(found, rotation, atol=1e-12)
    np.testing.assert_allclose(shift, [0.1, -0.2, 0.5], atol=1e-12)


def test_alignment_never_mirrors():
    _, rotation, _ = similarity(HAND, HAND * [-1.0, 1.0, 1.0])
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0)


def test_aligned_error_is_scipys_where_no_mirroring_helps():
    noisy = (
        2.0 * HAND @ Rotation.random(random_state=5).as_matrix().T + 1.0 + RNG.normal(0.0, 0.005, HAND.shape)
    )
    truth, aligned, _ = procrustes(HAND, noisy)
    # scipy scales its reference to unit Frobenius norm about the mean
    unit = np.linalg.norm(HAND - HAND.mean(0))
    np.testing.assert_allclose(pa_mpjpe(noisy, HAND), unit * mpjpe(aligned, truth), rtol=1e-9)


def test_root_relative_error_ignores_position_only():
    assert root_relative_mpjpe(HAND + [0.3, 0.0, 1.0], HAND) < 1e-12
    moved = HAND.copy()
    moved[8] += [0.0, 0.0, 0.021]
    np.testing.assert_allclose(root_relative_mpjpe(moved, HAND), 0.001)


def test_bone_angle_is_zero_for_a_turned_and_scaled_hand():
    turned = 1.3 * HAND @ Rotation.random(random_state=1).as_matrix() + [0.0, 0.1, 0.7]
    assert bone_angle_deg(turned, HAND) < 1e-4


def test_bone_angle_after_scipys_alignment():
    other = HAND + RNG.normal(0.0, 0.02, HAND.shape)
    rotation, _ = Rotation.align_vectors(HAND - HAND.mean(0), other - other.mean(0))
    angles = []
    for child, parent in enumerate(KEYPOINT_PARENTS[1:], start=1):
        a, b = rotation.apply(other[child] - other[parent]), HAND[child] - HAND[parent]
        angles.append(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))
    np.testing.assert_allclose(bone_angle_deg(other, HAND), np.mean(angles), rtol=1e-6)


def test_box_size_is_the_larger_side():
    assert box_size(np.array([[0.0, 5.0], [10.0, 7.0], [4.0, 30.0]])) == 25.0


def test_the_area_is_that_under_the_curve():
    distances = RNG.uniform(0.0, 0.07, 500)
    # Exactly: of each distance, the share of the 50 mm that lie above it
    exact = np.clip(1.0 - distances / 0.05, 0.0, 1.0).mean()
    np.testing.assert_allclose(pck_auc(distances), exact, atol=0.005)
    assert pck_auc(np.zeros(3)) == 1.0 and pck_auc(np.full(3, 0.06)) == 0.0


def test_the_area_is_freihands():
    distances = RNG.uniform(0.0, 0.07, 300)
    thresholds = np.linspace(0.0, 0.05, 100)
    curve = [np.mean(distances <= t) for t in thresholds]
    expected = np.trapz(curve, thresholds) / np.trapz(np.ones(100), thresholds)  # noqa: NPY201
    np.testing.assert_allclose(pck_auc(distances), expected, rtol=1e-12)


def surfaces():
    model = load_hand_model()
    truth = model.posed(np.array([0.3, 1.0, -0.2]), model.hands_mean, np.zeros(10), np.array([0.0, 0.1, 0.6]))
    other = model.posed(np.zeros(3), 1.3 * model.hands_mean, np.full(10, 0.5), np.zeros(3))
    return Points(other.keypoints, other.vertices), Points(truth.keypoints, truth.vertices)


def f_by_tree(predicted, truth, threshold):
    precision = np.mean(cKDTree(truth).query(predicted)[0] < threshold)
    recall = np.mean(cKDTree(predicted).query(truth)[0] < threshold)
    return 2 * precision * recall / (precision + recall)


def test_f_scores_are_those_of_a_search_tree():
    predicted, truth = surfaces()
    measures = surface_measures(predicted, truth)
    vertices = aligned(predicted.vertices, truth.vertices)
    for name, threshold in (('f_5', 0.005), ('f_15', 0.015)):
        np.testing.assert_allclose(measures[name], f_by_tree(vertices, truth.vertices, threshold), rtol=1e-12)
    assert 0.0 < measures['f_5'] < measures['f_15'] <= 1.0


def test_f_scores_are_those_of_all_pairs():
    first, second = RNG.normal(0.0, 0.01, (40, 3)), RNG.normal(0.0, 0.01, (55, 3))
    distances = np.linalg.norm(first[:, None] - second, axis=2)
    precision, recall = (distances.min(1) < 0.004).mean(), (distances.min(0) < 0.004).mean()
    np.testing.assert_allclose(f_scores(first, second, [0.004]), 2 / (1 / precision + 1 / recall))
    assert f_scores(first, second + 1.0, [0.004]) == [0.0]


def test_a_mesh_of_another_order_is_compared_by_its_surface_alone():
    predicted, truth = surfaces()
    shuffled = Points(predicted.joints, predicted.vertices[RNG.permutation(778)])
    measures = spatial_measures(shuffled, truth, same_vertices=False)
    measures |= surface_measures(shuffled, truth, same_vertices=False)
    assert not {'mpvpe_mm', 'pa_mpvpe_mm', 'root_mpvpe_mm', 'f_5', 'f_15'} & set(measures)
    same = surface_measures(predicted, truth)
    assert measures['f_5_by_joints'] == pytest.approx(same['f_5_by_joints'])


def test_vertex_errors_are_of_scipys_alignment():
    predicted, truth = surfaces()
    measures = spatial_measures(predicted, truth)
    reference, fitted, _ = procrustes(truth.vertices, predicted.vertices)
    unit = np.linalg.norm(truth.vertices - truth.vertices.mean(0))
    np.testing.assert_allclose(measures['pa_mpvpe_mm'], 1e3 * unit * mpjpe(fitted, reference), rtol=1e-9)
    apart = np.linalg.norm(predicted.vertices - truth.vertices, axis=1).mean()
    np.testing.assert_allclose(measures['mpvpe_mm'], 1e3 * apart)


def test_a_hand_moved_as_a_whole_has_no_error_from_its_root():
    _, truth = surfaces()
    moved = Points(truth.joints + [0.0, 0.0, 0.1], truth.vertices + [0.0, 0.0, 0.1])
    measures = spatial_measures(moved, truth)
    for name in ('pa_mpjpe_mm', 'root_mpjpe_mm', 'pa_mpvpe_mm', 'root_mpvpe_mm'):
        assert measures[name] < 1e-6
    assert measures['mpjpe_mm'] == pytest.approx(100.0) and measures['mpvpe_mm'] == pytest.approx(100.0)
    assert 'mpjpe_mm' not in spatial_measures(moved, truth, same_frame=False)


def test_pixels_are_measured_by_the_box():
    measures = pixel_measures(np.array([5.0, 15.0, 25.0, np.nan]), box_px=100.0, to_reference=0.5)
    assert (measures['pck_2d_10'], measures['pck_2d_20']) == (0.25, 0.5)
    measures = pixel_measures(np.array([5.0, 15.0]), box_px=100.0, to_reference=0.5)
    assert (measures['error_2d_px'], measures['error_2d_box']) == (5.0, 0.1)
    assert pck(np.array([1.0, 2.0, 3.0]), 2.0) == pytest.approx(2 / 3)
