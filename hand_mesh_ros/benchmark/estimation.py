"""What the library takes with one backend and one method: to be measured in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.benchmark.chain import maskhand_inputs, part_times
from hand_mesh_ros.benchmark.footage import Footage, decoded, decoded_bgr, decoded_masks
from hand_mesh_ros.benchmark.machine import peak_mib, resident_mib
from hand_mesh_ros.benchmark.peer import MediaPipeHands
from hand_mesh_ros.benchmark.timing import ONE_HAND, TWO_HANDS, Row, Times, alternately, median_of_sum, ratio
from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.mediapipe import MediaPipeDetector
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.estimator import HandMeshEstimator
from hand_mesh_ros.hand import Hand
from hand_mesh_ros.inference.engine import EngineSettings
from hand_mesh_ros.reconstruction import MASK_METHODS

#: Frames that library and peer look at before it is the other's turn: few, so that noise hurts both alike,
#: and yet a stream. Threads that wait busily for more work take from the other in its first frame only.
_BLOCK = 15

#: Of the estimate's times those that are made up of others.
_SUMS = ('reconstruct', 'total')

_CROP_TO_VERTICES = ('crop', 'network', 'place')

_STAGES = (
    'decode',
    'detector',
    'detect',
    'crop',
    'network',
    'encoder',
    'decoder',
    'place',
    'outline',
    'message',
    'library',
    'library, two hands',
    ONE_HAND,
    TWO_HANDS,
)


@dataclass(frozen=True)
class Task:
    """What to measure."""

    method: str
    settings: EngineSettings  #: with threads
    footage: Footage
    warm_up: int  #: frames before those that count
    rounds: int  #: how often all frames are looked at, forth and back in turn


@dataclass(frozen=True)
class Measured:
    """What came out of a task."""

    rows: list[Row]
    #: of the process: before loading, after loading, after running, and the most it ever was until then
    memory_mib: dict[str, float]
    figures: dict[str, float | None]
    hands_seen: float  #: share of the frames
    peer: Row | None  #: None for a method of masks


def measured(task: Task) -> Measured:
    """Measure.

    :raises HandMeshError: a backend that does not work here, or frames without hands.
    """
    return _of_masks(task) if task.method in MASK_METHODS else _of_images(task)


class _Stream:
    """Frames, forth and back without end, and somebody who looks at them."""

    def __init__(self, count: int, look: Callable[[int], Mapping[str, float] | None]) -> None:
        """``look``: at the frame of a number; the times of its stages, None where it sees no hand."""
        self._count, self._look = count, look
        self._next = self._looked = self._seen = 0
        self.times = Times()

    def go_on(self, frames: int, counts: bool = True) -> None:
        """Look at the next frames."""
        for _ in range(frames):
            number = self._next % max(2 * self._count - 2, 1)
            self._next += 1
            stages = self._look(min(number, 2 * self._count - 2 - number))
            if counts:
                self._looked += 1
                self._seen += stages is not None
                self.times.add(stages or {})

    @property
    def seen(self) -> float:
        """Share of the frames with a hand."""
        return self._seen / max(self._looked, 1)


def _in_turns(streams: Sequence[_Stream], frames: int) -> None:
    for done in range(0, frames, _BLOCK):
        for stream in streams:
            stream.go_on(min(_BLOCK, frames - done))


def _of_masks(task: Task) -> Measured:
    masks = decoded_masks(task.footage.masks)
    memory = _Memory()
    with _estimator(task) as estimator:
        memory.loaded()
        library = _Stream(
            len(masks), lambda number: _looked(estimator, task.footage.camera, mask=masks[number])[0]
        )
        library.go_on(task.warm_up, counts=False)
        memory.ran()
        library.go_on(task.rounds * len(masks))
    _require_hands(task, library)
    return _measured(task, memory, library, None, Times())


def _of_images(task: Task) -> Measured:
    images, camera = decoded(task.footage.frames), task.footage.camera
    memory, around, hands = _Memory(), Times(), list[Hand]()

    def look(number: int) -> Mapping[str, float] | None:
        stages, seen = _looked(estimator, camera, images[number])
        hands.extend(seen[: 1 - len(hands)])
        return stages

    with _estimator(task) as estimator:
        memory.loaded()
        library, mediapipe = _Stream(len(images), look), MediaPipeHands()
        library.go_on(task.warm_up, counts=False)
        memory.ran()
        peer = _Stream(len(images), lambda number: _of_peer(mediapipe, images[number]))
        peer.go_on(task.warm_up, counts=False)
        _in_turns([library, peer], task.rounds * len(images))
        mediapipe.close()
        models = estimator.models
    _require_hands(task, library)
    repeats = task.rounds * len(images)
    around.ms |= _decoding_and_detection(task, images).ms
    inputs = maskhand_inputs(images, camera, models, task.settings)
    around.ms |= part_times(inputs, task.settings, task.warm_up, repeats).ms
    around.ms |= _filling(hands, repeats).ms
    around.ms |= _of_two_hands(task).ms
    return _measured(task, memory, library, peer, around)


def _measured(task: Task, memory: _Memory, library: _Stream, peer: _Stream | None, around: Times) -> Measured:
    all_times, times = Times(), library.times
    known = {**around.ms, **times.ms}
    all_times.ms = {stage: known[stage] for stage in (*_STAGES, *known) if stage in known}
    figures = {
        'crop_to_vertices_ms': median_of_sum(times, _CROP_TO_VERTICES),
        'two_hands_over_one': ratio(around.median(TWO_HANDS), around.median(ONE_HAND)),
        'two_hands_library_over_one': ratio(around.median('library, two hands'), times.median('library')),
    }
    if peer is not None:
        figures['library_over_mediapipe'] = ratio(times.median('library'), peer.times.median('tracking'))
    return Measured(
        rows=all_times.rows(task.settings.backend, task.method),
        memory_mib=memory.mib,
        figures=figures,
        hands_seen=library.seen,
        peer=peer.times.rows('mediapipe', 'hands')[0] if peer is not None and peer.seen else None,
    )


def _require_hands(task: Task, library: _Stream) -> None:
    if not library.seen:
        raise ConfigurationError(f'{task.footage.name}: no hand is seen in any frame: give others (--source)')


class _Memory:
    """Resident memory of this process by moment, in MiB."""

    def __init__(self) -> None:
        """Before anything is loaded but the frames."""
        self.mib = {'before loading': resident_mib()}

    def loaded(self) -> None:
        """All is loaded now."""
        self.mib['after loading'] = resident_mib()

    def ran(self) -> None:
        """And has run."""
        self.mib |= {'after running': resident_mib(), 'peak': peak_mib()}


def _estimator(task: Task, max_hands: int = 1) -> HandMeshEstimator:
    settings = task.settings
    return HandMeshEstimator(
        task.method,
        backend=settings.backend,
        precision=settings.precision,
        build_engines=settings.build,
        threads=settings.threads,
        max_hands=max_hands,
        streaming=True,
    )


def _looked(
    estimator: HandMeshEstimator,
    camera: Camera,
    image: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> tuple[Mapping[str, float] | None, Sequence[Hand]]:
    """The times of a frame's stages, None where no hand is seen, and the hands."""
    start = time.perf_counter()
    estimate = estimator.estimate(image, camera, mask=mask)
    spent = 1e3 * (time.perf_counter() - start)
    if not estimate.hands:
        return None, ()
    stages = {stage: ms for stage, ms in estimate.timing_ms.items() if stage not in _SUMS}
    return {**stages, 'library': spent}, estimate.hands


def _of_peer(mediapipe: MediaPipeHands, image: np.ndarray) -> Mapping[str, float] | None:
    start = time.perf_counter()
    seen = mediapipe.sees_hands(image)
    return {'tracking': 1e3 * (time.perf_counter() - start)} if seen else None


def _decoding_and_detection(task: Task, images: Sequence[np.ndarray]) -> Times:
    """``decode`` a JPEG, and ``detector``: finding a hand in a frame of which nothing is known."""
    frames, detector = task.footage.frames, MediaPipeDetector(max_hands=1)
    number = iter(range(10**9))

    def detect() -> None:
        detector.detect(images[next(number) % len(images)])

    def decode() -> None:
        decoded_bgr(frames[next(number) % len(frames)])

    times = alternately({'decode': decode, 'detector': detect}, 2, len(images))
    detector.close()
    return times


def _filling(hands: Sequence[Hand], repeats: int) -> Times:
    """``message``: from a hand to its message and its frames' on /tf; nothing where there is no ROS."""
    try:
        from std_msgs.msg import Header

        from hand_mesh_ros.ros import messages, transforms
    except ImportError:
        return Times()
    header = Header()

    def fill() -> None:
        messages.message_from_hands(header, hands)
        transforms.message_from_hands(header, hands, '')

    return alternately({'message': fill}, 2, repeats if hands else 0)


def _of_two_hands(task: Task) -> Times:
    """``library, two hands``: of the frames in which it sees both."""
    images = decoded(task.footage.two_hands)
    if not images:
        return Times()
    with _estimator(task, max_hands=2) as estimator:

        def look(number: int) -> Mapping[str, float] | None:
            stages, hands = _looked(estimator, task.footage.camera, images[number])
            return {'library, two hands': stages['library']} if stages and len(hands) == 2 else None

        library = _Stream(len(images), look)
        library.go_on(task.warm_up, counts=False)
        library.go_on(task.rounds * len(images))
    return library.times
