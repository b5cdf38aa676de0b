"""What every method of reconstruction has in common, and the one way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.detection import Detection
from hand_mesh_ros.hand import Hand, ScaleSource
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.observation import Observation


class Reconstructor(Protocol):
    """One method of reconstruction. Not thread-safe."""

    backend: str  #: what does the work, e.g. "numpy"
    weights_hash: str  #: SHA-256 of the network's weights, hexadecimal; empty when the method has none
    timing_ms: dict[str, float]  #: milliseconds that parts of the last call took, always the same parts

    def forget(self) -> None:
        """Take what comes next for the beginning of a stream: no hand was there before."""
        ...

    def reconstruct(self, observation: Observation, detections: Sequence[Detection]) -> list[Hand | None]:
        """The hands of ``detections`` in ``observation``, in their order; None for those of which nothing can
        be said. All hands of a frame come in one call."""
        ...

    def close(self) -> None:
        """Release the networks, if any; the reconstructor cannot be used after."""
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
    return Hand(
        side=detection.side,
        side_score=detection.side_score,
        score=float(np.mean(confidence)),
        bbox_px=np.asarray(detection.bbox_px, np.float32),
        joint_confidence=np.asarray(confidence, np.float32),
        scale_source=scale,
        **_posed(model, camera, global_orient, hand_pose, betas, transl),
    )


def changed_hand(
    model: HandModel,
    camera: Camera,
    hand: Hand,
    *,
    global_orient: np.ndarray,
    hand_pose: np.ndarray,
    betas: np.ndarray,
    transl: np.ndarray,
    scale: ScaleSource,
) -> Hand:
    """``hand`` with other parameters, and with all that follows from them; see :func:`assemble_hand`.

    Side, box, scores, confidences and track stay.
    """
    posed = _posed(model, camera, global_orient, hand_pose, betas, transl)
    return replace(hand, scale_source=scale, **posed)


def _posed(
    model: HandModel,
    camera: Camera,
    global_orient: np.ndarray,
    hand_pose: np.ndarray,
    betas: np.ndarray,
    transl: np.ndarray,
) -> dict[str, Any]:
    """The fields of a ``Hand`` that its parameters determine, these included."""
    global_orient, hand_pose = np.asarray(global_orient, np.float32), np.asarray(hand_pose, np.float32)
    betas, transl = np.asarray(betas, np.float32), np.asarray(transl, np.float32)
    posed = model.posed(global_orient, hand_pose, betas, transl)
    return {
        'global_orient': global_orient,
        'hand_pose': hand_pose,
        'betas': betas,
        'transl': transl,
        'keypoints_3d': posed.keypoints.astype(np.float32),
        'keypoints_2d': camera.project(posed.keypoints).astype(np.float32),
        'vertices': posed.vertices.astype(np.float32),
        'T_camera_hand': posed.T_camera_hand,
        'T_camera_fingertips': posed.T_camera_fingertips,
    }
