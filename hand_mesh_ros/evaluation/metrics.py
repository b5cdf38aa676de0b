"""Errors of keypoints and vertices against ground truth. Metres in, metres and degrees out."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS

_CHILDREN = np.arange(1, 21)
_PARENTS = np.asarray(KEYPOINT_PARENTS[1:])

#: Of the curve whose area is taken, as FreiHAND's evaluation has it.
_LARGEST_ERROR_M, _THRESHOLDS = 0.050, 100


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale s, rotation R (3,3) and shift t (3,) that take ``source`` (N,3) closest to ``target`` (N,3).

    Minimises the sum of |s R x + t - y|^2; R is a proper rotation (Umeyama 1991, eq. 40 to 42).
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    covariance = (target - target_mean).T @ centred
    u, singular, vt = np.linalg.svd(covariance)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float((singular * signs).sum() / max((centred**2).sum(), 1e-18))
    return scale, rotation, target_mean - scale * rotation @ source_mean


def mpjpe(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of corresponding points (N,3), in their unit."""
    return float(np.linalg.norm(predicted - truth, axis=-1).mean())


def root_relative_mpjpe(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance after both are shifted to their wrists (first point)."""
    return mpjpe(predicted - predicted[0], truth - truth[0])


def aligned(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """``predicted`` (N,3) after the similarity that brings it closest to ``truth`` (N,3)."""
    scale, rotation, shift = similarity(predicted, truth)
    return scale * predicted @ rotation.T + shift


def pa_mpjpe(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of points (N,3) once they are aligned ("Procrustes-aligned")."""
    return mpjpe(aligned(predicted, truth), truth)


def pck(distances: np.ndarray, threshold: float) -> float:
    """Share of the distances (N,) within ``threshold``, in their unit; one that is no number is not."""
    return float((distances <= threshold).mean())


def pck_auc(distances_m: np.ndarray) -> float:
    """Area, 0 to 1, under the share of distances (N,) within a threshold, from 0 to 50 mm.

    By the trapezoidal rule over 100 thresholds, as in FreiHAND's evaluation.
    """
    thresholds = np.linspace(0.0, _LARGEST_ERROR_M, _THRESHOLDS)
    shares = (distances_m <= thresholds[:, None]).mean(axis=1)
    return float((shares[1:] + shares[:-1]).mean() / 2.0)


def bone_angle_deg(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean angle in degrees between the 20 bones of two hands (21,3), after aligning their rotation.

    The rotation is that of the similarity alignment, so that what is left is the error of the pose.
    """
    _, rotation, _ = similarity(predicted, truth)
    bones = _directions(predicted @ rotation.T)
    cosine = np.clip((bones * _directions(truth)).sum(-1), -1.0, 1.0)
    return float(np.degrees(np.arccos(cosine)).mean())


def _directions(points: np.ndarray) -> np.ndarray:
    bones = points[_CHILDREN] - points[_PARENTS]
    return bones / np.maximum(np.linalg.norm(bones, axis=-1, keepdims=True), 1e-12)


def box_size(points_px: np.ndarray) -> float:
    """Larger side in pixels of the upright box around points (N,2)."""
    return float((points_px.max(0) - points_px.min(0)).max())
