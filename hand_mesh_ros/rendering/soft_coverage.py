"""The loops behind ``silhouette``: how much triangles leave uncovered of pixels, and the gradient of that.

Everything is in half sides of a square picture, -1..1 from edge to edge. Points (B,V,2) are float32 or
float64 and NaN for what cannot be seen; faces (F,3) are integer; pictures are (B,S,S).
"""

from __future__ import annotations

import math

import numpy as np

from hand_mesh_ros.compiled import compiled

#: A pixel left uncovered with less than this probability is covered for good, and gives no gradient.
_COVERED = 1e-10

#: Squared length of a side, and doubled area, below which a triangle has no outline to speak of. In half
#: sides of the crop.
TINY = 1e-14


@compiled
def cover(points, faces, sigma, reach, uncovered):  # type: ignore[no-untyped-def]
    """Multiply ``uncovered`` (B,S,S) by the probabilities that each face leaves the pixels uncovered."""
    size = uncovered.shape[1]
    for picture in range(len(points)):
        for f in range(len(faces)):
            a, b, c = _counterclockwise(points[picture], faces[f])
            if a < 0:
                continue
            sides = _sides(points[picture], a, b, c)
            left, top, right, bottom = _box(sides, size, reach)
            for row in range(top, bottom + 1):
                y = (2 * row + 1) / size - 1
                for column in range(left, right + 1):
                    if uncovered[picture, row, column] < _COVERED:
                        continue
                    squared, _, _, _, _ = _nearest((2 * column + 1) / size - 1, y, sides, reach * reach)
                    if squared > -reach * reach:
                        uncovered[picture, row, column] *= 1 / (1 + np.exp(squared / sigma))


@compiled
def move(points, faces, sigma, reach, uncovered, gradient, moving):  # type: ignore[no-untyped-def]
    """Add to ``moving`` (B,V,2) what ``gradient`` (B,S,S) to the probabilities is to the points.

    1 - prod_k (1 - D_k) has the derivative prod_k (1 - D_k) D_j to the exponent of face j.
    """
    size = uncovered.shape[1]
    for picture in range(len(points)):
        for f in range(len(faces)):
            a, b, c = _counterclockwise(points[picture], faces[f])
            if a < 0:
                continue
            sides = _sides(points[picture], a, b, c)
            left, top, right, bottom = _box(sides, size, reach)
            for row in range(top, bottom + 1):
                y = (2 * row + 1) / size - 1
                for column in range(left, right + 1):
                    left_over = uncovered[picture, row, column]
                    weight = gradient[picture, row, column] * left_over
                    if left_over < _COVERED or weight == 0.0:
                        continue
                    squared, side, away_x, away_y, along = _nearest(
                        (2 * column + 1) / size - 1, y, sides, reach * reach
                    )
                    if squared <= -reach * reach:
                        continue
                    # The squared distance is |away|^2, and away = centre - (1 - along) start - along end
                    weight *= math.copysign(2.0, -squared) / (sigma * (1 + np.exp(-squared / sigma)))
                    start, end = (a, b) if side == 0 else (b, c) if side == 1 else (c, a)
                    moving[picture, start, 0] += weight * away_x * (1 - along)
                    moving[picture, start, 1] += weight * away_y * (1 - along)
                    moving[picture, end, 0] += weight * away_x * along
                    moving[picture, end, 1] += weight * away_y * along


@compiled
def _counterclockwise(points, face):  # type: ignore[no-untyped-def]
    """The face's vertices, turned so that the inside is to the left of its sides; -1 for not drawable."""
    a, b, c = face
    ux, uy = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1]
    vx, vy = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1]
    area = ux * vy - uy * vx
    shortest = min(ux * ux + uy * uy, vx * vx + vy * vy, (vx - ux) ** 2 + (vy - uy) ** 2)
    if not (TINY < abs(area) < math.inf and shortest > TINY):
        return -1, -1, -1
    if area < 0:
        return a, c, b
    return a, b, c


@compiled
def _sides(points, a, b, c):  # type: ignore[no-untyped-def]
    """Start, unit direction and length of each side, all float64."""
    return (
        _side(points[a, 0], points[a, 1], points[b, 0], points[b, 1]),
        _side(points[b, 0], points[b, 1], points[c, 0], points[c, 1]),
        _side(points[c, 0], points[c, 1], points[a, 0], points[a, 1]),
    )


@compiled
def _side(x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    dx, dy = np.float64(x1) - x0, np.float64(y1) - y0
    length = math.sqrt(dx * dx + dy * dy)
    return np.float64(x0), np.float64(y0), dx / length, dy / length, length


@compiled
def _box(sides, size, reach):  # type: ignore[no-untyped-def]
    """First column and row, last column and row, of the pixels within ``reach`` of a triangle."""
    (ax, ay, _, _, _), (bx, by, _, _, _), (cx, cy, _, _, _) = sides
    # Clamped before they become integers: a vertex may lie anywhere
    left = ((max(min(ax, bx, cx) - reach, -1.0) + 1) * size - 1) / 2
    top = ((max(min(ay, by, cy) - reach, -1.0) + 1) * size - 1) / 2
    right = ((min(max(ax, bx, cx) + reach, 1.0) + 1) * size - 1) / 2
    bottom = ((min(max(ay, by, cy) + reach, 1.0) + 1) * size - 1) / 2
    if left > size or top > size or right < -1 or bottom < -1:
        return 0, 0, -1, -1
    return math.ceil(left), math.ceil(top), math.floor(right), math.floor(bottom)


@compiled
def _nearest(x, y, sides, squared_reach):  # type: ignore[no-untyped-def]
    """Squared distance of a point to a triangle's outline, negative outside, and how to get there.

    That is: which side is the nearest, the vector from there to the point, and the place along the side,
    0..1. Outside, only sides that have the point to their right can be the nearest. Well out of reach the
    distance is infinite.
    """
    side0, side1, side2 = sides
    left0 = side0[2] * (y - side0[1]) - side0[3] * (x - side0[0])
    left1 = side1[2] * (y - side1[1]) - side1[3] * (x - side1[0])
    left2 = side2[2] * (y - side2[1]) - side2[3] * (x - side2[0])
    least = min(left0, left1, left2)
    if least >= 0.0:
        if least == left0:
            return least * least, 0, -least * side0[3], least * side0[2], _along(x, y, side0)
        if least == left1:
            return least * least, 1, -least * side1[3], least * side1[2], _along(x, y, side1)
        return least * least, 2, -least * side2[3], least * side2[2], _along(x, y, side2)
    nearest = (-math.inf, 0, 0.0, 0.0, 0.0)
    if least * least < squared_reach:
        if left0 < 0.0:
            nearest = _nearer(x, y, side0, 0, nearest)
        if left1 < 0.0:
            nearest = _nearer(x, y, side1, 1, nearest)
        if left2 < 0.0:
            nearest = _nearer(x, y, side2, 2, nearest)
    return nearest


@compiled
def _nearer(x, y, side, number, nearest):  # type: ignore[no-untyped-def]
    """``nearest`` of a point outside, or the same of another side if that is nearer."""
    along = _along(x, y, side)
    away_x = x - side[0] - along * side[4] * side[2]
    away_y = y - side[1] - along * side[4] * side[3]
    squared = away_x * away_x + away_y * away_y
    return (-squared, number, away_x, away_y, along) if -squared > nearest[0] else nearest


@compiled
def _along(x, y, side):  # type: ignore[no-untyped-def]
    """Place on a side, 0 at its start to 1 at its end, that is nearest to a point."""
    along = ((x - side[0]) * side[2] + (y - side[1]) * side[3]) / side[4]
    return min(max(along, 0.0), 1.0)
