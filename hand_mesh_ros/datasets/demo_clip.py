"""The demo's input: a clip of moving hands, rendered from the project's own hand model, and its truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.film import Film, write_truth
from hand_mesh_ros.datasets.performer import Key, Performer
from hand_mesh_ros.errors import ConfigurationError

#: The choreography repeats after this many seconds.
_PERIOD_S = 8.0


@dataclass(frozen=True)
class DemoClip:
    """Files of a rendered clip."""

    video: Path  #: .mp4
    cameras: Path  #: JSON: file name of the video -> [fx, fy, cx, cy]
    truth: Path  #: .npz, see ``film.write_truth``


_RIGHT = (
    Key(0.0, 'open', (-0.02, 0.00, 0.46), (8, 0, 4)),
    Key(0.9, 'spread', (-0.01, -0.01, 0.36), (0, -4, -4)),
    Key(1.7, 'fist', (-0.02, 0.01, 0.42), (10, 4, 4)),
    Key(2.4, 'open', (-0.06, 0.00, 0.46), (35, 0, 12)),
    Key(3.2, 'pinch', (-0.11, 0.00, 0.47), (30, 5, -4)),
    Key(4.0, 'relaxed', (-0.13, 0.01, 0.50), (60, 0, -10)),
    Key(4.7, 'open', (-0.13, 0.01, 0.50), (150, 0, -6)),
    Key(5.2, 'spread', (-0.13, 0.01, 0.54), (172, -5, -12)),
    Key(6.0, 'victory', (-0.14, 0.02, 0.62), (15, 0, -4)),
    Key(6.7, 'point', (-0.12, 0.01, 0.68), (10, 5, 0)),
    Key(7.3, 'relaxed', (-0.06, 0.00, 0.56), (-10, 4, 8)),
)
_LEFT = (
    Key(0.0, 'relaxed', (0.15, 0.42, 0.50), (0, 0, 0)),
    Key(2.6, 'relaxed', (0.14, 0.42, 0.50), (0, 0, 0)),
    Key(3.4, 'open', (0.11, 0.01, 0.50), (6, 0, 2)),
    Key(4.1, 'spread', (0.11, 0.00, 0.44), (0, 0, -6)),
    Key(4.8, 'pinch', (0.12, 0.00, 0.48), (28, 5, 4)),
    Key(5.5, 'fist', (0.12, 0.02, 0.46), (10, 0, 8)),
    Key(6.1, 'open', (0.13, 0.01, 0.50), (45, 0, -12)),
    Key(6.7, 'point', (0.14, 0.02, 0.50), (10, 0, 0)),
    Key(7.4, 'relaxed', (0.15, 0.42, 0.50), (0, 0, 0)),
)


def render_demo_clip(
    path: Path, seconds: float = 8.0, fps: float = 30.0, size: tuple[int, int] = (640, 480), seed: int = 0
) -> DemoClip:
    """Render a right hand, part of the time a left hand too, gesturing before a cluttered room.

    Writes the video and beside it ``<stem>_cameras.json`` and ``<stem>_truth.npz``.
    ``film.write_truth`` says what the truth holds. The same seed gives the same clip.
    With depth, the same hands are to be had of ``rgbd_clip.render_rgbd_clip``.

    :param path: the .mp4 to write; its folder must exist.
    :param size: width and height of the picture in pixels.
    :raises ConfigurationError: a size or length of nothing, or a video that cannot be written.
    """
    frames = round(seconds * fps)
    if frames < 1 or min(size) < 32:
        raise ConfigurationError(f'a clip of {seconds} s at {fps} Hz and {size[0]}x{size[1]} pixels is empty')
    camera = Camera.from_fov(*size)
    performers = demo_performers(seed)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), fps, size)
    if not writer.isOpened():
        raise ConfigurationError(f'{path}: cannot be written as a video; does its folder exist?')
    shots = []
    try:
        for frame in Film(performers, camera, seed).frames([number / fps for number in range(frames)]):
            writer.write(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
            shots.append(frame.shots)
    finally:
        writer.release()
    clip = DemoClip(
        video=path,
        cameras=path.with_name(f'{path.stem}_cameras.json'),
        truth=path.with_name(f'{path.stem}_truth.npz'),
    )
    intrinsics = [camera.fx, camera.fy, camera.cx, camera.cy]
    clip.cameras.write_text(json.dumps({path.name: intrinsics}) + '\n', encoding='utf-8')
    write_truth(clip.truth, camera, performers, shots)
    return clip


def demo_performers(seed: int) -> list[Performer]:
    """The right hand and the left hand of the demo."""
    return [Performer('right', _RIGHT, _PERIOD_S, seed), Performer('left', _LEFT, _PERIOD_S, seed)]
