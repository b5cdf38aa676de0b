"""Fewer vertices for the same surface: half-edge collapse that keeps original vertices.

Quadric error metric of M. Garland, P. Heckbert, "Surface simplification using quadric error metrics",
SIGGRAPH 1997, with their constraint planes along the boundary. A vertex is only ever merged into a neighbour,
never moved, so that shapes, weights and marked vertices of the full mesh stay valid for the vertices that
remain.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

import numpy as np

#: Weight of the planes that hold the boundary in place, against that of the surface.
_BOUNDARY_WEIGHT = 3.0

#: A collapse may not turn a triangle further than this (cosine) nor make it thinner than this (height over
#: width).
_SMALLEST_COSINE = 0.35
_THINNEST = 0.10

#: Breaks ties where the surface is flat: the shorter edge first.
_LENGTH_COST = 1e-9


def decimate(
    vertices: np.ndarray,
    faces: np.ndarray,
    vertex_count: int,
    boundary_count: int,
    locked: Collection[int] = (),
    importance: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a manifold mesh to ``vertex_count`` vertices, ``boundary_count`` of them on its boundary.

    vertices (V, 3), faces (F, 3); ``locked`` vertices stay; ``importance`` (V,) scales what it costs to lose
    a vertex. Returns the numbers of the kept vertices (vertex_count,), rising, and the new faces that count
    in them. Raises ValueError when no allowed collapse is left.
    """
    mesh = _Mesh(vertices, faces, importance)
    queue: list[tuple[float, int, int, int, int]] = []

    def push_edges_of(vertex: int) -> None:
        for other in mesh.neighbours(vertex):
            for gone, kept in ((vertex, other), (other, vertex)):
                if gone not in locked:
                    entry = (mesh.cost(gone, kept), gone, kept, mesh.version[gone], mesh.version[kept])
                    heapq.heappush(queue, entry)

    for vertex in range(len(vertices)):
        push_edges_of(vertex)
    inner_left = len(vertices) - int(mesh.on_boundary.sum()) - (vertex_count - boundary_count)
    boundary_left = int(mesh.on_boundary.sum()) - boundary_count
    while inner_left + boundary_left > 0:
        if not queue:
            raise ValueError(f'no collapse is left with {inner_left + boundary_left} vertices too many')
        _, gone, kept, gone_version, kept_version = heapq.heappop(queue)
        if (mesh.version[gone], mesh.version[kept]) != (gone_version, kept_version):
            continue
        left = boundary_left if mesh.on_boundary[gone] else inner_left
        if left == 0 or not mesh.may_collapse(gone, kept):
            continue
        if mesh.on_boundary[gone]:
            boundary_left -= 1
        else:
            inner_left -= 1
        mesh.collapse(gone, kept)
        touched = mesh.neighbours(kept) | {kept}
        for vertex in (*touched, gone):
            mesh.version[vertex] += 1
        for vertex in touched:
            push_edges_of(vertex)
    return mesh.remaining()


class _Mesh:
    """Triangles that can lose vertices; the faces of each vertex are kept up to date."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, importance: np.ndarray | None) -> None:
        self.vertices = vertices
        self.faces: dict[int, tuple[int, int, int]] = {
            i: tuple(face) for i, face in enumerate(faces.tolist())
        }
        self.faces_of: list[set[int]] = [set() for _ in vertices]
        for number, face in self.faces.items():
            for corner in face:
                self.faces_of[corner].add(number)
        self.version = [0] * len(vertices)
        self.on_boundary = np.zeros(len(vertices), bool)
        self._quadrics = np.zeros((len(vertices), 4, 4))
        self._add_surface_planes()
        if importance is not None:
            self._quadrics *= importance[:, None, None]
        self._add_boundary_planes()

    def neighbours(self, vertex: int) -> set[int]:
        return {corner for face in self.faces_of[vertex] for corner in self.faces[face]} - {vertex}

    def cost(self, gone: int, kept: int) -> float:
        point = np.append(self.vertices[kept], 1.0)
        error = point @ (self._quadrics[gone] + self._quadrics[kept]) @ point
        return float(error + _LENGTH_COST * np.linalg.norm(self.vertices[gone] - self.vertices[kept]))

    def may_collapse(self, gone: int, kept: int) -> bool:
        """Whether the mesh stays a manifold with its boundary, without folded or thin triangles."""
        shared = self.faces_of[gone] & self.faces_of[kept]
        if self.on_boundary[gone] and not (self.on_boundary[kept] and len(shared) == 1):
            return False
        if len(self.neighbours(gone) & self.neighbours(kept)) != len(shared):
            return False
        return all(self._stays_sound(face, gone, kept) for face in self.faces_of[gone] - shared)

    def collapse(self, gone: int, kept: int) -> None:
        for number in list(self.faces_of[gone]):
            face = self.faces[number]
            if kept in face:
                del self.faces[number]
                for corner in face:
                    self.faces_of[corner].discard(number)
            else:
                first, second, third = (kept if corner == gone else corner for corner in face)
                self.faces[number] = (first, second, third)
                self.faces_of[kept].add(number)
        self.faces_of[gone] = set()
        self._quadrics[kept] += self._quadrics[gone]

    def remaining(self) -> tuple[np.ndarray, np.ndarray]:
        faces = np.array(list(self.faces.values()))
        kept = np.unique(faces)
        return kept, np.searchsorted(kept, faces)

    def _stays_sound(self, number: int, gone: int, kept: int) -> bool:
        before = self.vertices[list(self.faces[number])]
        after = self.vertices[[kept if corner == gone else corner for corner in self.faces[number]]]
        normal_before = np.cross(before[1] - before[0], before[2] - before[0])
        normal_after = np.cross(after[1] - after[0], after[2] - after[0])
        size_before, size_after = np.linalg.norm(normal_before), np.linalg.norm(normal_after)
        longest = np.linalg.norm(after - np.roll(after, -1, axis=0), axis=1).max()
        turned = normal_before @ normal_after < _SMALLEST_COSINE * size_before * size_after
        return not turned and size_after > _THINNEST * longest**2

    def _add_surface_planes(self) -> None:
        for face in self.faces.values():
            normal = self._normal(face)
            area = np.linalg.norm(normal) / 2
            for corner in face:
                self._quadrics[corner] += area * _plane_quadric(normal, self.vertices[face[0]])

    def _add_boundary_planes(self) -> None:
        for face in self.faces.values():
            for start, end in zip(face, face[1:] + face[:1], strict=True):
                if len(self.faces_of[start] & self.faces_of[end]) == 1:
                    self.on_boundary[[start, end]] = True
                    edge = self.vertices[end] - self.vertices[start]
                    across = np.cross(edge, self._normal(face))
                    quadric = _BOUNDARY_WEIGHT * (edge @ edge) * _plane_quadric(across, self.vertices[start])
                    self._quadrics[start] += quadric
                    self._quadrics[end] += quadric

    def _normal(self, face: tuple[int, int, int]) -> np.ndarray:
        first, second, third = self.vertices[list(face)]
        return np.cross(second - first, third - first)


def _plane_quadric(normal: np.ndarray, point: np.ndarray) -> np.ndarray:
    """4x4 matrix of the squared distance to the plane through ``point`` across ``normal`` (any length)."""
    unit = normal / np.linalg.norm(normal)
    plane = np.append(unit, -unit @ point)
    return np.outer(plane, plane)
