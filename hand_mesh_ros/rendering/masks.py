"""Silhouettes as masks: what a hand covers, and how well that and a given mask cover each other."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.rendering.zbuffer import rasterise


def silhouette_overlap(
    vertices_camera: np.ndarray, faces: np.ndarray, camera: Camera, mask: np.ndarray
) -> float:
    """Intersection over union, 0 to 1, of a mesh as ``camera`` sees it and a mask of the camera's size.

    :param vertices_camera: (V,3) metres.
    :param mask: (H,W) bool.
    """
    seen = rasterise(vertices_camera, faces, camera).mask
    return float((seen & mask).sum() / max(1, (seen | mask).sum()))


def hard_silhouettes(
    vertices: np.ndarray, faces: np.ndarray, half_sides: np.ndarray, size: int
) -> np.ndarray:
    """Which pixels (B,S,S) bool of crops of side ``size`` hands cover.

    :param vertices: (B,V,3) metres, in the crops' cameras.
    :param faces: (F,3).
    :param half_sides: (B,) focal lengths of those over half the side.
    """
    drawn = np.zeros((len(vertices), size, size), bool)
    middle = (size - 1) / 2
    for row, (points, half_side) in enumerate(zip(vertices, half_sides, strict=True)):
        focal = float(half_side) * size / 2
        drawn[row] = rasterise(points, faces, Camera(size, size, focal, focal, middle, middle)).mask
    return drawn
