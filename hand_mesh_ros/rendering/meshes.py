"""Meshes to files that other programs open."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hand_mesh_ros.errors import ConfigurationError

MESH_SUFFIXES = ('.ply', '.glb')


def write_mesh(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write one mesh; the suffix chooses the format: .ply (binary) or .glb.

    The vertices are written as they are: metres in the camera optical frame (x right, y down, z forward)
    when they are a ``Hand``'s. Viewers that take y for up, as those of .glb do, show such a hand upside down.

    :param path: file to write; its folder must exist.
    :param vertices: (V,3) float.
    :param faces: (F,3) integer; anticlockwise seen from outside.
    :raises ConfigurationError: the suffix is none of ``MESH_SUFFIXES``.
    :raises OSError: the file cannot be written.
    """
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise ConfigurationError(f'{path}: a mesh is written as one of {", ".join(MESH_SUFFIXES)}')
    import trimesh  # here: only mesh files need it, and training runs where it is not installed

    trimesh.Trimesh(np.asarray(vertices, np.float64), np.asarray(faces), process=False).export(path)
