"""The camera that took an image: pinhole intrinsics, lens distortion, projection and its inverse."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from hand_mesh_ros.errors import CameraError

#: Number of coefficients each distortion model of sensor_msgs/CameraInfo carries.
_COEFFICIENTS = {'none': (0,), 'plumb_bob': (4, 5), 'rational_polynomial': (8, 12, 14), 'equidistant': (4,)}

#: When to stop searching for the ray of a pixel: rounds, and error in pixels. OpenCV's own five rounds leave
#: whole pixels in the corners of wide lenses.
_UNDISTORT_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-9)

#: A ray that appears further than this from its pixel, in pixels, was not found.
_MAX_RAY_ERROR_PX = 1.0

#: Field of view assumed where nobody said otherwise: a common webcam's, width-wise, in degrees.
DEFAULT_FOV_DEG = 60.0


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one image, in its pixels.

    Pixel centres lie at integer coordinates (OpenCV and ROS alike): (0, 0) is the centre of the
    top left pixel. Points are in the camera optical frame (REP-103): z forward, x right, y down.

    ``calibrated`` is False when the intrinsics were guessed, e.g. by :meth:`from_fov`; every
    position computed with such a camera is then of unknown scale.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = 'none'
    distortion: tuple[float, ...] = ()
    calibrated: bool = True

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise CameraError(f'image size {self.width}x{self.height} is empty')
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not all(math.isfinite(n) for n in numbers):
            raise CameraError(f'intrinsics hold a number that is not finite: {numbers}')
        if self.fx <= 0 or self.fy <= 0:
            raise CameraError(f'focal lengths must be positive, got fx={self.fx}, fy={self.fy}')
        if self.distortion_model not in _COEFFICIENTS:
            raise CameraError(
                f'distortion model {self.distortion_model!r} is not one of {sorted(_COEFFICIENTS)}'
            )
        if len(self.distortion) not in _COEFFICIENTS[self.distortion_model]:
            raise CameraError(
                f'{self.distortion_model} takes {_COEFFICIENTS[self.distortion_model]} coefficients, '
                f'got {len(self.distortion)}'
            )

    @classmethod
    def from_fov(cls, width: int, height: int, fov_deg: float = DEFAULT_FOV_DEG) -> Camera:
        """Guess a camera from its horizontal field of view in degrees; ``calibrated`` is False."""
        if not 1.0 <= fov_deg <= 170.0:
            raise CameraError(f'field of view must be within 1 to 170 degrees, got {fov_deg}')
        focal = width / (2.0 * math.tan(math.radians(fov_deg) / 2.0))
        return cls(width, height, focal, focal, (width - 1) / 2.0, (height - 1) / 2.0, calibrated=False)

    @property
    def K(self) -> np.ndarray:
        """Intrinsic matrix, (3,3) float64."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def window(self, x0: int, y0: int, width: int, height: int, scale: float = 1.0) -> Camera:
        """Camera of a window: ``width`` x ``height`` pixels from (x0, y0), ``scale`` times as large.

        The window may reach beyond the image. Distortion stays: it is a property of the rays.
        """
        return replace(
            self,
            width=round(width * scale),
            height=round(height * scale),
            fx=self.fx * scale,
            fy=self.fy * scale,
            cx=(self.cx - x0 + 0.5) * scale - 0.5,
            cy=(self.cy - y0 + 0.5) * scale - 0.5,
        )

    def project(self, points_camera: np.ndarray) -> np.ndarray:
        """Pixels (N,2) float64 of points (N,3) in metres; NaN for points not in front of the camera."""
        points = np.asarray(points_camera, np.float64).reshape(-1, 3)
        front = points[:, 2] > 1e-6
        if len(points) and front.all():
            return self._seen(points)
        pixels = np.full((len(points), 2), np.nan)
        if front.any():
            pixels[front] = self._seen(points[front])
        return pixels

    def _seen(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N,2) of points (N,3) in front of the camera."""
        if self.distortion and self.distortion_model == 'equidistant':
            zero = np.zeros(3)
            projected, _ = cv2.fisheye.projectPoints(
                points[:, None], zero, zero, self.K, np.asarray(self.distortion)
            )
            return projected.reshape(-1, 2)
        rays = points[:, :2] / points[:, 2:]
        if self.distortion:
            rays = self._bent(rays)
        rays *= (self.fx, self.fy)
        rays += (self.cx, self.cy)
        return rays

    def _bent(self, rays: np.ndarray) -> np.ndarray:
        """Where a lens of the models plumb_bob or rational_polynomial puts rays (N,2), as OpenCV has it.

        Its own function finds the Jacobian as well, which takes most of its time.
        """
        given = self.distortion
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4, *tilts = (*given, *(0.0,) * (14 - len(given)))
        if any(tilts):
            points, zero = np.column_stack([rays, np.ones(len(rays))]), np.zeros(3)
            return cv2.projectPoints(points, zero, zero, np.eye(3), np.asarray(given))[0].reshape(-1, 2)
        x, y = np.ascontiguousarray(rays.T)
        squared = x * x + y * y
        radial = 1.0 + squared * (k1 + squared * (k2 + squared * k3))
        if k4 or k5 or k6:
            radial /= 1.0 + squared * (k4 + squared * (k5 + squared * k6))
        across = 2.0 * (p2 * x + p1 * y)
        bent = np.empty_like(rays)
        bent[:, 0] = x * (radial + across) + squared * (p2 + s1 + squared * s2)
        bent[:, 1] = y * (radial + across) + squared * (p1 + s3 + squared * s4)
        return bent

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Viewing directions (N,2) float64, (x/z, y/z) without distortion, of pixels (N,2).

        NaN for a pixel that no direction in front of the camera is found for: a distortion polynomial may
        fold back before it reaches the corners of the image.
        """
        pixels = np.asarray(pixels, np.float64).reshape(-1, 2)
        if not self.distortion:
            return (pixels - (self.cx, self.cy)) / (self.fx, self.fy)
        if not len(pixels):
            return np.empty((0, 2))
        coefficients = np.asarray(self.distortion)
        if self.distortion_model == 'equidistant':
            found = cv2.fisheye.undistortPoints(pixels[:, None], self.K, coefficients)
        else:
            found = cv2.undistortPointsIter(
                pixels[:, None], self.K, coefficients, np.eye(3), np.eye(3), _UNDISTORT_CRITERIA
            )
        rays = found.reshape(-1, 2)
        seen_at = self.project(np.hstack([rays, np.ones((len(rays), 1))]))
        rays[~(np.linalg.norm(seen_at - pixels, axis=1) <= _MAX_RAY_ERROR_PX)] = np.nan
        return rays

    def unproject(self, pixels: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
        """Points (N,3) in metres of pixels (N,2) at depths (N,) along the optical axis; NaN as the rays."""
        depth = np.asarray(depth_m, np.float64).reshape(-1, 1)
        return np.hstack([self.rays(pixels) * depth, depth])
