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

#: Masks are looked at in at most so many cells a side, which tells where they lie to a tenth of a pixel.
_CELLS = 48


def view_of_mask(mask: np.ndarray, camera: Camera, size: int) -> CropView:
    """The view of the hand that ``mask`` (H,W) bool or uint8, not 0 for the hand, shows to ``camera``.

    Its axis passes through the middle of the mask; the direction in which the mask is longest points up, that
    end being up which reaches farther from the middle, as fingers do. The pixels lie ``MASK_RMS_SHARE`` of
    the side from the middle. The view of a mirrored mask is the mirrored view.

    :raises FrameError: a mask with fewer than ``LEAST_PIXELS`` pixels, or all in one line.
    """
    centres, weights = _cells(mask)
    count = weights.sum()
    if count < LEAST_PIXELS:
        raise FrameError(f'a mask of {count:.0f} pixels is no hand, {LEAST_PIXELS} are the least')
    rays = np.column_stack([camera.rays(centres), np.ones(len(centres))])
    known = np.isfinite(rays).all(1)
    if weights[known].sum() < count / 2:
        raise FrameError('the mask lies where the lens of this camera sees nothing')
    rays, weights = rays[known], weights[known] / weights[known].sum()
    directions = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    look = looking_along(weights @ directions)
    seen = directions @ look.T
    slopes = seen[:, :2] / seen[:, 2:]
    slopes -= weights @ slopes
    spreads, axes = np.linalg.eigh((slopes.T * weights) @ slopes)
    if spreads[0] < 1e-4 * spreads[1]:
        raise FrameError('the mask is a line, no hand')
    along = axes[:, 1]
    if weights @ (slopes @ along) ** 3 < 0:
        along = -along
    # Right and down in the crop: "along" is up.
    roll = np.array([[-along[1], along[0], 0.0], [-along[0], -along[1], 0.0], [0.0, 0.0, 1.0]])
    return CropView(roll @ look, float(MASK_RMS_SHARE * size / np.sqrt(spreads.sum())), size)


def _cells(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N,2), column and row, of the cells that the mask reaches into, and its pixels in each (N,)."""
    binary = (np.asarray(mask) != 0).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(binary)
    if not width:
        return np.zeros((0, 2)), np.zeros(0)
    across, down = min(width, _CELLS), min(height, _CELLS)
    inside = binary[top : top + height, left : left + width].astype(np.float32)
    shares = cv2.resize(inside, (across, down), interpolation=cv2.INTER_AREA)
    rows, columns = np.nonzero(shares > 0)
    size = np.array([width / across, height / down])
    centres = (np.column_stack([columns, rows]) + 0.5) * size - 0.5 + (left, top)
    return centres, shares[rows, columns].astype(np.float64) * size.prod()
