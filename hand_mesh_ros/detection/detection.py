"""What a detector says of one hand in an image, and what every detector can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hand_mesh_ros.hand import Side


@dataclass(frozen=True)
class HandBox:
    """Where somebody else's detector saw a hand."""

    side: Side
    bbox_px: np.ndarray  #: (4,) float32: x0, y0, x1, y1 in pixels
    score: float = 1.0


@dataclass(frozen=True)
class Detection:
    """One hand in one image. ``side`` is the person's own, whatever way the picture is facing."""

    side: Side
    side_score: float  #: 0..1
    score: float  #: 0..1
    bbox_px: np.ndarray  #: (4,) float32: x0, y0, x1, y1 around the hand, in pixels
    keypoints_px: np.ndarray | None  #: (21,2) float32 pixels, 21-keypoint order; None if not sought or found
    keypoints_depth: np.ndarray | None  #: (21,) float32: depth from the wrist, in pixels (MediaPipe's z)
    landmarks_world: np.ndarray | None  #: (21,3) float32 metres, camera-aligned axes, origin about the palm


class Detector(Protocol):
    """Finds hands. Implementations keep state between the frames of a stream, so one each stream."""

    def detect(self, image: np.ndarray, boxes: Sequence[HandBox] | None = None) -> list[Detection]:
        """Detections in ``image`` (H,W,3) uint8 RGB, best first.

        With ``boxes``, hands are sought in those boxes only and take their sides from them: one
        detection for each box, in the boxes' order.
        """
        ...

    def close(self) -> None:
        """Release what the detector holds; it cannot be used after."""
        ...
