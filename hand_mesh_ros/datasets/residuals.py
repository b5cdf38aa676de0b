"""Errors that a real detector made on hands of known geometry, for other hands of like geometry."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from hand_mesh_ros.errors import FileFormatError

#: The bank of this package: MediaPipe on rendered hands, see ``residual_bank``.
SHIPPED_PATH = Path(__file__).parent / 'data' / 'mediapipe_residuals.npz'

#: A hand takes the errors of the nearest hand of one part of the bank, and its number says which part: so
#: hands alike have several to choose from. Parts are no larger than this, to be searched quickly.
_LEAST_PARTS = 8
_LARGEST_PART = 1250

#: Geometry is compared in steps of 1/128 of a half side, up to so many steps: whole numbers of this size are
#: multiplied and added without rounding, so that the same hand is found whatever is searched beside it.
_STEPS = 128
_MOST_STEPS = 256


class Landmarks(NamedTuple):
    """What a detector may say of N hands, or the truth of it, in the crops of their true keypoints.

    Of what form, see ``cues.Cues``.
    """

    keypoints: np.ndarray  #: (N,21,2)
    relative_depth: np.ndarray  #: (N,21)
    world: np.ndarray  #: (N,21,3)


class ResidualBank:
    """Errors of a detector beside the hands on which it made them."""

    def __init__(self, truth: Landmarks, detected: Landmarks) -> None:
        """What was true and what the detector said of the same hands (N of them, at least 1)."""
        self.truth = Landmarks(*(values.astype(np.float32) for values in truth))
        pairs = zip(detected, truth, strict=True)
        self.residuals = Landmarks(*(said.astype(np.float32) - true for said, true in pairs))
        count = len(self.truth.keypoints)
        self._parts = min(count, max(_LEAST_PARTS, -(-count // _LARGEST_PART)))
        self._geometry = _geometry(self.truth)
        self._half_squared_norms = 0.5 * (self._geometry**2).sum(1)

    @classmethod
    def shipped(cls) -> ResidualBank:
        """The bank of this package."""
        return cls.load(SHIPPED_PATH)

    @classmethod
    def load(cls, path: Path) -> ResidualBank:
        """The bank in an .npz with the fields of ``Landmarks``, of the truth, and the same after
        ``detected_``, of what the detector said: (N,21,...) of any float type.

        :raises FileFormatError: it cannot be read or is not of this form.
        """
        names = [*Landmarks._fields, *(f'detected_{name}' for name in Landmarks._fields)]
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values = [np.asarray(arrays[name], np.float32) for name in names]
        except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
            raise FileFormatError(
                f'{path}: not a readable bank of residuals ({error}); '
                'write it with python -m hand_mesh_ros.datasets.residual_bank'
            ) from error
        count = len(values[0]) if values[0].ndim else 0
        for name, array, shape in zip(names, values, 2 * ((21, 2), (21,), (21, 3)), strict=True):
            if array.shape != (count, *shape) or not count:
                raise FileFormatError(
                    f'{path}: {name} has shape {array.shape}, expected (N,{",".join(map(str, shape))})'
                )
            if not np.isfinite(array).all():
                raise FileFormatError(f'{path}: {name} holds a number that is not finite')
        return cls(Landmarks(*values[:3]), Landmarks(*values[3:]))

    def __len__(self) -> int:
        return len(self._geometry)

    def nearest(self, truth: Landmarks, chance: np.ndarray) -> np.ndarray:
        """For each of M hands, one of those in the bank most like it in keypoints and relative depth.

        :param chance: (M,), uniform in 0..1: which of them.
        :returns: (M,) int64, rows of the bank.
        """
        geometry = _geometry(truth)
        part = (chance * self._parts).astype(np.int64)
        found = np.empty(len(part), np.int64)
        for number in np.unique(part):
            rows = np.flatnonzero(part == number)
            # Half of the squared distances less what they all share
            remoteness = self._half_squared_norms[number :: self._parts] - (
                geometry[rows] @ self._geometry[number :: self._parts].T
            )
            found[rows] = number + self._parts * remoteness.argmin(1)
        return found

    def residuals_of(self, rows: np.ndarray) -> Landmarks:
        """What the detector said less the truth, float32, of these rows (M,) of the bank."""
        return Landmarks(*(values[rows] for values in self.residuals))


def _geometry(truth: Landmarks) -> np.ndarray:
    """(N,63) float32, whole numbers."""
    numbers = np.concatenate([truth.keypoints.reshape(-1, 42), truth.relative_depth], axis=1)
    return np.clip(np.rint(numbers * _STEPS), -_MOST_STEPS, _MOST_STEPS).astype(np.float32)
