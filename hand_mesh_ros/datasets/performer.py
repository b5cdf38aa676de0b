"""A clothed hand that gestures: where it is and how it is posed at any moment of a choreography."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hand_mesh_ros.datasets.gestures import GesturePoser, gesture_angles
from hand_mesh_ros.datasets.scenery import ClothedHand
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.model import HandModel, PosedHand
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.rendering.shading import Lighting, shade

SIDES: tuple[Side, Side] = ('right', 'left')

LIGHTING = Lighting(direction=(-0.55, -0.75, -0.75), lamp=(1.0, 0.96, 0.90))

#: From the palm to the elbow, camera optical frame, metres, right and left.
_ELBOWS = {'right': np.array([-0.06, 0.36, 0.10]), 'left': np.array([0.06, 0.36, 0.10])}


@dataclass(frozen=True)
class Key:
    """Where one hand is at one moment; between two of them everything moves smoothly."""

    time_s: float
    gesture: str
    palm_m: tuple[float, float, float]  #: root of the middle finger, camera optical frame
    #: About the forearm (0 shows the palm, 180 the back); fingers towards the camera; in the picture
    #: (clockwise for a right hand).
    turn_lean_tilt_deg: tuple[float, float, float]


@dataclass(frozen=True)
class Shot:
    """One hand in one frame."""

    global_orient: np.ndarray
    hand_pose: np.ndarray
    transl: np.ndarray
    posed: PosedHand


class Performer:
    """One clothed hand and the part it plays."""

    def __init__(
        self, side: Side, keys: Sequence[Key], period_s: float, seed: int, reach: float = 1.0
    ) -> None:
        """Dress a hand that follows ``keys``, the first at 0 s, and begins again after ``period_s``.

        :param reach: how far the arm is seen, 1 being to the elbow.
        """
        self.side = side
        self.model: HandModel = load_hand_model(None, side)
        # Both hands are one person's.
        self.betas = np.random.default_rng(seed).normal(0.0, 0.5, 10)
        self.clothed = ClothedHand(self.model, self.betas, tone=0.22, cloth_srgb=(62, 84, 122), seed=seed)
        self._keys, self._period_s = keys, period_s
        self._elbow = reach * _ELBOWS[side]
        self._poser = GesturePoser(self.model)
        self._sway = np.random.default_rng([seed, SIDES.index(side)]).uniform(0.0, 2 * np.pi, 6)

    def at(self, time_s: float) -> Shot:
        """The hand at a moment."""
        time_s %= self._period_s
        before = max((k for k in self._keys if k.time_s <= time_s), key=lambda k: k.time_s)
        later = [k for k in self._keys if k.time_s > time_s]
        after, end_s = (later[0], later[0].time_s) if later else (self._keys[0], self._period_s)
        share = (time_s - before.time_s) / (end_s - before.time_s)
        share = share * share * (3.0 - 2.0 * share)
        angles = _mix(gesture_angles(before.gesture), gesture_angles(after.gesture), share)
        # Nobody holds a hand quite still; whole periods, so that the clip closes on itself.
        wave = np.sin(2 * np.pi * time_s / self._period_s * np.array([3, 2, 4, 3, 5, 2]) + self._sway)
        palm = _mix(before.palm_m, after.palm_m, share) + 0.004 * wave[:3]
        degrees = _mix(before.turn_lean_tilt_deg, after.turn_lean_tilt_deg, share) + 2.0 * wave[3:]
        global_orient = axis_angles(_orientation(self.side, np.radians(degrees)))
        hand_pose = self._poser.hand_pose(angles)
        origin = self.model.posed(global_orient, hand_pose, self.betas, np.zeros(3)).keypoints[9]
        transl = palm - origin
        return Shot(
            global_orient, hand_pose, transl, self.model.posed(global_orient, hand_pose, self.betas, transl)
        )

    def mesh(self, shot: Shot) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V,3) and linear colours (V,3) of hand, arm and sleeve."""
        elbow = shot.posed.keypoints[9] + self._elbow
        vertices, normals = self.clothed.mesh(shot.posed, elbow)
        return vertices, shade(self.clothed.albedo, vertices, normals, LIGHTING)


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


def _mix(first: ArrayLike, second: ArrayLike, share: float) -> np.ndarray:
    return np.asarray(first) * (1.0 - share) + np.asarray(second) * share
