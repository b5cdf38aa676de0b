"""A depth image made smaller and parted into surfaces: where depth jumps, one ends and another begins."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.compiled import compiled

#: Focal length in pixels that a reduced image is brought near to: about 3 mm a pixel at half a metre.
_REDUCED_FOCAL_PX = 185.0

#: How far apart neighbours on one surface may be: noise of stereo cameras grows with the square of distance.
_JUMP_M, _JUMP_PER_M2 = 0.012, 0.012

#: A finger before its palm is no surface of its own: what is smaller than a hand belongs to a neighbour that
#: is no further away than this, if that one is no larger than an arm may be.
NEAR_M = 0.06
_HAND_AREA_M2, _ARM_AREA_M2 = 0.015, 0.10

#: So much farther than asked for is looked, lest a wall at the end of the range falls to hand-sized pieces.
_RANGE_MARGIN = 1.15

#: How wide what is not measured beside things may be, in pixels.
_SHADOW_PX = 12

#: Pixels around a missing one that let it be filled in.
_FILLING_NEIGHBOURS = 5


@dataclass(frozen=True)
class Surfaces:
    """A reduced depth image and what belongs together in it."""

    stride: int  #: pixels of the image for one of this
    depth_m: np.ndarray  #: (h,w) float32 metres, 0 for nothing
    label: np.ndarray  #: (h,w) int32, 0 for nothing, else the number of a surface
    pitch: np.ndarray  #: (h,w) float32 metres from one pixel to the next at that depth
    radius_m: (
        np.ndarray
    )  #: (h,w) float32 metres to the nearest pixel of another surface, as the camera sees it
    points: np.ndarray  #: (h,w,3) float32 metres, camera optical frame
    sizes: (
        np.ndarray
    )  #: (L,5): of each surface x0, y0, x1, y1 (exclusive) and number of pixels; row 0 of nothing


def find_surfaces(depth_m: np.ndarray, camera: Camera, min_depth_m: float, max_depth_m: float) -> Surfaces:
    """Surfaces of a depth image (H,W) float32 in metres.

    What is no distance within the limits is nothing; the farther one is taken with a margin.
    """
    stride = max(1, round(min(camera.fx, camera.fy) / _REDUCED_FOCAL_PX))
    reduced = _reduced(depth_m, stride, np.float32(min_depth_m), np.float32(_RANGE_MARGIN * max_depth_m))
    depth = _smoothed(reduced)
    per_px = np.float32(2.0 * stride / (camera.fx + camera.fy))
    label, boundary = _parted(depth, per_px)
    # Narrow as a slit between two fingers may be, it ends nothing that a palm's size is read from
    radius_px = cv2.distanceTransform(boundary, cv2.DIST_L2, cv2.DIST_MASK_3)
    pitch = depth * per_px
    xs, ys = _slopes(camera, stride, depth.shape)
    points = np.stack([xs * depth, ys * depth, depth], axis=-1)
    return Surfaces(stride, depth, label, pitch, radius_px * pitch, points, _extents(label, label.max()))


@lru_cache(maxsize=4)
def _slopes(camera: Camera, stride: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """x / z and y / z (h,w) float32 of the reduced image's pixels; 0 where the lens shows nothing."""
    ys, xs = np.mgrid[: shape[0], : shape[1]] * stride + (stride - 1) / 2.0
    rays = np.nan_to_num(camera.rays(np.column_stack([xs.ravel(), ys.ravel()]))).astype(np.float32)
    return rays[:, 0].reshape(shape), rays[:, 1].reshape(shape)


@compiled
def jump(depth):  # type: ignore[no-untyped-def]
    """How far from a pixel at ``depth`` metres its neighbour on the same surface may be, in metres."""
    return _JUMP_M + _JUMP_PER_M2 * depth * depth


@compiled
def _reduced(depth, stride, nearest, farthest):  # type: ignore[no-untyped-def]
    """The mean, in each block, of what is near the median of its valid depths."""
    height, width = depth.shape[0] // stride, depth.shape[1] // stride
    reduced = np.zeros((height, width), np.float32)
    values = np.empty(stride * stride, np.float32)
    for y in range(height):
        for x in range(width):
            count = 0
            for row in range(y * stride, (y + 1) * stride):
                for column in range(x * stride, (x + 1) * stride):
                    z = depth[row, column]
                    if nearest <= z <= farthest:  # false for NaN
                        at = count
                        while at > 0 and values[at - 1] > z:
                            values[at] = values[at - 1]
                            at -= 1
                        values[at] = z
                        count += 1
            if 3 * count < stride * stride:
                continue
            middle = values[count // 2]
            total, near = 0.0, 0
            for k in range(count):
                if abs(values[k] - middle) <= jump(middle):
                    total += values[k]
                    near += 1
            reduced[y, x] = total / near
    return reduced


@compiled
def _smoothed(depth):  # type: ignore[no-untyped-def]
    """Mean with neighbours on the same surface; missing pixels among enough neighbours are filled in."""
    height, width = depth.shape
    smooth = np.zeros_like(depth)
    for y in range(height):
        for x in range(width):
            z = depth[y, x]
            missing = z == 0.0
            rows, columns = range(max(y - 1, 0), min(y + 2, height)), range(max(x - 1, 0), min(x + 2, width))
            if missing:
                count = 0
                for row in rows:
                    for column in columns:
                        if depth[row, column] > 0.0:
                            count += 1
                            if z == 0.0 or depth[row, column] < z:
                                z = depth[row, column]
                if count < _FILLING_NEIGHBOURS:
                    continue
            total, count = 0.0, 0
            for row in rows:
                for column in columns:
                    if depth[row, column] > 0.0 and abs(depth[row, column] - z) <= jump(z):
                        total += depth[row, column]
                        count += 1
            if not missing or count >= _FILLING_NEIGHBOURS:
                smooth[y, x] = total / count
    return smooth


@compiled
def _root(parents, a):  # type: ignore[no-untyped-def]
    while parents[a] != a:
        parents[a] = parents[parents[a]]
        a = parents[a]
    return a


@compiled
def _parted(depth, per_px):  # type: ignore[no-untyped-def]
    """Surface numbers (h,w) int32 from 1, and (h,w) uint8 that is 0 where a surface ends, else 1."""
    height, width = depth.shape
    parents = np.arange(height * width)
    flat = depth.ravel()
    for y in range(height):
        for x in range(width):
            here = y * width + x
            z = flat[here]
            if z == 0.0:
                continue
            if x and flat[here - 1] > 0.0 and abs(z - flat[here - 1]) <= jump(z):
                a, b = _root(parents, here), _root(parents, here - 1)
                parents[max(a, b)] = min(a, b)
            if y and flat[here - width] > 0.0 and abs(z - flat[here - width]) <= jump(z):
                a, b = _root(parents, here), _root(parents, here - width)
                parents[max(a, b)] = min(a, b)
    areas = np.zeros(height * width, np.float32)
    for here in range(height * width):
        parents[here] = _root(parents, here)
        areas[parents[here]] += (flat[here] * per_px) ** 2
    _merge(flat, width, parents, areas)
    label = np.zeros((height, width), np.int32)
    numbers = np.zeros(height * width, np.int32)
    count = 0
    for y in range(height):
        for x in range(width):
            here = y * width + x
            if flat[here] == 0.0:
                continue
            root = _root(parents, here)
            if numbers[root] == 0:
                count += 1
                numbers[root] = count
            label[y, x] = numbers[root]
    boundary = np.ones((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            if label[y, x] == 0:
                boundary[y, x] = 0
                continue
            if x and label[y, x - 1] != label[y, x] and depth[y, x - 1] > 0.0:
                # The farther side gives its pixel away: what is in front keeps its whole outline
                if depth[y, x - 1] < depth[y, x]:
                    boundary[y, x] = 0
                else:
                    boundary[y, x - 1] = 0
            if y and label[y - 1, x] != label[y, x] and depth[y - 1, x] > 0.0:
                if depth[y - 1, x] < depth[y, x]:
                    boundary[y, x] = 0
                else:
                    boundary[y - 1, x] = 0
    return label, boundary


@compiled
def _merge(flat, width, parents, areas):  # type: ignore[no-untyped-def]
    """Join small surfaces to what they are before."""
    for here in range(len(flat)):
        if flat[here] == 0.0:
            continue
        for side in range(2):
            there = here - 1 if side == 0 else here - width
            if there < 0 or (side == 0 and here % width == 0) or flat[there] == 0.0:
                continue
            if abs(flat[here] - flat[there]) > NEAR_M:
                continue
            a, b = _root(parents, here), _root(parents, there)
            if a == b or min(areas[a], areas[b]) > _HAND_AREA_M2 or max(areas[a], areas[b]) > _ARM_AREA_M2:
                continue
            parents[max(a, b)] = min(a, b)
            areas[min(a, b)] = areas[a] + areas[b]


@compiled
def _extents(label, count):  # type: ignore[no-untyped-def]
    extents = np.zeros((count + 1, 5), np.int32)
    height, width = label.shape
    extents[:, 0], extents[:, 1] = width, height
    for y in range(height):
        for x in range(width):
            k = label[y, x]
            if k:
                extents[k, 0], extents[k, 1] = min(extents[k, 0], x), min(extents[k, 1], y)
                extents[k, 2], extents[k, 3] = max(extents[k, 2], x + 1), max(extents[k, 3], y + 1)
                extents[k, 4] += 1
    return extents


@compiled
def hidden_share(depth, label, hand, y0, x0):  # type: ignore[no-untyped-def]
    """Of the outline of a part of a surface, the share along which something nearer hides what goes on.

    :param hand: (h,w) bool, the part, whose first pixel is at row ``y0`` and column ``x0`` of the others.
    """
    hidden, free = 0, 1
    for row in range(hand.shape[0]):
        for column in range(hand.shape[1]):
            if not hand[row, column]:
                continue
            y, x = row + y0, column + x0
            for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                # Where nothing was measured beside it, as on one side of all things, look a little further
                for step in range(1, _SHADOW_PX + 1):
                    v, u = y + step * down, x + step * right
                    if not (0 <= v < label.shape[0] and 0 <= u < label.shape[1]):
                        free += 1
                        break
                    if label[v, u] == label[y, x]:
                        break
                    if label[v, u] != 0 or step == _SHADOW_PX:
                        nearer = label[v, u] != 0 and depth[v, u] < depth[y, x]
                        hidden += nearer
                        free += not nearer
                        break
    return hidden / (hidden + free)
