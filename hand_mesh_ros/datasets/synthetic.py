"""Hands to learn from, without end: rendered crops with cues and truth, each a function of its number.

Right hands only; a left hand is mirrored at its crop before anything looks at it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import NamedTuple

import numpy as np

from hand_mesh_ros.crop_view import CropView, CropViews, looking_along, views_of_hands
from hand_mesh_ros.datasets.cue_noise import (
    NoiseLevels,
    cues_with_gaps,
    detected_landmarks,
    in_other_views,
    true_landmarks,
)
from hand_mesh_ros.datasets.draws import Draws
from hand_mesh_ros.datasets.hand_figure import HandFigures, random_sleeve
from hand_mesh_ros.datasets.hand_sample import PlacedHands, SyntheticSample, sample_fields
from hand_mesh_ros.datasets.invented_visibility import invented_visibility
from hand_mesh_ros.datasets.photograph import Photographer
from hand_mesh_ros.datasets.pose_sampler import HandPoses, PoseSampler
from hand_mesh_ros.datasets.props import Prop, prop_covering, prop_in_front, prop_in_hand
from hand_mesh_ros.datasets.residuals import ResidualBank
from hand_mesh_ros.datasets.scene import Scene, SceneHand
from hand_mesh_ros.datasets.textures import TextureBank
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.kinematics import KeypointKinematics
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles
from hand_mesh_ros.hand_model.model import HandModel, PosedHand
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.rendering.shading import Lighting, srgb_to_linear
from hand_mesh_ros.rendering.zbuffer import rasterise

_DISTANCES_M = (0.2, 2.0)
_FOCAL_SHARES = (0.7, 2.0)  #: of the picture's width
_WIDTHS_PX = (320, 640, 640, 1280, 1920)

#: Shares of the samples.
_SECOND_HAND, _HELD_PROP, _FRONT_PROP, _GLOVE, _LOOSE_CROP = 0.12, 0.22, 0.20, 0.04, 0.08
_FINGERS_UP = 0.5
#: Standard deviations of what is different in a loose crop: roll in radians, middle in half sides, logarithm
#: of the zoom.
_LOOSE_CROP_CHANGES = np.array([0.2, 0.12, 0.12, 0.15])

#: A hand of which other things leave fewer keypoints to be seen is shown without them: no detector would have
#: found it.
_LEAST_VISIBLE = 6

_MOST_COVERED = 0.8

#: Numbers of the poses of second hands follow those of first ones.
_SECOND_HANDS_FROM = 2**40

_PLACEMENT_DRAWS, _CUE_DRAWS, _VISIBILITY_DRAWS = 1, 2, 3

#: Samples that are made at once: as many as a processor's cache holds.
RENDERED_BLOCK, _UNRENDERED_BLOCK = 32, 512


class Pictures(NamedTuple):
    """N hands as their cameras have them, not turned upright, with some of what is around them."""

    images: np.ndarray  #: (N,S,S,3) uint8 RGB
    views: CropViews  #: what the pictures show, from the cameras that took the whole pictures
    hands: PlacedHands
    visible: np.ndarray  #: (N,21) bool, see ``Scene.visible``


class SyntheticHands:
    """Samples by number. The same (seed, number) always gives the same sample, whatever was made before."""

    def __init__(
        self,
        seed: int = 0,
        size: int = 128,
        levels: NoiseLevels | None = None,
        residuals: ResidualBank | None = None,
        model: HandModel | None = None,
        covered: float | None = None,
    ) -> None:
        """Prepare skins and backgrounds (about a second).

        :param size: S, side of the crops in pixels.
        :param levels: of the errors of the cues.
        :param residuals: errors of a real detector, to be mixed with invented ones.
        :param model: a right-hand model; the open one of this package where none is given.
        :param covered: how much of every rendered hand's pixels one thing in front covers, to 0.05, nothing
            else being near; by default there are all kinds of things, or none. For ``cue_batch`` it has no
            meaning.
        :raises ConfigurationError: ``covered`` is not within 0..0.8.
        """
        if covered is not None and not 0.0 <= covered <= _MOST_COVERED:
            raise ConfigurationError(f'covered must be from 0 to {_MOST_COVERED}, got {covered}')
        self._covered = covered
        self._seed, self._size, self._residuals = seed, size, residuals
        self._levels = levels or NoiseLevels()
        self.model = model or load_hand_model()
        self._sampler, self._kinematics = PoseSampler(self.model, seed), KeypointKinematics(self.model)
        self._right, self._left = (HandFigures(m, seed) for m in (self.model, self.model.mirrored()))
        self._textures, self._photographer = TextureBank(seed), Photographer(seed, size)

    def sized(self, size: int) -> SyntheticHands:
        """The same hands in crops of another side, in pixels; skins and backgrounds are shared."""
        other = copy(self)
        other._size, other._photographer = size, Photographer(self._seed, size)
        return other

    def poses(self, indices: np.ndarray) -> HandPoses:
        """Only the parameters of the hands with these numbers (N,), many thousands a second.

        ``global_orient`` is that of ``sample`` but for the perspective and the errors of the crop.
        """
        return self._sampler(indices)

    def sample(self, index: int) -> SyntheticSample:
        """Sample number ``index``, 0 or more."""
        fields = self.batch(np.array([index]))
        return SyntheticSample(**{name: np.asarray(values[0]) for name, values in fields.items()})

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The samples with these numbers (N,): the fields of ``SyntheticSample``, stacked."""
        return in_blocks(self._rendered, indices, RENDERED_BLOCK)

    def cue_batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """What ``batch`` gives but ``image``, without rendering: more than ten thousand samples a second.

        The same hands in the same places; but which keypoints are hidden is invented, so that the errors of
        cues are as large as those of ``batch``, not the same.
        """
        return in_blocks(self._unrendered, indices, _UNRENDERED_BLOCK)

    def _rendered(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        hands = self._placed(indices)
        true_views = views_of_hands(hands.keypoints, self._size)
        rngs, scenes, visible = self._scenes(indices, hands, true_views)
        views, fields = self._seen_by_detector(indices, hands, true_views, visible)
        return {'image': self._images(scenes, views, hands, rngs), **fields}

    def _unrendered(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        hands = self._placed(indices)
        true_views = views_of_hands(hands.keypoints, self._size)
        half_sides_per_m = true_views.half_sides / np.linalg.norm(hands.keypoints[:, 0], axis=1)
        visible = invented_visibility(
            true_landmarks(hands.keypoints, true_views),
            half_sides_per_m,
            Draws(self._seed, _VISIBILITY_DRAWS, indices),
        )
        return self._seen_by_detector(indices, hands, true_views, visible)[1]

    def _placed(self, indices: np.ndarray) -> PlacedHands:
        upright_orient, hand_pose, betas = self.poses(indices)
        rays, distances, source_focal_px, rolls = _placements(Draws(self._seed, _PLACEMENT_DRAWS, indices))
        R_camera_hand = looking_along(rays).transpose(0, 2, 1) @ rolls @ rotation_matrices(upright_orient)
        keypoints = self._kinematics.keypoints_of_many(R_camera_hand, hand_pose, betas)
        transl = rays * distances[:, None] - keypoints.mean(1)
        return PlacedHands(
            R_camera_hand, hand_pose, betas, transl, keypoints + transl[:, None], source_focal_px
        )

    def _seen_by_detector(
        self, indices: np.ndarray, hands: PlacedHands, true_views: CropViews, visible: np.ndarray
    ) -> tuple[CropViews, dict[str, np.ndarray]]:
        """The views in which a detector would cut out the hands, and all fields of samples but ``image``."""
        draws = Draws(self._seed, _CUE_DRAWS, indices)
        truth = true_landmarks(hands.keypoints, true_views)
        detected = detected_landmarks(truth, visible, self._levels, draws, self._residuals)
        # The crop is where a detector says the hand is, and what it says depends on what it sees.
        views = views_of_hands(true_views.rays(detected.keypoints), self._size)
        # Some are cut out around a box that somebody else's detector gave.
        changes = draws.normal(4) * _LOOSE_CROP_CHANGES * (draws.uniform(1) < _LOOSE_CROP)
        views = views.turned(changes[:, 0], changes[:, 1:3], np.exp(changes[:, 3]))

        detected = in_other_views(detected, true_views, views)
        cues = cues_with_gaps(detected, views.to_unit(hands.keypoints), visible, self._levels, draws)
        return views, sample_fields(hands, views, visible, cues)

    def _scenes(
        self, indices: np.ndarray, hands: PlacedHands, views: CropViews
    ) -> tuple[list[np.random.Generator], list[Scene], np.ndarray]:
        """Scenes of N hands and which keypoints (N,21) ``views`` see, after the generators that go on."""
        rngs = [np.random.default_rng([self._seed, int(index)]) for index in indices]
        scenes, visible = [], np.empty((len(indices), 21), bool)
        for row, index in enumerate(indices):
            scene, visible[row] = self._scene(int(index), hands, row, views[row], rngs[row])
            scenes.append(scene)
        return rngs, scenes, visible

    def _scene(
        self, index: int, hands: PlacedHands, row: int, view: CropView, rng: np.random.Generator
    ) -> tuple[Scene, np.ndarray]:
        """The scene of the hand in that row, number ``index``, and which keypoints (21,) ``view`` sees."""
        keypoints = hands.keypoints[row]
        scene = self._crowded_scene(index, hands, row, view, rng)
        visible = scene.visible(keypoints, view)
        if visible.sum() < _LEAST_VISIBLE and self._covered is None:
            scene = scene.alone()
            visible = scene.visible(keypoints, view)
        return scene, visible

    def _crowded_scene(
        self, index: int, hands: PlacedHands, row: int, view: CropView, rng: np.random.Generator
    ) -> Scene:
        keypoints = hands.keypoints[row]
        orient = axis_angles(hands.R_camera_hand[row])
        hand = self.model.posed(orient, hands.hand_pose[row], hands.betas[row], np.zeros(3))
        sleeve, skin = random_sleeve(rng), int(rng.integers(2**31))
        tint = np.exp(rng.normal(0.0, 0.06, 3))
        glove = srgb_to_linear(rng.uniform(0.05, 0.95, 3)) if rng.random() < _GLOVE else None

        def dressed(figures: HandFigures, posed: PosedHand, moved: np.ndarray) -> SceneHand:
            bend = rng.normal(0.0, 0.35, 3)
            vertices = figures.coarse_vertices(posed, bend, sleeve) + moved
            return SceneHand(figures, vertices, sleeve, skin, tint, glove)

        dressed_hands = [dressed(self._right, hand, hands.transl[row])]
        if self._covered is not None:
            # Of numbers of its own: all else in the picture stays as it is, however much is covered
            own = np.random.default_rng([self._seed, index, 2])
            cover = self._cover(dressed_hands[0], keypoints, view, own)
            return Scene(dressed_hands, cover, _random_lighting(rng))
        if rng.random() < _SECOND_HAND:
            figures, other = self._second_hand(index, rng)
            moved = keypoints.mean(0) + _beside(rng) - other.keypoints.mean(0)
            dressed_hands.append(dressed(figures, other, moved))
        props: list[Prop] = []
        if rng.random() < _HELD_PROP:
            props.append(prop_in_hand(keypoints, rng))
        if rng.random() < _FRONT_PROP:
            props.append(prop_in_front(keypoints, rng))
        return Scene(dressed_hands, props, _random_lighting(rng))

    def _cover(
        self, hand: SceneHand, keypoints: np.ndarray, view: CropView, rng: np.random.Generator
    ) -> list[Prop]:
        """What covers the asked share of ``hand``'s pixels in ``view``, its arm not counted."""
        if not self._covered:
            return []
        vertices = hand.coarse_vertices
        faces = rasterise(
            vertices @ view.R_crop_camera.T, hand.figures.coarse_faces, view.camera()
        ).face_index
        of_hand = (faces >= 0) & (faces < len(self.model.faces))
        own = vertices[: len(self.model.v_template)]
        return [prop_covering(self._covered, of_hand, keypoints, own, view, rng)]

    def _second_hand(self, index: int, rng: np.random.Generator) -> tuple[HandFigures, PosedHand]:
        """Another hand, mostly a left one."""
        orient, pose, betas = (v[0] for v in self.poses(np.array([index + _SECOND_HANDS_FROM])))
        figures = self._left if rng.random() < 0.7 else self._right
        if figures is self._left:
            orient, pose = mirrored_axis_angles(orient), mirrored_axis_angles(pose)
        return figures, figures.model.posed(orient, pose, betas, np.zeros(3))

    def _images(
        self, scenes: list[Scene], views: CropViews, hands: PlacedHands, rngs: list[np.random.Generator]
    ) -> np.ndarray:
        rows = enumerate(zip(scenes, hands.source_focal_px, rngs, strict=True))
        return np.stack([self._image(scene, views[row], focal, rng) for row, (scene, focal, rng) in rows])

    def _image(
        self, scene: Scene, view: CropView, source_focal_px: float, rng: np.random.Generator
    ) -> np.ndarray:
        background = self._textures.patch(self._size, rng)
        prop_texture = np.full((self._size, self._size, 3), 128, np.uint8)
        of_props = rng.spawn(1)[0]
        if scene.has_props and of_props.random() < 0.6:
            prop_texture = self._textures.patch(self._size, of_props)
        light = scene.light(view, background, prop_texture, crease=float(rng.uniform(0.3, 0.8)))
        return self._photographer.picture(light, source_focal_px / view.focal_px, rng)

    def picture(self, index: int, zoom: float) -> tuple[np.ndarray, np.ndarray, CropView]:
        """Hand number ``index`` alone as ``pictures`` has it.

        :returns: the picture (S,S,3) uint8 RGB, the true keypoints (21,3) in metres, in the frame of the
            camera that took the whole picture, and the view from there that the picture shows.
        """
        taken = self.pictures(np.array([index]), zoom)
        return taken.images[0], taken.hands.keypoints[0], taken.views[0]

    def pictures(self, indices: np.ndarray, zoom: float) -> Pictures:
        """The hands with these numbers (N,), at least one, as their cameras have them.

        :param zoom: below 1; a hand is so many times as large as in the crop of a sample.
        """
        hands = self._placed(indices)
        crops = views_of_hands(hands.keypoints, self._size)
        rngs, scenes, visible = self._scenes(indices, hands, crops)
        # Not of the scene's numbers: it is the same view, whatever else is in it
        own = [np.random.default_rng([self._seed, int(index), 1]) for index in indices]
        moved = np.array([rng.uniform(-0.5, 0.5, 2) for rng in own]) * (1.0 / zoom - 1.0)
        ahead = CropViews(looking_along(crops.R_crop_camera[:, 2]), crops.focal_px, crops.size)
        views = ahead.turned(np.zeros(len(indices)), moved, np.full(len(indices), zoom))
        return Pictures(self._images(scenes, views, hands, rngs), views, hands, visible)


def _placements(draws: Draws) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where N hands are: unit directions (N,3), distances (N,) in metres, focal lengths (N,), in pixels, of
    cameras that have them in their pictures, and turns (N,3,3) there of hands whose fingers point up."""
    uniform = draws.uniform(7)
    width = np.array(_WIDTHS_PX)[(uniform[:, 0] * len(_WIDTHS_PX)).astype(np.int64)]
    shortest, longest = _FOCAL_SHARES
    focal_share = shortest + (longest - shortest) * uniform[:, 1]
    nearest, farthest = np.log(_DISTANCES_M)
    distance = np.exp(nearest + (farthest - nearest) * uniform[:, 2])
    slopes = 0.84 * (uniform[:, 3:5] - 0.5) * (1.0, 0.75) / focal_share[:, None]
    rays = np.column_stack([slopes, np.ones(len(slopes))])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    # Mostly the fingers still do.
    reach = np.where(uniform[:, 5] < _FINGERS_UP, np.pi / 2, np.pi)
    turns = np.zeros((len(rays), 3))
    turns[:, 2] = reach * (2.0 * uniform[:, 6] - 1.0)
    return rays, distance, focal_share * width, rotation_matrices(turns)


def _beside(rng: np.random.Generator) -> np.ndarray:
    """Where a second hand is, from the first: (3,) metres."""
    angle, away = rng.uniform(0.0, 2 * np.pi), rng.uniform(0.05, 0.15)
    return np.array([away * np.cos(angle), away * np.sin(angle), rng.uniform(-0.05, 0.10)])


def _random_lighting(rng: np.random.Generator) -> Lighting:
    """Mostly from above and from the camera's side; warm or cold; hard or soft."""
    direction = rng.normal(0.0, 0.7, 3) + (0.0, -0.6, -0.7)
    warmth, sky_warmth = rng.normal(0.0, (0.12, 0.06))
    lamp = rng.uniform(0.15, 1.2) * np.exp(np.array([warmth, 0.0, -warmth]))
    sky = rng.uniform(0.2, 0.7) * np.exp(np.array([sky_warmth, 0.0, -sky_warmth]))
    ground = sky * rng.uniform(0.3, 0.9)
    return Lighting(
        direction=tuple(direction),
        lamp=tuple(lamp),
        sky=tuple(sky),
        ground=tuple(ground),
        gloss=rng.uniform(0.0, 0.12),
        shininess=rng.uniform(8.0, 40.0),
    )


def in_blocks(
    make: Callable[[np.ndarray], dict[str, np.ndarray]], indices: np.ndarray, size: int
) -> dict[str, np.ndarray]:
    """What ``make`` makes of ``indices`` (N,), of so many at a time, stacked."""
    blocks = [make(indices[first : first + size]) for first in range(0, max(len(indices), 1), size)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
