"""What every backend that runs a network of hands can do: arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hand_mesh_ros.cues import Cues

#: Iterations of the sampling of a pose. The paper takes five; with this package's weights one is as good.
MIN_STEPS, DEFAULT_STEPS, MAX_STEPS = 1, 1, 16


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """A right hand, as a network sees it in the camera of a crop. Float64."""

    global_orient: np.ndarray  #: (3,) radians, axis-angle
    hand_pose: np.ndarray  #: (45,) radians, axis-angle, the model's mean pose included
    betas: np.ndarray  #: (10,) of the hand model that the network learned
    confidence: np.ndarray  #: (21,) of each keypoint, 0..1
    keypoints: np.ndarray  #: (21,2) where the crop shows them, -1..1 over it: from the cues and the image


class HandNetwork(Protocol):
    """A network with its weights, loaded and ready. Not thread-safe."""

    backend: str  #: what runs it, e.g. "torch"
    image_size: int  #: S, side of the crops in pixels
    weights_hash: str  #: SHA-256 of the file of weights, hexadecimal
    hand_model_hash: str  #: SHA-256 of the hand model that ``NetworkOutput.betas`` are of; empty if unknown

    def infer(self, image: np.ndarray, cues: Cues) -> NetworkOutput:
        """The right hand in a crop (S,S,3) uint8 RGB."""
        ...
