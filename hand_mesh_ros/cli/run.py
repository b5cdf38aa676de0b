"""``hand-mesh run``: images, videos, masks, depth in; overlays, meshes and hands.jsonl out."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.cli.cameras import CameraChoice, add_camera_options
from hand_mesh_ros.cli.frames import Frames, Look
from hand_mesh_ros.cli.options import add_estimator_options, make_estimator
from hand_mesh_ros.detection.boxes import load_boxes
from hand_mesh_ros.errors import CameraError, ConfigurationError, FileFormatError, FrameError
from hand_mesh_ros.estimator import Estimate, HandMeshEstimator
from hand_mesh_ros.hand import Side
from hand_mesh_ros.keyed_files import KeyedFile
from hand_mesh_ros.records import dump_record, frame_record, run_record
from hand_mesh_ros.rendering.meshes import MESH_SUFFIXES, write_mesh
from hand_mesh_ros.rendering.overlay import draw_hands
from hand_mesh_ros.sources import (
    Frame,
    count_frames,
    frame_rate,
    is_utf8,
    is_video,
    missing_frames,
)

#: Endings of the files that a run writes into each folder of its output.
_WRITTEN_SUFFIXES = {'overlays': ('.jpg', '.mp4'), 'meshes': MESH_SUFFIXES}

#: The end of the options' help that speaks of pixels.
_PIXELS_HELP = 'in pixels of the image as its EXIF orientation turns it'

#: Which file belongs to which image.
_NAMES_HELP = "the image's base name, or clip_000012.png for frame 12 of clip.mp4"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``run`` and its options."""
    parser = commands.add_parser('run', help='reconstruct the hands in images, folders and videos')
    parser.add_argument(
        'sources',
        nargs='*',
        type=Path,
        metavar='SOURCE',
        help='image, video or folder; may be left out with --method mask2hand, which looks at masks or depth',
    )
    parser.add_argument(
        '--out',
        required=True,
        type=Path,
        metavar='DIR',
        help='folder for hands.jsonl, run.json, overlays/, meshes/; what an earlier run left is replaced',
    )
    add_camera_options(parser, _PIXELS_HELP)
    parser.add_argument(
        '--boxes',
        type=Path,
        metavar='FILE',
        help=f'JSON object: file name -> list of {{"side", "bbox"}}, {_PIXELS_HELP}',
    )
    parser.add_argument(
        '--masks',
        type=Path,
        metavar='DIR',
        help=f'masks of the hands, white on black, one for each image: {_NAMES_HELP}',
    )
    parser.add_argument(
        '--depth',
        type=Path,
        metavar='DIR',
        help='depth images, pixel on pixel with the images, .png of 16-bit millimetres or .npy of metres; '
        'hands are laid onto them, and become metric. Named as masks are',
    )
    parser.add_argument('--vertices', action='store_true', help='write the vertices to hands.jsonl too')
    parser.add_argument('--meshes', choices=('ply', 'glb'), help='write one mesh file a hand')
    parser.add_argument(
        '--smoothing', action='store_true', help='of videos: smooth the hands over time, not those in --boxes'
    )
    parser.add_argument('--no-overlays', action='store_true', help='write no pictures')
    add_estimator_options(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns 1 when a file could not be read, or not to its end, else 0."""
    frames = Frames(arguments, [arguments.out / name for name in _WRITTEN_SUFFIXES])
    files = frames.files
    camera_of = CameraChoice(arguments)
    boxes = load_boxes(arguments.boxes) if arguments.boxes else None
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        # Before the output is touched: it refuses options that cannot work.
        still_estimator = stack.enter_context(make_estimator(arguments, streaming=False))
        writer = stack.enter_context(_Writer(arguments, files, still_estimator))
        progress = stack.enter_context(tqdm(total=sum(map(count_frames, files)), unit='frame', disable=None))
        for file in files:
            # A video takes an estimator of its own, which remembers the frame before.
            estimator = still_estimator
            if is_video(file):
                estimator = make_estimator(arguments, streaming=True, smoothing=arguments.smoothing)
            try:
                for look in frames.of(file):
                    height, width = look.frame.image.shape[:2]
                    camera = camera_of(file, width, height)
                    here = None if boxes is None else boxes.get(file, [])
                    estimate = estimator.estimate(
                        look.frame.image,
                        camera,
                        here,
                        mask=look.mask,
                        depth_m=look.depth_m,
                        stamp_s=look.frame.stamp,
                    )
                    writer.write(look, camera, estimate, estimator.faces)
                    _count(counts, camera, estimate)
                    progress.update()
                _check_complete(look.frame)
            except (CameraError, FileFormatError, FrameError) as error:
                counts['failed'] += 1
                named = '' if isinstance(error, FileFormatError) else f'{file}: '
                progress.write(f'hand-mesh: {named}{error}', file=sys.stderr)
            if estimator is not still_estimator:
                estimator.close()
    _report(counts, arguments)
    frames.report()
    _report_missing(boxes, arguments.boxes, files)
    _report_missing(camera_of.by_file, arguments.cameras, files)
    return 1 if counts['failed'] else 0


def _check_complete(last: Frame) -> None:
    missing = missing_frames(last)
    if missing:
        raise FileFormatError(
            f'{last.source}: ends after {last.index + 1} frames, about {missing} are missing; '
            'is the file complete?'
        )


def _count(counts: Counter[str], camera: Camera, estimate: Estimate) -> None:
    centred = -0.5 <= camera.cx <= camera.width - 0.5 and -0.5 <= camera.cy <= camera.height - 0.5
    counts.update(
        frames=1,
        seen=int(bool(estimate.hands)),
        hands=len(estimate.hands),
        guessed=int(not camera.calibrated),
        off_centre=int(not centred),
    )


def _report(counts: Counter[str], arguments: argparse.Namespace) -> None:
    print(
        f'{counts["frames"]} frames, {counts["seen"]} with a hand, {counts["hands"]} hands, '
        f'{counts["failed"]} files unreadable or incomplete -> {arguments.out}'
    )
    if counts['guessed']:
        print(
            f'{counts["guessed"]} frames without intrinsics: a field of view of {arguments.fov:g} degrees is '
            'guessed, positions are not metric (see --camera, --cameras)'
        )
    if counts['off_centre']:
        print(
            f'{counts["off_centre"]} frames have their principal point (cx, cy) outside the image: '
            'are the intrinsics those of images of this size?'
        )


def _report_missing(keyed: KeyedFile[Any] | None, path: Path, files: list[Path]) -> None:
    missing = 0 if keyed is None else sum(keyed.get(file) is None for file in files)
    if missing:
        print(f'{missing} files have no entry in {path}')


class _Writer:
    """The output folder: run.json, hands.jsonl, overlays/ and meshes/."""

    def __init__(
        self, arguments: argparse.Namespace, files: list[Path], estimator: HandMeshEstimator
    ) -> None:
        self._run = run_record(estimator)
        self._out: Path = arguments.out
        self._vertices: bool = arguments.vertices
        self._mesh_kind: str | None = arguments.meshes
        self._overlays: bool = not arguments.no_overlays
        self._names = _output_names(files)
        self._video: tuple[Path, cv2.VideoWriter] | None = None

    def __enter__(self) -> _Writer:
        if not is_utf8(self._out):
            raise ConfigurationError(f'--out {self._out}: OpenCV writes only to paths that are UTF-8')
        with _told_if_unwritable(self._out):
            self._remove_earlier_run()
            self._out.mkdir(parents=True, exist_ok=True)
            if self._overlays:
                (self._out / 'overlays').mkdir(exist_ok=True)
            if self._mesh_kind:
                (self._out / 'meshes').mkdir(exist_ok=True)
            (self._out / 'run.json').write_text(dump_record(self._run) + '\n', encoding='utf-8')
            self._records = open(self._out / 'hands.jsonl', 'w', encoding='utf-8')
        return self

    def __exit__(self, *_: object) -> None:
        with _told_if_unwritable(self._out), self._records:
            self._close_video()

    def _remove_earlier_run(self) -> None:
        """Remove the overlays and meshes of an earlier run, which the new hands.jsonl would not speak of."""
        for name, suffixes in _WRITTEN_SUFFIXES.items():
            folder = self._out / name
            left = [path for path in folder.glob('*') if path.suffix in suffixes]
            if left and not (self._out / 'hands.jsonl').exists():
                raise ConfigurationError(
                    f'{folder}: holds files, and not from an earlier run, for there is no hands.jsonl '
                    'beside it; choose another --out'
                )
            for path in left:
                path.unlink()

    def write(self, look: Look, camera: Camera, estimate: Estimate, faces: dict[Side, np.ndarray]) -> None:
        """Write all of one frame."""
        frame, timing_ms = look.frame, {'decode': look.read_ms, **estimate.timing_ms}
        record = dump_record(frame_record(frame, camera, estimate, timing_ms, self._vertices))
        overlay = draw_hands(frame.image, estimate.hands, faces, camera) if self._overlays else None
        name = self._names[frame.source]
        with _told_if_unwritable(self._out):
            self._records.write(record + '\n')
            if self._mesh_kind:
                for i, hand in enumerate(estimate.hands):
                    mesh_name = f'{name}_{frame.index:06d}_{i}_{hand.side}.{self._mesh_kind}'
                    write_mesh(self._out / 'meshes' / mesh_name, hand.vertices, faces[hand.side])
            if overlay is not None:
                self._write_overlay(name, frame, overlay)

    def _write_overlay(self, name: str, frame: Frame, overlay: np.ndarray) -> None:
        pixels = cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR)
        if not is_video(frame.source):
            # Not imwrite: it crashes on a name that is not UTF-8, and does not say what went wrong.
            (self._out / 'overlays' / f'{name}.jpg').write_bytes(cv2.imencode('.jpg', pixels)[1].tobytes())
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
        if self._video is None:
            return
        path, video = self._video
        self._video = None
        video.release()
        if count_frames(path) == 0:  # OpenCV says nothing of a full disk
            raise ConfigurationError(f'{path}: cannot be written; is the disk full?')


@contextmanager
def _told_if_unwritable(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f'{error.filename or out}: cannot be written: {error.strerror}') from error


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
