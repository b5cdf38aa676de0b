"""From what a detector says of a hand to what the networks take."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_view import CropView, looking_along
from hand_mesh_ros.cues import Cues, normalised_world
from hand_mesh_ros.detection.detection import Detection


def detected_cues(detection: Detection, camera: Camera, view: CropView) -> Cues:
    """What ``detection``, in pixels and axes of ``camera``'s image, says of the hand that ``view`` shows.

    Of either side: nothing is mirrored.

    ``confidence`` is the detector's score for the whole hand, at every keypoint alike, and 0 for those that
    are not finite or that lie where the lens or the view sees nothing.

    A detector takes the hand for one straight ahead, small beside its distance: its depths, in pixels of the
    image, and its world landmarks are those along the ray to the hand, not along the camera's axis. So depths
    are scaled as the picture of the hand is between image and crop, and world landmarks are first turned
    by the smallest rotation between the camera's axis and the mean ray to the keypoints, then into the
    crop's camera. A view straight at the hand thus only rolls them. Without keypoints the hand is taken to be
    straight ahead of the view, and depths, whose scale is then unknown, are absent.
    """
    keypoints, rays, seen = _in_view(detection.keypoints_px, camera, view)
    depth, depth_known = np.zeros(21), False
    if detection.keypoints_px is not None and detection.keypoints_depth is not None and seen.sum() > 1:
        scale = extent(keypoints[seen]) / max(extent(detection.keypoints_px[seen]), 1e-6)
        depth = (detection.keypoints_depth - detection.keypoints_depth[0]) * scale
        depth_known = bool(np.isfinite(depth).all())
    world, world_known = np.zeros((21, 3)), False
    if detection.landmarks_world is not None and np.isfinite(detection.landmarks_world).all():
        towards = rays[seen].mean(0) if seen.any() else view.R_crop_camera[2]
        R_crop_picture = view.R_crop_camera @ looking_along(towards).T
        world, world_known = normalised_world(detection.landmarks_world @ R_crop_picture.T), True
    return Cues(
        keypoints=np.where(seen[:, None], keypoints, 0.0).astype(np.float32),
        confidence=np.where(seen, detection.score, 0.0).astype(np.float32),
        relative_depth=(depth if depth_known else np.zeros(21)).astype(np.float32),
        world=world.astype(np.float32),
        present=np.array([seen.any(), depth_known, world_known]),
    )


def _in_view(
    keypoints_px: np.ndarray | None, camera: Camera, view: CropView
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of keypoints (21,2): places over the crop (21,2), unit rays (21,3), and which are seen (21,) bool.

    Places and rays of what is not seen are 0.
    """
    unit, directions = np.zeros((21, 2)), np.zeros((21, 3))
    if keypoints_px is None:
        return unit, directions, np.zeros(21, bool)
    rays = np.column_stack([camera.rays(keypoints_px), np.ones(21)])
    seen = np.isfinite(rays).all(1)
    seen[seen] = rays[seen] @ view.R_crop_camera[2] > 0.0
    unit[seen] = view.to_unit(rays[seen])
    directions[seen] = rays[seen] / np.linalg.norm(rays[seen], axis=1, keepdims=True)
    return unit, directions, seen


def extent(points: np.ndarray) -> float:
    """Root mean square distance of points (N,2) from their mean."""
    return float(np.sqrt(((points - points.mean(0)) ** 2).sum(1).mean()))
