"""What a detector says of one hand in an image, and what every detector can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hand_mesh_ros.hand import Side


@dataclass(frozen=True)
class HandBox:
    """Where somebody else's detector saw a hand.

    ``score`` is that detector's own confidence, 0 to 1, that the box shows a hand of that side; 1 where it
    gives none. It goes along with the box and decides nothing: scores of a :class:`Detection` never come
    from it.
    """

    side: Side
    bbox_px: np.ndarray  #: (4,) float32: x0, y0, x1, y1 in pixels
    score: float = 1.0


@dataclass(frozen=True)
class Detection:
    """One hand in one image. ``side`` is the person's own, whatever way the picture is facing.

    Scores are the confidence of the detector that made this record. Both are 0 for a given box in which it
    found no hand: nothing is known of that one but what the box says.
    """

    side: Side
    side_score: float  #: confidence that ``side`` is right, 0..1
    score: float  #: confidence that this is a hand, 0..1
    bbox_px: np.ndarray  #: (4,) float32: x0, y0, x1, y1 around the hand, in pixels
    keypoints_px: np.ndarray | None  #: (21,2) float32 pixels, 21-keypoint order; None if not sought or found
    keypoints_depth: np.ndarray | None  #: (21,) float32: depth from the wrist, in pixels (MediaPipe's z)
    landmarks_world: np.ndarray | None  #: (21,3) float32 metres, camera-aligned axes, origin about the palm
    mask: np.ndarray | None = None  #: (H,W) bool: the pixels of this hand, where masks are what is looked at
    #: (21,2) float32 pixels: where the hand is expected, as it was in the frame before. It says where to look
    #: for it, and nothing of where it is now; ``keypoints_px`` is then None
    followed_px: np.ndarray | None = None


class Detector(Protocol):
    """Finds hands. Implementations keep state between the frames of a stream, so one each stream."""

    def detect(
        self,
        image: np.ndarray,
        boxes: Sequence[HandBox] | None = None,
        known_px: Sequence[np.ndarray] | None = None,
    ) -> list[Detection]:
        """Detections in ``image`` (H,W,3) uint8 RGB, best first.

        With ``boxes``, hands are sought in those boxes only and take their sides from them: one
        detection for each box, in the boxes' order, with scores of 0 and without landmarks where no hand is
        found in it.

        Landmarks come whole: an array of which a detector cannot give every number is None, never NaN. A
        detection whose ``keypoints_px`` is None is not reconstructed.

        With ``known_px``, be it empty, the whole image is searched, whatever was seen in the frame before,
        for hands other than those whose keypoints (21,2) it holds.
        """
        ...

    def close(self) -> None:
        """Release what the detector holds; it cannot be used after."""
        ...


#: The flesh around the keypoints, on each side, in sides of their box.
_FLESH = 0.1

#: Keypoints that lie nearer than this on average, in sides of the larger one's box, are of one hand.
SAME_HAND = 0.15


def box_around(keypoints_px: np.ndarray) -> np.ndarray:
    """The box (4,), x0, y0, x1, y1, of the hand with keypoints (21,2), with the flesh around them."""
    low, high = keypoints_px.min(axis=0), keypoints_px.max(axis=0)
    margin = _FLESH * (high - low).max()
    return np.concatenate([low - margin, high + margin])


def box_in_image(keypoints_px: np.ndarray, width: int, height: int) -> np.ndarray:
    """The part of :func:`box_around` that an image of that size shows."""
    return np.clip(box_around(keypoints_px), 0, np.array([width - 1, height - 1] * 2))


def hand_distance(a_px: np.ndarray, b_px: np.ndarray) -> float:
    """Mean distance of points (N,2) of two hands, in sides of the larger one's box."""
    size = max(np.ptp(a_px, axis=0).max(), np.ptp(b_px, axis=0).max())
    return float(np.linalg.norm(a_px - b_px, axis=1).mean() / max(size, 1e-6))


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0.0, None).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))
