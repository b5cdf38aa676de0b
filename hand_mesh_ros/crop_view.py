"""The virtual camera of a crop: turned onto the hand, upright in its plane, as near as the hand is large."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.camera import Camera

#: Root mean square distance of a hand's keypoints from the middle of its crop, as a share of the side.
#: Even a spread hand then stays inside, and a fist fills about half.
RMS_SHARE = 0.21

_WRIST, _MIDDLE_MCP = 0, 9


@dataclass(frozen=True)
class CropView:
    """A camera at the same place as another one, that sees a hand in a square picture."""

    R_crop_camera: np.ndarray  #: (3,3) float64: from the first camera's optical frame to the crop's
    focal_px: float
    size: int  #: of the crop, in pixels

    def camera(self, samples: int = 1) -> Camera:
        """The crop's camera, drawn with ``samples`` by ``samples`` pixels for each one of it."""
        size = self.size * samples
        middle = (size - 1) / 2.0
        return Camera(size, size, self.focal_px * samples, self.focal_px * samples, middle, middle)

    def to_unit(self, points_camera: np.ndarray) -> np.ndarray:
        """Where the crop sees points (N,3) of the first camera's frame, in front of both cameras: (N,2).

        -1 and 1 are the crop's left and right, or upper and lower, edges.
        """
        points = points_camera @ self.R_crop_camera.T
        return points[:, :2] / points[:, 2:] * (self.focal_px * 2.0 / self.size)

    def rays(self, unit: np.ndarray) -> np.ndarray:
        """Directions (N,3), in the first camera's frame, of points (N,2) as ``to_unit`` gives them."""
        slopes = np.asarray(unit) * (self.size / 2.0 / self.focal_px)
        return np.column_stack([slopes, np.ones(len(slopes))]) @ self.R_crop_camera

    def turned(self, roll_rad: float, right: float, down: float, zoom: float) -> CropView:
        """Another view: its middle moved by shares of the half side, then rolled and enlarged."""
        slope = self.size / 2.0 / self.focal_px
        look = looking_along(np.array([right * slope, down * slope, 1.0]))
        return CropView(_rolled(roll_rad) @ look @ self.R_crop_camera, self.focal_px * zoom, self.size)


def view_of_hand(rays: np.ndarray, size: int) -> CropView:
    """The view of a hand whose keypoints (21) lie along ``rays`` (21,3), of any length, in a camera.

    Its axis passes through the mean direction; wrist to middle MCP points up; the keypoints lie
    ``RMS_SHARE`` of the side from the middle.
    """
    directions = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    look = looking_along(directions.mean(0))
    seen = directions @ look.T
    seen = seen[:, :2] / seen[:, 2:]
    right, down = seen[_MIDDLE_MCP] - seen[_WRIST]
    focal = RMS_SHARE * size / np.sqrt((seen**2).sum(1).mean())
    return CropView(_rolled(-np.arctan2(right, -down)) @ look, float(focal), size)


def looking_along(direction: np.ndarray) -> np.ndarray:
    """The smallest rotation (3,3) that turns ``direction`` (3,), of any length, to the optical axis."""
    x, y, z = direction / np.linalg.norm(direction)
    # Rodrigues' formula, the axis being direction x (0, 0, 1).
    k = 1.0 / (1.0 + z)
    return np.array([[1 - k * x * x, -k * x * y, -x], [-k * x * y, 1 - k * y * y, -y], [x, y, z]])


def _rolled(angle_rad: float) -> np.ndarray:
    """Rotation (3,3) about the optical axis, clockwise in the picture."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
