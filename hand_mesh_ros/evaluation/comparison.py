"""Several methods on the same annotated images: what each sees of each hand, and how far off it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.detection.detection import Detection, Detector
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.evaluation.metrics import bone_angle_deg, box_size, mpjpe, pa_mpjpe, root_relative_mpjpe
from hand_mesh_ros.reconstruction import Reconstructor
from hand_mesh_ros.sources import read_image

#: The row of the detector's own landmarks, beside the reconstruction methods.
DETECTOR_ROW = 'mediapipe'

#: 2D errors are given as if every image were this wide, so that they compare across data sets.
REFERENCE_WIDTH_PX = 640


@dataclass(frozen=True)
class Score:
    """One method on one annotated hand. NaN where the ground truth or the method says nothing."""

    id: str
    dataset: str
    method: str
    found: bool
    side_correct: bool | None  #: None where the side is not annotated
    pa_mpjpe_mm: float
    bone_angle_deg: float
    root_mpjpe_mm: float  #: both shifted to their wrists
    mpjpe_mm: float  #: in the camera frame
    error_2d_px: float  #: mean over annotated keypoints, image scaled to REFERENCE_WIDTH_PX
    error_2d_box: float  #: the same over the larger side of the ground truth's box


def compare(
    samples: Iterable[AnnotatedHand], detector: Detector, methods: dict[str, Reconstructor]
) -> Iterator[list[Score]]:
    """Scores of the detector's own landmarks and of every method, sample by sample, on the same detections.

    The detector sees the whole image and is not told where the hands are; see :func:`match` for which
    detection counts for which annotated hand.
    """
    by_image: dict[Path, list[AnnotatedHand]] = {}
    for sample in samples:
        by_image.setdefault(sample.image, []).append(sample)
    for path, annotated in by_image.items():
        image = read_image(path)
        height, width = image.shape[:2]
        detections = match(annotated, detector.detect(image))
        for sample, detection in zip(annotated, detections, strict=True):
            camera = (
                Camera.from_fov(width, height)
                if sample.intrinsics is None
                else Camera(width, height, *sample.intrinsics)
            )
            scores = [_score(sample, DETECTOR_ROW, detection, width, *_own_landmarks(detection))]
            for name, method in methods.items():
                scores.append(
                    _score(sample, name, detection, width, *_hand(method, image, camera, detection))
                )
            yield scores


def match(annotated: list[AnnotatedHand], detections: list[Detection]) -> list[Detection | None]:
    """Which detection is which annotated hand of the same image; None where a hand was not found.

    Pairs are made one to one, the nearest in the image first, if their keypoints are on average nearer
    than half the size of the annotated hand. Hands without annotated pixels then take what is left, their
    own side first; nothing says whether they were found.
    """
    matches: list[Detection | None] = [None] * len(annotated)
    free = [d for d in detections if d.keypoints_px is not None]
    pairs = [
        (distance, i, detection)
        for i, sample in enumerate(annotated)
        for detection in free
        if (distance := _distance_px(detection.keypoints_px, sample)) < 0.5 * _size_px(sample)
    ]
    for _, i, detection in sorted(pairs, key=lambda pair: pair[0]):
        if matches[i] is None and any(detection is d for d in free):
            matches[i] = detection
            free = [d for d in free if d is not detection]
    for i, sample in enumerate(annotated):
        if sample.keypoints_2d is None and free:
            matches[i] = max(free, key=lambda d: (d.side == sample.side, d.score))
            free = [d for d in free if d is not matches[i]]
    return matches


def summarise(scores: list[Score], methods: Iterable[str]) -> list[dict[str, str | float]]:
    """Means by data set and method, then over all.

    A mean is over the hands that every method found, so that none gains by failing on the hard ones.
    """
    missed = {s.id for s in scores if not s.found}
    rows: list[dict[str, str | float]] = []
    datasets = [*dict.fromkeys(score.dataset for score in scores)]
    for dataset in [*datasets, 'all'] if len(datasets) > 1 else datasets:
        for method in methods:
            chosen = [s for s in scores if s.method == method and dataset in (s.dataset, 'all')]
            row: dict[str, str | float] = {'dataset': dataset, 'method': method, 'n': len(chosen)}
            row['found'] = sum(s.found for s in chosen)
            row['side_correct'] = sum(s.side_correct is True for s in chosen)
            row['side_known'] = sum(s.side_correct is not None for s in chosen)
            for field in fields(Score)[5:]:
                values = np.array([getattr(s, field.name) for s in chosen if s.id not in missed])
                row[field.name] = float(np.nanmean(values)) if np.isfinite(values).any() else float('nan')
            rows.append(row)
    return rows


def _size_px(sample: AnnotatedHand) -> float:
    if sample.keypoints_2d is None or not sample.visible.any():
        return float('nan')
    size = box_size(sample.keypoints_2d[sample.visible])
    return size if size > 0.0 else float('nan')


def _distance_px(keypoints_px: np.ndarray | None, sample: AnnotatedHand) -> float:
    if keypoints_px is None or sample.keypoints_2d is None or not sample.visible.any():
        return float('nan')
    return mpjpe(keypoints_px[sample.visible], sample.keypoints_2d[sample.visible])


def _own_landmarks(detection: Detection | None) -> tuple[np.ndarray | None, np.ndarray | None, bool]:
    if detection is None:
        return None, None, False
    return detection.landmarks_world, detection.keypoints_px, False


def _hand(
    method: Reconstructor, image: np.ndarray, camera: Camera, detection: Detection | None
) -> tuple[np.ndarray | None, np.ndarray | None, bool]:
    if detection is None:
        return None, None, False
    try:
        hand = method.reconstruct(image, camera, detection)
    except FrameError:
        hand = None
    if hand is None:
        return None, None, False
    return hand.keypoints_3d.astype(np.float64), hand.keypoints_2d.astype(np.float64), True


def _score(
    sample: AnnotatedHand,
    method: str,
    detection: Detection | None,
    width: int,
    points: np.ndarray | None,
    pixels: np.ndarray | None,
    in_camera_frame: bool,
) -> Score:
    def error(measure: Callable[[np.ndarray, np.ndarray], float], said: bool = True) -> float:
        if not said or points is None or sample.keypoints_3d is None:
            return float('nan')
        return measure(points, sample.keypoints_3d)

    distance = _distance_px(pixels, sample)
    return Score(
        id=sample.id,
        dataset=sample.dataset,
        method=method,
        found=points is not None,
        side_correct=None if sample.side is None else detection is not None and detection.side == sample.side,
        pa_mpjpe_mm=1e3 * error(pa_mpjpe),
        bone_angle_deg=error(bone_angle_deg),
        root_mpjpe_mm=1e3 * error(root_relative_mpjpe),
        mpjpe_mm=1e3 * error(mpjpe, in_camera_frame),
        error_2d_px=distance * REFERENCE_WIDTH_PX / width,
        error_2d_box=distance / _size_px(sample),
    )
