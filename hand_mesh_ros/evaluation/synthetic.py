"""Methods side by side on rendered hands, of which everything is known: at the crop, without a detector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hand_mesh_ros.crop_view import CropView
from hand_mesh_ros.datasets.cue_noise import NoiseLevels
from hand_mesh_ros.datasets.synthetic import SyntheticHands
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.evaluation.scores import UNKNOWN, Points, Score, aligned_joint_errors, spatial_measures
from hand_mesh_ros.hand_model.fitting import fit_hand, joint_confidence
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS
from hand_mesh_ros.hand_model.model import HandModel

#: Seed of the test's hands: none that training or its held-out hands may have.
TEST_SEED = 1_000_000_009

#: The row of the cues' world landmarks, as a detector would give them.
WORLD_ROW = 'world-landmarks'

#: Every hand has all cues, as with a real detector: what each is worth is told by leaving it out.
TEST_LEVELS = NoiseLevels(keypoints_missing_rate=0.0, depth_missing_rate=0.0, world_missing_rate=0.0)

#: Hands that a method is given at once.
BATCH = 64


@dataclass(frozen=True, eq=False)
class CropHand:
    """What a method makes of a crop. Metres from the wrist keypoint, in the axes of the crop's camera."""

    figure: Points
    confidence: np.ndarray  #: (21,) 0..1, or NaN


class CropMethod(Protocol):
    """A method that sees crops with cues."""

    @property
    def image_size(self) -> int | None:
        """Side in pixels of the crops that it takes; None where any will do."""

    def reconstruct(self, batch: Mapping[str, np.ndarray]) -> list[CropHand | None]:
        """Hands of a batch as ``SyntheticHands.batch`` gives it; only its image and cues may be looked at,
        and the focal length. None where nothing is found."""
        ...


class WorldLandmarks:
    """The cues' world landmarks as they are, scaled to bones as long in all as the mean hand's."""

    image_size = None

    def __init__(self, model: HandModel) -> None:
        self._length = _bones_length(model.rest(np.zeros(10)).keypoints)

    def reconstruct(self, batch: Mapping[str, np.ndarray]) -> list[CropHand | None]:
        """See :class:`CropMethod`."""
        return [
            CropHand(Points(world * (self._length / _bones_length(world))), UNKNOWN) if present[2] else None
            for world, present in zip(batch['cue_world'].astype(float), batch['cue_present'], strict=True)
        ]


class FitOnCrops:
    """The baseline: the hand model fitted to the cues in the crop's camera."""

    image_size = None

    def __init__(self, model: HandModel) -> None:
        self._model = model
        self._length = _bones_length(model.rest(np.zeros(10)).keypoints)

    def reconstruct(self, batch: Mapping[str, np.ndarray]) -> list[CropHand | None]:
        """See :class:`CropMethod`."""
        return [self._fitted({name: v[k] for name, v in batch.items()}) for k in range(len(batch['image']))]

    def _fitted(self, sample: Mapping[str, np.ndarray]) -> CropHand | None:
        if not sample['cue_present'][0]:
            return None
        size = len(sample['image'])
        camera = CropView(np.eye(3), float(sample['focal_px']), size).camera()
        depth = sample['cue_relative_depth'] * (size / 2.0) if sample['cue_present'][1] else None
        world = sample['cue_world'].astype(float)
        try:
            fit = fit_hand(
                self._model,
                sample['cue_keypoints'] * (size / 2.0) + (size - 1) / 2.0,
                world * (self._length / _bones_length(world)) if sample['cue_present'][2] else None,
                camera,
                keypoints_depth=depth,
                weights=(sample['cue_confidence'] > 0).astype(float),
            )
        except FrameError:
            return None
        hand = self._model.posed(fit.global_orient, fit.hand_pose, fit.betas, np.zeros(3))
        root = hand.keypoints[0]
        return CropHand(Points(hand.keypoints - root, hand.vertices - root), joint_confidence(fit, 1.0))


def compare_on_synthetic(
    hands: SyntheticHands, methods: Mapping[str, CropMethod], count: int
) -> Iterator[list[Score]]:
    """Scores of every method on hands 0 to ``count`` - 1, all of a batch of ``BATCH`` hands at a time.

    Positions from the wrist are compared; where the hand is in front of the camera is not.
    """
    for first in range(0, count, BATCH):
        numbers = np.arange(first, min(first + BATCH, count))
        batch = hands.batch(numbers)
        truths = [_truth(hands.model, batch, k) for k in range(len(numbers))]
        scores = []
        for name, method in methods.items():
            found = method.reconstruct(batch)
            for number, hand, truth, visible in zip(numbers, found, truths, batch['visible'], strict=True):
                scores.append(_score(f'{number}', name, hand, truth, ~visible))
        yield scores


def _truth(model: HandModel, batch: Mapping[str, np.ndarray], k: int) -> Points:
    hand = model.posed(batch['global_orient'][k], batch['hand_pose'][k], batch['betas'][k], np.zeros(3))
    return Points(hand.keypoints - hand.keypoints[0], hand.vertices - hand.keypoints[0])


def _score(number: str, method: str, hand: CropHand | None, truth: Points, hidden: np.ndarray) -> Score:
    return Score(
        id=number,
        dataset='synthetic',
        method=method,
        found=hand is not None,
        side_correct=None,
        measures={} if hand is None else spatial_measures(hand.figure, truth, same_frame=False),
        joint_errors_m=UNKNOWN if hand is None else aligned_joint_errors(hand.figure.joints, truth.joints),
        confidence=UNKNOWN if hand is None else hand.confidence,
        hidden=hidden,
    )


def _bones_length(keypoints: np.ndarray) -> float:
    """Summed lengths of the bones of keypoints (21,3), in their unit."""
    return float(np.linalg.norm(keypoints[1:] - keypoints[list(KEYPOINT_PARENTS[1:])], axis=1).sum())
