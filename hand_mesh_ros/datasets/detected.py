"""Hands of which the cues are what a landmark network says of the very same pictures.

Errors of a real network go with what a picture shows: what is hidden, dark or taken for something else. Drawn
beside the picture they could teach nobody when not to believe it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hand_mesh_ros.crop_image import crop_image
from hand_mesh_ros.crop_view import RMS_SHARE, CropViews, views_of_hands
from hand_mesh_ros.datasets.cue_noise import NoiseLevels, detected_cues_with_gaps, in_other_views
from hand_mesh_ros.datasets.draws import Draws
from hand_mesh_ros.datasets.hand_sample import PlacedHands, sample_fields
from hand_mesh_ros.datasets.residuals import Landmarks, ResidualBank
from hand_mesh_ros.datasets.synthetic import RENDERED_BLOCK, Pictures, SyntheticHands, in_blocks
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.model import HandModel

#: A picture's side in those of a crop, and how large the hand is in it, as a share of what it is in a crop of
#: the picture's side: crops are then enlarged a little, and turned ones mostly find all of what they show.
_PICTURE_SIDE, _ZOOM = 9.0 / 7.0, 0.73

#: Standard deviations of what differs from the true view where a palm detector finds the hand: roll in
#: radians, middle in half sides, logarithm of the zoom; and the mean of that logarithm.
_FIRST_LOOK_CHANGES = np.array([0.15, 0.07, 0.07, 0.1])
_FIRST_LOOK_ZOOM = -0.05

#: A hand is found where the network is surer than this of its presence, where its keypoints are nearer to the
#: true ones than those of a hand to its middle, and where they lie further apart than this. In half sides.
_LEAST_PRESENCE = 0.5
_GREATEST_ERROR = 2.0 * RMS_SHARE
_LEAST_EXTENT = 0.2

#: Purposes of draws, beside those of ``synthetic``.
_ASKED_DRAWS, _FIRST_LOOK_DRAWS, _GAP_DRAWS = 4, 5, 6


class Looked(NamedTuple):
    """What a landmark network says of N crops, each of a right hand. Of what form, see ``cues.Cues``."""

    keypoints: np.ndarray  #: (N,21,2), -1..1 over the crop
    relative_depth: np.ndarray  #: (N,21), behind the wrist, in half sides of the crop
    world: np.ndarray  #: (N,21,3), ``normalised_world``, in the axes of the crop's camera
    presence: np.ndarray  #: (N,), 0..1: how sure it is that there is a hand


#: What a landmark network says of crops (N,S,S,3) uint8 RGB, N at least 1.
Look = Callable[[np.ndarray], Looked]


class DetectedHands:
    """Samples by number, a share of them with a landmark network in the loop; the rest ``SyntheticHands``'.

    In the loop, the network looks at the hand about where a palm detector would have found it. Its landmarks
    are the cues, and they say where the crop of the sample is cut out of the same picture.

    A sample depends on the seed, its number and ``look``. What else is in its batch changes no more than the
    rounding, most of all that of ``look``; of a hand at the very edge of being found that may decide.
    """

    def __init__(
        self,
        seed: int,
        size: int,
        look: Look,
        levels: NoiseLevels | None = None,
        residuals: ResidualBank | None = None,
        model: HandModel | None = None,
        covered: float | None = None,
        share: float = 0.6,
    ) -> None:
        """Prepare skins and backgrounds (about a second). See ``SyntheticHands`` for the others.

        :param size: S, side in pixels of the crops, those that ``look`` gets among them.
        :param levels: in the loop only the rates of what is missing count.
        :param share: of the samples for which the network is asked, 0..1.
        :raises ConfigurationError: ``covered`` or ``share`` is out of its range.
        """
        if not 0.0 <= share <= 1.0:
            raise ConfigurationError(f'share must be from 0 to 1, got {share}')
        self._seed, self._size, self._look, self._share = seed, size, look, share
        self._levels = levels or NoiseLevels()
        self._crops = SyntheticHands(seed, size, self._levels, residuals, model, covered)
        self._pictures = self._crops.sized(round(size * _PICTURE_SIDE))
        self.model = self._crops.model

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The samples with these numbers (N,), at least one: the fields of ``SyntheticSample``, stacked.

        And ``in_the_loop`` (N,) bool: whether the network found the hand, so that its cues are the network's.
        """
        return in_blocks(self._block, indices, RENDERED_BLOCK)

    def _block(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        asked = np.flatnonzero(Draws(self._seed, _ASKED_DRAWS, indices).uniform() < self._share)
        in_the_loop = np.zeros(len(indices), bool)
        parts = []
        if len(asked):
            found = self._found(indices[asked])
            in_the_loop[asked[found.rows]] = True
        if in_the_loop.any():
            parts.append(self._samples(indices[in_the_loop], found))
        if not in_the_loop.all():
            parts.append(self._crops.batch(indices[~in_the_loop]))
        places = np.argsort(np.argsort(~in_the_loop, kind='stable'))
        block = {name: np.concatenate([part[name] for part in parts])[places] for name in parts[0]}
        return {**block, 'in_the_loop': in_the_loop}

    def _found(self, indices: np.ndarray) -> _Found:
        """What the network finds at the first look at the hands with these numbers."""
        pictures = self._pictures.pictures(indices, _ZOOM)
        views = first_views(self._seed, indices, pictures.hands.keypoints, self._size)
        looked = self._look(_cut_out(pictures, views))
        rows = np.flatnonzero(_is_found(looked, views.to_unit(pictures.hands.keypoints)))
        return _Found(
            rows,
            Pictures(
                pictures.images[rows],
                _those(pictures.views, rows),
                PlacedHands(*(values[rows] for values in pictures.hands)),
                pictures.visible[rows],
            ),
            _those(views, rows),
            Looked(*(values[rows] for values in looked)),
        )

    def _samples(self, indices: np.ndarray, found: _Found) -> dict[str, np.ndarray]:
        """The samples with these numbers, of which ``found`` is what the network finds."""
        pictures, first, looked = found.pictures, found.views, found.looked
        # As a detector's user does: the landmarks themselves say where the crop is
        views = views_of_hands(first.rays(looked.keypoints), self._size)
        landmarks = Landmarks(looked.keypoints, looked.relative_depth, looked.world)
        cues = detected_cues_with_gaps(
            in_other_views(landmarks, first, views),
            np.repeat(looked.presence[:, None], 21, axis=1),
            self._levels,
            Draws(self._seed, _GAP_DRAWS, indices),
        )
        fields = sample_fields(pictures.hands, views, pictures.visible, cues)
        return {'image': _cut_out(pictures, views), **fields}


def first_views(seed: int, indices: np.ndarray, keypoints: np.ndarray, size: int) -> CropViews:
    """Where a palm detector might have put the crops, of side ``size``, in which hands are looked at first.

    :param indices: (N,), the hands' numbers.
    :param keypoints: (N,21,3) metres, in the frames of the cameras that took the whole pictures.
    """
    changes = Draws(seed, _FIRST_LOOK_DRAWS, indices).normal(4) * _FIRST_LOOK_CHANGES
    zoom = np.exp(changes[:, 3] + _FIRST_LOOK_ZOOM)
    return views_of_hands(keypoints, size).turned(changes[:, 0], changes[:, 1:3], zoom)


class _Found(NamedTuple):
    """The hands that the network finds, M of N."""

    rows: np.ndarray  #: (M,) of the N
    pictures: Pictures
    views: CropViews  #: of the first look
    looked: Looked


def _is_found(looked: Looked, true_keypoints: np.ndarray) -> np.ndarray:
    """Which hands (N,) bool the network finds where their keypoints (N,21,2) truly are. NaN is not found."""
    errors = np.linalg.norm(looked.keypoints - true_keypoints, axis=2).mean(1)
    extents = np.ptp(looked.keypoints, axis=1).max(1)
    return (looked.presence > _LEAST_PRESENCE) & (errors <= _GREATEST_ERROR) & (extents > _LEAST_EXTENT)


def _cut_out(pictures: Pictures, views: CropViews) -> np.ndarray:
    """Crops (N,S,S,3) of the pictures, in views from the cameras that took the whole pictures."""
    R_crop_picture = views.R_crop_camera @ pictures.views.R_crop_camera.transpose(0, 2, 1)
    from_pictures = CropViews(R_crop_picture, views.focal_px, views.size)
    crops = [
        crop_image(image, pictures.views[row].camera(), from_pictures[row])
        for row, image in enumerate(pictures.images)
    ]
    return np.stack(crops)


def _those(views: CropViews, rows: np.ndarray) -> CropViews:
    return CropViews(views.R_crop_camera[rows], views.focal_px[rows], views.size)
