"""The view of a hand of which only the outline is known: its camera is turned by the mask alone."""

from __future__ import annotations

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_view import CropView, looking_along
from hand_mesh_ros.errors import FrameError

#: Root mean square distance of a mask's pixels from their middle, as a share of the crop's side. An open
#: hand's fingertips and wrist then lie just inside.
MASK_RMS_SHARE = 0.205

#: Pixels; less is no hand of which anything could be said.
LEAST_PIXELS = 64

#: Of larger masks so many pixels are enough to tell where they lie.
_MOST_PIXELS = 1200


def view_of_mask(mask: np.ndarray, camera: Camera, size: int) -> CropView:
    """The view of the hand that ``mask`` (H,W) bool or uint8, not 0 for the hand, shows to ``camera``.

    Its axis passes through the middle of the mask; the direction in which the mask is longest points up, that
    end being up which reaches farther from the middle, as fingers do. The pixels lie ``MASK_RMS_SHARE`` of
    the side from the middle. The view of a mirrored mask is the mirrored view.

    :raises FrameError: a mask with fewer than ``LEAST_PIXELS`` pixels, or all in one line.
    """
    pixels = _mask_pixels(mask)
    if len(pixels) < LEAST_PIXELS:
        raise FrameError(f'a mask of {len(pixels)} pixels is no hand, {LEAST_PIXELS} are the least')
    thinned = pixels[:: max(1, len(pixels) // _MOST_PIXELS)]
    rays = np.column_stack([camera.rays(thinned), np.ones(len(thinned))])
    rays = rays[np.isfinite(rays).all(1)]
    if len(rays) < LEAST_PIXELS // 2:
        raise FrameError('the mask lies where the lens of this camera sees nothing')
    directions = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    look = looking_along(directions.mean(0))
    seen = directions @ look.T
    slopes = seen[:, :2] / seen[:, 2:]
    slopes -= slopes.mean(0)
    spreads, axes = np.linalg.eigh(slopes.T @ slopes / len(slopes))
    if spreads[0] < 1e-4 * spreads[1]:
        raise FrameError('the mask is a line, no hand')
    along = axes[:, 1]
    if ((slopes @ along) ** 3).sum() < 0:
        along = -along
    # Right and down in the crop: "along" is up.
    roll = np.array([[-along[1], along[0], 0.0], [-along[0], -along[1], 0.0], [0.0, 0.0, 1.0]])
    return CropView(roll @ look, float(MASK_RMS_SHARE * size / np.sqrt(spreads.sum())), size)


def _mask_pixels(mask: np.ndarray) -> np.ndarray:
    """Column and row (N,2) of each pixel that is not 0."""
    found = cv2.findNonZero(np.ascontiguousarray(mask).astype(np.uint8, copy=False))
    return np.zeros((0, 2)) if found is None else found[:, 0].astype(np.float64)
