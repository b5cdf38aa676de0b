"""How steady hands are over a video, smoothed and not, beside MediaPipe Hands, and how late.

Run it as ``python -m hand_mesh_ros.evaluation.jitter VIDEO``; without a video it looks at the rendered clip
of the demo, of which the truth is known, and tells errors against it too.

All that is compared comes from one run over the video: ``mediapipe.solutions.hands`` as its users run it on a
stream; our hands; and the same hands smoothed. Jitter is the mean length of the second difference of
keypoints over consecutive frames, where all three see the same hand. In millimetres it is that of keypoints
from the wrist, as MediaPipe's world landmarks are not placed before the camera; in pixels, of keypoints in
the picture.

Lag is where the velocities of smoothed and unsmoothed keypoints correlate most, in frames; of MediaPipe,
against our unsmoothed ones. Both are averaged over some frames around each first, for noise that they have
in common would have it too small. Where the truth is known, so is the lag behind that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from hand_mesh_ros.benchmark.peer import MediaPipeHands
from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.demo_clip import demo_performers
from hand_mesh_ros.datasets.film import Film
from hand_mesh_ros.errors import HandMeshError
from hand_mesh_ros.estimator import HandMeshEstimator
from hand_mesh_ros.evaluation.tables import markdown
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.hand_model.keypoints import TIP_KEYPOINTS
from hand_mesh_ros.sources import read_frames
from hand_mesh_ros.tracking.smoothing import HandSmoother

PEER, RAW, SMOOTHED, TRUTH = 'MediaPipe Hands', 'hand_mesh_ros', 'hand_mesh_ros, smoothed', 'truth'

#: MediaPipe's hand is ours if its keypoints are on average nearer than this, in sides of our hand's box.
_SAME_HAND = 0.5

#: Lags are sought up to so many frames, of velocities averaged over so many.
_MOST_LAG, _AVERAGED = 6, 5

_RENDERED_FPS = 30.0


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame of what is looked at."""

    image: np.ndarray  #: (H,W,3) uint8 RGB
    stamp_s: float
    camera: Camera
    truth: Mapping[Side, np.ndarray] | None = None  #: keypoints (21,3), metres, camera optical frame


@dataclass(frozen=True, eq=False)
class Points:
    """Keypoints of one hand by one method over F frames, NaN where it was not seen."""

    metres: np.ndarray  #: (F,21,3)
    pixels: np.ndarray  #: (F,21,2)

    @classmethod
    def unseen(cls, frames: int) -> Points:
        """Of a hand that is not seen."""
        return cls(np.full((frames, 21, 3), np.nan), np.full((frames, 21, 2), np.nan))

    @property
    def from_wrist(self) -> np.ndarray:
        """(F,20,3) metres, of all keypoints but the wrist."""
        return (self.metres - self.metres[:, :1])[:, 1:]


@dataclass(frozen=True, eq=False)
class Watched:
    """What was seen in a video."""

    tracks: dict[int, dict[str, Points]]  #: by our id, then by method
    frames: int
    detected: int  #: frames that our detector looked at
    with_hand: dict[str, int]  #: frames in which a method saw a hand
    lost: int  #: how often one of our ids was in a frame and not in the next


def watch(moments: Iterable[Moment], estimator: HandMeshEstimator) -> Watched:
    """Look at a video with MediaPipe and with ``estimator``, which has ``streaming``, not ``smoothing``."""
    smoother, peer = HandSmoother(estimator.models), MediaPipeHands(max_hands=2)
    seen: list[dict[int, dict[str, tuple[np.ndarray, np.ndarray]]]] = []
    detected, with_hand = 0, {PEER: 0, RAW: 0}
    for moment in moments:
        estimate = estimator.estimate(moment.image, moment.camera, stamp_s=moment.stamp_s)
        others = peer.keypoints(moment.image)
        detected += estimate.detected
        with_hand[RAW] += bool(estimate.hands)
        with_hand[PEER] += bool(others)
        seen.append({})
        for hand in estimate.hands:
            smooth = smoother.smoothed(hand, moment.camera, moment.stamp_s)
            ours = {RAW: hand, SMOOTHED: smooth}
            by_method = {method: (each.keypoints_3d, each.keypoints_2d) for method, each in ours.items()}
            same = _same_hand(hand, others)
            if same is not None:
                by_method[PEER] = same
            if moment.truth is not None:
                truth = moment.truth[hand.side]
                by_method[TRUTH] = truth, moment.camera.project(truth)
            seen[-1][hand.track_id] = by_method
    peer.close()
    tracks: dict[int, dict[str, Points]] = {}
    for index, hands in enumerate(seen):
        for track, by_method in hands.items():
            for method, (metres, pixels) in by_method.items():
                points = tracks.setdefault(track, {}).setdefault(method, Points.unseen(len(seen)))
                points.metres[index], points.pixels[index] = metres, pixels
    lost = sum(len(now.keys() - later.keys()) for now, later in pairwise(seen))
    return Watched(tracks, len(seen), detected, with_hand, lost)


def _same_hand(
    hand: Hand, others: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray] | None:
    """The nearest of MediaPipe's hands, metres and pixels, if it is this one."""
    near = [float(np.linalg.norm(pixels - hand.keypoints_2d, axis=1).mean()) for _, pixels in others]
    side = np.ptp(hand.bbox_px.reshape(2, 2), axis=0).max()
    return others[int(np.argmin(near))] if near and min(near) < _SAME_HAND * side else None


def compared(watched: Watched) -> list[dict[str, str | float]]:
    """A row for each method: jitter, lag, and errors where the truth is known; NaN of what is not known."""
    shared = [track for track in watched.tracks.values() if PEER in track]
    knows_truth = any(TRUTH in track for track in watched.tracks.values())
    rows: list[dict[str, str | float]] = []
    for method in (PEER, RAW, SMOOTHED):
        jitter_mm, jitter_px, of_palm = [], [], []
        for track in shared:
            there = _together([track[name] for name in (PEER, RAW, SMOOTHED)])
            points = track[method]
            jitter_mm.append(1e3 * _second_differences(points.from_wrist)[there])
            jitter_px.append(_second_differences(points.pixels)[there])
            of_palm.append(1e3 * np.linalg.norm(points.from_wrist[:, 8], axis=-1))
        row: dict[str, str | float] = {
            'method': method,
            'jitter, mm / frame^2': _mean(jitter_mm),
            'its median': _median(jitter_mm),
            'jitter, px / frame^2': _mean(jitter_px),
            'lag of fingertips, frames': _lag_of(watched, method, RAW, of_tips=True),
            'lag of wrist, frames': _lag_of(watched, method, RAW, of_tips=False),
            'wrist to root of middle finger, mm': _mean(of_palm),
        }
        if knows_truth:
            row['lag of fingertips behind truth'] = _lag_of(watched, method, TRUTH, of_tips=True)
            both = [t for t in watched.tracks.values() if method in t]
            from_wrist = [_errors(t[method].from_wrist, t[TRUTH].from_wrist) for t in both]
            row['error from wrist, mm'] = _mean(from_wrist)
            placed = [] if method == PEER else [_errors(t[method].metres, t[TRUTH].metres) for t in both]
            row['error in camera, mm'] = _mean(placed)
        rows.append(row)
    return rows


def _together(methods: Sequence[Points]) -> np.ndarray:
    """(F-2,) bool: whether all methods see the hand in a frame and the two after."""
    there = np.logical_and.reduce([np.isfinite(points.pixels[:, 0, 0]) for points in methods])
    return there[:-2] & there[1:-1] & there[2:]


def _second_differences(points: np.ndarray) -> np.ndarray:
    """(F-2,K), lengths."""
    return np.linalg.norm(np.diff(points, 2, axis=0), axis=-1)


def _errors(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return 1e3 * np.linalg.norm(points - truth, axis=-1)


def _lag_of(watched: Watched, method: str, reference: str, *, of_tips: bool) -> float:
    """Frames, of all tracks together; NaN of the reference itself and where nothing moves together."""
    if method == reference or (method == PEER and not of_tips):
        return float('nan')
    sums = np.zeros((2, 2 * _MOST_LAG + 1))
    tips = np.array(TIP_KEYPOINTS) - 1
    for track in watched.tracks.values():
        if method in track and reference in track:
            of = [track[name] for name in (reference, method)]
            before, after = (each.from_wrist[:, tips] if of_tips else each.metres[:, :1] for each in of)
            sums += correlation(before, after)
    return lag(sums)


def correlation(reference: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Of velocities at lags of -6 to 6 frames, (2,13): products, and squares of the later ones, summed.

    Points are (F,K,D), NaN where a hand was not seen.
    """
    velocities = [np.diff(_averaged(points), axis=0) for points in (reference, later)]
    frames = len(velocities[0]) - 2 * _MOST_LAG
    if frames < 1:
        return np.zeros((2, 2 * _MOST_LAG + 1))
    windows = [velocities[1][start : start + frames] for start in range(2 * _MOST_LAG + 1)]
    # The same frames for all lags, or those that not all have would shift the maximum.
    there = np.isfinite([velocities[0][_MOST_LAG:][:frames], *windows]).all(axis=(0, 2, 3))
    still = velocities[0][_MOST_LAG:][:frames][there]
    later_ones = [window[there] for window in windows]
    return np.array([[(still * each).sum() for each in later_ones], [(each**2).sum() for each in later_ones]])


def lag(correlations: np.ndarray) -> float:
    """Frames at which the parabola through the top of :func:`correlation` is highest; NaN without one."""
    products, squares = correlations
    # Else the lag would be to where a hand moves more.
    alike = products / np.sqrt(np.maximum(squares, 1e-30))
    top = int(np.argmax(alike))
    if not 0 < top < len(alike) - 1 or alike[top] <= 0.0:
        return float('nan')
    left, middle, right = alike[top - 1 : top + 2]
    return top - _MOST_LAG + 0.5 * float((left - right) / (left - 2.0 * middle + right))


def _averaged(points: np.ndarray) -> np.ndarray:
    """Mean over frames around each, so that it comes neither early nor late."""
    if len(points) < _AVERAGED:
        return points[:0]
    return np.lib.stride_tricks.sliding_window_view(points, _AVERAGED, axis=0).mean(axis=-1)


def _mean(values: Sequence[np.ndarray]) -> float:
    found = np.concatenate([np.ravel(each) for each in values]) if values else np.zeros(0)
    found = found[np.isfinite(found)]
    return float(found.mean()) if found.size else float('nan')


def _median(values: Sequence[np.ndarray]) -> float:
    found = np.concatenate([np.ravel(each) for each in values]) if values else np.zeros(0)
    return float(np.median(found)) if found.size else float('nan')


def video_moments(path: Path) -> Iterator[Moment]:
    """Frames of a video, taken by a camera that nobody knows.

    :raises FileFormatError: a file that cannot be read.
    """
    for frame in read_frames(path):
        height, width = frame.image.shape[:2]
        yield Moment(frame.image, frame.stamp, Camera.from_fov(width, height))


def rendered_moments(seconds: float = 8.0, seed: int = 0) -> Iterator[Moment]:
    """The demo's clip, whose truth is known; the camera is calibrated, the size of the hands is not known."""
    camera = replace(Camera.from_fov(640, 480), calibrated=True)
    performers = demo_performers(seed)
    times = [number / _RENDERED_FPS for number in range(round(seconds * _RENDERED_FPS))]
    for time_s, frame in zip(times, Film(performers, camera, seed).frames(times), strict=True):
        shots = zip(performers, frame.shots, strict=True)
        yield Moment(frame.image, time_s, camera, {p.side: shot.posed.keypoints for p, shot in shots})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m hand_mesh_ros.evaluation.jitter',
        description='How steady hands are over a video, and how late, beside MediaPipe Hands.',
    )
    parser.add_argument('video', type=Path, nargs='?', help='default: the rendered clip of the demo')
    parser.add_argument('--seed', type=int, default=0, help='of the rendered clip (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=0, metavar='N', help='default: one each core')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there too')
    chosen = parser.parse_args(arguments)
    moments = rendered_moments(seed=chosen.seed) if chosen.video is None else video_moments(chosen.video)
    try:
        with HandMeshEstimator(streaming=True, threads=chosen.threads) as estimator:
            watched = watch(moments, estimator)
    except HandMeshError as error:
        print(error, file=sys.stderr)
        return 1
    rows = compared(watched)
    print(markdown(rows))
    print(
        f'\n{watched.frames} frames, {watched.with_hand[RAW]} with a hand '
        f'({PEER}: {watched.with_hand[PEER]}); '
        f'detector in {watched.detected / max(watched.frames, 1):.1%}; {len(watched.tracks)} ids, '
        f'lost {watched.lost} times'
    )
    if chosen.json is not None:
        figures = {
            'video': 'rendered' if chosen.video is None else chosen.video.name,
            'frames': watched.frames,
            'frames_with_hand': watched.with_hand,
            'frames_detected': watched.detected,
            'ids': len(watched.tracks),
            'lost': watched.lost,
            'methods': [{k: None if v != v else v for k, v in row.items()} for row in rows],
        }
        chosen.json.write_text(json.dumps(figures, indent=2) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
