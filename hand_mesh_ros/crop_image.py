"""The picture that a crop's camera takes, from the pixels of another camera at the same place."""

from __future__ import annotations

import math

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_view import CropView

#: Pixels of the image from one sample to the next, at most: samples are interpolated, so that none is missed.
_SAMPLE_SPACING = 2.0

#: Samples along a side of a pixel of the crop, at most; enough for hands 2000 pixels large.
_MAX_SAMPLES = 8

#: Pixels of the crop between places that are computed: in between they are interpolated, which is exact to a
#: fiftieth of a pixel for a hand that fills half of a wide view.
_STEP = 4

#: Pixels further off are all the same to OpenCV.
_FAR_OFF = 32000.0


def crop_image(
    image: np.ndarray, camera: Camera, view: CropView, border: int = cv2.BORDER_REPLICATE
) -> np.ndarray:
    """What ``view`` sees, (S,S,3) uint8 RGB, of ``image`` (H,W,3) uint8 RGB, which ``camera`` took.

    Lens distortion is taken out. A large hand is sampled more densely and averaged over the areas of the
    crop's pixels. Beyond its edges the image goes on as they are: networks learn from crops that show
    something everywhere, and to them a black edge would be a thing. A mask (H,W) uint8, of which nothing is
    known there, takes cv2.BORDER_CONSTANT for ``border``: black.
    """
    size, step = view.size, math.gcd(view.size, _STEP)
    pixels = _pixels_seen(camera, view, size // step)
    middle = size // step // 2
    spacing = np.linalg.norm(pixels[middle, middle + 1] - pixels[middle, middle]) / step
    samples = min(max(math.ceil(spacing / _SAMPLE_SPACING), 1), _MAX_SAMPLES)
    zoom = step * samples
    fine = cv2.resize(pixels, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
    fine = fine[zoom:-zoom, zoom:-zoom]
    # OpenCV's annotations do not know that both coordinates may come in one array
    sampled = cv2.remap(image, fine, None, cv2.INTER_LINEAR, borderMode=border)  # type: ignore[call-overload]
    return cv2.resize(sampled, (size, size), interpolation=cv2.INTER_AREA)


def _pixels_seen(camera: Camera, view: CropView, cells: int) -> np.ndarray:
    """Where ``camera`` has the middles of the cells of a crop, and of one more all around.

    (C+2,C+2,2) float32 for ``cells`` C a side; what is not in front of the camera is far off.
    """
    places = (np.arange(-1, cells + 1) + 0.5) * (2.0 / cells) - 1.0
    across, down = np.meshgrid(places, places)
    pixels = camera.project(view.rays(np.column_stack([across.ravel(), down.ravel()])))
    pixels[np.isnan(pixels)] = _FAR_OFF
    return np.clip(pixels, -_FAR_OFF, _FAR_OFF).astype(np.float32).reshape(cells + 2, cells + 2, 2)
