"""How well the silhouette of a hand and a mask cover each other."""

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
