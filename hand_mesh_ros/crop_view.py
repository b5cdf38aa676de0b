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
        return _seen(points_camera, self.R_crop_camera) * (self.focal_px * 2.0 / self.size)

    def rays(self, unit: np.ndarray) -> np.ndarray:
        """Directions (N,3), in the first camera's frame, of points (N,2) as ``to_unit`` gives them."""
        return _directions(np.asarray(unit) * (self.size / 2.0 / self.focal_px)) @ self.R_crop_camera

    def turned(self, roll_rad: float, right: float, down: float, zoom: float) -> CropView:
        """Another view: its middle moved by shares of the half side, then rolled and enlarged."""
        alone = CropViews(self.R_crop_camera[None], np.array([self.focal_px]), self.size)
        return alone.turned(np.array([roll_rad]), np.array([[right, down]]), np.array([zoom]))[0]


@dataclass(frozen=True, eq=False)
class CropViews:
    """N views of one size, for work on many hands at once."""

    R_crop_camera: np.ndarray  #: (N,3,3) float64
    focal_px: np.ndarray  #: (N,) float64
    size: int  #: of each crop, in pixels

    def __getitem__(self, row: int) -> CropView:
        return CropView(self.R_crop_camera[row], float(self.focal_px[row]), self.size)

    @property
    def half_sides(self) -> np.ndarray:
        """What each view enlarges a slope by, (N,): 1 / tan of half the angle that it sees."""
        return self.focal_px * (2.0 / self.size)

    def to_unit(self, points_camera: np.ndarray) -> np.ndarray:
        """Where each crop sees points (N,K,3): (N,K,2). See ``CropView.to_unit``."""
        return _seen(points_camera, self.R_crop_camera) * self.half_sides[:, None, None]

    def rays(self, unit: np.ndarray) -> np.ndarray:
        """Directions (N,K,3) of points (N,K,2). See ``CropView.rays``."""
        return _directions(unit / self.half_sides[:, None, None]) @ self.R_crop_camera

    def turned(self, roll_rad: np.ndarray, moved: np.ndarray, zoom: np.ndarray) -> CropViews:
        """Other views: their middles moved by shares (N,2) of the half side, then rolled and enlarged."""
        look = looking_along(_directions(moved / self.half_sides[:, None]))
        return CropViews(_rolled(roll_rad) @ look @ self.R_crop_camera, self.focal_px * zoom, self.size)


def view_of_hand(rays: np.ndarray, size: int) -> CropView:
    """The view of a hand whose keypoints (21) lie along ``rays`` (21,3), of any length, in a camera.

    Its axis passes through the mean direction; wrist to middle MCP points up; the keypoints lie
    ``RMS_SHARE`` of the side from the middle.
    """
    return views_of_hands(rays[None], size)[0]


def views_of_hands(rays: np.ndarray, size: int) -> CropViews:
    """The views of N hands whose keypoints lie along ``rays`` (N,21,3). See ``view_of_hand``."""
    directions = rays / np.linalg.norm(rays, axis=2, keepdims=True)
    look = looking_along(directions.mean(1))
    seen = _seen(directions, look)
    right, down = (seen[:, _MIDDLE_MCP] - seen[:, _WRIST]).T
    focal = RMS_SHARE * size / np.sqrt((seen**2).sum(2).mean(1))
    return CropViews(_rolled(-np.arctan2(right, -down)) @ look, focal, size)


def looking_along(direction: np.ndarray) -> np.ndarray:
    """The smallest rotations (...,3,3) that turn directions (...,3), of any length, to the optical axis."""
    x, y, z = np.moveaxis(direction / np.linalg.norm(direction, axis=-1, keepdims=True), -1, 0)
    # Rodrigues' formula, the axis being direction x (0, 0, 1).
    k = 1.0 / (1.0 + z)
    entries = [1 - k * x * x, -k * x * y, -x, -k * x * y, 1 - k * y * y, -y, x, y, z]
    return np.stack(entries, axis=-1).reshape(*np.shape(x), 3, 3)


def _rolled(angle_rad: np.ndarray) -> np.ndarray:
    """Rotations (N,3,3) about the optical axis, clockwise in the picture."""
    rotations = np.zeros((len(angle_rad), 3, 3))
    rotations[:, 0, 0] = rotations[:, 1, 1] = np.cos(angle_rad)
    rotations[:, 1, 0] = np.sin(angle_rad)
    rotations[:, 0, 1] = -rotations[:, 1, 0]
    rotations[:, 2, 2] = 1.0
    return rotations


def _seen(points_camera: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Slopes (...,K,2) at which cameras turned by ``rotation`` (...,3,3) see points (...,K,3)."""
    points = points_camera @ np.swapaxes(rotation, -1, -2)
    return points[..., :2] / points[..., 2:]


def _directions(slopes: np.ndarray) -> np.ndarray:
    """Directions (...,3), of unit depth, of slopes (...,2)."""
    return np.concatenate([slopes, np.ones_like(slopes[..., :1])], axis=-1)
