"""Films of performing hands in a room: what a camera sees, how far everything is, and what of it is hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.performer import LIGHTING, SIDES, Performer, Shot
from hand_mesh_ros.datasets.props import BALL
from hand_mesh_ros.datasets.scenery import TABLE_EDGE, cluttered_room
from hand_mesh_ros.rendering.shading import linear_to_srgb, shade, srgb_to_linear, vertex_normals
from hand_mesh_ros.rendering.subdivision import Subdivision
from hand_mesh_ros.rendering.zbuffer import interpolate, join_meshes, rasterise

#: A hand counts as visible when at least this many of its 21 keypoints are in the picture.
_VISIBLE_KEYPOINTS = 16

_SAMPLES = 2  #: antialiasing: this many samples a pixel each way

#: The wall is this far, in metres, and turned by so much that its distance changes by this share of x.
_WALL_M, _WALL_TURN = (1.4, 1.9), 0.15


@dataclass(frozen=True, eq=False)
class Surfaces:
    """What the pixels of one moment see, without any error."""

    depth_m: np.ndarray  #: (H,W) float32, metres along the optical axis
    hand_mask: np.ndarray  #: (H,W) bool, where a hand is seen: neither forearm nor sleeve


@dataclass(frozen=True, eq=False)
class FilmFrame:
    """One moment of a film."""

    image: np.ndarray  #: (H,W,3) uint8 RGB
    shots: list[Shot]  #: one a performer
    surfaces: Surfaces | None  #: of a film with depth


class Bystander:
    """Somebody's trunk that walks to and fro behind the hands, in view for part of the time."""

    _PERIOD_S = 8.0
    _HALF_SIZE_M = (0.20, 0.75, 0.11)
    _DISTANCE_M = 1.15

    def __init__(self, rng: np.random.Generator) -> None:
        """Dress the trunk; ``rng`` decides when it comes by."""
        vertices, faces = BALL
        finer = Subdivision(faces, rounds=2)
        ball = finer(vertices)
        ball /= np.linalg.norm(ball, axis=1, keepdims=True)
        self._vertices = ball * self._HALF_SIZE_M
        self.faces = finer.faces  #: (F,3) int32
        self._normals = vertex_normals(self._vertices, self.faces)
        self._albedo = srgb_to_linear(rng.uniform(0.15, 0.55, 3) * (0.8, 0.9, 1.0))
        self._phase = rng.uniform(0.0, 2 * np.pi)

    def mesh(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V,3) in metres, camera optical frame, and linear colours (V,3) float32."""
        x = 0.1 + 1.3 * np.sin(2 * np.pi * time_s / self._PERIOD_S + self._phase)
        vertices = self._vertices + (x, 0.15, self._DISTANCE_M)
        return vertices, shade(self._albedo, vertices, self._normals, LIGHTING)


class Film:
    """Performers in a cluttered room before one camera that stands still."""

    def __init__(
        self,
        performers: Sequence[Performer],
        camera: Camera,
        seed: int,
        bystander: Bystander | None = None,
        with_depth: bool = False,
    ) -> None:
        """Furnish the room, which ``seed`` decides. Without depth no frame has surfaces."""
        self._performers, self._camera, self._bystander = performers, camera, bystander
        self._with_depth = with_depth
        self._noise = _SensorNoise(camera, np.random.default_rng(seed))
        self._room = srgb_to_linear(cluttered_room(camera.width, camera.height, seed) / 255.0)
        self._room_depth = _room_depth(camera, np.random.default_rng([seed, 7]))
        self._fine_camera = camera.window(0, 0, camera.width, camera.height, _SAMPLES)

    def frames(self, times_s: Sequence[float]) -> Iterator[FilmFrame]:
        """What the camera takes at these moments."""
        for time_s in times_s:
            shots = [performer.at(time_s) for performer in self._performers]
            meshes = [performer.mesh(shot) for performer, shot in zip(self._performers, shots, strict=True)]
            parts = [performer.clothed.faces for performer in self._performers]
            if self._bystander is not None:
                meshes.append(self._bystander.mesh(time_s))
                parts.append(self._bystander.faces)
            vertices, faces = join_meshes([(v, f) for (v, _), f in zip(meshes, parts, strict=True)])
            colours = np.concatenate([c for _, c in meshes]) if meshes else np.zeros((0, 3), np.float32)
            surfaces = self._surfaces(vertices, faces) if self._with_depth else None
            yield FilmFrame(self._image(vertices, faces, colours), shots, surfaces)

    def _image(self, vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> np.ndarray:
        raster = rasterise(vertices, faces, self._fine_camera)
        opaque = np.hstack([colours, np.ones((len(vertices), 1), np.float32)])
        size = (self._camera.width, self._camera.height)
        layer = cv2.resize(interpolate(raster, faces, opaque), size, interpolation=cv2.INTER_AREA)
        light = layer[..., :3] + (1.0 - layer[..., 3:]) * self._room
        return _photograph(light, self._noise.next())

    def _surfaces(self, vertices: np.ndarray, faces: np.ndarray) -> Surfaces:
        raster = rasterise(vertices, faces, self._camera)
        is_hand = np.zeros(len(faces) + 1, bool)  # the last one is for no face, -1
        first = 0
        for performer in self._performers:
            is_hand[first : first + performer.clothed.hand_faces] = True
            first += len(performer.clothed.faces)
        depth_m = np.where(raster.mask, raster.depth, self._room_depth)
        return Surfaces(depth_m, is_hand[raster.face_index])


def write_truth(
    path: Path, camera: Camera, performers: Sequence[Performer], shots: Sequence[Sequence[Shot]]
) -> None:
    """Write what T frames of H performers show: an .npz that needs no pickle.

    Arrays: sides (H,); visible (T,H) bool; betas (H,10), global_orient (T,H,3), hand_pose (T,H,45) and
    transl (T,H,3) of the open hand model; keypoints_3d (T,H,21,3) in metres, camera optical frame;
    keypoints_2d (T,H,21,2) in pixels.
    """
    per_hand = (len(shots), len(performers))
    keypoints_3d = np.array([[shot.posed.keypoints for shot in frame] for frame in shots])
    keypoints_3d = keypoints_3d.reshape(*per_hand, 21, 3)  # no hands have no keypoints to take a shape from
    keypoints_2d = camera.project(keypoints_3d.reshape(-1, 3)).reshape(*per_hand, 21, 2)
    inside = ((keypoints_2d >= -0.5) & (keypoints_2d <= (camera.width - 0.5, camera.height - 0.5))).all(-1)
    parameters = {
        name: np.array([[getattr(shot, name) for shot in frame] for frame in shots]).reshape(*per_hand, size)
        for name, size in (('global_orient', 3), ('hand_pose', 45), ('transl', 3))
    }
    np.savez_compressed(
        path,
        sides=np.array([performer.side for performer in performers], f'<U{max(map(len, SIDES))}'),
        visible=inside.sum(-1) >= _VISIBLE_KEYPOINTS,
        betas=np.array([performer.betas for performer in performers]).reshape(-1, 10),
        keypoints_3d=keypoints_3d,
        keypoints_2d=keypoints_2d,
        **parameters,
    )


class _SensorNoise:
    """Noise of a picture's size: windows of one larger field, many times faster than drawing it anew."""

    def __init__(self, camera: Camera, rng: np.random.Generator) -> None:
        self._rng = rng
        self._shape = (camera.height, camera.width)
        field = (camera.height + 64, camera.width + 64, 3)
        self._field = 2.0 * rng.standard_normal(field, np.float32)

    def next(self) -> np.ndarray:
        """(H,W,3) float32 in 8-bit steps."""
        y, x = self._rng.integers(0, 64, 2)
        return self._field[y : y + self._shape[0], x : x + self._shape[1]]


def _photograph(light: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """What an ordinary camera makes of linear light (H,W,3): a soft lens, sensor noise, 8-bit sRGB."""
    sharp = linear_to_srgb(cv2.GaussianBlur(light, (0, 0), 0.6)) * 255.0
    return np.clip(sharp + noise + 0.5, 0, 255).astype(np.uint8)


def _room_depth(camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Depth (H,W) float32 of wall and table, which meet where the picture of the room shows it."""
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    x, y = camera.rays(np.stack([columns.ravel(), rows.ravel()], -1)).T.reshape(2, *columns.shape)
    wall_m = rng.uniform(*_WALL_M)
    wall = wall_m / (1.0 + rng.uniform(-_WALL_TURN, _WALL_TURN) * x)
    edge = (TABLE_EDGE * camera.height - camera.cy) / camera.fy
    table = np.where(y > 0, wall_m * edge / np.maximum(y, 1e-6), np.inf)
    return np.minimum(wall, table).astype(np.float32)
