"""The form of a synthetic sample: the truth of placed hands, and cues, as crops of them have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hand_mesh_ros.crop_view import CropViews
from hand_mesh_ros.cues import Cues
from hand_mesh_ros.hand_model.rotations import axis_angles


@dataclass(frozen=True, eq=False)
class SyntheticSample:
    """One crop of a right hand, what a detector says of it, and the truth in the crop's camera.

    That camera looks at the hand along its axis, pinhole, ``focal_px``, its centre in the middle of the crop.
    The root is keypoint 0, the wrist.
    """

    image: np.ndarray  #: (S,S,3) uint8 RGB
    cue_keypoints: np.ndarray  #: (21,2) float32, -1..1 over the crop; see ``cues.Cues`` for these
    cue_confidence: np.ndarray  #: (21,) float32
    cue_relative_depth: np.ndarray  #: (21,) float32
    cue_world: np.ndarray  #: (21,3) float32
    cue_present: np.ndarray  #: (3,) bool: keypoints, relative depth, world landmarks
    global_orient: np.ndarray  #: (3,) float32 radians, axis-angle
    hand_pose: np.ndarray  #: (45,) float32 radians
    betas: np.ndarray  #: (10,) float32
    keypoints_3d: np.ndarray  #: (21,3) float32 metres, from the root
    root_depth_m: np.ndarray  #: () float32, along the optical axis
    focal_px: np.ndarray  #: () float32
    keypoints_2d: np.ndarray  #: (21,2) float32 pixels of the crop
    visible: np.ndarray  #: (21,) bool, see ``Scene.visible``
    R_crop_camera: np.ndarray  #: (3,3) float32: from the frame of the camera that took the whole picture


class PlacedHands(NamedTuple):
    """N right hands before their cameras, float64. The frames are those cameras' optical frames."""

    R_camera_hand: np.ndarray  #: (N,3,3)
    hand_pose: np.ndarray  #: (N,45)
    betas: np.ndarray  #: (N,10)
    transl: np.ndarray  #: (N,3) metres
    keypoints: np.ndarray  #: (N,21,3) metres
    source_focal_px: np.ndarray  #: (N,), of the cameras


def sample_fields(
    hands: PlacedHands, views: CropViews, visible: np.ndarray, cues: Cues
) -> dict[str, np.ndarray]:
    """All fields of ``SyntheticSample`` but ``image``, stacked, of N hands in ``views`` of their cameras.

    :param visible: (N,21) bool: keypoints that nothing hides.
    :param cues: of the same hands in these views, stacked.
    """
    unit, points = views.to_unit(hands.keypoints), hands.keypoints @ views.R_crop_camera.transpose(0, 2, 1)
    fields = {
        'cue_keypoints': cues.keypoints,
        'cue_confidence': cues.confidence,
        'cue_relative_depth': cues.relative_depth,
        'cue_world': cues.world,
        'cue_present': cues.present,
        'global_orient': axis_angles(views.R_crop_camera @ hands.R_camera_hand),
        'hand_pose': hands.hand_pose,
        'betas': hands.betas,
        'keypoints_3d': points - points[:, :1],
        'root_depth_m': points[:, 0, 2],
        'focal_px': views.focal_px,
        'keypoints_2d': unit * (views.size / 2.0) + (views.size - 1) / 2.0,
        'visible': visible & (np.abs(unit) <= 1.0).all(2),
        'R_crop_camera': views.R_crop_camera,
    }
    return {
        name: values.astype(np.float32) if values.dtype == np.float64 else values
        for name, values in fields.items()
    }
