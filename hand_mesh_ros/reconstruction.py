"""From detections to hands: what every method has in common, and the baseline method."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.detection import Detection
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand import Hand, ScaleSource, Side
from hand_mesh_ros.hand_model.fitting import HandFit, fit_hand, joint_confidence
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.placement import scale_source


class Reconstructor(Protocol):
    """One method of reconstruction."""

    def reconstruct(self, image: np.ndarray, camera: Camera, detection: Detection) -> Hand | None:
        """The hand of ``detection`` in ``image`` (H,W,3) uint8 RGB; None where nothing can be said of it."""
        ...


def assemble_hand(
    model: HandModel,
    camera: Camera,
    detection: Detection,
    *,
    global_orient: np.ndarray,
    hand_pose: np.ndarray,
    betas: np.ndarray,
    transl: np.ndarray,
    confidence: np.ndarray,
    scale: ScaleSource,
) -> Hand:
    """Pose ``model`` and put together the record that leaves the library.

    Parameters are rounded to float32 first, so that what is published reproduces the published vertices.
    ``confidence`` (21,) is per keypoint; the hand's score is their mean.
    """
    global_orient, hand_pose = np.asarray(global_orient, np.float32), np.asarray(hand_pose, np.float32)
    betas, transl = np.asarray(betas, np.float32), np.asarray(transl, np.float32)
    posed = model.posed(global_orient, hand_pose, betas, transl)
    return Hand(
        side=detection.side,
        side_score=detection.side_score,
        score=float(np.mean(confidence)),
        bbox_px=np.asarray(detection.bbox_px, np.float32),
        global_orient=global_orient,
        hand_pose=hand_pose,
        betas=betas,
        transl=transl,
        keypoints_3d=posed.keypoints.astype(np.float32),
        keypoints_2d=camera.project(posed.keypoints).astype(np.float32),
        joint_confidence=np.asarray(confidence, np.float32),
        vertices=posed.vertices.astype(np.float32),
        T_camera_hand=posed.T_camera_hand,
        T_camera_fingertips=posed.T_camera_fingertips,
        scale_source=scale,
    )


class FitReconstructor:
    """The baseline: the hand model fitted to a detector's landmarks, no learning of its own."""

    def __init__(self, models: dict[Side, HandModel], hand_length_m: float | None = None) -> None:
        """``hand_length_m``: wrist to tip of the middle finger, hand flat; None for the model's mean hand.

        Raises ConfigurationError when the model cannot take that length.
        """
        self._models = models
        self._length_given = hand_length_m is not None
        self._betas = {
            side: np.zeros(10) if hand_length_m is None else model.betas_for_length(hand_length_m)
            for side, model in models.items()
        }

    def fit(self, camera: Camera, detection: Detection) -> HandFit | None:
        """Parameters of the fit; None for a detection without landmarks."""
        if detection.keypoints_px is None:
            return None
        return fit_hand(
            self._models[detection.side],
            detection.keypoints_px,
            detection.landmarks_world,
            camera,
            keypoints_depth=detection.keypoints_depth,
            betas=self._betas[detection.side],
        )

    def reconstruct(self, image: np.ndarray, camera: Camera, detection: Detection) -> Hand | None:
        """See :class:`Reconstructor`. Raises FrameError for landmarks that no hand can have."""
        fit = self.fit(camera, detection)
        if fit is None:
            return None
        return assemble_hand(
            self._models[detection.side],
            camera,
            detection,
            global_orient=fit.global_orient,
            hand_pose=fit.hand_pose,
            betas=fit.betas,
            transl=fit.transl,
            confidence=joint_confidence(fit, detection.score),
            scale=scale_source(camera, self._length_given),
        )


#: Names of the methods, best first.
METHODS = ('fit',)


def make_reconstructor(
    method: str, models: dict[Side, HandModel], hand_length_m: float | None = None
) -> Reconstructor:
    """The reconstructor of a name in METHODS."""
    if method not in METHODS:
        raise ConfigurationError(f'method must be one of {", ".join(METHODS)}, got {method!r}')
    return FitReconstructor(models, hand_length_m)
