"""From the quads of an arm to the triangles of a hand: edge loops, the cut behind the wrist, the rim."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from hand_mesh_ros.hand_model.build.decimation import decimate
from hand_mesh_ros.hand_model.build.rig import HandSamples

#: MANO's numbers of vertices, in all and around the wrist, and of its fingertips, thumb to pinky.
VERTICES = 778
RIM_VERTICES = 16
MANO_TIP_VERTICES = (744, 320, 443, 554, 671)

#: Vertices around MakeHuman's forearm.
_FOREARM_LOOP = 20

#: A loop at least this far behind the wrist joint belongs to the forearm.
_BEHIND_WRIST_M = 0.01


def cut_behind_wrist(samples: HandSamples) -> HandSamples:
    """Keep the hand up to half way between the first and the second forearm loop; in the hand frame."""
    mean = samples.vertices.mean(0)
    inner, outer = sorted(
        (
            loop
            for loop in closed_edge_loops(samples.faces)
            if len(loop) == _FOREARM_LOOP and mean[loop, 0].min() > _BEHIND_WRIST_M
        ),
        key=lambda loop: mean[loop, 0].mean(),
    )[:2]
    neighbours = vertex_neighbours(samples.faces)
    on_inner = set(inner)
    kept, waiting = set(), [int(np.argmin(mean[:, 0]))]
    while waiting:
        vertex = waiting.pop()
        if vertex not in kept:
            kept.add(vertex)
            waiting.extend(n for n in neighbours[vertex] if vertex not in outer)

    before = [next(n for n in neighbours[vertex] if n in on_inner) for vertex in outer]
    vertices, weights = samples.vertices.copy(), samples.weights.copy()
    vertices[:, outer] = (vertices[:, outer] + vertices[:, before]) / 2
    weights[outer] = (weights[outer] + weights[before]) / 2

    rows = np.array(sorted(kept))
    number = np.full(len(mean), -1)
    number[rows] = np.arange(len(rows))
    return replace(
        samples,
        vertices=vertices[:, rows],
        weights=weights[rows],
        faces=number[samples.faces[np.isin(samples.faces, rows).all(1)]],
        nail=samples.nail[rows],
    )


def closed_edge_loops(quads: np.ndarray) -> list[list[int]]:
    """Closed loops of edges that go straight through vertices of valence four; each once, as vertices."""
    neighbours = vertex_neighbours(quads)
    faces_of_edge: dict[tuple[int, int], set[int]] = defaultdict(set)
    for face, quad in enumerate(quads.tolist()):
        for start, end in zip(quad, quad[1:] + quad[:1], strict=True):
            faces_of_edge[min(start, end), max(start, end)].add(face)

    def faces(a: int, b: int) -> set[int]:
        return faces_of_edge[min(a, b), max(a, b)]

    seen: set[tuple[int, int]] = set()
    loops = []
    for first in list(faces_of_edge):
        if first in seen:
            continue
        loop = list(first)
        while True:
            before, here = loop[-2:]
            seen.add((min(before, here), max(before, here)))
            if len(neighbours[here]) != 4:
                break
            onward = [n for n in neighbours[here] if n != before and not faces(here, n) & faces(before, here)]
            if len(onward) != 1 or (onward[0] in loop and onward[0] != loop[0]):
                break
            if onward[0] == loop[0]:
                seen.add((min(here, loop[0]), max(here, loop[0])))
                loops.append(loop)
                break
            loop.append(onward[0])
    return loops


def triangulate(quads: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Split each quad (Q, 4) along its shorter diagonal on ``vertices`` (V, 3): (2 Q, 3), same winding."""
    first = np.linalg.norm(vertices[quads[:, 0]] - vertices[quads[:, 2]], axis=1)
    second = np.linalg.norm(vertices[quads[:, 1]] - vertices[quads[:, 3]], axis=1)
    split = np.where((first <= second)[:, None], quads[:, [0, 1, 2, 0, 2, 3]], quads[:, [0, 1, 3, 1, 2, 3]])
    return np.asarray(split.reshape(-1, 3))


def vertex_neighbours(polygons: np.ndarray) -> dict[int, set[int]]:
    """The vertices that share an edge with each vertex; polygons (P, corners)."""
    neighbours: dict[int, set[int]] = defaultdict(set)
    for polygon in polygons.tolist():
        for start, end in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            neighbours[start].add(end)
            neighbours[end].add(start)
    return neighbours


def reduce_to_mano_size(samples: HandSamples, tips: np.ndarray) -> HandSamples:
    """The hands on MANO's numbers of vertices and triangles: 778, 16 of them around the wrist, and 1538.

    The vertices ``tips`` (5,), thumb to pinky, get the numbers that fingertips have on MANO's mesh.
    """
    mean = samples.vertices.mean(0)
    # Creases bend: there a lost vertex costs more.
    second_largest = np.sort(samples.weights, axis=1)[:, -2]
    importance = np.where(second_largest > 0.15, 2.0, 1.0)
    faces = triangulate(samples.faces, mean)
    kept, faces = decimate(mean, faces, VERTICES, RIM_VERTICES, set(tips.tolist()), importance)
    order = np.arange(VERTICES)
    for tip, number in zip(tips, MANO_TIP_VERTICES, strict=True):
        here = int(np.nonzero(kept[order] == tip)[0][0])
        order[[here, number]] = order[[number, here]]
    rows = kept[order]
    return replace(
        samples,
        vertices=samples.vertices[:, rows],
        weights=samples.weights[rows],
        faces=np.argsort(order)[faces],
        nail=samples.nail[rows],
    )
