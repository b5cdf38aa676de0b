"""``hand-mesh bag``: ROS 2 bags of camera images in, bags of hands out, without ROS."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

from hand_mesh_ros.bag_labelling.labelling import SEGMENT_FRAMES, BagJob, BagReport, label_bag
from hand_mesh_ros.bag_labelling.messages import message_types
from hand_mesh_ros.bag_labelling.reading import TopicNames, choose_topics, count_pictures, opened_bag
from hand_mesh_ros.camera import DEFAULT_FOV_DEG, Camera
from hand_mesh_ros.cli.options import add_estimator_options, camera_numbers, make_estimator
from hand_mesh_ros.errors import ConfigurationError, HandMeshError
from hand_mesh_ros.reconstruction import MASK_METHODS

#: Options that do not change the hands, or that a job tells otherwise.
_NOT_SETTINGS = ('command', 'paths', 'out', 'processes', 'threads', 'restart', 'copy', 'jsonl')


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add ``bag`` and its options."""
    parser = commands.add_parser(
        'bag',
        help='write the hands of ROS 2 bags into new bags, without ROS',
        description='Answers every image of a ROS 2 bag, MCAP or sqlite3, in a new MCAP bag. A run that was '
        'killed goes on where it was when the same command is given again.',
    )
    parser.add_argument(
        'paths',
        nargs='+',
        type=Path,
        metavar='BAG',
        help="a bag and the bag to write, IN OUT; with --out, any number of bags. A bag is rosbag2's folder, "
        'or one .mcap or .db3 file',
    )
    parser.add_argument(
        '--out', type=Path, metavar='DIR', help='folder for a bag of hands for each BAG; those there stay'
    )
    parser.add_argument(
        '--processes', type=int, default=1, metavar='N', help='bags at a time (default: %(default)s)'
    )
    parser.add_argument('--copy', action='store_true', help='all that is in BAG goes into the new bag too')
    parser.add_argument(
        '--jsonl',
        type=Path,
        metavar='FILE',
        help='the hands as hands.jsonl too, with run.json beside it; with --out a folder, of a folder a bag',
    )
    parser.add_argument('--smoothing', action='store_true', help='smooth the hands over time')
    parser.add_argument('--no-vertices', action='store_true', help='leave the vertices out of the messages')
    parser.add_argument(
        '--restart', action='store_true', help='begin anew where a run was killed (default: go on)'
    )
    _add_topic_options(parser)
    add_estimator_options(parser)
    parser.set_defaults(command=bag)


def _add_topic_options(parser: argparse.ArgumentParser) -> None:
    topics = parser.add_argument_group('topics and camera')
    topics.add_argument(
        '--image-topic', metavar='T', help='Image or CompressedImage (default: the only one there is)'
    )
    topics.add_argument(
        '--camera-info-topic', metavar='T', help='default: the one beside the images, else the only one'
    )
    topics.add_argument(
        '--depth-topic', metavar='T', help='depth images registered to the images, 16UC1 or 32FC1'
    )
    topics.add_argument('--mask-topic', metavar='T', help='masks of the hands, mono8')
    topics.add_argument(
        '--namespace',
        default='',
        metavar='NS',
        help='hands go to NS/hand_mesh/hands, the hand model to NS/hand_mesh/info (default: none)',
    )
    topics.add_argument(
        '--rectified', action='store_true', help='the images are rectified: P of camera_info, not K and D'
    )
    topics.add_argument(
        '--camera', type=camera_numbers, metavar='FX,FY,CX,CY', help='intrinsics, instead of camera_info'
    )
    topics.add_argument(
        '--fov',
        type=float,
        default=DEFAULT_FOV_DEG,
        metavar='DEG',
        help='horizontal field of view guessed where there is no calibration (default: %(default)s)',
    )
    topics.add_argument(
        '--segment',
        type=int,
        default=SEGMENT_FRAMES,
        metavar='N',
        help='frames after which what was done is safe from being killed (default: %(default)s)',
    )


def bag(arguments: argparse.Namespace) -> int:
    """Returns 1 where a bag or one of its images could not be read, else 0."""
    Camera.from_fov(640, 480, arguments.fov)  # bad numbers are told before any work
    if arguments.camera is not None:
        Camera(640, 480, *arguments.camera)
    if arguments.processes < 1:
        raise ConfigurationError(f'--processes must be at least 1, got {arguments.processes}')
    if arguments.out is None:
        if len(arguments.paths) != 2 or arguments.processes != 1:
            raise ConfigurationError('give IN and OUT, or any number of bags and --out DIR')
        source, out = arguments.paths
        job = _job(arguments, source, out, arguments.jsonl)
        return _tell(job, _alone(arguments, job))
    jobs = list(_jobs(arguments))
    missing = [job for job in jobs if not job.out.exists()]
    for job in jobs:
        if job not in missing:
            print(f'{job.out}: exists already, and is left as it is')
    return max((_tell(job, report) for job, report in _several(arguments, missing)), default=0)


def _jobs(arguments: argparse.Namespace) -> Iterator[BagJob]:
    names = [path.stem if path.is_file() else path.resolve().name for path in arguments.paths]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigurationError(f'several bags are called {", ".join(twice)}: give them one at a time')
    for path, name in zip(arguments.paths, names, strict=True):
        jsonl = None if arguments.jsonl is None else arguments.jsonl / name / 'hands.jsonl'
        yield _job(arguments, path, arguments.out / name, jsonl)


def _job(arguments: argparse.Namespace, source: Path, out: Path, jsonl: Path | None) -> BagJob:
    return BagJob(
        source=source,
        out=out,
        method=arguments.method,
        topics=TopicNames(
            arguments.image_topic, arguments.camera_info_topic, arguments.depth_topic, arguments.mask_topic
        ),
        namespace=arguments.namespace,
        copy=arguments.copy,
        jsonl=jsonl,
        with_vertices=not arguments.no_vertices,
        rectified=arguments.rectified,
        intrinsics=arguments.camera,
        fov_deg=arguments.fov,
        segment_frames=arguments.segment,
        restart=arguments.restart,
        settings={name: str(value) for name, value in vars(arguments).items() if name not in _NOT_SETTINGS},
    )


def _alone(arguments: argparse.Namespace, job: BagJob) -> BagReport:
    with tqdm(total=_frames(job), unit='frame', disable=None) as progress:
        return _labelled(job, arguments, progress.update)


def _labelled(job: BagJob, arguments: argparse.Namespace, progress: Callable[[int], object]) -> BagReport:
    estimator = partial(make_estimator, arguments, streaming=True, smoothing=arguments.smoothing)
    try:
        return label_bag(job, estimator, progress)
    except OSError as error:
        what = error.filename or job.out
        raise ConfigurationError(f'{what}: cannot be written: {error.strerror or error}') from error


def _frames(job: BagJob) -> int:
    with opened_bag(job.source) as reader:
        return count_pictures(
            reader, choose_topics(job.source, reader, job.topics, job.method in MASK_METHODS)
        )


def _several(
    arguments: argparse.Namespace, jobs: list[BagJob]
) -> Iterator[tuple[BagJob, BagReport | HandMeshError]]:
    """Each job with what became of it, as they end, in processes of their own."""
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f'{arguments.out}: cannot be made: {error.strerror}') from error
    message_types()  # told once where it is missing
    if arguments.processes > 1 and not arguments.threads:
        arguments.threads = 1
    os.environ.setdefault('OMP_NUM_THREADS', str(max(arguments.threads, 1)))
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(
        arguments.processes, context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        running = {pool.submit(_one_of_several, job, arguments): job for job in jobs}
        for future in as_completed(running):
            job = running[future]
            report: BagReport | HandMeshError
            try:
                report = future.result()
            except BrokenProcessPool:
                report = ConfigurationError(
                    f'{job.source}: a process was killed, perhaps for want of memory; give the same command '
                    'again, with fewer --processes, to go on'
                )
            yield job, report


def _one_of_several(job: BagJob, arguments: argparse.Namespace) -> BagReport | HandMeshError:
    try:
        return _labelled(job, arguments, lambda frames: None)
    except HandMeshError as error:
        return error


def _tell(job: BagJob, report: BagReport | HandMeshError) -> int:
    """Print what became of a bag; the exit code that is for it."""
    if isinstance(report, HandMeshError):
        print(f'hand-mesh: {report}', file=sys.stderr)
        return 1
    counts = Counter(report.counts)
    resumed = f', {report.resumed} of them by an earlier run' if report.resumed else ''
    print(
        f'{counts["frames"]} frames{resumed}, {counts["seen"]} with a hand, {counts["hands"]} hands, '
        f'{counts["malformed"]} frames malformed -> {job.out}'
    )
    for problem in report.problems:
        print(f'hand-mesh: {problem}', file=sys.stderr)
    for kind in ('depth', 'mask'):
        if counts[f'without {kind}']:
            print(f'{counts[f"without {kind}"]} frames without {kind} of their stamp')
    if counts['guessed']:
        print(
            f'{counts["guessed"]} frames without usable camera_info: a field of view of {job.fov_deg:g} '
            'degrees is guessed, positions are not metric (see --camera)'
        )
    return 1 if counts['malformed'] else 0
