"""The reconstructed hand: the one record that travels from reconstruction to files, messages, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np

Side = Literal['left', 'right']

#: ``Hand.track_id`` of a hand that nobody follows over time.
UNTRACKED = -1


class ScaleSource(IntEnum):
    """Where the metres of a hand come from. The values are those of HandMesh.scale_source."""

    UNKNOWN = 0  #: intrinsics were guessed: sizes are a nominal hand's, distance is not metric
    NOMINAL_HAND = 1  #: calibrated camera, hand of the model's mean size
    HAND_LENGTH = 2  #: calibrated camera, hand length given by the user
    DEPTH = 3  #: measured by a depth camera


@dataclass(frozen=True)
class Hand:
    """One hand in one image. All positions in metres in the camera optical frame.

    Points are in the usual 21-keypoint order (see ``hand_model.keypoints``): wrist, then thumb,
    index, middle, ring, pinky from root to tip. Parameters follow MANO: the vertices are those of
    the hand model of this side for ``betas``, ``hand_pose`` (axis-angle, the model's mean pose
    included, joints in MANO order: index, middle, pinky, ring, thumb; three each) and
    ``global_orient`` (axis-angle, turning about the wrist joint), plus ``transl``. A left hand's
    parameters are those of the left model.
    """

    side: Side
    side_score: float  #: confidence that ``side`` is right, 0..1
    score: float  #: confidence that this is a hand and that its pose is right, 0..1
    bbox_px: np.ndarray  #: (4,) float32: x0, y0, x1, y1 in pixels of the image
    global_orient: np.ndarray  #: (3,) float32, radians
    hand_pose: np.ndarray  #: (45,) float32, radians
    betas: np.ndarray  #: (10,) float32
    transl: np.ndarray  #: (3,) float32, metres
    keypoints_3d: np.ndarray  #: (21,3) float32, metres
    keypoints_2d: np.ndarray  #: (21,2) float32, pixels: the projection of ``keypoints_3d``
    joint_confidence: np.ndarray  #: (21,) float32, 0..1, of each keypoint
    vertices: np.ndarray  #: (V,3) float32, metres
    T_camera_hand: np.ndarray  #: (4,4) float64: hand frame at the wrist keypoint (see ``hand_model.frames``)
    T_camera_fingertips: np.ndarray  #: (5,4,4) float64: thumb to pinky, at the tip keypoints
    scale_source: ScaleSource
    track_id: int = UNTRACKED
