"""Smoothing of hands over time, by a filter that is steady at rest and quick in motion.

The filter: G. Casiez, N. Roussel, D. Vogel, "1 euro filter: a simple speed-based low-pass filter for noisy
input in interactive systems", CHI 2012. Rotations are filtered on SO(3): what is left to go is the logarithm
of the rotation from the filtered to the new one, so that nothing wraps. A left hand is smoothed as its
mirror image would be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.hand import UNTRACKED, Hand, Side
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.reconstruction.assembly import changed_hand


@dataclass(frozen=True)
class OneEuro:
    """Settings of the filter for one kind of quantity: it passes what is slower than a cutoff frequency."""

    min_cutoff_hz: float  #: at rest; lower is steadier
    beta: float  #: hertz by which the cutoff rises for each unit a second of speed; higher lags less
    speed_cutoff_hz: float = 1.0  #: of the speed itself, which is noisy


@dataclass(frozen=True)
class SmoothingSettings:
    """How much is smoothed. Beta is in hertz for each radian a second, or for its like."""

    #: direction in which the wrist is seen, x/z and y/z
    direction: OneEuro = OneEuro(4.0, 20.0)
    #: logarithm of the wrist's depth: a single camera tells it by far less exactly
    distance: OneEuro = OneEuro(4.0, 8.0)
    orientation: OneEuro = OneEuro(3.0, 1.0)  #: global_orient, radians
    joints: OneEuro = OneEuro(3.0, 1.0)  #: each joint of hand_pose, radians
    shape_s: float = 2.0  #: betas are the mean of about so many seconds
    max_gap_s: float = 0.3  #: a hand that is back after more than this begins anew


class HandSmoother:
    """Smooths the hands of one stream, each track for itself.

    A track begins anew, with the hand as it came, when it was not seen for ``max_gap_s``, when time stands
    still or goes back, when the hand changes its side or what its scale comes from, and after
    :meth:`forget`. What is not seen for that long is dropped.
    """

    def __init__(self, models: Mapping[Side, HandModel], settings: SmoothingSettings | None = None) -> None:
        """Of hands of these models; None for the settings that are usual."""
        self._models, self._settings = models, settings or SmoothingSettings()
        self._tracks: dict[int, _Track] = {}

    def smoothed(self, hand: Hand, camera: Camera, stamp_s: float) -> Hand:
        """``hand`` as it is in the light of the frames before; side, box, scores and id stay.

        Parameters, vertices, keypoints and frames of the result agree; vertices that were moved apart from
        the parameters stay moved.

        :param hand: its ``track_id`` says which it is; one without is returned as it is.
        :param camera: it took the picture.
        :param stamp_s: when, in seconds. Where it is not finite, all tracks begin anew.
        """
        settings = self._settings
        self._tracks = {
            track: state
            for track, state in self._tracks.items()
            if 0.0 <= stamp_s - state.stamp_s <= settings.max_gap_s
        }
        model = self._models[hand.side]
        seen = _Parameters.of_hand(hand, model)
        if hand.track_id == UNTRACKED or seen is None or not np.isfinite(stamp_s):
            self._tracks.pop(hand.track_id, None)
            return hand
        kind = (hand.side, hand.scale_source)
        track = self._tracks.get(hand.track_id)
        if track is None or track.kind != kind or not stamp_s > track.stamp_s:
            self._tracks[hand.track_id] = _Track(kind, stamp_s, seen)
            return hand
        track.advance(seen, stamp_s, settings)
        return _with(hand, track.filtered, model, camera)

    @property
    def remembered(self) -> int:
        """How many hands are remembered."""
        return len(self._tracks)

    def forget(self) -> None:
        """What comes next is no continuation."""
        self._tracks = {}


@dataclass(frozen=True, eq=False)
class _Parameters:
    """A hand's parameters as they are filtered. Float64."""

    direction: np.ndarray  #: (1,2): the wrist's x/z and y/z
    distance: np.ndarray  #: (1,1): logarithm of its z in metres
    orientation: np.ndarray  #: (1,3,3)
    joints: np.ndarray  #: (15,3,3)
    betas: np.ndarray  #: (10,)

    @classmethod
    def of_hand(cls, hand: Hand, model: HandModel) -> _Parameters | None:
        """None of a hand that has numbers that are none, or is behind the camera."""
        betas = hand.betas.astype(np.float64)
        rotations = rotation_matrices(np.append(hand.global_orient, hand.hand_pose).reshape(16, 3))
        # The wrist, not transl: it does not move when only the shape changes.
        wrist = hand.transl + _wrist_at_rest(model, betas)
        numbers = (betas, rotations, wrist)
        if not all(np.isfinite(values).all() for values in numbers) or wrist[2] <= 0.0:
            return None
        direction, distance = wrist[None, :2] / wrist[2], np.log(wrist[None, 2:])
        return cls(direction, distance, rotations[:1], rotations[1:], betas)

    @property
    def wrist(self) -> np.ndarray:
        """(3,) metres."""
        return np.append(self.direction[0], 1.0) * np.exp(self.distance[0, 0])


@dataclass(eq=False)
class _Filter:
    """What the filter remembers of one kind of quantity, of N of them."""

    speed: np.ndarray | float = 0.0  #: (N,K)

    def step(self, left: np.ndarray, step_s: float, settings: OneEuro) -> np.ndarray:
        """How far to go (N,K) of what is left (N,K) from the filtered values to the new ones."""
        share = _share(settings.speed_cutoff_hz, step_s)
        self.speed = self.speed + share * (left / step_s - self.speed)
        speed = np.linalg.norm(self.speed, axis=1, keepdims=True)
        return _share(settings.min_cutoff_hz + settings.beta * speed, step_s) * left


@dataclass(eq=False)
class _Track:
    """One hand over time."""

    kind: tuple[object, ...]  #: what does not change within a track
    stamp_s: float
    filtered: _Parameters
    age_s: float = 0.0
    direction: _Filter = field(default_factory=_Filter)
    distance: _Filter = field(default_factory=_Filter)
    orientation: _Filter = field(default_factory=_Filter)
    joints: _Filter = field(default_factory=_Filter)

    def advance(self, seen: _Parameters, stamp_s: float, settings: SmoothingSettings) -> None:
        """Take in what was seen at ``stamp_s``, which is later than the last."""
        step_s = stamp_s - self.stamp_s
        self.stamp_s = stamp_s
        # A mean of all so far, and of the last seconds when there are more.
        self.age_s = min(self.age_s + step_s, settings.shape_s)
        before = self.filtered
        self.filtered = _Parameters(
            direction=before.direction
            + self.direction.step(seen.direction - before.direction, step_s, settings.direction),
            distance=before.distance
            + self.distance.step(seen.distance - before.distance, step_s, settings.distance),
            orientation=_turned(
                before.orientation, seen.orientation, self.orientation, step_s, settings.orientation
            ),
            joints=_turned(before.joints, seen.joints, self.joints, step_s, settings.joints),
            betas=before.betas + step_s / (self.age_s + step_s) * (seen.betas - before.betas),
        )


def _turned(
    before: np.ndarray, seen: np.ndarray, memory: _Filter, step_s: float, settings: OneEuro
) -> np.ndarray:
    """Filtered rotations (N,3,3), turned from where they were towards those that are seen."""
    left = axis_angles(before.swapaxes(1, 2) @ seen)
    return before @ rotation_matrices(memory.step(left, step_s, settings))


def _share(cutoff_hz: np.ndarray | float, step_s: float) -> np.ndarray | float:
    """How far a low-pass of first order goes within a step, 0..1."""
    turns = 2.0 * np.pi * cutoff_hz * step_s
    return turns / (1.0 + turns)


def _with(hand: Hand, parameters: _Parameters, model: HandModel, camera: Camera) -> Hand:
    """``hand`` with these parameters, posed anew."""
    as_given = model.posed(hand.global_orient, hand.hand_pose, hand.betas, hand.transl)
    posed = changed_hand(
        model,
        camera,
        hand,
        global_orient=axis_angles(parameters.orientation[0]),
        hand_pose=axis_angles(parameters.joints).reshape(45),
        betas=parameters.betas,
        transl=parameters.wrist - _wrist_at_rest(model, parameters.betas),
        scale=hand.scale_source,
    )
    # Not zero where a refinement moved the vertices alone.
    moved: np.ndarray = hand.vertices - as_given.vertices.astype(np.float32)
    if not moved.any():
        return posed
    turn = parameters.orientation[0] @ as_given.joint_rotations[0].T
    return replace(posed, vertices=(posed.vertices + moved @ turn.T).astype(np.float32))


def _wrist_at_rest(model: HandModel, betas: np.ndarray) -> np.ndarray:
    """The wrist joint (3,) of a hand of this shape at zero pose, about which it turns."""
    return model.regressed_at_rest[0] + model.regressed_by_betas[0] @ betas
