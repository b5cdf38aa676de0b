"""What a landmark detector would say of a hand of which the truth is known.

A detector's errors are not white: whole hands are shifted, fingers drift from root to tip, what is far from
the wrist in depth is misplaced together, hidden parts are guessed, and fingers are taken for each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.crop_view import CropViews
from hand_mesh_ros.cues import Cues, normalised_world
from hand_mesh_ros.datasets.draws import Draws
from hand_mesh_ros.datasets.residuals import Landmarks, ResidualBank

#: How far each keypoint lies along its finger, 0 at the root .. 1 at the tip.
_ALONG = np.array([0.0, *np.tile([0.25, 0.5, 0.75, 1.0], 5)], np.float32)
#: To be used with ``take``: indexing would order memory, and with it the rounding of sums, by how many hands
#: there are.
_FINGER = np.array([0, *np.repeat(np.arange(5), 4)])
_FIRST = np.arange(1, 21, 4)  #: the first keypoint of each finger

#: MediaPipe's depth is about this much of the true one.
_RELATIVE_DEPTH_GAIN = 0.5


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
    bank_rate: float = 0.6  #: share of samples that take the residuals of a bank, where there is one
    bank_scale: tuple[float, float] = (0.15, 1.1)  #: of a hand's residuals; photographs' are smaller


def true_landmarks(keypoints: np.ndarray, views: CropViews) -> Landmarks:
    """The truth of N hands in their crops, without error.

    :param keypoints: (N,21,3) metres, in the frame of the camera that took the whole picture.
    """
    points = keypoints @ views.R_crop_camera.transpose(0, 2, 1)
    depth = points[..., 2]
    return Landmarks(
        keypoints=views.to_unit(keypoints),
        relative_depth=(depth / depth[:, :1] - 1.0) * views.half_sides[:, None],
        world=normalised_world(points),
    )


def detected_landmarks(
    truth: Landmarks,
    visible: np.ndarray,
    levels: NoiseLevels,
    draws: Draws,
    bank: ResidualBank | None = None,
) -> Landmarks:
    """What a detector might say of N hands, in the same crops.

    :param visible: (N,21) bool.
    :param bank: errors of a real detector for some of the hands; for all of them they are invented without.
    """
    truth = Landmarks(*(np.asarray(values, np.float32) for values in truth))
    overall = np.exp(levels.overall_spread * draws.normal(1, 1))
    moved = overall * _structured(truth, levels, draws)
    deepened, bent = _depth_error(truth, levels, draws), _world_error(truth.world, levels, draws)
    if bank is not None:
        moved, deepened, bent = _partly_real(Landmarks(moved, deepened, bent), truth, levels, draws, bank)
    # Hidden parts are guessed, those of one finger together.
    guessed = draws.normal(5, 2).take(_FINGER, axis=1) * _ALONG[:, None] + draws.normal(21, 2)
    moved += levels.occluded * 0.7 * overall * guessed * ~visible[:, :, None]
    outliers = draws.uniform(21, 1) < levels.outlier_rate
    keypoints = truth.keypoints + moved + levels.outlier * draws.normal(21, 2) * outliers
    depth = truth.relative_depth + deepened
    return Landmarks(
        keypoints=_confused(keypoints, levels, draws),
        relative_depth=depth - depth[:, :1],
        world=normalised_world(truth.world + bent),
    )


def in_other_views(landmarks: Landmarks, views: CropViews, others: CropViews) -> Landmarks:
    """Landmarks of N hands in crops ``views`` as the crops ``others``, of the same cameras, have them."""
    turns = views.R_crop_camera @ others.R_crop_camera.transpose(0, 2, 1)
    return Landmarks(
        keypoints=others.to_unit(views.rays(landmarks.keypoints)),
        relative_depth=landmarks.relative_depth * (others.half_sides / views.half_sides)[:, None],
        world=landmarks.world @ turns,
    )


def cues_with_gaps(
    detected: Landmarks, true_keypoints: np.ndarray, visible: np.ndarray, levels: NoiseLevels, draws: Draws
) -> Cues:
    """The cues of N hands, stacked: (N,21,2) and so on.

    :param detected: in the final crops.
    :param true_keypoints: (N,21,2), likewise.
    :param visible: (N,21) bool.
    """
    present = _present(levels, draws)
    confidence = _confidence(detected.keypoints - true_keypoints, visible, draws)
    return _given(detected, confidence, present, levels, draws)


def detected_cues_with_gaps(
    detected: Landmarks, confidence: np.ndarray, levels: NoiseLevels, draws: Draws
) -> Cues:
    """The cues of N hands of which a detector itself says how sure it is: (N,21). See ``cues_with_gaps``."""
    return _given(detected, confidence, _present(levels, draws), levels, draws)


def _present(levels: NoiseLevels, draws: Draws) -> np.ndarray:
    """Which cues N hands have at all, (N,3) bool."""
    missing = np.array([levels.keypoints_missing_rate, levels.depth_missing_rate, levels.world_missing_rate])
    return draws.uniform(3) >= missing


def _given(
    detected: Landmarks, confidence: np.ndarray, present: np.ndarray, levels: NoiseLevels, draws: Draws
) -> Cues:
    """The cues that are ``present`` (N,3), and of them all keypoints but a few."""
    confidence = confidence * present[:, :1]
    confidence[draws.uniform(21) < levels.keypoint_missing_rate] = 0.0
    return Cues(
        keypoints=np.where(confidence[:, :, None] > 0, detected.keypoints, 0.0).astype(np.float32),
        confidence=confidence.astype(np.float32),
        relative_depth=(detected.relative_depth * present[:, 1:2]).astype(np.float32),
        world=(detected.world * present[:, 2:, None]).astype(np.float32),
        present=present,
    )


def _partly_real(
    invented: Landmarks, truth: Landmarks, levels: NoiseLevels, draws: Draws, bank: ResidualBank
) -> Landmarks:
    """Errors of which a share of the hands has those of the bank, all three from the same hand of it."""
    real = bank.residuals_of(bank.nearest(truth, draws.uniform(1)[:, 0]))
    taken = draws.uniform(1)[:, 0] < levels.bank_rate
    # One factor for all three: where a detector misreads the picture it misreads the depth, too
    scale = draws.between(*levels.bank_scale, 1)[:, 0].astype(np.float32)
    mixed = []
    for made_up, said in zip(invented, real, strict=True):
        rows = (slice(None), *(None,) * (said.ndim - 1))
        mixed.append(np.where(taken[rows], scale[rows] * said, made_up))
    return Landmarks(*mixed)


def _structured(truth: Landmarks, levels: NoiseLevels, draws: Draws) -> np.ndarray:
    """Displacements (N,21,2) of keypoints."""
    offsets = truth.keypoints - truth.keypoints.mean(1, keepdims=True)
    quarter_turned = offsets[:, :, ::-1] * np.array([-1.0, 1.0], np.float32)
    displaced = levels.shift * draws.normal(1, 2) + levels.scale * draws.normal(1, 1) * offsets
    displaced += levels.roll_rad * draws.normal(1, 1) * quarter_turned
    displaced += levels.finger_drift * draws.normal(5, 2).take(_FINGER, axis=1) * _ALONG[:, None]
    from_root = truth.keypoints - truth.keypoints.take(_FIRST[_FINGER], axis=1)
    from_root[:, 0] = 0.0
    displaced += levels.finger_length * draws.normal(5, 1).take(_FINGER, axis=1) * from_root
    displaced += levels.depth_shear * draws.normal(1, 2) * truth.relative_depth[:, :, None]
    return displaced + levels.jitter * draws.normal(21, 2)


def _confused(keypoints: np.ndarray, levels: NoiseLevels, draws: Draws) -> np.ndarray:
    """Keypoints (N,21,2) of which some hands have one finger put onto its neighbour."""
    uniform, jitter = draws.uniform(3), levels.jitter * draws.normal(3, 2)
    rows = np.flatnonzero(uniform[:, 0] < levels.confused_finger_rate)
    finger = 1 + (4 * uniform[rows, 1]).astype(np.int64)
    beyond = (finger == 1) | ((finger < 4) & (uniform[rows, 2] < 0.5))
    neighbour = np.where(beyond, finger + 1, finger - 1)
    # The root, in the palm, is seen for what it is; what is beyond it goes to the neighbour.
    after_root = np.arange(1, 4)
    other = keypoints[rows[:, None], _FIRST[neighbour][:, None] + after_root]
    keypoints[rows[:, None], _FIRST[finger][:, None] + after_root] = other + jitter[rows]
    return keypoints


def _confidence(errors: np.ndarray, visible: np.ndarray, draws: Draws) -> np.ndarray:
    """Confidences (N,21): of many detectors one number for all; else a poor guess at the true error."""
    evidence = 2.5 - 12.0 * np.linalg.norm(errors, axis=2) - 1.5 * ~visible + draws.normal(21)
    one_for_all = draws.uniform(1) < 0.5
    return np.where(one_for_all, draws.between(0.5, 1.0, 1), 1.0 / (1.0 + np.exp(-evidence)))


def _depth_error(truth: Landmarks, levels: NoiseLevels, draws: Draws) -> np.ndarray:
    """Errors (N,21) of relative depths of about the gain and correlation of MediaPipe's."""
    from_wrist = truth.keypoints - truth.keypoints[:, :1]
    tilt = (from_wrist * draws.normal(1, 2)).sum(2)
    drift = draws.normal(5).take(_FINGER, axis=1) * _ALONG
    noise = 0.7 * _standardised(tilt) + 0.6 * _standardised(drift) + 0.39 * draws.normal(21)
    # Noise of this size beside the signal gives that correlation.
    size = truth.relative_depth.std(1, keepdims=True) * np.sqrt(1.0 / levels.depth_correlation**2 - 1.0)
    gain = _RELATIVE_DEPTH_GAIN * np.exp(0.25 * draws.normal(1))
    return gain * (truth.relative_depth + size * noise) - truth.relative_depth


def _world_error(world: np.ndarray, levels: NoiseLevels, draws: Draws) -> np.ndarray:
    """Errors (N,21,3) of world landmarks: turned, flattened, the fingers straighter than they are."""
    bends = draws.uniform(5) < 0.4
    straightened = (draws.between(0.0, levels.world_straightened, 5) * bends).astype(np.float32)
    fingers = world[:, 1:].reshape(-1, 5, 4, 3)
    reach = np.linalg.norm(np.diff(fingers, axis=2), axis=3).cumsum(2)[..., None]
    first = fingers[:, :, :1]
    straight = first + reach * first / np.linalg.norm(first, axis=3, keepdims=True)
    noisy = world.copy()
    beyond = noisy[:, 1:].reshape(-1, 5, 4, 3)[:, :, 1:]
    beyond += straightened[:, :, None, None] * (straight - fingers[:, :, 1:])
    noisy += levels.world_drift * draws.normal(5, 3).take(_FINGER, axis=1) * _ALONG[:, None]
    noisy += levels.world_jitter * draws.normal(21, 3)
    noisy[:, :, 2] *= draws.between(0.7, 1.1, 1)
    # For the few degrees meant here the first order of a rotation does.
    return noisy + np.cross(levels.world_roll_rad * draws.normal(1, 3), noisy) - world


def _standardised(values: np.ndarray) -> np.ndarray:
    """Values (N,21) with unit deviation."""
    return values / np.maximum(values.std(1, keepdims=True), 1e-6)
