"""What a depth camera or a mask shows around one hand, in few pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import FrameError

#: Height and width of a view, at most, pixels.
_LARGEST_PX = 96

#: How much is shown around what is asked for, as a share of its longer side.
_MARGIN = 0.25


@dataclass(frozen=True, eq=False)
class SurfaceView:
    """A window of the image around a hand, H x W pixels, of which some may lie outside of the image."""

    camera: Camera  #: of the window
    inside: np.ndarray  #: (H,W) bool
    rays: np.ndarray  #: (H,W,2) float64, x/z and y/z; where the lens sees nothing, not ``inside``
    depth_m: np.ndarray  #: (H,W) float64 metres, 0 for none
    mask: np.ndarray | None  #: (H,W) bool

    @property
    def focal_px(self) -> float:
        """Pixels of the window that a ray's slope of 1 is worth."""
        return float(np.sqrt(self.camera.fx * self.camera.fy))


def view_around(
    box_px: np.ndarray,
    camera: Camera,
    depth_m: np.ndarray | None,
    mask: np.ndarray | None,
    largest_px: int = _LARGEST_PX,
) -> SurfaceView | None:
    """The window around ``box_px`` (4,) x0, y0, x1, y1 in pixels of ``camera``.

    ``depth_m`` (H,W) float, metres, 0 or not finite for none; ``mask`` (H,W) bool; either may be None;
    both are of the camera's size.
    None where the box is not finite or does not meet the image.
    """
    if not np.isfinite(box_px).all():
        return None
    corners = np.array([[0.0, 0.0], [camera.width - 1.0, camera.height - 1.0]])
    if (box_px[:2] > corners[1]).any() or (box_px[2:] < corners[0]).any():
        return None
    margin = max(_MARGIN * float(np.max(box_px[2:] - box_px[:2])), 1.0)
    # Of a hand that reaches far out of the image, the image and a margin are enough
    start = np.floor(np.maximum(box_px[:2], corners[0] - margin) - margin).astype(int)
    end = np.ceil(np.minimum(box_px[2:], corners[1] + margin) + margin).astype(int)
    width, height = (int(side) for side in end - start + 1)
    scale = min(1.0, largest_px / max(width, height))
    window = camera.window(int(start[0]), int(start[1]), width, height, scale)

    rows, columns = np.mgrid[: window.height, : window.width]
    there = np.stack([columns, rows], axis=-1).reshape(-1, 2)
    at = np.rint((there + 0.5) / scale - 0.5 + start).astype(int)
    inside = ((at >= 0) & (at < (camera.width, camera.height))).all(axis=1)
    at = np.clip(at, 0, corners[1].astype(int))
    rays = window.rays(there)
    inside &= np.isfinite(rays).all(axis=1)
    shape = (window.height, window.width)
    depth = np.zeros(len(there))
    if depth_m is not None:
        depth = depth_m[at[:, 1], at[:, 0]].astype(np.float64)
        depth[~(np.isfinite(depth) & (depth > 0.0) & inside)] = 0.0
    seen = None if mask is None else (np.asarray(mask, bool)[at[:, 1], at[:, 0]] & inside).reshape(shape)
    return SurfaceView(window, inside.reshape(shape), rays.reshape(*shape, 2), depth.reshape(shape), seen)


def checked_images(camera: Camera, depth_m: np.ndarray | None, mask: np.ndarray | None) -> None:
    """Raises FrameError for a depth image or a mask that is not of the camera's size."""
    for name, image in (('depth image', depth_m), ('mask', mask)):
        if image is not None and image.shape != (camera.height, camera.width):
            raise FrameError(
                f'the {name} must have the shape {(camera.height, camera.width)}, got {image.shape}'
            )


def nearest_in(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of ``mask`` (H,W) bool the nearest one that is True, and how far it is, in pixels.

    Pixels are numbered row by row: (H,W) int64, and (H,W) float32. ``mask`` must not be empty.
    """
    distance, labels = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    sources = np.flatnonzero(mask)
    by_label = np.zeros(labels.max() + 1, np.int64)
    by_label[labels.ravel()[sources]] = sources
    return by_label[labels], distance
