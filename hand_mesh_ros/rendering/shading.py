"""Light on a mesh: smooth normals, a lamp and a bright sky, linear and sRGB colour."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.compiled import compiled


@dataclass(frozen=True)
class Lighting:
    """A distant lamp, and light from everywhere that is brighter from above.

    Camera optical frame, linear units.
    """

    direction: tuple[float, float, float] = (-0.4, -0.7, -0.6)  #: from surface to lamp, any length
    lamp: tuple[float, float, float] = (0.85, 0.83, 0.80)  #: RGB radiance of the lamp
    sky: tuple[float, float, float] = (0.50, 0.51, 0.53)  #: RGB light on a surface that faces up (-y)
    ground: tuple[float, float, float] = (0.22, 0.20, 0.19)  #: RGB light on a surface that faces down
    gloss: float = 0.06  #: strength of the highlight
    shininess: float = 18.0  #: Blinn-Phong exponent of the highlight


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (V,3) float32, area-weighted means over each vertex's faces (F,3); 0 without faces.

    They point out of a mesh whose faces run anticlockwise seen from outside. Faces with a vertex that is not
    finite do not count.
    """
    vertices = np.ascontiguousarray(vertices, np.float64)
    normals = np.zeros_like(vertices)
    _add_face_normals(vertices, np.ascontiguousarray(faces, np.int32), normals)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, length, out=normals, where=length > 0).astype(np.float32)


def shade(
    albedo: np.ndarray, vertices_camera: np.ndarray, normals: np.ndarray, lighting: Lighting
) -> np.ndarray:
    """Colours (V,3) float32, linear RGB, that the camera sees at the vertices: Lambert and Blinn-Phong.

    :param albedo: (V,3) or (3,) linear RGB, 0..1.
    :param vertices_camera: (V,3) metres, camera optical frame.
    :param normals: (V,3) unit normals, same frame.
    """
    to_lamp = np.asarray(lighting.direction, np.float32)
    to_lamp /= np.linalg.norm(to_lamp)
    to_camera = -np.asarray(vertices_camera, np.float32)
    to_camera /= np.maximum(np.linalg.norm(to_camera, axis=1, keepdims=True), 1e-6)
    halfway = to_camera + to_lamp
    halfway /= np.maximum(np.linalg.norm(halfway, axis=1, keepdims=True), 1e-6)

    facing_lamp = np.maximum(normals @ to_lamp, 0.0)[:, None]
    upward = (0.5 - 0.5 * normals[:, 1])[:, None]
    lamp, sky, ground = (np.asarray(c, np.float32) for c in (lighting.lamp, lighting.sky, lighting.ground))
    diffuse = lamp * facing_lamp + sky * upward + ground * (1.0 - upward)
    highlight = np.maximum((normals * halfway).sum(1, keepdims=True), 0.0) ** lighting.shininess
    return (albedo * diffuse + lighting.gloss * lamp * highlight * (facing_lamp > 0)).astype(np.float32)


def srgb_to_linear(srgb: np.ndarray) -> np.ndarray:
    """Linear light 0..1 float32 of sRGB values 0..1, any shape (IEC 61966-2-1)."""
    srgb = np.asarray(srgb, np.float32)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    """sRGB values 0..1 float32 of linear light, any shape; what is brighter than white is cut off."""
    linear = np.clip(np.asarray(linear, np.float32), 0.0, 1.0)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(
        np.float32
    )


@compiled
def _add_face_normals(vertices, faces, normals):  # type: ignore[no-untyped-def]
    for f in range(len(faces)):
        a, b, c = faces[f]
        normal = np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
        if not math.isfinite(normal[0] + normal[1] + normal[2]):
            continue
        for vertex in (a, b, c):
            normals[vertex] += normal
