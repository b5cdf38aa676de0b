"""The project's one rasteriser: which face each pixel sees, how far away, and where on the face.

Triangles are rasterised in homogeneous image coordinates (Olano and Greer, "Triangle Scan Conversion
using 2D Homogeneous Coordinates", 1997): with the vertices p_i = (u z, v z, z) of a triangle as the
columns of a matrix, its inverse maps a pixel (x, y, 1) to the barycentric coordinates divided by depth.
That is perspective-correct, needs no division per vertex, and stays right for a triangle that reaches
behind the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.compiled import compiled

#: Nothing nearer to the camera plane than this is drawn, in metres.
NEAR_M = 0.01


@dataclass(frozen=True)
class Raster:
    """What the pixels of one image see. Pixels that see nothing hold depth 0, face -1, barycentrics 0."""

    depth: np.ndarray  #: (H,W) float32, metres along the optical axis
    face_index: np.ndarray  #: (H,W) int32, row of ``faces``
    barycentrics: np.ndarray  #: (H,W,3) float32, weights of the face's three vertices

    @property
    def mask(self) -> np.ndarray:
        """Pixels covered by a face, (H,W) bool."""
        return self.face_index >= 0


def rasterise(vertices_camera: np.ndarray, faces: np.ndarray, camera: Camera) -> Raster:
    """Rasterise triangles as ``camera`` sees them; of several at one pixel the nearest wins.

    A pixel belongs to a triangle when its centre (integer coordinates) lies inside it or on its edge, so
    neighbouring triangles leave no gap. Faces are seen from both sides. A scene of several meshes is one
    mesh: their vertices and faces joined (:func:`join_meshes`).

    With lens distortion the vertices go where the lens puts them and the edges between them stay straight,
    which is exact to a fraction of a pixel for small triangles.

    :param vertices_camera: (V,3) float, metres in the camera optical frame. Faces with a vertex that is
        not finite are left out.
    :param faces: (F,3) integer vertex numbers.
    :param camera: whose image is drawn, ``camera.height`` rows by ``camera.width`` columns.
    :raises ValueError: a face refers to a vertex that is not there.
    """
    vertices = np.asarray(vertices_camera, np.float64).reshape(-1, 3)
    faces = np.ascontiguousarray(faces, np.int32).reshape(-1, 3)
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ValueError(f'faces refer to vertices {faces.min()}..{faces.max()}, there are {len(vertices)}')
    shape = (camera.height, camera.width)
    raster = Raster(
        np.zeros(shape, np.float32), np.full(shape, -1, np.int32), np.zeros((*shape, 3), np.float32)
    )
    _fill(
        _homogeneous_pixels(vertices, camera),
        faces,
        NEAR_M,
        raster.depth,
        raster.face_index,
        raster.barycentrics,
    )
    return raster


def interpolate(raster: Raster, faces: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Image (H,W,C) float32 of the per-vertex ``values`` (V,C), perspective-correct; 0 for nothing."""
    values = np.ascontiguousarray(values, np.float32)
    image = np.zeros((*raster.depth.shape, values.shape[1]), np.float32)
    _interpolate(raster.face_index, raster.barycentrics, np.ascontiguousarray(faces, np.int32), values, image)
    return image


def join_meshes(meshes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V,3) and faces (F,3) int32 of several (vertices, faces) as one mesh."""
    if not meshes:
        return np.zeros((0, 3)), np.zeros((0, 3), np.int32)
    offsets = np.cumsum([0, *(len(vertices) for vertices, _ in meshes[:-1])])
    faces = [np.asarray(faces) + offset for (_, faces), offset in zip(meshes, offsets, strict=True)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(faces).astype(np.int32)


def _homogeneous_pixels(vertices: np.ndarray, camera: Camera) -> np.ndarray:
    """Points (V,3) float64 (u z, v z, z) of vertices (V,3) in the camera optical frame."""
    points = vertices * (camera.fx, camera.fy, 1.0)
    points[:, :2] += vertices[:, 2:] * (camera.cx, camera.cy)
    if camera.distortion:
        # No lens model holds behind the camera; there the pinhole's straight lines go on.
        front = vertices[:, 2] >= NEAR_M
        points[front, :2] = camera.project(vertices[front]) * vertices[front, 2:]
    return points


@compiled
def _fill(points, faces, near, depth, face_index, barycentrics):  # type: ignore[no-untyped-def]
    # Until the end ``depth`` holds 1 / depth and ``barycentrics`` what is proportional to them, so that
    # only pixels that are seen pay for a division.
    height, width = depth.shape
    per_near = 1.0 / near
    for f in range(len(faces)):
        a, b, c = faces[f]
        ax, ay, az = points[a]
        bx, by, bz = points[b]
        cx, cy, cz = points[c]
        if az < near and bz < near and cz < near:
            continue
        # Edge functions: cross products of two vertices each. Both triangles at an edge compute the same
        # numbers but for the sign, so no pixel falls between them.
        e0x, e0y, e0w = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
        e1x, e1y, e1w = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
        e2x, e2y, e2w = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        determinant = ax * e0x + ay * e0y + az * e0w
        if not 0.0 < abs(determinant) < math.inf:  # seen edge-on, or not finite
            continue
        if determinant < 0.0:
            e0x, e0y, e0w = -e0x, -e0y, -e0w
            e1x, e1y, e1w = -e1x, -e1y, -e1w
            e2x, e2y, e2w = -e2x, -e2y, -e2w
            determinant = -determinant
        per_determinant = 1.0 / determinant
        left, top, right, bottom = _bounds(ax, ay, az, bx, by, bz, cx, cy, cz, near)
        first_row, last_row = math.ceil(max(top, 0.0)), math.floor(min(bottom, height - 1.0))
        first_column, last_column = math.ceil(max(left, 0.0)), math.floor(min(right, width - 1.0))
        for y in range(first_row, last_row + 1):
            r0, r1, r2 = e0y * y + e0w, e1y * y + e1w, e2y * y + e2w
            entered = False
            for x in range(first_column, last_column + 1):
                w0, w1, w2 = e0x * x + r0, e1x * x + r1, e2x * x + r2
                if w0 < 0.0 or w1 < 0.0 or w2 < 0.0:
                    if entered:  # a triangle is convex: its row has ended
                        break
                    continue
                entered = True
                inverse_depth = (w0 + w1 + w2) * per_determinant
                if depth[y, x] < inverse_depth <= per_near:
                    depth[y, x] = inverse_depth
                    face_index[y, x] = f
                    barycentrics[y, x, 0] = w0 * per_determinant
                    barycentrics[y, x, 1] = w1 * per_determinant
                    barycentrics[y, x, 2] = w2 * per_determinant
    for y in range(height):
        for x in range(width):
            if face_index[y, x] >= 0:
                depth[y, x] = 1.0 / depth[y, x]
                for corner in range(3):
                    barycentrics[y, x, corner] *= depth[y, x]


@compiled
def _bounds(ax, ay, az, bx, by, bz, cx, cy, cz, near):  # type: ignore[no-untyped-def]
    """Box (x0, y0, x1, y1) in pixels around the part of a triangle beyond the near plane."""
    left, top, right, bottom = math.inf, math.inf, -math.inf, -math.inf
    for x, y, z, next_x, next_y, next_z in (
        (ax, ay, az, bx, by, bz),
        (bx, by, bz, cx, cy, cz),
        (cx, cy, cz, ax, ay, az),
    ):
        if z >= near:
            left, right = min(left, x / z), max(right, x / z)
            top, bottom = min(top, y / z), max(bottom, y / z)
        if (z >= near) != (next_z >= near):
            along = (near - z) / (next_z - z)
            u, v = (x + along * (next_x - x)) / near, (y + along * (next_y - y)) / near
            left, right = min(left, u), max(right, u)
            top, bottom = min(top, v), max(bottom, v)
    # Rounding must not cut off a pixel whose centre lies on an edge.
    return left - 1e-3, top - 1e-3, right + 1e-3, bottom + 1e-3


@compiled
def _interpolate(face_index, barycentrics, faces, values, image):  # type: ignore[no-untyped-def]
    height, width = face_index.shape
    for y in range(height):
        for x in range(width):
            f = face_index[y, x]
            if f < 0:
                continue
            for k in range(values.shape[1]):
                image[y, x, k] = (
                    barycentrics[y, x, 0] * values[faces[f, 0], k]
                    + barycentrics[y, x, 1] * values[faces[f, 1], k]
                    + barycentrics[y, x, 2] * values[faces[f, 2], k]
                )
