"""Rendered clips of an RGB-D camera: colour, depth with its camera's errors, true masks and the truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.film import Bystander, Film, FilmFrame, write_truth
from hand_mesh_ros.datasets.gestures import GESTURES
from hand_mesh_ros.datasets.performer import Key, Performer, Shot
from hand_mesh_ros.depth_files import write_depth, write_mask, write_picture
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.rendering.depth_camera import DepthNoise, camera_depth

#: The distances that a wandering hand goes through, there and back, in metres, and how long that takes.
WANDERING_M = (0.4, 0.8)
_WANDERING_S = 8.0
_KEY_S = 1.15

#: So long that the arm's end is never in the picture, in forearms.
_ARM_REACH = 1.7

#: How far a hand reaches from the root of its middle finger, to the sides and up and down, in metres, and
#: how far the picture does at a distance of 1.
_REACH_M, _PICTURE = np.array([0.09, 0.12]), np.array([0.57, 0.42])


@dataclass(frozen=True)
class RgbdClip:
    """Folders and files of a rendered clip; what belongs together has the same base name."""

    images: Path  #: folder of .jpg
    depth: Path  #: folder of 16-bit .png in millimetres, 0 where nothing was measured
    masks: Path  #: folder of .png, 255 where a hand is seen, without forearm and sleeve
    cameras: Path  #: JSON: file name of each image and of each depth image -> [fx, fy, cx, cy]
    truth: Path  #: .npz, see ``film.write_truth``


def render_rgbd_clip(
    folder: Path,
    seconds: float = 8.0,
    fps: float = 30.0,
    size: tuple[int, int] = (640, 480),
    seed: int = 0,
    noise: DepthNoise | None = None,
    performers: Sequence[Performer] | None = None,
) -> RgbdClip:
    """Render hands in a room with a wall, a table and a bystander, as an RGB-D camera sees them.

    Depth is registered to colour. The same seed gives the same clip.

    :param folder: is made where it is missing; what an earlier clip left there is replaced.
    :param size: width and height of the pictures in pixels.
    :param noise: errors of the depth camera; None for those of a RealSense.
    :param performers: whom to film: None for one right hand that wanders (``wandering_performer``), an empty
        list for a room without hands, ``demo_clip.demo_performers`` for the demo's two.
    :raises ConfigurationError: a size or length of nothing, or a folder that cannot be written to.
    """
    frames = round(seconds * fps)
    if frames < 1 or min(size) < 32:
        raise ConfigurationError(f'a clip of {seconds} s at {fps} Hz and {size[0]}x{size[1]} pixels is empty')
    camera = Camera.from_fov(*size)
    if performers is None:
        performers = [wandering_performer('right', seed)]
    clip = _prepared(folder)
    film = Film(performers, camera, seed, Bystander(np.random.default_rng([seed, 9])), with_depth=True)
    rng = np.random.default_rng([seed, 8])
    shots: list[list[Shot]] = []
    for number, frame in enumerate(film.frames([number / fps for number in range(frames)])):
        _write_frame(clip, f'{number:06d}', frame, camera, rng, noise)
        shots.append(frame.shots)
    intrinsics = [camera.fx, camera.fy, camera.cx, camera.cy]
    names = [f'{number:06d}{suffix}' for number in range(frames) for suffix in ('.jpg', '.png')]
    clip.cameras.write_text(json.dumps(dict.fromkeys(names, intrinsics)) + '\n', encoding='utf-8')
    write_truth(clip.truth, camera, performers, shots)
    return clip


def wandering_performer(side: Side, seed: int) -> Performer:
    """A hand that passes through all distances of ``WANDERING_M`` in 8 s, in random poses and places.

    Half of the time it shows the palm, else the back or an edge. It stays in the picture of a camera with a
    field of view of 60 degrees.
    """
    rng = np.random.default_rng([seed, 6])
    count = round(_WANDERING_S / _KEY_S)
    times = np.arange(count) * _WANDERING_S / count
    low, high = WANDERING_M
    wave = np.cos(2 * np.pi * np.arange(count) / count + rng.choice((0.0, np.pi)))
    # The far end of the wave falls between two keys where their number is odd.
    distances = low + (high - low) * (wave - wave.min()) / np.ptp(wave)
    keys = []
    for time_s, distance in zip(times, distances, strict=True):
        room = np.maximum(distance * _PICTURE - _REACH_M, 0.0)
        x, y = rng.uniform(-0.9, 0.9, 2) * room
        kind = rng.random()
        turn = (
            rng.normal(10, 20) if kind < 0.5 else rng.normal(170, 20) if kind < 0.8 else rng.uniform(40, 140)
        )
        lean, tilt = np.clip(rng.normal(0.0, (15.0, 12.0)), -30.0, 30.0)
        gesture = str(rng.choice(list(GESTURES)))
        keys.append(
            Key(
                float(time_s),
                gesture,
                (float(x), float(y), float(distance)),
                (float(turn), float(lean), float(tilt)),
            )
        )
    return Performer(side, keys, _WANDERING_S, seed, _ARM_REACH)


def _prepared(folder: Path) -> RgbdClip:
    """The clip's places, empty."""
    clip = RgbdClip(
        folder / 'images', folder / 'depth', folder / 'masks', folder / 'cameras.json', folder / 'truth.npz'
    )
    try:
        for place in (clip.images, clip.depth, clip.masks):
            place.mkdir(parents=True, exist_ok=True)
            for left in (*place.glob('*.png'), *place.glob('*.jpg')):
                left.unlink()
    except OSError as error:
        raise ConfigurationError(f'{folder}: cannot be written to: {error.strerror}') from error
    return clip


def _write_frame(
    clip: RgbdClip,
    name: str,
    frame: FilmFrame,
    camera: Camera,
    rng: np.random.Generator,
    noise: DepthNoise | None,
) -> None:
    assert frame.surfaces is not None
    write_picture(clip.images / f'{name}.jpg', cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    write_depth(clip.depth / f'{name}.png', camera_depth(frame.surfaces.depth_m, camera, rng, noise))
    write_mask(clip.masks / f'{name}.png', frame.surfaces.hand_mask)
