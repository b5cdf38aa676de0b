"""What a landmark detector would say of a hand of which the truth is known.

A detector's errors are not white: whole hands are shifted, fingers drift from root to tip, what is far from
the wrist in depth is misplaced together, hidden parts are guessed, and fingers are taken for each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hand_mesh_ros.cues import Cues, normalised_world
from hand_mesh_ros.errors import FileFormatError

#: How far each keypoint lies along its finger, 0 at the root .. 1 at the tip.
_ALONG = np.array([0.0, *np.tile([0.25, 0.5, 0.75, 1.0], 5)])
_FINGER = np.array([0, *np.repeat(np.arange(5), 4)])
_FIRST = np.arange(1, 21, 4)  #: the first keypoint of each finger

#: MediaPipe's depth is about this much of the true one.
_RELATIVE_DEPTH_GAIN = 0.5
_NEIGHBOURS = 8


@dataclass(frozen=True)
class NoiseLevels:
    """Standard deviations; lengths in half sides of the crop, in which a hand's keypoints have 0.42 RMS."""

    overall_spread: float = 0.6  #: of the logarithm of a sample's own factor on all that follows
    shift: float = 0.02
    scale: float = 0.025
    roll_rad: float = 0.04
    finger_drift: float = 0.03  #: at the tip, falling to 0 at the root
    finger_length: float = 0.06  #: share of the finger's length in the picture
    depth_shear: float = 0.06  #: displacement of what lies a unit behind the wrist
    jitter: float = 0.008
    occluded: float = 0.05  #: added to hidden keypoints, half of it common to a finger
    outlier: float = 0.20
    outlier_rate: float = 0.01  #: share of keypoints
    confused_finger_rate: float = 0.02  #: share of samples with one finger put onto its neighbour
    depth_correlation: float = 0.8  #: of the relative depth with the true one
    world_roll_rad: float = 0.10
    world_drift: float = 0.12  #: at the tip, in hand sizes (RMS distance of its keypoints from their mean)
    world_jitter: float = 0.03
    world_straightened: float = 0.5  #: most that a finger's world landmarks are straightened
    keypoint_missing_rate: float = 0.01  #: share of keypoints with confidence 0
    keypoints_missing_rate: float = 0.05  #: share of samples without that cue at all
    depth_missing_rate: float = 0.10
    world_missing_rate: float = 0.15
    bank_rate: float = 0.6  #: share of samples whose keypoints take residuals of a bank, where there is one
    bank_scale: tuple[float, float] = (0.15, 1.1)


@dataclass(frozen=True, eq=False)
class ResidualBank:
    """Errors of a real detector on hands of known geometry, all in crops as ``crop_view`` makes them."""

    keypoints: np.ndarray  #: (N,21,2) float32: the truth, -1..1 over the crop
    residuals: np.ndarray  #: (N,21,2) float32: what the detector said, less the truth

    @classmethod
    def load(cls, path: Path) -> ResidualBank:
        """The bank in an .npz with ``keypoints`` and ``residuals``, (N,21,2) both.

        :raises FileFormatError: it cannot be read or is not of this form.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                keypoints, residuals = (np.asarray(arrays[k], np.float32) for k in ('keypoints', 'residuals'))
        except (OSError, KeyError, ValueError) as error:
            raise FileFormatError(
                f'{path}: not a readable bank of residuals ({error}); write it with numpy.savez'
            ) from error
        for name, values in (('keypoints', keypoints), ('residuals', residuals)):
            if values.shape[1:] != (21, 2) or values.shape != keypoints.shape or not len(values):
                raise FileFormatError(f'{path}: {name} has shape {values.shape}, expected (N,21,2)')
            if not np.isfinite(values).all():
                raise FileFormatError(f'{path}: {name} holds a number that is not finite')
        return cls(keypoints, residuals)

    def residual(self, keypoints: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The errors (21,2) of one of the hands most like ``keypoints`` (21,2)."""
        flat = self.keypoints.reshape(-1, 42)
        # Half of the squared distances less what they all share; as a product it takes a tenth of the time.
        remoteness = self._half_squared_norms - flat @ keypoints.astype(np.float32).ravel()
        count = min(_NEIGHBOURS, len(flat))
        nearest = np.argpartition(remoteness, count - 1)[:count]
        return self.residuals[rng.choice(nearest)].astype(np.float64)

    @cached_property
    def _half_squared_norms(self) -> np.ndarray:
        return 0.5 * (self.keypoints**2).sum((1, 2))


def noisy_keypoints(
    keypoints: np.ndarray,
    relative_depth: np.ndarray,
    visible: np.ndarray,
    levels: NoiseLevels,
    rng: np.random.Generator,
    bank: ResidualBank | None = None,
) -> np.ndarray:
    """Keypoints (21,2) as a detector might place them.

    :param keypoints: (21,2), the truth, -1..1 over the crop.
    :param relative_depth: (21,), the true one, behind the wrist, in half sides of the crop.
    :param visible: (21,) bool.
    """
    overall = float(np.exp(rng.normal(0.0, levels.overall_spread)))
    hidden = levels.occluded * overall * ~visible[:, None]
    of_finger = rng.normal(size=(5, 2))[_FINGER]
    displaced = hidden * 0.7 * (of_finger * _ALONG[:, None] + rng.normal(size=(21, 2)))
    if bank is not None and rng.random() < levels.bank_rate:
        displaced += rng.uniform(*levels.bank_scale) * bank.residual(keypoints, rng)
    else:
        displaced += overall * _structured(keypoints, relative_depth, levels, rng)
    outliers = rng.random(21) < levels.outlier_rate
    displaced[outliers] += rng.normal(0.0, levels.outlier, (int(outliers.sum()), 2))
    noisy = keypoints + displaced
    if rng.random() < levels.confused_finger_rate:
        finger = int(rng.integers(1, 5))
        neighbour = finger + 1 if finger == 1 or (finger < 4 and rng.random() < 0.5) else finger - 1
        # The root, in the palm, is seen for what it is; what is beyond it goes to the neighbour.
        noisy[_FIRST[finger] + 1 : _FIRST[finger] + 4] = noisy[
            _FIRST[neighbour] + 1 : _FIRST[neighbour] + 4
        ] + rng.normal(0.0, levels.jitter, (3, 2))
    return noisy


def detector_cues(
    noisy: np.ndarray,
    truth: np.ndarray,
    points: np.ndarray,
    relative_depth: np.ndarray,
    visible: np.ndarray,
    levels: NoiseLevels,
    rng: np.random.Generator,
) -> Cues:
    """The cues of a hand.

    :param noisy: (21,2), its keypoints as ``noisy_keypoints`` gave them, -1..1 over the final crop.
    :param truth: (21,2), the true ones, likewise.
    :param points: (21,3) metres, the true ones, in the crop's camera.
    :param relative_depth: (21,), the true one, behind the wrist, in half sides of the crop.
    :param visible: (21,) bool.
    """
    missing = np.array([levels.keypoints_missing_rate, levels.depth_missing_rate, levels.world_missing_rate])
    present = rng.random(3) >= missing
    confidence = _confidence(noisy - truth, visible, rng)
    confidence[rng.random(21) < levels.keypoint_missing_rate] = 0.0
    depth = _noisy_depth(truth, relative_depth, levels, rng)
    world = normalised_world(_noisy_world(points, levels, rng))
    return Cues(
        keypoints=np.where(present[0] & (confidence[:, None] > 0), noisy, 0.0).astype(np.float32),
        confidence=(confidence * present[0]).astype(np.float32),
        relative_depth=(depth * present[1]).astype(np.float32),
        world=(world * present[2]).astype(np.float32),
        present=present,
    )


def _structured(
    keypoints: np.ndarray, relative_depth: np.ndarray, levels: NoiseLevels, rng: np.random.Generator
) -> np.ndarray:
    middle = keypoints.mean(0)
    offsets = keypoints - middle
    quarter_turned = offsets[:, ::-1] * (-1.0, 1.0)
    displaced = rng.normal(0.0, levels.shift, 2) + rng.normal(0.0, levels.scale) * offsets
    displaced += rng.normal(0.0, levels.roll_rad) * quarter_turned
    displaced += rng.normal(0.0, levels.finger_drift, (5, 2))[_FINGER] * _ALONG[:, None]
    from_root = keypoints - keypoints[_FIRST[_FINGER]]
    from_root[0] = 0.0
    displaced += rng.normal(0.0, levels.finger_length, (5, 1))[_FINGER] * from_root
    displaced += rng.normal(0.0, levels.depth_shear, 2) * relative_depth[:, None]
    return displaced + rng.normal(0.0, levels.jitter, (21, 2))


def _confidence(errors: np.ndarray, visible: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Confidences (21,): of many detectors one number for all; else a poor guess at the true error."""
    if rng.random() < 0.5:
        return np.full(21, rng.uniform(0.5, 1.0))
    evidence = 2.5 - 12.0 * np.linalg.norm(errors, axis=1) - 1.5 * ~visible + rng.normal(0.0, 1.0, 21)
    return 1.0 / (1.0 + np.exp(-evidence))


def _noisy_depth(
    keypoints: np.ndarray, relative_depth: np.ndarray, levels: NoiseLevels, rng: np.random.Generator
) -> np.ndarray:
    """Relative depths (21,), 0 at the wrist, of about the gain and correlation of MediaPipe's."""
    tilt = (keypoints - keypoints[0]) @ rng.normal(size=2)
    drift = rng.normal(size=5)[_FINGER] * _ALONG
    noise = 0.7 * tilt / max(tilt.std(), 1e-6) + 0.6 * drift / max(drift.std(), 1e-6)
    noise += 0.39 * rng.normal(size=21)
    # Noise of this size beside the signal gives that correlation.
    size = relative_depth.std() * np.sqrt(1.0 / levels.depth_correlation**2 - 1.0)
    gain = _RELATIVE_DEPTH_GAIN * np.exp(rng.normal(0.0, 0.25))
    depth = gain * (relative_depth + size * noise)
    return depth - depth[0]


def _noisy_world(points: np.ndarray, levels: NoiseLevels, rng: np.random.Generator) -> np.ndarray:
    """World landmarks (21,3), metres: the hand turned, flattened, its fingers straighter than they are."""
    hand = points - points[0]
    size = np.sqrt(((hand - hand.mean(0)) ** 2).sum(1).mean())
    noisy = hand.copy()
    straightened = rng.uniform(0.0, levels.world_straightened, 5) * (rng.random(5) < 0.4)
    for finger, first in enumerate(_FIRST):
        reach = np.linalg.norm(np.diff(hand[first : first + 4], axis=0), axis=1).cumsum()[:, None]
        along = hand[first] / np.linalg.norm(hand[first])
        straight = hand[first] + reach * along
        noisy[first + 1 : first + 4] += straightened[finger] * (straight - hand[first + 1 : first + 4])
    noisy += levels.world_drift * size * rng.normal(size=(5, 3))[_FINGER] * _ALONG[:, None]
    noisy += levels.world_jitter * size * rng.normal(size=(21, 3))
    noisy[:, 2] *= rng.uniform(0.7, 1.1)
    # For the few degrees meant here the first order of a rotation does.
    return noisy + np.cross(rng.normal(0.0, levels.world_roll_rad, 3), noisy)
