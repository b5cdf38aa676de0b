"""What is known of a hand besides its picture, as the networks take it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Cues:
    """What is known of a hand besides its picture. Float32. All zero where ``present`` says absent."""

    keypoints: np.ndarray  #: (21,2), -1..1 over the crop
    confidence: np.ndarray  #: (21,), 0..1; 0 for a keypoint that is missing
    relative_depth: np.ndarray  #: (21,), behind the wrist, in half sides of the crop
    world: np.ndarray  #: (21,3), from the wrist, crop camera's axes, unit RMS distance from their own mean
    present: np.ndarray  #: (3,) bool: keypoints, relative depth, world landmarks


def normalised_world(points: np.ndarray) -> np.ndarray:
    """Points (...,21,3), of any unit, from the wrist, with unit RMS distance from their own mean."""
    offsets = points - points.mean(axis=-2, keepdims=True)
    size = np.sqrt((offsets**2).sum(axis=-1).mean(axis=-1))
    return (points - points[..., :1, :]) / size[..., None, None]
