"""Things that hands hold and that stand in front of hands: prisms, cylinders, cones and balls."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hand_mesh_ros.crop_view import CropView
from hand_mesh_ros.hand_model.rotations import rotation_matrices
from hand_mesh_ros.rendering.shading import srgb_to_linear, vertex_normals
from hand_mesh_ros.rendering.zbuffer import rasterise

_TIPS_AND_PALM = [4, 8, 12, 16, 9, 5, 17]

#: Share of what is in front that is long: a stick, an edge of a table or of a box.
_STICKS = 0.35

#: Of props that cover a share of a hand: how near to that share is near enough, how many props and how many
#: sizes of each, within which limits, are tried, and how near to the camera they may reach, in their
#: distances.
_GOOD_COVER = 0.02
_MOST_TRIES, _SIZINGS = 40, 9
_SIZES = (0.02, 6.0)
_NEAREST_SHARE = 0.15


@dataclass(frozen=True, eq=False)
class Prop:
    """A closed mesh of one colour."""

    vertices: np.ndarray  #: (V,3) metres
    faces: np.ndarray  #: (F,3) int32
    normals: np.ndarray  #: (V,3) unit, outwards
    colour: np.ndarray  #: (3,) linear RGB


def prop_in_front(keypoints: np.ndarray, rng: np.random.Generator) -> Prop:
    """Something between the camera, at the origin, and one of the keypoints (21,3) of a hand, in metres."""
    covered = keypoints[rng.integers(21)]
    distance = np.linalg.norm(covered)
    gap = min(float(rng.uniform(0.02, 0.12)), 0.4 * float(distance))
    nearer = 1.0 - gap / distance
    size = rng.uniform(0.008, 0.035) * nearer
    half = size * np.exp(rng.normal(0.0, 0.35, 3))
    if rng.random() < _STICKS:
        half[1] = rng.uniform(0.1, 0.3)
    return _prop(covered * nearer + rng.normal(0.0, 0.01, 3), _random_rotation(rng), half, rng)


def prop_in_hand(keypoints: np.ndarray, rng: np.random.Generator) -> Prop:
    """Something between palm and fingertips of the hand with these keypoints (21,3), in metres."""
    inside = keypoints[rng.choice(_TIPS_AND_PALM, 4, replace=False)].mean(0)
    half = rng.uniform(0.006, 0.03) * np.exp(rng.normal(0.0, 0.25, 3))
    rotation = _random_rotation(rng)
    if rng.random() < 0.6:  # a handle or a bottle lies across the palm
        half[1] = rng.uniform(0.05, 0.12)
        across = keypoints[5] - keypoints[17] + rng.normal(0.0, 0.012, 3)
        across /= np.linalg.norm(across)
        side = np.cross(across, keypoints[9] - keypoints[0])
        side /= np.linalg.norm(side)
        rotation = np.column_stack([side, across, np.cross(side, across)])
    return _prop(inside, rotation, half, rng)


def prop_covering(
    share: float,
    hand: np.ndarray,
    keypoints: np.ndarray,
    vertices: np.ndarray,
    view: CropView,
    rng: np.random.Generator,
) -> Prop:
    """Something before a hand that hides about ``share``, above 0, of its pixels.

    :param hand: (S,S) bool, the pixels of the hand in ``view``.
    :param keypoints: (21,3), of the hand, in metres, in the frame of the camera that took the whole picture.
    :param vertices: (V,3), of the hand, likewise.
    """
    best, least_error = _sized_to_cover(share, hand, keypoints, view, rng)
    for _ in range(_MOST_TRIES):
        if least_error < _GOOD_COVER:
            break
        prop, error = _sized_to_cover(share, hand, keypoints, view, rng)
        if error < least_error:
            best, least_error = prop, error
    # Shrunk towards the camera it looks the same, and stands before all of the hand.
    axis = view.R_crop_camera[2]
    nearer = rng.uniform(0.75, 0.97) * (vertices @ axis).min() / (best.vertices @ axis).max()
    return replace(best, vertices=best.vertices * min(nearer, 1.0))


def _sized_to_cover(
    share: float, hand: np.ndarray, keypoints: np.ndarray, view: CropView, rng: np.random.Generator
) -> tuple[Prop, float]:
    """A prop about one of the keypoints, and by how much of the hand's pixels it misses ``share``."""
    middle = keypoints[rng.integers(21)] + rng.normal(0.0, 0.015, 3)
    half = 0.03 * np.exp(rng.normal(0.0, 0.35, 3))
    if rng.random() < _STICKS:
        half[1] = rng.uniform(0.1, 0.3)
    prop = _prop(middle, _random_rotation(rng), half, rng)
    camera, offsets = view.camera(), (prop.vertices - middle) @ view.R_crop_camera.T
    seen_middle = view.R_crop_camera @ middle
    # The bodies are convex, so the larger the more they cover.
    smallest, largest = _SIZES
    for _ in range(_SIZINGS):
        size = float(np.sqrt(smallest * largest))
        mask = rasterise(seen_middle + size * offsets, prop.faces, camera).mask
        error = (mask & hand).sum() / max(hand.sum(), 1) - share
        if abs(error) < _GOOD_COVER:
            break
        smallest, largest = (smallest, size) if error > 0 else (size, largest)
    nearest = seen_middle[2] + size * offsets[:, 2].min()
    if nearest < _NEAREST_SHARE * seen_middle[2]:  # it reaches around the camera
        return prop, np.inf
    return replace(prop, vertices=middle + size * (prop.vertices - middle)), abs(error)


def _prop(centre: np.ndarray, rotation: np.ndarray, half: np.ndarray, rng: np.random.Generator) -> Prop:
    """A body of half extents ``half`` (3,), its long axis y."""
    kind = rng.random()
    if kind < 0.25:
        vertices, faces = BALL
    elif kind < 0.6:
        vertices, faces = _prism(np.arange(14) * 2 * np.pi / 14, rng.choice([1.0, 1.0, 0.6, 0.1]))
    else:
        corners = int(rng.integers(3, 8))
        angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
        vertices, faces = _prism(angles, rng.uniform(0.7, 1.0))
    vertices = vertices * half @ rotation.T + centre
    colour = srgb_to_linear(rng.uniform(0.02, 1.0, 3) * rng.uniform(0.3, 1.0))
    return Prop(vertices, faces, vertex_normals(vertices, faces), colour)


def _prism(angles: np.ndarray, taper: float) -> tuple[np.ndarray, np.ndarray]:
    """Closed prism about y in the unit cube, of corners at ``angles``, its top ``taper`` times as wide.

    Each side has its own vertices, so that its edges are seen when it is lit.
    """
    ring = np.column_stack([np.cos(angles), np.zeros(len(angles)), np.sin(angles)])
    bottom, top = ring - (0, 1, 0), ring * taper + (0, 1, 0)
    after = np.roll(np.arange(len(angles)), -1)
    sides = np.stack([bottom, top, top[after], bottom[after]], axis=1).reshape(-1, 3)
    first = 4 * np.arange(len(angles))[:, None]
    quads = np.concatenate([first + (0, 1, 2), first + (0, 2, 3)])
    fan = np.array([(0, k, k + 1) for k in range(1, len(angles) - 1)])
    base = len(sides)
    caps = np.concatenate([base + fan, base + len(angles) + fan[:, ::-1]])
    return np.concatenate([sides, bottom, top]), np.concatenate([quads, caps]).astype(np.int32)


def _ball(rings: int = 8, segments: int = 14) -> tuple[np.ndarray, np.ndarray]:
    polar = np.linspace(0.02, np.pi - 0.02, rings)[:, None]
    around = np.arange(segments) * 2 * np.pi / segments
    vertices = np.stack(
        [np.sin(polar) * np.cos(around), np.cos(polar) + 0 * around, np.sin(polar) * np.sin(around)], -1
    )
    grid = np.arange(rings * segments).reshape(rings, segments)
    a, b = grid[:-1], np.roll(grid, -1, axis=1)[:-1]
    c, d = np.roll(grid, -1, axis=1)[1:], grid[1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return vertices.reshape(-1, 3), faces.astype(np.int32)


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    axis = rng.normal(size=3)
    return rotation_matrices(axis / np.linalg.norm(axis) * rng.uniform(0.0, np.pi))


#: Vertices (V,3) of the unit ball and its faces (F,3).
BALL = _ball()
