"""Limbs: what reaches out from a body, or from the picture's border, and how wide it is along its way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from hand_mesh_ros.compiled import compiled
from hand_mesh_ros.segmentation.geodesic import UNREACHED, geodesic_distances
from hand_mesh_ros.segmentation.surfaces import Surfaces

#: Nothing of a hand or an arm is so wide that a circle of this radius fits in it, even in a loose sleeve.
_BODY_RADIUS_M = 0.07
#: At the picture's border an arm goes on outside where it is at least so wide there.
_ARM_WIDTH_M = 0.03
#: A limb ends further than this from where it began.
LEAST_REACH_M = 0.09
#: Another limb of the same surface is this much of a detour.
_DETOUR_M = 0.15

BIN_M = 0.01  #: length of the pieces that widths are measured of
BINS = 46

_BOX = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Limb:
    """One limb, from its far end, which may be a hand."""

    window: tuple[slice, slice]  #: of the reduced image
    along_m: (
        np.ndarray
    )  #: (h,w) float32: in that window, how much nearer to the body than the far end; or inf
    reach_m: float  #: from the far end to where the limb leaves the body or the picture
    #: (3,BINS) metres, for each ``BIN_M`` from the far end: how far the pixels are spread, how much of them
    #: there is, the largest circle among them
    widths: np.ndarray


def limbs_of(surfaces: Surfaces, label: int, most: int) -> list[list[Limb]]:
    """Limbs of one surface, at most so many; for each what it may be, seen from one end or the other."""
    x0, y0, x1, y1 = surfaces.sizes[label, :4]
    window = slice(y0, y1), slice(x0, x1)
    inside = surfaces.label[window] == label
    starts, passable = _starts(surfaces, window, inside)
    points = np.ascontiguousarray(surfaces.points[window])
    if not np.isfinite(starts).any():
        ends = _two_ends(points, passable)
        return [[limb for end in ends if (limb := _limb(surfaces, window, passable, end, None)) is not None]]
    found = []
    distances = geodesic_distances(points, passable, starts, UNREACHED)
    for end, own in _tips(points, passable, distances, most):
        limb = _limb(surfaces, window, passable & own, distances, end)
        if limb is not None:
            found.append([limb])
    return found


def _starts(
    surfaces: Surfaces, window: tuple[slice, slice], inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where limbs begin (h,w) float32, inf elsewhere, and where they may be (h,w) bool."""
    starts = np.full(inside.shape, UNREACHED, np.float32)
    height, width = surfaces.label.shape
    rows, columns = window
    pitch = surfaces.pitch[window]
    for at_border, line in (
        (rows.start == 0, np.s_[0, :]),
        (rows.stop == height, np.s_[-1, :]),
        (columns.start == 0, np.s_[:, 0]),
        (columns.stop == width, np.s_[:, -1]),
    ):
        if at_border:
            wide = _wide_runs(inside[line], pitch[line], _ARM_WIDTH_M)
            starts[line] = np.where(wide, np.float32(0.0), starts[line])
    body = inside & (surfaces.radius_m[window] > _BODY_RADIUS_M)
    if not body.any():
        return starts, inside
    passable = inside & ~body
    # The body is what such circles cover, not only their middles
    starts[passable & (cv2.dilate(body.view(np.uint8), _BOX) > 0)] = -_BODY_RADIUS_M
    return starts, passable


@compiled
def _wide_runs(line, pitch, least):  # type: ignore[no-untyped-def]
    """Those of the true values of a line (N,) that lie in a row longer than ``least`` metres."""
    wide = np.zeros(len(line), np.bool_)
    first, length = 0, 0.0
    for k in range(len(line) + 1):
        if k < len(line) and line[k]:
            length += pitch[k]
            continue
        if length >= least:
            wide[first:k] = True
        first, length = k + 1, 0.0
    return wide


def _two_ends(points: np.ndarray, passable: np.ndarray) -> list[np.ndarray]:
    """Distances from each of the two ends (h,w) of a surface that begins nowhere."""
    rows, columns = np.nonzero(passable)
    at = rows[len(rows) // 2], columns[len(columns) // 2]
    ends = []
    for _ in range(3):
        starts = np.full(passable.shape, UNREACHED, np.float32)
        starts[at] = 0.0
        ends.append(geodesic_distances(points, passable, starts, UNREACHED))
        at = _farthest(ends[-1])
    return ends[1:]


def _farthest(distances: np.ndarray) -> tuple[int, int]:
    row, column = np.unravel_index(
        np.where(np.isfinite(distances), distances, -1.0).argmax(), distances.shape
    )
    return int(row), int(column)


def _tips(
    points: np.ndarray, passable: np.ndarray, distances: np.ndarray, most: int
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Far ends of limbs, farthest first, and what (h,w) bool is not of another limb."""
    free = passable & np.isfinite(distances)
    for _ in range(most):
        if not free.any():
            return
        end = _farthest(np.where(free, distances, -np.inf))
        if distances[end] < LEAST_REACH_M:
            return
        own = free
        if most > 1 and distances[end] > 2 * _DETOUR_M:
            starts = np.full(passable.shape, UNREACHED, np.float32)
            starts[end] = 0.0
            away = geodesic_distances(points, passable, starts, UNREACHED)
            own = free & (away + distances - distances[end] < 2 * _DETOUR_M)
            free = free & ~own
        else:
            free = np.zeros_like(free)
        yield end, own


def _limb(
    surfaces: Surfaces,
    window: tuple[slice, slice],
    passable: np.ndarray,
    distances: np.ndarray,
    end: tuple[int, int] | None,
) -> Limb | None:
    reached = passable & np.isfinite(distances)
    end = end or _farthest(np.where(reached, distances, -np.inf))
    reach = float(distances[end])
    if not LEAST_REACH_M <= reach < np.inf:
        return None
    along = np.where(reached, reach - distances, UNREACHED)
    sums = _sums(
        along, surfaces.points[window], surfaces.pitch[window], surfaces.radius_m[window], BIN_M, BINS
    )
    return Limb(window, along, reach, _widths(sums))


def _widths(sums: np.ndarray) -> np.ndarray:
    counts = np.maximum(sums[:, 0], 1.0)[:, None]
    mean = sums[:, 1:4] / counts
    second = sums[:, [4, 5, 6, 5, 7, 8, 6, 8, 9]] / counts
    covariance = second.reshape(-1, 3, 3) - mean[:, :, None] * mean[:, None, :]
    # Of a bar its length
    spread = np.sqrt(12.0 * np.maximum(np.linalg.eigvalsh(covariance)[:, -1], 0.0))
    spread[sums[:, 0] < 3] = 0.0
    return np.stack([spread, sums[:, 10] / BIN_M, sums[:, 11]])


@compiled
def _sums(along, points, pitch, radius, bin_length, bins):  # type: ignore[no-untyped-def]
    """Of each bin: count, sums of x y z, of xx xy xz yy yz zz, area, largest radius."""
    sums = np.zeros((bins, 12))
    height, width = along.shape
    for row in range(height):
        for column in range(width):
            if not along[row, column] < bins * bin_length:
                continue
            k = int(along[row, column] / bin_length)
            if k >= bins:
                continue
            x, y, z = points[row, column]
            sums[k, 0] += 1.0
            sums[k, 1] += x
            sums[k, 2] += y
            sums[k, 3] += z
            sums[k, 4] += x * x
            sums[k, 5] += x * y
            sums[k, 6] += x * z
            sums[k, 7] += y * y
            sums[k, 8] += y * z
            sums[k, 9] += z * z
            sums[k, 10] += pitch[row, column] ** 2
            sums[k, 11] = max(sums[k, 11], radius[row, column])
    return sums
