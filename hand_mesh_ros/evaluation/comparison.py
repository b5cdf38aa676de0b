"""Several methods on the same annotated images: what each sees of each hand, and how far off it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.detection.detection import Detection, Detector
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.evaluation.joint_map import MappedPair
from hand_mesh_ros.evaluation.metrics import box_size, mpjpe
from hand_mesh_ros.evaluation.scores import (
    UNKNOWN,
    Points,
    Score,
    aligned_joint_errors,
    pixel_measures,
    spatial_measures,
    surface_measures,
)
from hand_mesh_ros.hand import Hand
from hand_mesh_ros.reconstruction import Reconstructor
from hand_mesh_ros.sources import read_image

#: The row of the detector's own landmarks, beside the reconstruction methods.
DETECTOR_ROW = 'mediapipe'

#: 2D errors are given as if every image were this wide, so that they compare across data sets.
REFERENCE_WIDTH_PX = 640


@dataclass(frozen=True, eq=False)
class ComparedHand:
    """One annotated hand, and what every method made of it."""

    sample: AnnotatedHand
    image: np.ndarray  #: (H,W,3) uint8 RGB
    camera: Camera
    detection: Detection | None
    scores: list[Score]  #: the detector's row first
    hands: dict[str, Hand | None]  #: by method; None where it found nothing

    def pairs(self) -> list[MappedPair]:
        """Every method's joints beside the true ones, where there are both."""
        truth = self.sample.keypoints_3d
        if truth is None or self.detection is None:
            return []
        joints = {DETECTOR_ROW: self.detection.landmarks_world}
        joints |= {name: None if hand is None else hand.keypoints_3d for name, hand in self.hands.items()}
        return [
            MappedPair(
                self.sample.dataset, self.sample.id, name, self.detection.side, found.astype(float), truth
            )
            for name, found in joints.items()
            if found is not None
        ]


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one method says of a hand."""

    figure: Points
    pixels: np.ndarray | None  # (21,2)
    in_camera_frame: bool
    confidence: np.ndarray  # (21,)


def compare(
    samples: Iterable[AnnotatedHand],
    detector: Detector,
    methods: dict[str, Reconstructor],
    *,
    same_vertices: bool = True,
) -> Iterator[ComparedHand]:
    """Scores of the detector's own landmarks and of every method, hand by hand, on the same detections.

    The detector sees the whole image and is not told where the hands are; see :func:`match` for which
    detection counts for which annotated hand. ``same_vertices``: the methods' hand model has the order of
    MANO's vertices, as the truth has.
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
            hands = {name: _hand(method, image, camera, detection) for name, method in methods.items()}
            seen = {DETECTOR_ROW: _own_landmarks(detection)}
            seen |= {name: None if hand is None else _seen(hand) for name, hand in hands.items()}
            scores = [
                _score(sample, name, detection, width, what, same_vertices) for name, what in seen.items()
            ]
            yield ComparedHand(sample, image, camera, detection, scores, hands)


def match(annotated: list[AnnotatedHand], detections: list[Detection]) -> list[Detection | None]:
    """Which detection is which annotated hand of the same image; None where a hand was not found.

    Pairs are made one to one, the nearest in the image first, if their keypoints are on average nearer
    than half the size of the annotated hand. Hands without annotated pixels then take what is left, their
    own side first, of those whose middle lies in their box where they have one; else nothing says whether
    they were found.
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
        there = [d for d in free if _in_box(d.keypoints_px, sample.bbox_px)]
        if sample.keypoints_2d is None and there:
            matches[i] = max(there, key=lambda d: (d.side == sample.side, d.score))
            free = [d for d in free if d is not matches[i]]
    return matches


def _in_box(keypoints_px: np.ndarray | None, bbox_px: np.ndarray | None) -> bool:
    if bbox_px is None or keypoints_px is None:
        return bbox_px is None
    middle = keypoints_px.mean(axis=0)
    return bool((middle >= bbox_px[:2]).all() and (middle <= bbox_px[2:]).all())


def _size_px(sample: AnnotatedHand) -> float:
    if sample.keypoints_2d is None or not sample.visible.any():
        return float('nan')
    size = box_size(sample.keypoints_2d[sample.visible])
    return size if size > 0.0 else float('nan')


def _distance_px(keypoints_px: np.ndarray | None, sample: AnnotatedHand) -> float:
    if keypoints_px is None or sample.keypoints_2d is None or not sample.visible.any():
        return float('nan')
    return mpjpe(keypoints_px[sample.visible], sample.keypoints_2d[sample.visible])


def _own_landmarks(detection: Detection | None) -> _Seen | None:
    if detection is None or detection.landmarks_world is None:
        return None
    return _Seen(Points(detection.landmarks_world), detection.keypoints_px, False, UNKNOWN)


def _hand(
    method: Reconstructor, image: np.ndarray, camera: Camera, detection: Detection | None
) -> Hand | None:
    if detection is None:
        return None
    try:
        return method.reconstruct(image, camera, detection)
    except FrameError:
        return None


def _seen(hand: Hand) -> _Seen:
    return _Seen(
        figure=Points(hand.keypoints_3d.astype(np.float64), hand.vertices.astype(np.float64)),
        pixels=hand.keypoints_2d.astype(np.float64),
        in_camera_frame=True,
        confidence=hand.joint_confidence.astype(np.float64),
    )


def _score(
    sample: AnnotatedHand,
    method: str,
    detection: Detection | None,
    width: int,
    seen: _Seen | None,
    same_vertices: bool,
) -> Score:
    measures: dict[str, float] = {}
    errors = UNKNOWN
    if seen is not None and sample.keypoints_3d is not None:
        truth = Points(sample.keypoints_3d, sample.vertices)
        errors = aligned_joint_errors(seen.figure.joints, truth.joints)
        measures |= spatial_measures(
            seen.figure, truth, same_frame=seen.in_camera_frame, same_vertices=same_vertices
        )
        measures |= surface_measures(seen.figure, truth, same_vertices=same_vertices)
    if seen is not None and seen.pixels is not None and np.isfinite(size := _size_px(sample)):
        assert sample.keypoints_2d is not None  # or it would have no size
        distances = np.linalg.norm(seen.pixels - sample.keypoints_2d, axis=1)[sample.visible]
        measures |= pixel_measures(distances, size, REFERENCE_WIDTH_PX / width)
    return Score(
        id=sample.id,
        dataset=sample.dataset,
        method=method,
        found=seen is not None,
        side_correct=None if sample.side is None else detection is not None and detection.side == sample.side,
        measures=measures,
        joint_errors_m=errors,
        confidence=UNKNOWN if seen is None else seen.confidence,
    )
