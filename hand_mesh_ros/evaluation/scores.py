"""What one method's hand is worth beside the truth, and means of it over many hands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.evaluation.calibration import Reliability, reliability, spearman
from hand_mesh_ros.evaluation.fscores import f_scores
from hand_mesh_ros.evaluation.metrics import (
    aligned,
    bone_angle_deg,
    mpjpe,
    pck,
    pck_auc,
    root_relative_mpjpe,
    similarity,
)

#: Thresholds of the F-scores, metres, and of the share of correct keypoints, over the box.
_F_THRESHOLDS_M = (0.005, 0.015)
_PCK_SHARES = (0.1, 0.2)

#: Names of the measures of one hand, in the order of tables.
MEASURES = (
    'pa_mpjpe_mm',  # aligned by a similarity
    'bone_angle_deg',  # between the bones, aligned by a rotation
    'root_mpjpe_mm',  # both shifted to their wrists
    'mpjpe_mm',  # in the camera frame
    'pa_mapped_mm',  # the first two once more, with the offsets of a joint map
    'bone_mapped_deg',
    'auc',  # of the share of aligned joints within 0 to 50 mm
    'pa_mpvpe_mm',  # of vertices: these four need a hand model with the order of the truth's
    'root_mpvpe_mm',
    'mpvpe_mm',
    'f_5',
    'f_15',
    'f_5_by_joints',  # of vertices of any order, aligned by the joints
    'f_15_by_joints',
    'error_2d_px',  # the image scaled to 640 pixels of width
    'error_2d_box',  # over the larger side of the box around the true keypoints
    'pck_2d_10',  # share of keypoints within a tenth of that box
    'pck_2d_20',
    'iou',  # of the hand's silhouette and the mask that is annotated, or that was given
    'iou_true',  # and the true one, where that was not given
)


@dataclass(frozen=True, eq=False)
class Points:
    """A hand in space, metres, in whatever frame both sides of a comparison share."""

    joints: np.ndarray  #: (21,3)
    vertices: np.ndarray | None = None  #: (V,3)


@dataclass(frozen=True, eq=False)
class Score:
    """One method on one annotated hand. What truth or method say nothing of is missing or NaN."""

    id: str
    dataset: str
    method: str
    found: bool
    side_correct: bool | None  #: None where the side is not annotated
    measures: Mapping[str, float]  #: some of MEASURES
    joint_errors_m: np.ndarray  #: (21,), aligned by a similarity
    confidence: np.ndarray  #: (21,) 0..1
    hidden: np.ndarray | None = None  #: (21,) bool: keypoints that the crop does not show


#: For what nothing is known of.
UNKNOWN = np.full(21, np.nan)


def aligned_joint_errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distances (21,) of joints (21,3), once aligned by a similarity."""
    return np.linalg.norm(aligned(predicted, truth) - truth, axis=1)


def spatial_measures(
    predicted: Points, truth: Points, *, same_frame: bool = True, same_vertices: bool = True
) -> dict[str, float]:
    """The measures of a hand in space.

    :param same_frame: both are in the camera's frame; else positions are not compared.
    :param same_vertices: vertices correspond by their number.
    """
    errors = aligned_joint_errors(predicted.joints, truth.joints)
    measures = {
        'pa_mpjpe_mm': 1e3 * float(errors.mean()),
        'bone_angle_deg': bone_angle_deg(predicted.joints, truth.joints),
        'root_mpjpe_mm': 1e3 * root_relative_mpjpe(predicted.joints, truth.joints),
        'auc': pck_auc(errors),
    }
    if same_frame:
        measures['mpjpe_mm'] = 1e3 * mpjpe(predicted.joints, truth.joints)
    if predicted.vertices is not None and truth.vertices is not None and same_vertices:
        to_root = predicted.vertices - predicted.joints[0], truth.vertices - truth.joints[0]
        fitted = aligned(predicted.vertices, truth.vertices)
        measures['pa_mpvpe_mm'] = 1e3 * mpjpe(fitted, truth.vertices)
        measures['root_mpvpe_mm'] = 1e3 * mpjpe(*to_root)
        if same_frame:
            measures['mpvpe_mm'] = 1e3 * mpjpe(predicted.vertices, truth.vertices)
    return measures


def surface_measures(predicted: Points, truth: Points, *, same_vertices: bool = True) -> dict[str, float]:
    """The F-scores of a hand with vertices, ``spatial_measures``' slower companion (milliseconds)."""
    if predicted.vertices is None or truth.vertices is None:
        return {}
    scale, rotation, shift = similarity(predicted.joints, truth.joints)
    by_joints = scale * predicted.vertices @ rotation.T + shift
    measures = dict(zip(('f_5_by_joints', 'f_15_by_joints'), _f(by_joints, truth), strict=True))
    if same_vertices:
        by_vertices = aligned(predicted.vertices, truth.vertices)
        measures |= zip(('f_5', 'f_15'), _f(by_vertices, truth), strict=True)
    return measures


def _f(vertices: np.ndarray, truth: Points) -> list[float]:
    assert truth.vertices is not None
    return f_scores(vertices, truth.vertices, _F_THRESHOLDS_M)


def pixel_measures(distances_px: np.ndarray, box_px: float, to_reference: float) -> dict[str, float]:
    """The measures of a hand in the image.

    :param distances_px: (K,) of the annotated keypoints; NaN for one that has no place in the image.
    :param box_px: larger side of the box around the true ones; NaN where it has no extent.
    :param to_reference: what scales the image to the reference width.
    """
    distance = float(distances_px.mean())
    measures = {'error_2d_px': distance * to_reference, 'error_2d_box': distance / box_px}
    if np.isfinite(box_px):
        for share in _PCK_SHARES:
            measures[f'pck_2d_{round(100 * share)}'] = pck(distances_px, share * box_px)
    return measures


def summarise(scores: list[Score], methods: Iterable[str]) -> list[dict[str, str | float]]:
    """Means by data set and method, then over all; and what the confidences are worth.

    They are over the hands that every method found, so that none gains by failing on the hard ones:
    ``compared`` of the ``n``. A method without any score in a data set, because what it looks at is not
    there, has no row there nor over all, and keeps no hand there from being compared. ``side_correct`` is of
    the ``side_known``, found or not. Columns that nothing fills are left out.
    """
    found_by_all = {(s.dataset, s.id) for s in _found_by_all(scores)}
    rows: list[dict[str, str | float]] = []
    measured = _methods_of(scores)
    if len(measured) > 1:
        measured['all'] = set.intersection(*measured.values())
    for dataset, there in measured.items():
        for method in (name for name in methods if name in there):
            chosen = [s for s in scores if s.method == method and dataset in (s.dataset, 'all')]
            row: dict[str, str | float] = {'dataset': dataset, 'method': method, 'n': len(chosen)}
            row['found'] = sum(s.found for s in chosen)
            row['side_correct'] = sum(s.side_correct is True for s in chosen)
            row['side_known'] = sum(s.side_correct is not None for s in chosen)
            common = [s for s in chosen if (s.dataset, s.id) in found_by_all]
            row['compared'] = len(common)
            row.update(_means(common), **_worth_of_confidence(common))
            rows.append(row)
    empty = {name for name in rows[0] if all(row[name] != row[name] for row in rows)} if rows else set()
    if not any(row['side_known'] for row in rows):
        empty |= {'side_correct', 'side_known'}
    return [{name: value for name, value in row.items() if name not in empty} for row in rows]


def found_everywhere(scores: list[Score]) -> list[Score]:
    """The scores of those hands that every method found in every data set, told by their ids."""
    datasets: dict[str, set[str]] = {}
    for score in scores:
        datasets.setdefault(score.id, set()).add(score.dataset)
    count = len({score.dataset for score in scores})
    missed = {score.id for score in scores if not score.found}
    return [s for s in scores if len(datasets[s.id]) == count and s.id not in missed]


def reliability_of(scores: list[Score], method: str) -> Reliability:
    """How reliable the confidences of one method's joints are, of the hands that every method found."""
    chosen = [s for s in _found_by_all(scores) if s.method == method]
    if not chosen:
        return reliability(UNKNOWN, UNKNOWN)
    return reliability(*_joints(chosen))


def _found_by_all(scores: list[Score]) -> list[Score]:
    """Of each data set the scores of those hands that every method found which has any score there."""
    methods = _methods_of(scores)
    missed = {(s.dataset, s.id) for s in scores if not s.found}
    tried: dict[tuple[str, str], set[str]] = {}
    for score in scores:
        tried.setdefault((score.dataset, score.id), set()).add(score.method)
    complete = {hand for hand, names in tried.items() if names == methods[hand[0]]} - missed
    return [s for s in scores if (s.dataset, s.id) in complete]


def _methods_of(scores: list[Score]) -> dict[str, set[str]]:
    """The methods that were measured, by data set."""
    methods: dict[str, set[str]] = {}
    for score in scores:
        methods.setdefault(score.dataset, set()).add(score.method)
    return methods


def _means(scores: list[Score]) -> dict[str, float]:
    means = {}
    for name in MEASURES:
        values = np.array([s.measures.get(name, np.nan) for s in scores])
        means[name] = float(np.nanmean(values)) if np.isfinite(values).any() else float('nan')
    return means


def _worth_of_confidence(scores: list[Score]) -> dict[str, float]:
    """Expected calibration error, and rank correlations of confidence with the aligned error."""
    if not scores:
        return dict.fromkeys(('ece', 'spearman', 'spearman_hidden', 'spearman_hands'), float('nan'))
    confidence, errors = _joints(scores)
    hidden = np.stack([np.zeros(21, bool) if s.hidden is None else s.hidden for s in scores])
    return {
        'ece': reliability(confidence, errors).expected_error,
        'spearman': spearman(confidence, errors),
        'spearman_hidden': spearman(confidence[hidden], errors[hidden]),
        'spearman_hands': spearman(confidence.mean(axis=1), errors.mean(axis=1)),
    }


def _joints(scores: list[Score]) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and aligned errors in metres, (N,21) both."""
    return np.stack([s.confidence for s in scores]), np.stack([s.joint_errors_m for s in scores])
