"""One line of ``hands.jsonl``: what was seen in a frame, for other programs to read."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from hand_mesh_ros import __version__
from hand_mesh_ros.camera import Camera
from hand_mesh_ros.estimator import Estimate, HandMeshEstimator
from hand_mesh_ros.hand import Hand
from hand_mesh_ros.hand_model.keypoints import JOINT_NAMES, KEYPOINT_NAMES
from hand_mesh_ros.sources import Frame

#: Digits kept after the decimal point: a micrometre, a micropixel, a microradian.
_DIGITS = 6


def frame_record(
    frame: Frame, camera: Camera, estimate: Estimate, timing_ms: dict[str, float], with_vertices: bool
) -> dict[str, Any]:
    """The record of one frame, ready for :func:`dump_record`; the README has its schema."""
    height, width = frame.image.shape[:2]
    record: dict[str, Any] = {
        'source': str(frame.source),
        'frame': frame.index,
        'stamp': round(frame.stamp, _DIGITS),
        'width': width,
        'height': height,
        'camera': _numbers(np.array([camera.fx, camera.fy, camera.cx, camera.cy])),
        'hands': [_hand_record(hand, with_vertices) for hand in estimate.hands],
        'timing_ms': {stage: round(ms, 3) for stage, ms in timing_ms.items()},
    }
    if estimate.unresolved:
        record['unresolved'] = [
            {'side': detection.side, 'bbox': _numbers(detection.bbox_px)} for detection in estimate.unresolved
        ]
    return record


def run_record(estimator: HandMeshEstimator) -> dict[str, Any]:
    """What all frames of a run have in common: without it, parameters and vertices mean nothing."""
    model = estimator.models['right']
    return {
        'version': __version__,
        'method': estimator.method,
        'backend': estimator.backend,
        'weights_hash': estimator.weights_hash,
        'refinement': estimator.refinement,
        'hand_model': {'name': model.name, 'license': model.license, 'sha256': model.sha256},
        'keypoints': KEYPOINT_NAMES,
        'joints': JOINT_NAMES,
        'faces': {side: faces.tolist() for side, faces in estimator.faces.items()},
    }


def dump_record(record: dict[str, Any]) -> str:
    """One line of JSON; NaN, which JSON does not have, is written as null."""
    return json.dumps(record, allow_nan=False, separators=(',', ':'))


def _hand_record(hand: Hand, with_vertices: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        'side': hand.side,
        'side_score': round(hand.side_score, _DIGITS),
        'score': round(hand.score, _DIGITS),
        'id': hand.track_id,
        'bbox': _numbers(hand.bbox_px),
        'keypoints_2d': _numbers(hand.keypoints_2d),
        'keypoints_3d': _numbers(hand.keypoints_3d),
        'joint_confidence': _numbers(hand.joint_confidence),
        'mano': {
            'global_orient': _numbers(hand.global_orient),
            'hand_pose': _numbers(hand.hand_pose),
            'betas': _numbers(hand.betas),
            'transl': _numbers(hand.transl),
        },
        'scale_source': hand.scale_source.name.lower(),
    }
    if with_vertices:
        record['vertices'] = _numbers(hand.vertices)
    return record


def _numbers(array: np.ndarray) -> Any:
    rounded = np.round(np.asarray(array, np.float64), _DIGITS).astype(object)
    rounded[rounded != rounded] = None  # NaN: JSON has none
    return rounded.tolist()
