"""The baseline method: the hand model fitted to landmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.detection import Detection
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.hand_model.fitting import HandFit, fit_hand, joint_confidence
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.placement import scale_source
from hand_mesh_ros.reconstruction.assembly import assemble_hand


class FitReconstructor:
    """The baseline: the hand model fitted to a detector's landmarks, no learning of its own."""

    backend = 'numpy'
    weights_hash = ''

    def __init__(self, models: dict[Side, HandModel], hand_length_m: float | None = None) -> None:
        """``hand_length_m``: wrist to tip of the middle finger, hand flat; None for the model's mean hand.

        Raises ConfigurationError when the model cannot take that length.
        """
        self.timing_ms: dict[str, float] = {}
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

    def forget(self) -> None:
        """Nothing to do: each frame is looked at by itself."""

    def reconstruct(self, observation: Observation, detections: Sequence[Detection]) -> list[Hand | None]:
        """See :class:`Reconstructor`. Nothing can be said of hands without landmarks, or with such as no hand
        can have."""
        return [self._hand(observation.camera, detection) for detection in detections]

    def close(self) -> None:
        """Nothing to do."""

    def _hand(self, camera: Camera, detection: Detection) -> Hand | None:
        try:
            fit = self.fit(camera, detection)
        except FrameError:
            return None
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
