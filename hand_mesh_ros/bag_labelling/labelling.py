"""A bag of pictures to a bag of hands: every picture is answered, and a run that was killed goes on."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from hand_mesh_ros import __version__
from hand_mesh_ros.bag_labelling.decoding import (
    Header,
    camera_of_picture,
    depth_of,
    header_of,
    mask_of,
    rgb_of,
)
from hand_mesh_ros.bag_labelling.identities import Identities, Seen, seen
from hand_mesh_ros.bag_labelling.messages import MessageMaker, message_types
from hand_mesh_ros.bag_labelling.reading import (
    CAMERA_INFO,
    IMAGE,
    RawFrame,
    TopicNames,
    choose_topics,
    count_pictures,
    opened_bag,
    raw_frames,
)
from hand_mesh_ros.bag_labelling.segments import PartialBag, SegmentWriter
from hand_mesh_ros.camera import DEFAULT_FOV_DEG, Camera
from hand_mesh_ros.errors import ConfigurationError, FrameError
from hand_mesh_ros.estimator import Estimate, HandMeshEstimator
from hand_mesh_ros.reconstruction import MASK_METHODS
from hand_mesh_ros.records import dump_record, frame_record, run_record
from hand_mesh_ros.sources import Frame

#: Frames of a segment: what is lost when a run is killed, at most.
SEGMENT_FRAMES = 300

#: Frames before a segment that are looked at again, so that its hands are being followed when it begins.
WARM_UP_FRAMES = 10

_NAMESPACE = re.compile(r'/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*/?', re.ASCII)

_MAX_PROBLEMS = 5  #: that are told one by one


@dataclass(frozen=True)
class BagJob:
    """What is to be done with one bag."""

    source: Path
    out: Path  #: folder of the MCAP bag to write
    method: str
    topics: TopicNames = field(default_factory=TopicNames)
    namespace: str = ''  #: hands go to NAMESPACE/hand_mesh/hands
    copy: bool = False  #: all messages of ``source`` too
    jsonl: Path | None = None  #: the hands as records too; run.json goes beside it
    with_vertices: bool = True  #: in the messages
    rectified: bool = False  #: pictures are rectified: P of CameraInfo instead of K and the distortion
    intrinsics: tuple[float, float, float, float] | None = None  #: fx, fy, cx, cy instead of CameraInfo
    fov_deg: float = DEFAULT_FOV_DEG  #: where there is no calibration
    segment_frames: int = SEGMENT_FRAMES
    restart: bool = False  #: forget what a killed run left
    settings: dict[str, Any] = field(default_factory=dict)  #: of the estimator; a run goes on with the same

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        files = sorted(self.source.glob('*')) if self.source.is_dir() else [self.source]
        return {
            'source': str(self.source.resolve()),
            'bytes': sum(file.stat().st_size for file in files if file.is_file()),
            'version': __version__,
            'method': self.method,
            'topics': list(vars(self.topics).values()),
            'namespace': self.namespace,
            'jsonl': self.jsonl is not None,
            'with_vertices': self.with_vertices,
            'rectified': self.rectified,
            'intrinsics': self.intrinsics,
            'fov_deg': self.fov_deg,
            'segment_frames': self.segment_frames,
            **self.settings,
        }


@dataclass(frozen=True)
class BagReport:
    """What became of a bag."""

    counts: dict[str, int]  #: frames, seen, hands, malformed, without depth, ..., as far as not 0
    problems: tuple[str, ...]  #: the first malformed pictures
    resumed: int  #: frames that an earlier run had answered


def label_bag(
    job: BagJob,
    make_estimator: Callable[[], HandMeshEstimator],
    progress: Callable[[int], object] = lambda frames: None,
) -> BagReport:
    """Write the hands of every picture of a bag into a new one.

    Each segment of pictures is tracked by an estimator of its own, which first looks again at a few pictures
    before it. So what is written does not depend on where a run was killed. A picture that cannot be decoded
    is answered with no hands, and counted.

    :param make_estimator: a fresh one, streaming.
    :param progress: told the number of frames that were answered.
    :raises ConfigurationError: an output that exists, a topic that does not, or an option that cannot work.
    :raises FileFormatError: a damaged bag; what was written before the damage is kept for another run.
    """
    types = message_types()
    partial = PartialBag(job.out, types, job.namespace)
    with opened_bag(job.source) as reader:
        topics = choose_topics(job.source, reader, job.topics, job.method in MASK_METHODS)
        if not count_pictures(reader, topics):
            raise ConfigurationError(f'{job.source}: has no message on {topics.picture}')
        _check_out(job, partial)
        if job.copy:
            partial.check_copy(job.source, reader)
        with partial.begun(job.identity(), job.restart):
            done = partial.finished()
            resumed = sum(partial.state(number)['counts'].get('frames', 0) for number in range(done))
            progress(resumed)
            labeller = _Labeller(job, topics.picture_kind, types, make_estimator, progress)
            frames = raw_frames(job.source, reader, topics)
            count = labeller.write_segments(partial, frames, done)
            run = labeller.run or partial.state(0)['run']
            partial.join(count, job.source if job.copy else None, job.jsonl, run)
            return BagReport(dict(labeller.counts), tuple(labeller.problems[:_MAX_PROBLEMS]), resumed)


def _check_out(job: BagJob, partial: PartialBag) -> None:
    if job.out.exists():
        partial.remove()  # an earlier run may have been killed when all was done but this
        raise ConfigurationError(f'{job.out}: exists already; remove it, or choose another')
    if job.jsonl is not None and job.jsonl.is_dir():
        raise ConfigurationError(f'{job.jsonl}: is a folder; give the file to write')
    if job.namespace.strip('/') and not _NAMESPACE.fullmatch(job.namespace):
        raise ConfigurationError(f'{job.namespace!r} is no namespace of ROS 2: words joined by /')
    if job.segment_frames < 1:
        raise ConfigurationError(f'a segment has at least 1 frame, got {job.segment_frames}')


@dataclass(frozen=True, eq=False)
class _Look:
    """One picture as the estimator takes it."""

    image: np.ndarray | None
    mask: np.ndarray | None
    depth_m: np.ndarray | None
    camera: Camera
    guess: str  #: why the camera is a guess; empty where it is none
    stamp_s: float  #: since the first picture

    def estimated(self, estimator: HandMeshEstimator) -> Estimate:
        return estimator.estimate(
            self.image, self.camera, mask=self.mask, depth_m=self.depth_m, stamp_s=self.stamp_s
        )


class _Labeller:
    """Answers frames, segment by segment, and counts."""

    def __init__(
        self,
        job: BagJob,
        picture_kind: str,
        types: Any,
        make_estimator: Callable[[], HandMeshEstimator],
        progress: Callable[[int], object],
    ) -> None:
        self._job, self._kind, self._types = job, picture_kind, types
        self._make_estimator, self._progress = make_estimator, progress
        self._maker = MessageMaker(types, job.with_vertices)
        self._began_s: float | None = None
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.run: dict[str, Any] = {}

    def write_segments(self, partial: PartialBag, frames: Iterator[RawFrame], done: int) -> int:
        """Write all segments but the first ``done``, which are there; how many there are then."""
        before: deque[RawFrame] = deque(maxlen=WARM_UP_FRAMES)
        state: dict[str, Any] = {}
        size = self._job.segment_frames
        number = 0
        while (first := next(frames, None)) is not None:
            if self._began_s is None:
                self._began_s = _header(first).seconds
            segment = chain([first], islice(frames, size - 1))
            if number < done:
                before.extend(segment)
                state = partial.state(number)
                self.counts.update(state['counts'])
                self.problems += state['problems']
            else:
                with partial.segment(number) as writer:
                    state = self._write_segment(writer, segment, before, state)
            number += 1
        return number

    def _write_segment(
        self,
        writer: SegmentWriter,
        segment: Iterator[RawFrame],
        before: deque[RawFrame],
        state: dict[str, Any],
    ) -> dict[str, Any]:
        """Write one segment; ``before``, the pictures before it, becomes those before the next."""
        counts: Counter[str] = Counter()
        problems: list[str] = []
        last: deque[Seen] = deque(state.get('last', ()), maxlen=WARM_UP_FRAMES)
        identities = Identities(state.get('next_id', 1), state.get('last', ()))
        with self._make_estimator() as estimator:
            identities.warmed_up([self._warm_up(estimator, raw) for raw in before])
            for raw in segment:
                _end_with_parent()
                if raw.index == 0:
                    writer.write_info(raw.time_ns, self._maker.info(estimator))
                    self.run = run_record(estimator)
                last.append(self._answer(writer, raw, estimator, identities, counts, problems))
                before.append(raw)
                self._progress(1)
        self.counts.update(counts)
        self.problems += problems
        writer.state = {
            'counts': counts,
            'problems': problems[:_MAX_PROBLEMS],
            'last': list(last),
            'next_id': identities.next_id,
        } | ({} if state else {'run': self.run})
        return writer.state

    def _warm_up(self, estimator: HandMeshEstimator, raw: RawFrame) -> list[Any]:
        try:
            return list(self._look(raw).estimated(estimator).hands)
        except FrameError:
            return []

    def _answer(
        self,
        writer: SegmentWriter,
        raw: RawFrame,
        estimator: HandMeshEstimator,
        identities: Identities,
        counts: Counter[str],
        problems: list[str],
    ) -> Seen:
        """Write what is seen in one picture."""
        header = _header(raw)
        counts['frames'] += 1
        try:
            look = self._look(raw)
            estimate = look.estimated(estimator)
        except FrameError as error:
            counts['malformed'] += 1
            problems.append(f'{self._job.source}: frame {raw.index}: {error}')
            writer.write_hands(raw.time_ns, self._maker.hands(header, ()))
            if self._job.jsonl is not None:
                name, stamp = str(self._job.source), self._stamp(header)
                record = {
                    'source': name,
                    'frame': raw.index,
                    'stamp': stamp,
                    'hands': [],
                    'error': str(error),
                }
                writer.records.write(dump_record(record) + '\n')
            return []
        hands = identities.named(estimate.hands)
        writer.write_hands(raw.time_ns, self._maker.hands(header, hands))
        if self._job.jsonl is not None:
            self._write_record(writer, raw, look, header, estimate, hands)
        counts['seen'] += bool(hands)
        counts['hands'] += len(hands)
        counts['guessed'] += bool(look.guess)
        for kind in ('depth', 'mask'):
            topic = getattr(self._job.topics, kind)
            counts[f'without {kind}'] += topic is not None and kind not in {self._kind, *raw.companions}
        return seen(hands)

    def _write_record(
        self,
        writer: SegmentWriter,
        raw: RawFrame,
        look: _Look,
        header: Header,
        estimate: Estimate,
        hands: list[Any],
    ) -> None:
        size = (look.camera.height, look.camera.width, 3)
        image = look.image if look.image is not None else np.broadcast_to(np.uint8(0), size)
        frame = Frame(self._job.source, raw.index, self._stamp(header), image)
        estimate = Estimate(tuple(hands), estimate.unresolved, estimate.timing_ms, estimate.detected)
        record = frame_record(frame, look.camera, estimate, estimate.timing_ms, with_vertices=False)
        writer.records.write(dump_record(record) + '\n')

    def _stamp(self, header: Header) -> float:
        """Seconds since the first picture."""
        assert self._began_s is not None
        return header.seconds - self._began_s

    def _look(self, raw: RawFrame) -> _Look:
        """What a picture and its companions hold.

        :raises FrameError: one of them that cannot be decoded.
        """
        picture = self._decoded(raw.data, raw.kind)
        given = {
            kind: self._decoded(raw.companions[kind], IMAGE)
            for kind in raw.companions.keys() & {'depth', 'mask'}
        }
        given[self._kind] = picture
        image = rgb_of(given['image']) if 'image' in given else None
        mask = mask_of(given['mask']) if 'mask' in given else None
        depth_m = depth_of(given['depth']) if 'depth' in given else None
        shown = next(array for array in (image, mask, depth_m) if array is not None)
        camera, guess = self._camera(raw, shown.shape[1], shown.shape[0])
        if depth_m is not None and not camera.calibrated:
            raise FrameError(f'depth needs a camera whose intrinsics are known: {guess}')
        return _Look(image, mask, depth_m, camera, guess, self._stamp(_header(raw)))

    def _camera(self, raw: RawFrame, width: int, height: int) -> tuple[Camera, str]:
        if self._job.intrinsics is not None:
            return Camera(width, height, *self._job.intrinsics), ''
        info = raw.companions.get('camera_info')
        message = None if info is None else self._decoded(info, CAMERA_INFO)
        return camera_of_picture(message, width, height, self._job.rectified, self._job.fov_deg)

    def _decoded(self, data: bytes, kind: str) -> Any:
        try:
            return self._types.deserialize_cdr(data, kind)
        except Exception as error:  # whatever damaged bytes lead to
            raise FrameError(f'{len(data)} bytes are no {kind}: {error!r}') from error


def _header(raw: RawFrame) -> Header:
    """That of the message; where it is damaged, the time in the bag."""
    sec, nanosec = divmod(raw.time_ns, 10**9)
    return header_of(raw.data) or Header(sec, nanosec, '')


def _end_with_parent() -> None:
    """End this process where the one is gone that started it to work for it."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # an exception would only end the task, and the process wait for another
