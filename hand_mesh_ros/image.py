"""What counts as an image here, checked in one place."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.errors import FrameError

#: No hand can be seen in an image with a side shorter than this, in pixels.
MIN_SIDE_PX = 8

#: OpenCV resamples no image with a longer side: its warps number pixels with 16 bits.
MAX_SIDE_PX = 32766


def checked_rgb(image: np.ndarray) -> np.ndarray:
    """``image`` itself, C-contiguous, if it is (H,W,3) uint8 with both sides of 8 to 32766 pixels.

    The colour order cannot be checked: it is taken to be RGB.

    Raises:
        FrameError: it is anything else; the message says what to convert.
    """
    if not isinstance(image, np.ndarray):
        raise FrameError(f'an image is a NumPy array (H,W,3) uint8 RGB, got {type(image).__name__}')
    if image.ndim != 3 or image.shape[2] != 3:
        raise FrameError(
            f'an image is (H,W,3) RGB, got shape {image.shape}; convert grey or RGBA pixels first'
        )
    if image.dtype != np.uint8:
        raise FrameError(f'an image is uint8, 0 to 255, got {image.dtype}; convert it first')
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        raise FrameError(f'an image of {width}x{height} pixels is too small, it needs {MIN_SIDE_PX} each way')
    if max(height, width) > MAX_SIDE_PX:
        raise FrameError(
            f'an image of {width}x{height} pixels is too large, a side may have {MAX_SIDE_PX}; shrink it'
        )
    return np.ascontiguousarray(image)
