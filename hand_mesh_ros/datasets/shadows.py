"""Light on a mesh part of which lies in its own shadow, in one compiled pass over the vertices."""

from __future__ import annotations

import math

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.compiled import compiled
from hand_mesh_ros.crop_view import looking_along
from hand_mesh_ros.rendering.shading import Lighting
from hand_mesh_ros.rendering.zbuffer import rasterise

#: The shadow map: its side in pixels, how far the lamp stands, what radius it sees, and how much
#: deeper than the lit surface a point in shadow lies. Metres.
_SIDE, _DISTANCE_M, _RADIUS_M, _BIAS_M = 96, 1.2, 0.17, 0.006


def shade_with_shadows(
    albedo: np.ndarray, vertices: np.ndarray, normals: np.ndarray, lighting: Lighting, shadowed: np.ndarray
) -> np.ndarray:
    """Colours (V,3) float32 as ``rendering.shading.shade`` gives them, the lamp not reaching some vertices.

    :param albedo: (V,3) linear RGB.
    :param vertices: (V,3) metres, camera optical frame.
    :param normals: (V,3) unit normals.
    :param shadowed: (V,) bool.
    """
    to_lamp = np.array(lighting.direction, np.float64)
    colours = np.empty((len(vertices), 3), np.float32)
    _shade(
        np.ascontiguousarray(albedo, np.float32),
        np.ascontiguousarray(vertices, np.float64),
        np.ascontiguousarray(normals, np.float64),
        shadowed,
        to_lamp / np.linalg.norm(to_lamp),
        np.array([lighting.lamp, lighting.sky, lighting.ground], np.float64),
        float(lighting.gloss),
        float(lighting.shininess),
        colours,
    )
    return colours


def in_shadow(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, centre: np.ndarray, lighting: Lighting
) -> np.ndarray:
    """Which ``points`` (N,3) the lamp does not reach because of a mesh, (N,) bool.

    Points further than a hand's size from ``centre`` (3,) count as lit. The points may lie on the mesh,
    ``vertices`` (V,3) and ``faces`` (F,3).
    """
    to_lamp = np.asarray(lighting.direction)
    to_lamp = to_lamp / np.linalg.norm(to_lamp)
    R_lamp_camera = looking_along(-to_lamp)
    lamp = centre + _DISTANCE_M * to_lamp
    focal, middle = _SIDE / 2 * _DISTANCE_M / _RADIUS_M, (_SIDE - 1) / 2
    raster = rasterise(
        (vertices - lamp) @ R_lamp_camera.T, faces, Camera(_SIDE, _SIDE, focal, focal, middle, middle)
    )
    seen = (points - lamp) @ R_lamp_camera.T
    depth = np.maximum(seen[:, 2], 0.1)
    columns, rows = np.rint(seen[:, :2] / depth[:, None] * focal + middle).astype(np.int64).T
    inside = (columns >= 0) & (columns < _SIDE) & (rows >= 0) & (rows < _SIDE)
    lit = raster.depth[np.where(inside, rows, 0), np.where(inside, columns, 0)]
    return inside & (lit > 0) & (depth > lit + _BIAS_M)


@compiled
def _shade(  # type: ignore[no-untyped-def]
    albedo, vertices, normals, shadowed, to_lamp, lights, gloss, shininess, colours
):
    for v in range(len(vertices)):
        x, y, z = vertices[v]
        distance = max(math.sqrt(x * x + y * y + z * z), 1e-6)
        hx, hy, hz = to_lamp[0] - x / distance, to_lamp[1] - y / distance, to_lamp[2] - z / distance
        length = max(math.sqrt(hx * hx + hy * hy + hz * hz), 1e-6)
        nx, ny, nz = normals[v]
        facing, highlight = 0.0, 0.0
        if not shadowed[v]:
            facing = max(nx * to_lamp[0] + ny * to_lamp[1] + nz * to_lamp[2], 0.0)
        if facing > 0.0:
            highlight = gloss * max((nx * hx + ny * hy + nz * hz) / length, 0.0) ** shininess
        upward = 0.5 - 0.5 * ny
        for c in range(3):
            diffuse = lights[0, c] * facing + lights[1, c] * upward + lights[2, c] * (1.0 - upward)
            colours[v, c] = albedo[v, c] * diffuse + lights[0, c] * highlight
