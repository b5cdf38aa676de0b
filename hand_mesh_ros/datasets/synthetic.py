"""Hands to learn from, without end: rendered crops with cues and truth, each a function of its number.

Right hands only; a left hand is mirrored at its crop before anything looks at it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hand_mesh_ros.crop_view import CropView, CropViews, looking_along, view_of_hand, views_of_hands
from hand_mesh_ros.datasets.cue_noise import (
    NoiseLevels,
    cues_with_gaps,
    detected_landmarks,
    in_other_views,
    true_landmarks,
)
from hand_mesh_ros.datasets.draws import Draws
from hand_mesh_ros.datasets.hand_figure import HandFigures, random_sleeve
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
_RENDERED_BLOCK, _UNRENDERED_BLOCK = 32, 512


@dataclass(frozen=True, eq=False)
class SyntheticSample:
    """One crop of a right hand, what a detector says of it, and the truth in the crop's camera.

    That camera looks at the hand along its axis, pinhole, ``focal_px``, its centre in the middle of the crop.
    The root is keypoint 0, the wrist.
    """

    image: np.ndarray  #: (S,S,3) uint8 RGB
    cue_keypoints: np.ndarray  #: (21,2) float32, -1..1 over the crop; see ``cues.Cues`` for these
    cue_confidence: np.ndarray  #: (21,) float32
    cue_relative_depth: np.ndarray  #: (21,) float32
    cue_world: np.ndarray  #: (21,3) float32
    cue_present: np.ndarray  #: (3,) bool: keypoints, relative depth, world landmarks
    global_orient: np.ndarray  #: (3,) float32 radians, axis-angle
    hand_pose: np.ndarray  #: (45,) float32 radians
    betas: np.ndarray  #: (10,) float32
    keypoints_3d: np.ndarray  #: (21,3) float32 metres, from the root
    root_depth_m: np.ndarray  #: () float32, along the optical axis
    focal_px: np.ndarray  #: () float32
    keypoints_2d: np.ndarray  #: (21,2) float32 pixels of the crop
    visible: np.ndarray  #: (21,) bool, see ``Scene.visible``
    R_crop_camera: np.ndarray  #: (3,3) float32: from the frame of the camera that took the whole picture


class PlacedHands(NamedTuple):
    """N right hands before their cameras, float64. The frames are those cameras' optical frames."""

    R_camera_hand: np.ndarray  #: (N,3,3)
    hand_pose: np.ndarray  #: (N,45)
    betas: np.ndarray  #: (N,10)
    transl: np.ndarray  #: (N,3) metres
    keypoints: np.ndarray  #: (N,21,3) metres
    source_focal_px: np.ndarray  #: (N,), of the cameras


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
        return _in_blocks(self._rendered, indices, _RENDERED_BLOCK)

    def cue_batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """What ``batch`` gives but ``image``, without rendering: more than ten thousand samples a second.

        The same hands in the same places; but which keypoints are hidden is invented, so that the errors of
        cues are as large as those of ``batch``, not the same.
        """
        return _in_blocks(self._unrendered, indices, _UNRENDERED_BLOCK)

    def _rendered(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        hands = self._placed(indices)
        true_views = views_of_hands(hands.keypoints, self._size)
        rngs = [np.random.default_rng([self._seed, int(index)]) for index in indices]
        scenes, visible = [], np.empty((len(indices), 21), bool)
        for row, index in enumerate(indices):
            scene, visible[row] = self._scene(int(index), hands, row, true_views[row], rngs[row])
            scenes.append(scene)
        views, fields = self._seen_by_detector(indices, hands, true_views, visible)
        images = [
            self._image(scene, views[row], hands.source_focal_px[row], rngs[row])
            for row, scene in enumerate(scenes)
        ]
        return {'image': np.stack(images), **fields}

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

        unit, points = (
            views.to_unit(hands.keypoints),
            hands.keypoints @ views.R_crop_camera.transpose(0, 2, 1),
        )
        detected = in_other_views(detected, true_views, views)
        cues = cues_with_gaps(detected, unit, visible, self._levels, draws)
        fields = {
            'cue_keypoints': cues.keypoints,
            'cue_confidence': cues.confidence,
            'cue_relative_depth': cues.relative_depth,
            'cue_world': cues.world,
            'cue_present': cues.present,
            'global_orient': axis_angles(views.R_crop_camera @ hands.R_camera_hand),
            'hand_pose': hands.hand_pose,
            'betas': hands.betas,
            'keypoints_3d': points - points[:, :1],
            'root_depth_m': points[:, 0, 2],
            'focal_px': views.focal_px,
            'keypoints_2d': unit * (self._size / 2.0) + (self._size - 1) / 2.0,
            'visible': visible & (np.abs(unit) <= 1.0).all(2),
            'R_crop_camera': views.R_crop_camera,
        }
        return views, {
            name: values.astype(np.float32) if values.dtype == np.float64 else values
            for name, values in fields.items()
        }

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
        """Hand number ``index`` as the camera has it, not turned upright, with some of what is around it.

        :param zoom: below 1; the hand is so many times as large as in the crop of a sample.
        :returns: the picture (S,S,3) uint8 RGB, the true keypoints (21,3) in metres, in the frame of the
            camera that took the whole picture, and the view from there that the picture shows.
        """
        rng = np.random.default_rng([self._seed, index])
        hands = self._placed(np.array([index]))
        crop = view_of_hand(hands.keypoints[0], self._size)
        scene, _ = self._scene(index, hands, 0, crop, rng)
        # Not of the scene's numbers: it is the same view, whatever else is in it
        aside = np.random.default_rng([self._seed, index, 1]).uniform(-0.5, 0.5, 2)
        right, down = aside * (1.0 / zoom - 1.0)
        ahead = CropView(looking_along(crop.R_crop_camera[2]), crop.focal_px, crop.size)
        view = ahead.turned(0.0, right, down, zoom)
        return self._image(scene, view, hands.source_focal_px[0], rng), hands.keypoints[0], view


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


def _in_blocks(
    make: Callable[[np.ndarray], dict[str, np.ndarray]], indices: np.ndarray, size: int
) -> dict[str, np.ndarray]:
    """What ``make`` makes of ``indices`` (N,), of so many at a time, stacked."""
    blocks = [make(indices[first : first + size]) for first in range(0, max(len(indices), 1), size)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
