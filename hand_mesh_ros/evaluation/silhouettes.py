"""Mask2Hand on the masks of rendered hands, of which everything is known, in the way it is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.datasets.masks import DrawnMask, SyntheticMasks
from hand_mesh_ros.detection.masks import hands_in_mask
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.evaluation.metrics import root_relative_mpjpe
from hand_mesh_ros.evaluation.scores import UNKNOWN, Points, Score, aligned_joint_errors, spatial_measures
from hand_mesh_ros.hand import Hand, Side
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.inference.network import SilhouetteHand, SilhouetteNetwork
from hand_mesh_ros.mask_view import view_of_mask
from hand_mesh_ros.observation import Observation
from hand_mesh_ros.reconstruction.learned_shape import LearnedShape
from hand_mesh_ros.reconstruction.mask2hand import Mask2HandReconstructor
from hand_mesh_ros.rendering.masks import silhouette_overlap

#: The data sets of the table: which share of their masks is spoilt.
WORN_SHARES = {'perfect': 0.0, 'ragged': 1.0}

#: The method; the network's first guess; that of its guesses which is nearest to the truth; the mean hand.
METHOD_ROW, FIRST_ROW, BEST_ROW, MEAN_ROW = ROWS = (
    'mask2hand',
    'mask2hand-first',
    'mask2hand-best',
    'mean-pose',
)

#: What can be said of a hand that nobody turned or placed.
_MEASURES_OF_POSE = ('pa_mpjpe_mm', 'bone_angle_deg', 'auc', 'pa_mpvpe_mm')

#: Masks that are drawn at once.
_BATCH = 32


@dataclass(frozen=True, eq=False)
class _Guess:
    """A hand in the frame of the mask's camera, metres."""

    figure: Points
    confidence: np.ndarray  # (21,)


class _Remembering:
    """A network that remembers what it said of the last crop."""

    def __init__(self, network: SilhouetteNetwork) -> None:
        self._network = network
        self.backend, self.device, self.image_size = network.backend, network.device, network.image_size
        self.weights_hash, self.hand_model_hash = network.weights_hash, network.hand_model_hash
        self.last: tuple[SilhouetteHand, ...] = ()

    def infer(self, crops: np.ndarray, half_sides: np.ndarray) -> tuple[tuple[SilhouetteHand, ...], ...]:
        told = self._network.infer(crops, half_sides)
        (self.last,) = told
        return told

    def close(self) -> None:
        self._network.close()


class SilhouetteRows:
    """The rows of the table, of which each makes a hand of a mask."""

    def __init__(
        self, model: HandModel, network: SilhouetteNetwork, hand_length_m: float | None = None
    ) -> None:
        """Prepare to measure.

        :param model: of right hands.
        :param hand_length_m: wrist to tip of the middle finger, hand flat; None for the model's mean hand.
        :raises ConfigurationError: the model cannot take that length.
        """
        self._model, self._network = model, _Remembering(network)
        models: dict[Side, HandModel] = {'right': model, 'left': model.mirrored()}
        self._method = Mask2HandReconstructor(models, self._network, hand_length_m, refine=True)
        self._shape = LearnedShape(model, network.hand_model_hash, hand_length_m)
        mean = model.posed(np.zeros(3), model.hands_mean, np.zeros(10), np.zeros(3))
        self._mean = Points(mean.keypoints, mean.vertices)

    def scores(self, number: str, dataset: str, drawn: DrawnMask) -> list[Score]:
        """Of every row, in the order of ``ROWS``."""
        truth = Points(drawn.keypoints, drawn.vertices)
        found = dict.fromkeys(ROWS, None) | {MEAN_ROW: _Guess(self._mean, UNKNOWN)}
        for detection in hands_in_mask(drawn.mask > 0, max_hands=1):
            assert detection.mask is not None
            try:
                view = view_of_mask(detection.mask, drawn.camera, self._network.image_size)
            except FrameError:
                continue
            (hand,) = self._method.reconstruct(Observation(drawn.camera, mask=drawn.mask), [detection])
            guesses = [self._placed(told, view.R_crop_camera.T) for told in self._network.last]
            nearest = min(guesses, key=lambda g: root_relative_mpjpe(g.figure.joints, truth.joints))
            found |= {METHOD_ROW: _deployed(hand), FIRST_ROW: guesses[0], BEST_ROW: nearest}
        return [self._score(number, dataset, row, found[row], truth, drawn) for row in ROWS]

    def _placed(self, hand: SilhouetteHand, R_camera_crop: np.ndarray) -> _Guess:
        betas = self._shape.betas(hand.betas)
        posed = self._model.posed(hand.global_orient, hand.hand_pose, betas, np.zeros(3))
        # A longer hand that covers the same pixels is farther away
        moved = hand.wrist * self._shape.enlargement(hand.betas) - posed.keypoints[0]
        joints, vertices = (
            (points + moved) @ R_camera_crop.T for points in (posed.keypoints, posed.vertices)
        )
        return _Guess(Points(joints, vertices), hand.confidence)

    def _score(
        self, number: str, dataset: str, row: str, guess: _Guess | None, truth: Points, drawn: DrawnMask
    ) -> Score:
        measures: dict[str, float] = {}
        if guess is not None:
            measures = spatial_measures(guess.figure, truth)
            if row == MEAN_ROW:
                measures = {name: measures[name] for name in _MEASURES_OF_POSE}
            else:
                measures |= self._overlaps(guess.figure, drawn)
        return Score(
            id=number,
            dataset=dataset,
            method=row,
            found=guess is not None,
            side_correct=None,
            measures=measures,
            joint_errors_m=(
                UNKNOWN if guess is None else aligned_joint_errors(guess.figure.joints, truth.joints)
            ),
            confidence=UNKNOWN if guess is None else guess.confidence,
        )

    def _overlaps(self, figure: Points, drawn: DrawnMask) -> dict[str, float]:
        assert figure.vertices is not None
        masks = {'iou': drawn.mask > 0, 'iou_true': drawn.hand_mask}
        return {
            name: silhouette_overlap(figure.vertices, self._model.faces, drawn.camera, mask)
            for name, mask in masks.items()
        }


def compare_on_silhouettes(
    masks: SyntheticMasks, rows: SilhouetteRows, dataset: str, count: int
) -> Iterator[list[Score]]:
    """Scores of every row on masks 0 to ``count`` - 1, mask by mask."""
    for first in range(0, count, _BATCH):
        numbers = np.arange(first, min(first + _BATCH, count))
        for number, drawn in zip(numbers, masks.drawn(numbers), strict=True):
            yield rows.scores(f'{number}', dataset, drawn)


def _deployed(hand: Hand | None) -> _Guess | None:
    if hand is None:
        return None
    figure = Points(hand.keypoints_3d.astype(float), hand.vertices.astype(float))
    return _Guess(figure, hand.joint_confidence.astype(float))
