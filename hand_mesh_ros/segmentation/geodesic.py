"""How far it is over a surface from one place on it to all others."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.compiled import compiled
from hand_mesh_ros.segmentation.surfaces import NEAR_M

#: Distance of what cannot be reached.
UNREACHED = np.float32(np.inf)


@compiled
def geodesic_distances(points, inside, starts, farthest):  # type: ignore[no-untyped-def]
    """Distances (h,w) float32 over a surface, in metres, by Dijkstra's algorithm.

    :param points: (h,w,3) float32 metres.
    :param inside: (h,w) bool, where one may go.
    :param starts: (h,w) float32: the distance at which places begin, inf for those that are none.
    :param farthest: do not go on beyond this distance.
    """
    height, width = inside.shape
    distances = np.full((height, width), np.inf, np.float32)
    keys = np.empty(1024, np.float32)
    places = np.empty(1024, np.int32)
    size = 0
    for y in range(height):
        for x in range(width):
            if inside[y, x] and starts[y, x] < np.inf:
                distances[y, x] = starts[y, x]
                keys, places, size = _push(keys, places, size, starts[y, x], y * width + x)
    while size:
        key, place = keys[0], places[0]
        size = _pop(keys, places, size)
        y, x = place // width, place % width
        if key > distances[y, x]:
            continue
        if key > farthest:
            break
        a, b, c = points[y, x]
        for row in range(max(y - 1, 0), min(y + 2, height)):
            for column in range(max(x - 1, 0), min(x + 2, width)):
                if not inside[row, column] or distances[row, column] <= key:
                    continue
                u, v, w = points[row, column]
                if abs(w - c) > NEAR_M:
                    continue
                reached = key + np.sqrt((u - a) ** 2 + (v - b) ** 2 + (w - c) ** 2)
                if reached < distances[row, column]:
                    distances[row, column] = reached
                    keys, places, size = _push(keys, places, size, reached, row * width + column)
    return distances


@compiled
def _push(keys, places, size, key, place):  # type: ignore[no-untyped-def]
    """Into the heap; it may have to grow."""
    if size == len(keys):
        keys, places = np.append(keys, np.empty_like(keys)), np.append(places, np.empty_like(places))
    at = size
    while at and keys[(at - 1) // 2] > key:
        keys[at], places[at] = keys[(at - 1) // 2], places[(at - 1) // 2]
        at = (at - 1) // 2
    keys[at], places[at] = key, place
    return keys, places, size + 1


@compiled
def _pop(keys, places, size):  # type: ignore[no-untyped-def]
    """Take the least out of the heap."""
    size -= 1
    key, place = keys[size], places[size]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[at], places[at] = keys[child], places[child]
        at = child
    keys[at], places[at] = key, place
    return size
