"""``hand-mesh run``: images, folders and videos in; overlays, meshes and hands.jsonl out."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, count
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from hand_mesh_ros.camera import DEFAULT_FOV_DEG, Camera
from hand_mesh_ros.cli.options import add_estimator_options, camera_numbers, make_estimator
from hand_mesh_ros.detection.boxes import load_boxes
from hand_mesh_ros.errors import ConfigurationError, FileFormatError, FrameError
from hand_mesh_ros.estimator import Estimate
from hand_mesh_ros.hand import Side
from hand_mesh_ros.keyed_files import load_cameras
from hand_mesh_ros.records import dump_record, frame_record
from hand_mesh_ros.rendering.meshes import write_mesh
from hand_mesh_ros.rendering.overlay import draw_hands
from hand_mesh_ros.sources import Frame, count_frames, frame_rate, is_video, list_sources, read_frames


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``run`` and its options."""
    parser = commands.add_parser('run', help='reconstruct the hands in images, folders and videos')
    parser.add_argument('sources', nargs='+', type=Path, metavar='SOURCE', help='image, video or folder')
    parser.add_argument('--out', required=True, type=Path, help='folder for overlays and hands.jsonl')
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        '--camera', type=camera_numbers, metavar='FX,FY,CX,CY', help='intrinsics in pixels, of all images'
    )
    camera.add_argument(
        '--cameras', type=Path, metavar='FILE', help='JSON object: file name -> [fx, fy, cx, cy]'
    )
    parser.add_argument(
        '--fov',
        type=float,
        default=DEFAULT_FOV_DEG,
        metavar='DEG',
        help='horizontal field of view guessed where no intrinsics are given (default: %(default)s)',
    )
    parser.add_argument(
        '--boxes', type=Path, metavar='FILE', help='JSON object: file name -> list of {"side", "bbox"}'
    )
    parser.add_argument('--vertices', action='store_true', help='write the vertices to hands.jsonl too')
    parser.add_argument('--meshes', choices=('ply', 'glb'), help='write one mesh file a hand')
    parser.add_argument('--no-overlays', action='store_true', help='write no pictures')
    add_estimator_options(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns 1 when a file could not be read, else 0."""
    files = list_sources(arguments.sources)
    camera_of = _CameraChoice(arguments)
    boxes = load_boxes(arguments.boxes) if arguments.boxes else None
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        writer = stack.enter_context(_Writer(arguments, files))
        progress = stack.enter_context(tqdm(total=sum(map(count_frames, files)), unit='frame', disable=None))
        still_estimator = stack.enter_context(make_estimator(arguments, streaming=False))
        for file in files:
            # A video takes an estimator of its own, which remembers the frame before.
            estimator = make_estimator(arguments, streaming=True) if is_video(file) else still_estimator
            try:
                for frame, decode_ms in _timed_frames(file):
                    height, width = frame.image.shape[:2]
                    camera = camera_of(file, width, height)
                    here = None if boxes is None else boxes.get(file, [])
                    estimate = estimator.estimate(frame.image, camera, here)
                    writer.write(frame, camera, estimate, decode_ms, estimator.faces)
                    counts.update(
                        frames=1,
                        seen=bool(estimate.hands),
                        hands=len(estimate.hands),
                        guessed=not camera.calibrated,
                    )
                    progress.update()
            except (FileFormatError, FrameError) as error:
                counts['unreadable'] += 1
                progress.write(f'hand-mesh: {error}')
            if estimator is not still_estimator:
                estimator.close()
    _report(counts, arguments)
    return 1 if counts['unreadable'] else 0


def _report(counts: Counter[str], arguments: argparse.Namespace) -> None:
    print(
        f'{counts["frames"]} frames, {counts["seen"]} with a hand, {counts["hands"]} hands, '
        f'{counts["unreadable"]} files unreadable -> {arguments.out}'
    )
    if counts['guessed']:
        print(
            f'{counts["guessed"]} frames without intrinsics: a field of view of {arguments.fov:g} degrees is '
            'guessed, positions are not metric (see --camera, --cameras)'
        )


class _CameraChoice:
    """Which camera took a file: of --cameras, else --camera, else guessed from --fov."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._numbers: tuple[float, ...] | None = arguments.camera
        self._by_file = load_cameras(arguments.cameras) if arguments.cameras else None
        self._fov_deg: float = arguments.fov
        Camera.from_fov(640, 480, self._fov_deg)  # a bad angle is told before any work

    def __call__(self, file: Path, width: int, height: int) -> Camera:
        numbers = self._numbers if self._by_file is None else self._by_file.get(file)
        if numbers is None:
            return Camera.from_fov(width, height, self._fov_deg)
        fx, fy, cx, cy = numbers
        return Camera(width, height, fx, fy, cx, cy)


class _Writer:
    """The output folder: hands.jsonl, overlays/ and meshes/."""

    def __init__(self, arguments: argparse.Namespace, files: list[Path]) -> None:
        self._out: Path = arguments.out
        self._vertices: bool = arguments.vertices
        self._mesh_kind: str | None = arguments.meshes
        self._overlays: bool = not arguments.no_overlays
        self._names = _output_names(files)
        self._video: tuple[Path, cv2.VideoWriter] | None = None

    def __enter__(self) -> _Writer:
        self._out.mkdir(parents=True, exist_ok=True)
        if self._overlays:
            (self._out / 'overlays').mkdir(exist_ok=True)
        if self._mesh_kind:
            (self._out / 'meshes').mkdir(exist_ok=True)
        self._records = open(self._out / 'hands.jsonl', 'w', encoding='utf-8')
        return self

    def __exit__(self, *_: object) -> None:
        self._records.close()
        self._close_video()

    def write(
        self,
        frame: Frame,
        camera: Camera,
        estimate: Estimate,
        decode_ms: float,
        faces: dict[Side, np.ndarray],
    ) -> None:
        """Write all of one frame."""
        timing_ms = {'decode': decode_ms, **estimate.timing_ms}
        self._records.write(dump_record(frame_record(frame, estimate, timing_ms, self._vertices)) + '\n')
        name = self._names[frame.source]
        if self._mesh_kind:
            for i, hand in enumerate(estimate.hands):
                path = self._out / 'meshes' / f'{name}_{frame.index:06d}_{i}_{hand.side}.{self._mesh_kind}'
                write_mesh(path, hand.vertices, faces[hand.side])
        if self._overlays:
            self._write_overlay(name, frame, draw_hands(frame.image, estimate.hands, faces, camera))

    def _write_overlay(self, name: str, frame: Frame, overlay: np.ndarray) -> None:
        pixels = cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR)
        if not is_video(frame.source):
            path = self._out / 'overlays' / f'{name}.jpg'
            if not cv2.imwrite(str(path), pixels):
                raise ConfigurationError(f'{path}: cannot be written')
            return
        path = self._out / 'overlays' / f'{name}.mp4'
        if self._video is None or self._video[0] != path:
            self._close_video()
            size = (pixels.shape[1], pixels.shape[0])
            codec = cv2.VideoWriter.fourcc(*'mp4v')
            self._video = path, cv2.VideoWriter(str(path), codec, frame_rate(frame.source), size)
            if not self._video[1].isOpened():
                raise ConfigurationError(f'{path}: cannot be written')
        self._video[1].write(pixels)

    def _close_video(self) -> None:
        if self._video is not None:
            self._video[1].release()
            self._video = None


def _timed_frames(file: Path) -> Iterator[tuple[Frame, float]]:
    """Frames of a file, each with the milliseconds that reading it took."""
    frames = read_frames(file)
    while True:
        start = time.perf_counter()
        frame = next(frames, None)
        if frame is None:
            return
        yield frame, 1e3 * (time.perf_counter() - start)


def _output_names(files: list[Path]) -> dict[Path, str]:
    """A name for each file's outputs: its stem; where that is taken, with its folder and a number."""
    stems = Counter(file.stem for file in files)
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file in files:
        stem = file.stem if stems[file.stem] == 1 else f'{file.resolve().parent.name}_{file.stem}'
        name = next(n for n in chain([stem], (f'{stem}_{k}' for k in count(2))) if n not in taken)
        names[file] = name
        taken.add(name)
    return names
