"""What every backend that runs a network of hands can do: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hand_mesh_ros.cues import Cues

#: Iterations of the sampling of a pose. The paper takes five; with this package's weights one is as good.
MIN_STEPS, DEFAULT_STEPS, MAX_STEPS = 1, 1, 16


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """A right hand, as a network sees it in the camera of a crop. Float64 unless said."""

    global_orient: np.ndarray  #: (3,) radians, axis-angle
    hand_pose: np.ndarray  #: (45,) radians, axis-angle, the model's mean pose included
    betas: np.ndarray  #: (10,) of the hand model that the network learned
    confidence: np.ndarray  #: (21,) of each keypoint, 0..1
    presence: float  #: that the crop shows a hand, 0..1; 0.5 from a network that does not say
    keypoints: np.ndarray  #: (21,2) where the crop shows them, -1..1 over it: from the cues and the image
    keypoints_3d: np.ndarray  #: (21,3) float32 metres, from the wrist's, axes of the crop's camera
    vertices: np.ndarray  #: (V,3) float32 likewise, of the hand model that the network learned
    tokens: np.ndarray  #: (N,) int64 of the pose


class HandNetwork(Protocol):
    """A network with its weights, loaded and ready. Not thread-safe."""

    backend: str  #: what runs it, e.g. "onnxruntime"
    device: str  #: where, e.g. "CPU"
    image_size: int  #: S, side of the crops in pixels
    weights_hash: str  #: SHA-256 of the file of weights, hexadecimal
    hand_model_hash: str  #: SHA-256 of the hand model that ``NetworkOutput.betas`` are of; empty if unknown
    #: Whether it finds the hand in a crop without a detector's landmarks, and says its ``presence``
    finds_hands: bool

    def infer(self, images: np.ndarray, cues: Sequence[Cues]) -> tuple[NetworkOutput, ...]:
        """The right hands in crops (B,S,S,3) uint8 RGB, one in each."""
        ...

    def close(self) -> None:
        """Give its memory back; the network cannot be used after."""
        ...


@dataclass(frozen=True, eq=False)
class SilhouetteHand:
    """A right hand that a mask may be of, in the camera of the mask's crop. Float64."""

    global_orient: np.ndarray  #: (3,) radians, axis-angle
    hand_pose: np.ndarray  #: (45,) radians, axis-angle, the model's mean pose included
    betas: np.ndarray  #: (10,) of the hand model that the network learned
    wrist: np.ndarray  #: (3,) metres, where the wrist keypoint is
    confidence: np.ndarray  #: (21,) of each keypoint, 0..1
    score: float  #: probability that of all hands that are told of this mask it is the nearest one


class SilhouetteNetwork(Protocol):
    """A network of silhouettes with its weights, loaded and ready. Not thread-safe."""

    backend: str  #: what runs it, e.g. "onnxruntime"
    device: str  #: where, e.g. "CPU"
    image_size: int  #: S, side of the crops in pixels
    weights_hash: str  #: SHA-256 of the file of weights, hexadecimal
    hand_model_hash: str  #: SHA-256 of the hand model that ``SilhouetteHand.betas`` are of; empty if unknown

    def infer(self, crops: np.ndarray, half_sides: np.ndarray) -> tuple[tuple[SilhouetteHand, ...], ...]:
        """The right hands that each of crops (B,S,S) uint8 may show, 255 for hand, by falling score.

        :param half_sides: (B,) focal lengths of the crops' cameras over half the crops' side.
        """
        ...

    def close(self) -> None:
        """Give its memory back; the network cannot be used after."""
        ...


class SilhouetteRefinement(Protocol):
    """A network that moves the vertices of such hands, loaded and ready. Not thread-safe."""

    backend: str  #: what runs it, e.g. "onnxruntime"
    device: str  #: where, e.g. "CPU"
    image_size: int  #: S, side of the crops in pixels
    weights_hash: str  #: SHA-256 of the file of weights, hexadecimal
    hand_model_hash: str  #: SHA-256 of the hand model whose vertices it learned to move

    def refined(
        self, crop: np.ndarray, half_side: float, vertices: np.ndarray, faces: np.ndarray
    ) -> np.ndarray:
        """The vertices (V,3) float64 of a right hand, metres in the crop's camera, none more than 50 mm from
        where it was, so that their silhouette fits the mask better. No parameters of the model give them.

        :param crop: (S,S) uint8, 255 for hand.
        :param half_side: focal length of the crop's camera over half the crop's side.
        :param vertices: (V,3) metres, in the crop's camera.
        :param faces: (F,3) of the hand model.
        """
        ...

    def close(self) -> None:
        """Give its memory back; the network cannot be used after."""
        ...
