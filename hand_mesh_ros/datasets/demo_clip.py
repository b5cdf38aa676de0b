"""The demo's input: a clip of moving hands, rendered from the project's own hand model, and its truth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.gestures import GesturePoser, gesture_angles
from hand_mesh_ros.datasets.scenery import ClothedHand, cluttered_room
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.model import HandModel, PosedHand
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.rendering.shading import Lighting, linear_to_srgb, shade, srgb_to_linear
from hand_mesh_ros.rendering.zbuffer import interpolate, join_meshes, rasterise

SIDES: tuple[Side, Side] = ('right', 'left')

#: A hand counts as visible when at least this many of its 21 keypoints are in the picture.
_VISIBLE_KEYPOINTS = 16

#: The choreography repeats after this many seconds.
_PERIOD_S = 8.0


@dataclass(frozen=True)
class DemoClip:
    """Files of a rendered clip."""

    video: Path  #: .mp4
    cameras: Path  #: JSON: file name of the video -> [fx, fy, cx, cy]
    truth: Path  #: .npz, see ``render_demo_clip``


@dataclass(frozen=True)
class _Key:
    """Where one hand is at one moment; between two of them everything moves smoothly."""

    time_s: float
    gesture: str
    palm_m: tuple[float, float, float]  #: root of the middle finger, camera optical frame
    #: About the forearm (0 shows the palm, 180 the back); fingers towards the camera; in the picture
    #: (clockwise for a right hand).
    turn_lean_tilt_deg: tuple[float, float, float]


_RIGHT = (
    _Key(0.0, 'open', (-0.02, 0.00, 0.46), (8, 0, 4)),
    _Key(0.9, 'spread', (-0.01, -0.01, 0.36), (0, -4, -4)),
    _Key(1.7, 'fist', (-0.02, 0.01, 0.42), (10, 4, 4)),
    _Key(2.4, 'open', (-0.06, 0.00, 0.46), (35, 0, 12)),
    _Key(3.2, 'pinch', (-0.11, 0.00, 0.47), (30, 5, -4)),
    _Key(4.0, 'relaxed', (-0.13, 0.01, 0.50), (60, 0, -10)),
    _Key(4.7, 'open', (-0.13, 0.01, 0.50), (150, 0, -6)),
    _Key(5.2, 'spread', (-0.13, 0.01, 0.54), (172, -5, -12)),
    _Key(6.0, 'victory', (-0.14, 0.02, 0.62), (15, 0, -4)),
    _Key(6.7, 'point', (-0.12, 0.01, 0.68), (10, 5, 0)),
    _Key(7.3, 'relaxed', (-0.06, 0.00, 0.56), (-10, 4, 8)),
)
_LEFT = (
    _Key(0.0, 'relaxed', (0.15, 0.42, 0.50), (0, 0, 0)),
    _Key(2.6, 'relaxed', (0.14, 0.42, 0.50), (0, 0, 0)),
    _Key(3.4, 'open', (0.11, 0.01, 0.50), (6, 0, 2)),
    _Key(4.1, 'spread', (0.11, 0.00, 0.44), (0, 0, -6)),
    _Key(4.8, 'pinch', (0.12, 0.00, 0.48), (28, 5, 4)),
    _Key(5.5, 'fist', (0.12, 0.02, 0.46), (10, 0, 8)),
    _Key(6.1, 'open', (0.13, 0.01, 0.50), (45, 0, -12)),
    _Key(6.7, 'point', (0.14, 0.02, 0.50), (10, 0, 0)),
    _Key(7.4, 'relaxed', (0.15, 0.42, 0.50), (0, 0, 0)),
)

#: From the palm to the elbow, camera optical frame, metres, right and left.
_ELBOWS = {'right': np.array([-0.06, 0.36, 0.10]), 'left': np.array([0.06, 0.36, 0.10])}

_LIGHTING = Lighting(direction=(-0.55, -0.75, -0.75), lamp=(1.0, 0.96, 0.90))
_SAMPLES = 2  #: antialiasing: this many samples a pixel each way


def render_demo_clip(
    path: Path, seconds: float = 8.0, fps: float = 30.0, size: tuple[int, int] = (640, 480), seed: int = 0
) -> DemoClip:
    """Render a right hand, part of the time a left hand too, gesturing before a cluttered room.

    Writes the video and beside it ``<stem>_cameras.json`` and ``<stem>_truth.npz``.
    The truth holds, for T frames and two hands: sides (2,); visible (T,2) bool; global_orient (T,2,3),
    hand_pose (T,2,45), transl (T,2,3) and betas (2,10) of the open hand model; keypoints_3d (T,2,21,3)
    in metres, camera optical frame; keypoints_2d (T,2,21,2) in pixels. The same seed gives the same clip.

    :param path: the .mp4 to write; its folder must exist.
    :param size: width and height of the picture in pixels.
    :raises ConfigurationError: a size or length of nothing, or a video that cannot be written.
    """
    frames = round(seconds * fps)
    if frames < 1 or min(size) < 32:
        raise ConfigurationError(f'a clip of {seconds} s at {fps} Hz and {size[0]}x{size[1]} pixels is empty')
    camera = Camera.from_fov(*size)
    performers = [_Performer(side, seed) for side in SIDES]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), fps, size)
    if not writer.isOpened():
        raise ConfigurationError(f'{path}: cannot be written as a video; does its folder exist?')
    shots = []
    try:
        for image, shots_of_image in _images(performers, camera, frames, fps, seed):
            writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            shots.append(shots_of_image)
    finally:
        writer.release()
    return _write_companions(path, camera, performers, shots)


@dataclass(frozen=True)
class _Shot:
    """One hand in one frame."""

    global_orient: np.ndarray
    hand_pose: np.ndarray
    transl: np.ndarray
    posed: PosedHand


class _Performer:
    """One clothed hand and the part it plays."""

    def __init__(self, side: Side, seed: int) -> None:
        self.model: HandModel = load_hand_model(None, side)
        # Both hands are one person's.
        self.betas = np.random.default_rng(seed).normal(0.0, 0.5, 10)
        self.clothed = ClothedHand(self.model, self.betas, tone=0.22, cloth_srgb=(62, 84, 122), seed=seed)
        self._side = side
        self._keys = _RIGHT if side == 'right' else _LEFT
        self._poser = GesturePoser(self.model)
        self._sway = np.random.default_rng([seed, SIDES.index(side)]).uniform(0.0, 2 * np.pi, 6)

    def at(self, time_s: float) -> _Shot:
        """The hand at a moment."""
        time_s %= _PERIOD_S
        before = max((k for k in self._keys if k.time_s <= time_s), key=lambda k: k.time_s)
        later = [k for k in self._keys if k.time_s > time_s]
        after, end_s = (later[0], later[0].time_s) if later else (self._keys[0], _PERIOD_S)
        share = (time_s - before.time_s) / (end_s - before.time_s)
        share = share * share * (3.0 - 2.0 * share)
        angles = _mix(gesture_angles(before.gesture), gesture_angles(after.gesture), share)
        # Nobody holds a hand quite still; whole periods, so that the clip closes on itself.
        wave = np.sin(2 * np.pi * time_s / _PERIOD_S * np.array([3, 2, 4, 3, 5, 2]) + self._sway)
        palm = _mix(before.palm_m, after.palm_m, share) + 0.004 * wave[:3]
        degrees = _mix(before.turn_lean_tilt_deg, after.turn_lean_tilt_deg, share) + 2.0 * wave[3:]
        global_orient = axis_angles(_orientation(self._side, np.radians(degrees)))
        hand_pose = self._poser.hand_pose(angles)
        origin = self.model.posed(global_orient, hand_pose, self.betas, np.zeros(3)).keypoints[9]
        transl = palm - origin
        return _Shot(
            global_orient, hand_pose, transl, self.model.posed(global_orient, hand_pose, self.betas, transl)
        )

    def mesh(self, shot: _Shot) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V,3) and linear colours (V,3) of hand, arm and sleeve."""
        elbow = shot.posed.keypoints[9] + _ELBOWS[self._side]
        vertices, normals = self.clothed.mesh(shot.posed, elbow)
        return vertices, shade(self.clothed.albedo, vertices, normals, _LIGHTING)


def _images(
    performers: list[_Performer], camera: Camera, frames: int, fps: float, seed: int
) -> Iterator[tuple[np.ndarray, list[_Shot]]]:
    """Each frame (H,W,3) uint8 RGB with the shots that it shows."""
    noise = _SensorNoise(camera, np.random.default_rng(seed))
    room = srgb_to_linear(cluttered_room(camera.width, camera.height, seed) / 255.0)
    fine_camera = camera.window(0, 0, camera.width, camera.height, _SAMPLES)
    for frame in range(frames):
        shots = [performer.at(frame / fps) for performer in performers]
        meshes = [performer.mesh(shot) for performer, shot in zip(performers, shots, strict=True)]
        vertices, faces = join_meshes(
            [(v, performer.clothed.faces) for performer, (v, _) in zip(performers, meshes, strict=True)]
        )
        raster = rasterise(vertices, faces, fine_camera)
        colours = np.hstack([np.concatenate([c for _, c in meshes]), np.ones((len(vertices), 1), np.float32)])
        layer = cv2.resize(
            interpolate(raster, faces, colours), (camera.width, camera.height), interpolation=cv2.INTER_AREA
        )
        light = layer[..., :3] + (1.0 - layer[..., 3:]) * room
        yield _photograph(light, noise.next()), shots


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


def _orientation(side: Side, angles: np.ndarray) -> np.ndarray:
    """Rotation (3,3) of a hand turned, leaned and tilted by ``angles`` (3,) in radians.

    At zero the fingers point up and the palm faces the camera. Left hands mirror right ones.
    """
    fingers, back = np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0])
    across = 1.0 if side == 'right' else -1.0
    # The model's axes at rest: x from the fingers to the arm (right hand), y out of the back.
    x = -across * fingers
    palm_view = np.column_stack([x, back, np.cross(x, back)])
    turn, lean, tilt = rotation_matrices(
        np.array([[0.0, -across, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, across]]) * angles[:, None]
    )
    return tilt @ lean @ turn @ palm_view


def _write_companions(
    path: Path, camera: Camera, performers: list[_Performer], shots: list[list[_Shot]]
) -> DemoClip:
    clip = DemoClip(
        video=path,
        cameras=path.with_name(f'{path.stem}_cameras.json'),
        truth=path.with_name(f'{path.stem}_truth.npz'),
    )
    keypoints_3d = np.array([[shot.posed.keypoints for shot in frame] for frame in shots])
    keypoints_2d = np.array([[camera.project(shot.posed.keypoints) for shot in frame] for frame in shots])
    inside = ((keypoints_2d >= -0.5) & (keypoints_2d <= (camera.width - 0.5, camera.height - 0.5))).all(-1)
    visible = inside.sum(-1) >= _VISIBLE_KEYPOINTS
    intrinsics = [camera.fx, camera.fy, camera.cx, camera.cy]
    clip.cameras.write_text(json.dumps({path.name: intrinsics}) + '\n', encoding='utf-8')
    np.savez_compressed(
        clip.truth,
        sides=np.array(SIDES),
        visible=visible,
        betas=np.array([performer.betas for performer in performers]),
        keypoints_3d=keypoints_3d,
        keypoints_2d=keypoints_2d,
        **{
            name: np.array([[getattr(shot, name) for shot in frame] for frame in shots])
            for name in ('global_orient', 'hand_pose', 'transl')
        },
    )
    return clip


def _mix(first: ArrayLike, second: ArrayLike, share: float) -> np.ndarray:
    return np.asarray(first) * (1.0 - share) + np.asarray(second) * share
