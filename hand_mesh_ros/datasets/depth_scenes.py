"""Rendered scenes with one hand or none, for depth cameras, and which pixels are the hand's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.hand_figure import HandFigures, random_sleeve
from hand_mesh_ros.datasets.pose_sampler import PoseSampler
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.rendering.zbuffer import join_meshes, rasterise

Mesh = tuple[np.ndarray, np.ndarray]

_DISTANCES_M = (0.4, 0.8)
#: Of forearms, how many go on to a body or out of the picture; the others end in the air.
_GOES_ON = 0.85
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
_BOX_FACES = np.array(
    [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1)]
    + [(2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)],
    np.int32,
)


@dataclass(frozen=True)
class DepthScene:
    """One rendered frame without a depth camera's errors."""

    depth_m: np.ndarray  #: (H,W) float32 metres, 0 where there is nothing
    mask: np.ndarray  #: (H,W) bool: visible pixels of the hand model's own faces
    keypoints_px: np.ndarray  #: (21,2) of the hand; NaN without one


class DepthScenes:
    """Scenes by number. The same (seed, number) always gives the same scene."""

    def __init__(self, seed: int, camera: Camera) -> None:
        """Scenes for ``camera``, from the open hand model."""
        self._seed, self._camera = seed, camera
        right = load_hand_model()
        self._poses = PoseSampler(right, seed)
        self._figures = {side: HandFigures(m, seed) for side, m in (('r', right), ('l', right.mirrored()))}

    def with_hand(self, number: int) -> DepthScene:
        """A hand, forearm, often upper arm and body, in front of a room or of nothing."""
        rng = np.random.default_rng([self._seed, number])
        upright, pose, betas = (values[0] for values in self._poses(np.array([number])))
        figures = self._figures['r' if rng.random() < 0.5 else 'l']
        if figures is self._figures['l']:
            upright, pose = mirrored_axis_angles(upright), mirrored_axis_angles(pose)
        turn = np.pi / 2 if rng.random() < 0.5 else np.pi
        roll = rotation_matrices(np.array([0.0, 0.0, turn * rng.uniform(-1.0, 1.0)]))
        orient = axis_angles(roll @ rotation_matrices(upright))
        hand = figures.model.posed(orient, pose, betas, np.zeros(3))
        slopes = rng.uniform(-0.22, 0.22, 2) * (self._camera.width, self._camera.height)
        place = np.array([slopes[0] / self._camera.fx, slopes[1] / self._camera.fy, 1.0])
        place *= rng.uniform(*_DISTANCES_M)
        vertices = figures.coarse_vertices(hand, rng.normal(0.0, 0.35, 3), random_sleeve(rng))
        middle = hand.keypoints.mean(0)
        # An arm that reaches behind the camera would be the whole picture
        place[2] = max(place[2], 0.25 - (vertices[:, 2] - middle[2]).min())
        vertices = vertices + place - middle
        elbow = vertices[-1]
        backward = elbow - vertices[: len(hand.vertices)].mean(0)
        backward /= np.linalg.norm(backward)
        meshes: list[Mesh] = [(vertices, figures.coarse_faces)]
        if rng.random() < _GOES_ON:
            meshes += _upper_arm_and_body(elbow, backward, place, rng)
        meshes += _surroundings(max(float(m[0][:, 2].max()) for m in meshes), place, rng)
        joined, faces = join_meshes(meshes)
        raster = rasterise(joined, faces, self._camera)
        mask = raster.mask & (raster.face_index < len(figures.model.faces))
        keypoints = self._camera.project(hand.keypoints + place - middle)
        return DepthScene(raster.depth, mask, keypoints)

    def without_hand(self, number: int) -> DepthScene:
        """A room: walls, a table, boxes larger than hands on it, sometimes a person with hidden hands."""
        rng = np.random.default_rng([self._seed, number, 1])
        at = np.array([0.0, 0.0, rng.uniform(0.5, 0.9)])
        meshes = _surroundings(at[2] + 0.3, at, rng)
        if rng.random() < 0.5:
            half = rng.uniform(0.12, 0.25, 3)
            meshes.append(_box(at + rng.uniform(-0.25, 0.25, 3), half, _any_rotation(rng)))
        if rng.random() < 0.4:
            meshes += _body(at + (rng.uniform(-0.2, 0.2), 0.3, 0.1))
        if not meshes or rng.random() < 0.3:
            meshes.append(_plane(at + (0.0, 0.15, 0.0), rng.uniform(0.3, 1.4)))
        raster = rasterise(*join_meshes(meshes), self._camera)
        return DepthScene(raster.depth, np.zeros(raster.depth.shape, bool), np.full((21, 2), np.nan))


def _surroundings(behind_m: float, at: np.ndarray, rng: np.random.Generator) -> list[Mesh]:
    """A wall beyond ``behind_m``, sometimes a table below it or nothing at all."""
    kind = rng.random()
    if kind < 0.15:
        return []
    wall = _plane(np.array([0.0, 0.0, behind_m + rng.uniform(0.1, 1.5)]), rng.normal(0.0, 0.1))
    if kind < 0.7:
        return [wall]
    half = np.array([rng.uniform(0.05, 0.2), 0.2, 0.05])
    behind = np.array([at[0] + rng.uniform(-0.4, 0.4), at[1] + 0.2, behind_m + 0.1])
    return [wall, _box(behind, half, np.eye(3))]


def _upper_arm_and_body(
    elbow: np.ndarray, backward: np.ndarray, at: np.ndarray, rng: np.random.Generator
) -> list[Mesh]:
    direction = backward + rng.normal(0.0, 0.6, 3)
    direction /= np.linalg.norm(direction)
    shoulder = elbow + rng.uniform(0.2, 0.3) * direction
    upper_arm = _tube(elbow - 0.03 * direction, shoulder, 0.045, 0.055)
    if shoulder[2] > at[2] + 0.12 and rng.random() < 0.7:
        return [upper_arm, *_body(shoulder + (0.17 * np.sign(-shoulder[0] or 1.0), 0.2, 0.05))]
    # On towards a body that the camera does not see: it is not before the hand
    outwards = np.append(elbow[:2] - at[:2], 0.0) + rng.normal(0.0, 0.1, 3) + (0.0, 0.05, 0.0)
    outwards[2] = abs(outwards[2])
    outwards /= np.linalg.norm(outwards)
    return [upper_arm, _tube(shoulder - 0.03 * direction, shoulder + 0.7 * outwards, 0.055, 0.08)]


def _body(chest: np.ndarray) -> list[Mesh]:
    """Trunk and head of somebody who faces the camera."""
    trunk = _tube(chest - (0.0, 0.22, 0.0), chest + (0.0, 0.5, 0.0), 0.2, 0.18, flat=0.6)
    head = _tube(chest - (0.0, 0.5, 0.0), chest - (0.0, 0.26, 0.0), 0.075, 0.08)
    neck = _tube(chest - (0.0, 0.28, 0.0), chest - (0.0, 0.2, 0.0), 0.055, 0.06)
    return [trunk, neck, head]


def _tube(
    start: np.ndarray, end: np.ndarray, start_radius: float, end_radius: float, flat: float = 1.0
) -> Mesh:
    """A cone with rounded ends; ``flat`` times as deep as it is wide."""
    axis = end - start
    length = float(np.linalg.norm(axis))
    z = axis / length
    x = np.cross(z, (0.0, 0.0, 1.0) if abs(z[2]) < 0.9 else (1.0, 0.0, 0.0))
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    share = np.linspace(0.0, 1.0, 13)
    radius = start_radius + (end_radius - start_radius) * share
    radius *= np.sqrt(np.clip(1.0 - (2.0 * share - 1.0) ** 8, 1e-3, 1.0))
    around = np.arange(20) * 2 * np.pi / 20
    ring = np.cos(around)[:, None] * x + flat * np.sin(around)[:, None] * y
    points = start + share[:, None, None] * axis + radius[:, None, None] * ring
    grid = np.arange(13 * 20).reshape(13, 20)
    a, b = grid[:-1].ravel(), np.roll(grid, -1, 1)[:-1].ravel()
    c, d = np.roll(grid, -1, 1)[1:].ravel(), grid[1:].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return points.reshape(-1, 3), faces.astype(np.int32)


def _plane(at: np.ndarray, slant: float) -> Mesh:
    """A wide plane through a point, tilted back from facing the camera by ``slant`` radians."""
    corners = np.array([(x, y * np.cos(slant), -y * np.sin(slant)) for x in (-4, 4) for y in (-4, 4)])
    return corners + at, np.array([(0, 1, 3), (0, 3, 2)], np.int32)


def _box(middle: np.ndarray, half: np.ndarray, rotation: np.ndarray) -> Mesh:
    return (_CORNERS * half) @ rotation.T + middle, _BOX_FACES


def _any_rotation(rng: np.random.Generator) -> np.ndarray:
    axis = rng.normal(size=3)
    return rotation_matrices(axis / np.linalg.norm(axis) * rng.uniform(0.0, np.pi))
