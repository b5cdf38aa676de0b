"""Finer meshes, so that per-vertex colours can show what is smaller than a model's triangles."""

from __future__ import annotations

import numpy as np


class Subdivision:
    """Each triangle cut into four at the middles of its edges, ``rounds`` times.

    Prepared once for a mesh; then finer copies of anything that its vertices carry are averages.
    """

    def __init__(self, faces: np.ndarray, rounds: int) -> None:
        """Subdivide ``faces`` (F,3), whose vertices are numbered without gaps."""
        self._edges: list[np.ndarray] = []
        faces = np.asarray(faces)
        for _ in range(rounds):
            corners = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
            edges, of_corner = np.unique(np.sort(corners, axis=1), axis=0, return_inverse=True)
            middles = faces.max() + 1 + of_corner.reshape(-1, 3)
            (a, b, c), (ab, bc, ca) = faces.T, middles.T
            self._edges.append(edges)
            faces = np.stack([a, ab, ca, b, bc, ab, c, ca, bc, ab, bc, ca], axis=1).reshape(-1, 3)
        self.faces = faces.astype(np.int32)  #: (F * 4**rounds, 3), wound like the coarse ones

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Values (V',C) at the fine vertices, of which the first V are the coarse ones, from (V,C) there."""
        for edges in self._edges:
            values = np.concatenate([values, (values[edges[:, 0]] + values[edges[:, 1]]) / 2])
        return values
