"""Several methods on the same annotated images: what each sees of each hand, and how far off it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.depth_files import read_mask
from hand_mesh_ros.detection.detection import Detection, Detector
from hand_mesh_ros.detection.masks import hands_in_mask
from hand_mesh_ros.errors import FileFormatError
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
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.reconstruction import MASK_METHODS, Reconstructor
from hand_mesh_ros.rendering.masks import silhouette_overlap
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
    scores: list[Score]  #: the detector's row first; none of a method that needs a mask where there is none
    hands: dict[str, Hand | None]  #: by method; None where it found nothing
    mask: np.ndarray | None = None  #: (H,W) bool: pixels of the hand, where they are annotated

    def pairs(self) -> list[MappedPair]:
        """Every method's joints beside the true ones, where there are both."""
        truth = self.sample.keypoints_3d
        if truth is None:
            return []
        found = {
            name: (hand.side, hand.keypoints_3d) for name, hand in self.hands.items() if hand is not None
        }
        if self.detection is not None and self.detection.landmarks_world is not None:
            found = {DETECTOR_ROW: (self.detection.side, self.detection.landmarks_world), **found}
        return [
            MappedPair(self.sample.dataset, self.sample.id, name, side, joints.astype(float), truth)
            for name, (side, joints) in found.items()
        ]


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one method says of a hand."""

    figure: Points
    pixels: np.ndarray | None  # (21,2)
    in_camera_frame: bool
    confidence: np.ndarray  # (21,)
    overlap: float | None = None  # with the annotated mask


def compare(
    samples: Iterable[AnnotatedHand],
    detector: Detector,
    methods: Mapping[str, Reconstructor],
    faces: Mapping[Side, np.ndarray],
    *,
    same_vertices: bool = True,
) -> Iterator[ComparedHand]:
    """Scores of the detector's own landmarks and of every method, hand by hand, on the same detections.

    The detector sees the whole image and is not told where the hands are; see :func:`match` for which
    detection counts for which annotated hand. What looks at masks is given mask and side as they are
    annotated, and measured only where a mask is. Where one is, every method's silhouette is compared with it.

    :param faces: (F,3) of the methods' hand model of each side.
    :param same_vertices: that model has the order of MANO's vertices, as the truth has.
    :raises FileFormatError: an image or a mask that cannot be read, or a mask not of its image's size.
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
            mask = None if sample.mask is None else _read_mask(sample.mask, image)
            observation, of_mask = Observation(camera, image, mask), _of_mask(sample, mask, detection)
            hands = {
                name: _hand(method, observation, of_mask if name in MASK_METHODS else detection)
                for name, method in methods.items()
            }
            seen = {DETECTOR_ROW: _own_landmarks(detection)}
            seen |= {
                name: None if hand is None else _seen(hand, faces, camera, mask)
                for name, hand in hands.items()
                if mask is not None or name not in MASK_METHODS
            }
            scores = [
                _score(sample, name, detection, width, what, same_vertices) for name, what in seen.items()
            ]
            yield ComparedHand(sample, image, camera, detection, scores, hands, mask)


def _read_mask(path: Path, image: np.ndarray) -> np.ndarray:
    """(H,W) bool: what is bright in the picture at ``path``."""
    mask = read_mask(path)
    if mask.shape != image.shape[:2]:
        (rows, columns), (height, width) = mask.shape, image.shape[:2]
        raise FileFormatError(f'{path}: is {columns}x{rows}, its image {width}x{height}')
    return mask


def _of_mask(sample: AnnotatedHand, mask: np.ndarray | None, detection: Detection | None) -> Detection | None:
    """What the annotated mask and side say; the detector's side where none is annotated."""
    side = sample.side or (detection.side if detection is not None else None)
    if mask is None or side is None:
        return None
    return next(iter(hands_in_mask(mask, side=side, max_hands=1)), None)


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


def _hand(method: Reconstructor, observation: Observation, detection: Detection | None) -> Hand | None:
    if detection is None:
        return None
    return method.reconstruct(observation, [detection])[0]


def _seen(hand: Hand, faces: Mapping[Side, np.ndarray], camera: Camera, mask: np.ndarray | None) -> _Seen:
    return _Seen(
        figure=Points(hand.keypoints_3d.astype(np.float64), hand.vertices.astype(np.float64)),
        pixels=hand.keypoints_2d.astype(np.float64),
        in_camera_frame=True,
        confidence=hand.joint_confidence.astype(np.float64),
        overlap=None if mask is None else silhouette_overlap(hand.vertices, faces[hand.side], camera, mask),
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
    if seen is not None and seen.overlap is not None:
        measures['iou'] = seen.overlap
    return Score(
        id=sample.id,
        dataset=sample.dataset,
        method=method,
        found=seen is not None,
        side_correct=_side_correct(sample, method, detection),
        measures=measures,
        joint_errors_m=errors,
        confidence=UNKNOWN if seen is None else seen.confidence,
    )


def _side_correct(sample: AnnotatedHand, method: str, detection: Detection | None) -> bool | None:
    """None where the side is not annotated, or is given."""
    if sample.side is None or method in MASK_METHODS:
        return None
    return detection is not None and detection.side == sample.side
