"""Poses, shapes and views to learn from: wider than any recording, since hands in use are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hand_mesh_ros.datasets.counter_random import normals, uniforms
from hand_mesh_ros.datasets.gestures import GesturePoser
from hand_mesh_ros.datasets.hand_shapes import FINGER_STATES, shape_states, state_angles
from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.hand_model.files import OPEN_HAND_PATH
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import axis_angles

MAX_BETA = 2.5

#: Joints 1..15 of each finger, thumb first, as rows of a pose (15,3).
_FINGER_ROWS = np.array([[12, 13, 14], [0, 1, 2], [3, 4, 5], [9, 10, 11], [6, 7, 8]])
_ROOT_ROWS = np.array([0, 3, 6, 9, 12])

#: Shares of the ways in which a pose is begun: one recorded pose; fingers of several; a named shape; each
#: finger in some state.
_SHARES = np.array([0.30, 0.25, 0.25, 0.20])
_VARIED_SHARE = 0.6
_MAX_VARIATION = np.radians(22.0)
_JITTER = np.radians(3.0)
#: Of views, how many look at the palm, the back or a side rather than from just anywhere.
_COMMON_VIEWS = 0.5

_UNIFORM_COUNT = 24
_NORMAL_COUNT = 15 + 6 + 45 + 10 + 1 + 1  # flexion, roots' other axes, jitter, betas, roll; made even


class HandPoses(NamedTuple):
    """MANO parameters of N right hands, float64."""

    global_orient: np.ndarray  #: (N,3) radians, in a camera that looks at the hand, wrist to middle finger up
    hand_pose: np.ndarray  #: (N,45) radians
    betas: np.ndarray  #: (N,10)


class PoseSampler:
    """Poses by number. The same (seed, number) always gives the same hand."""

    def __init__(self, model: HandModel, seed: int = 0, prior: Path = OPEN_HAND_PATH) -> None:
        """Sample hands of a right-hand ``model``; ``prior`` is an .npz with recorded ``pose_samples`` (N,45).

        :raises FileFormatError: ``prior`` cannot be read or has no such samples.
        """
        if model.side != 'right':
            raise ValueError('poses are sampled for right hands; mirror them for left ones')
        self._seed = seed
        self._prior = _read_prior(prior).reshape(-1, 15, 3)
        self._limits = model.pose_limits
        poser = GesturePoser(model)
        self._states = np.array(
            [poser.hand_pose(state_angles(state)).reshape(15, 3) for state in range(len(FINGER_STATES))]
        )
        self._shapes = shape_states()
        self._flexion = _axes(poser, column=slice(0, 3))
        lift_or_spread, twist = _axes(poser, column=3)[_ROOT_ROWS], _axes(poser, column=4)[[12]]
        self._side_rows = np.append(_ROOT_ROWS, 12)
        self._side_axes = np.concatenate([lift_or_spread, twist])
        rest = model.rest(np.zeros(10)).keypoints
        self._up = (rest[9] - rest[0]) / np.linalg.norm(rest[9] - rest[0])

    def __call__(self, indices: np.ndarray) -> HandPoses:
        """The hands with these numbers (N,), each 0 or more."""
        uniform = uniforms(self._seed, indices, _UNIFORM_COUNT + _NORMAL_COUNT)
        uniform, normal = uniform[:, :_UNIFORM_COUNT], normals(uniform[:, _UNIFORM_COUNT:])
        pose = self._begun(uniform) + self._variation(uniform, normal[:, :66])
        lower, upper = self._limits.T
        return HandPoses(
            global_orient=axis_angles(self._views(uniform[:, 17:24], normal[:, 76])),
            hand_pose=np.clip(pose.reshape(-1, 45), lower, upper),
            betas=np.clip(normal[:, 66:76], -MAX_BETA, MAX_BETA),
        )

    def _begun(self, uniform: np.ndarray) -> np.ndarray:
        """Poses (N,15,3) before they are varied."""
        way = np.searchsorted(np.cumsum(_SHARES)[:-1], uniform[:, 0])
        recorded = (uniform[:, 1:6] * len(self._prior)).astype(np.int64)
        recorded[way == 0] = recorded[way == 0, :1]
        states = (uniform[:, 6:11] * len(self._states)).astype(np.int64)
        named = (uniform[:, 11] * len(self._shapes)).astype(np.int64)
        states[way == 2] = self._shapes[named[way == 2]]
        # A shape is rarely made to its end, and sometimes beyond.
        extent = (0.72 + 0.40 * uniform[:, 12])[:, None, None]
        pose = np.empty((len(uniform), 15, 3))
        by_state = way >= 2
        for finger, rows in enumerate(_FINGER_ROWS):
            pose[:, rows] = self._prior[:, rows][recorded[:, finger]]
            pose[np.ix_(by_state, rows)] = self._states[:, rows][states[by_state, finger]] * extent[by_state]
        return pose

    def _variation(self, uniform: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """What is added (N,15,3) to poses: flexion everywhere, turns of the roots, a little of anything."""
        size = np.where(uniform[:, 13] < _VARIED_SHARE, uniform[:, 14] * _MAX_VARIATION, 0.0)[:, None]
        # Half of what varies is common to a finger's joints, which mostly bend together.
        flexion = normal[:, :15].reshape(-1, 5, 3)
        flexion = 0.8 * flexion + 0.6 * flexion[:, :, :1]
        added = (flexion.reshape(-1, 15) * size)[..., None] * self._flexion
        added += _JITTER * normal[:, 21:66].reshape(-1, 15, 3)
        for k, (row, axis) in enumerate(zip(self._side_rows, self._side_axes, strict=True)):
            added[:, row] += 0.6 * size * normal[:, 15 + k, None] * axis
        return added

    def _views(self, uniform: np.ndarray, roll: np.ndarray) -> np.ndarray:
        """Orientations (N,3,3) in the camera: seen from anywhere, the hand's direction up in the picture."""
        azimuth = 2.0 * np.pi * uniform[:, 0]
        anywhere = 2.0 * uniform[:, 1] - 1.0
        # Sums of uniform numbers: nearly normal, and bounded.
        common = np.sin(np.radians(50.0) * (uniform[:, 2] + uniform[:, 3] + uniform[:, 4] - 1.5))
        along = np.where(uniform[:, 5] < _COMMON_VIEWS, common, anywhere)
        across = np.sqrt(1.0 - along**2)
        side = np.cross(self._up, (0.0, 0.0, 1.0))
        side /= np.linalg.norm(side)
        front = np.cross(self._up, side)
        towards = np.cos(azimuth)[:, None] * side + np.sin(azimuth)[:, None] * front
        forward = along[:, None] * self._up + across[:, None] * towards
        down = along[:, None] * towards - across[:, None] * self._up
        right = np.cross(down, forward)
        angle = np.radians(6.0) * roll[:, None]
        return np.stack(
            [
                np.cos(angle) * right - np.sin(angle) * down,
                np.sin(angle) * right + np.cos(angle) * down,
                forward,
            ],
            axis=1,
        )


def _axes(poser: GesturePoser, column: int | slice) -> np.ndarray:
    """Unit axes (15,3) about which joint angles of that column turn each joint; 0 where they turn none."""
    small = 1e-3
    angles = np.zeros((5, 5))
    angles[:, column] = small
    pose = poser.hand_pose(angles).reshape(15, 3)
    lengths = np.linalg.norm(pose, axis=1, keepdims=True)
    return np.divide(pose, lengths, out=np.zeros_like(pose), where=lengths > small / 2)


def _read_prior(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            samples = np.asarray(arrays['pose_samples'], np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise FileFormatError(f'{path}: holds no readable pose_samples ({error})') from error
    if samples.ndim != 2 or samples.shape[1] != 45 or not len(samples) or not np.isfinite(samples).all():
        raise FileFormatError(f'{path}: pose_samples has shape {samples.shape}, expected finite (N,45)')
    return samples
