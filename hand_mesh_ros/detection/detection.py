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


class Detector(Protocol):
    """Finds hands. Implementations keep state between the frames of a stream, so one each stream."""

    def detect(self, image: np.ndarray, boxes: Sequence[HandBox] | None = None) -> list[Detection]:
        """Detections in ``image`` (H,W,3) uint8 RGB, best first.

        With ``boxes``, hands are sought in those boxes only and take their sides from them: one
        detection for each box, in the boxes' order, with scores of 0 and without landmarks where no hand is
        found in it.

        Landmarks come whole: an array of which a detector cannot give every number is None, never NaN. A
        detection whose ``keypoints_px`` is None is not reconstructed.
        """
        ...

    def close(self) -> None:
        """Release what the detector holds; it cannot be used after."""
        ...


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0.0, None).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))
