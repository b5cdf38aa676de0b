"""Hands to learn from, without end: rendered crops with cues and truth, each a function of its number.

Right hands only; a left hand is mirrored at its crop before anything looks at it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.crop_view import CropView, looking_along, view_of_hand
from hand_mesh_ros.cues import Cues
from hand_mesh_ros.datasets.cue_noise import (
    NoiseLevels,
    ResidualBank,
    detector_cues,
    noisy_keypoints,
)
from hand_mesh_ros.datasets.hand_figure import HandFigures, random_sleeve
from hand_mesh_ros.datasets.photograph import Photographer
from hand_mesh_ros.datasets.pose_sampler import HandPoses, PoseSampler
from hand_mesh_ros.datasets.props import Prop, prop_in_front, prop_in_hand
from hand_mesh_ros.datasets.scene import Scene, SceneHand
from hand_mesh_ros.datasets.textures import TextureBank
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles
from hand_mesh_ros.hand_model.model import HandModel, PosedHand
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.rendering.shading import Lighting, srgb_to_linear

_DISTANCES_M = (0.2, 2.0)
_FOCAL_SHARES = (0.7, 2.0)  #: of the picture's width
_WIDTHS_PX = (320, 640, 640, 1280, 1920)

#: Shares of the samples.
_SECOND_HAND, _HELD_PROP, _FRONT_PROP, _GLOVE, _LOOSE_CROP = 0.12, 0.22, 0.20, 0.04, 0.08
_FINGERS_UP = 0.5

#: A hand of which other things leave fewer keypoints to be seen is shown without them: no detector would have
#: found it.
_LEAST_VISIBLE = 6

#: Numbers of the poses of second hands follow those of first ones.
_SECOND_HANDS_FROM = 2**40


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


class SyntheticHands:
    """Samples by number. The same (seed, number) always gives the same sample, whatever was made before."""

    def __init__(
        self,
        seed: int = 0,
        size: int = 128,
        levels: NoiseLevels | None = None,
        residuals: ResidualBank | None = None,
        model: HandModel | None = None,
    ) -> None:
        """Prepare skins and backgrounds (about a second).

        :param size: S, side of the crops in pixels.
        :param levels: of the errors of the cues.
        :param residuals: errors of a real detector, to be mixed with invented ones.
        :param model: a right-hand model; the open one of this package where none is given.
        """
        self._seed, self._size, self._residuals = seed, size, residuals
        self._levels = levels or NoiseLevels()
        self.model = model or load_hand_model()
        self._sampler = PoseSampler(self.model, seed)
        self._right, self._left = (HandFigures(m, seed) for m in (self.model, self.model.mirrored()))
        self._textures, self._photographer = TextureBank(seed), Photographer(seed, size)

    def poses(self, indices: np.ndarray) -> HandPoses:
        """Only the parameters of the hands with these numbers (N,), many thousands a second.

        ``global_orient`` is that of ``sample`` but for the perspective and the errors of the crop.
        """
        return self._sampler(indices)

    def sample(self, index: int) -> SyntheticSample:
        """Sample number ``index``, 0 or more."""
        return self._sample(index, *(values[0] for values in self.poses(np.array([index]))))

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The samples with these numbers (N,): the fields of ``SyntheticSample``, stacked."""
        poses = self.poses(indices)
        samples = [
            self._sample(int(index), *parameters) for index, *parameters in zip(indices, *poses, strict=True)
        ]
        fields = dataclasses.fields(SyntheticSample)
        return {f.name: np.stack([getattr(sample, f.name) for sample in samples]) for f in fields}

    def _sample(
        self, index: int, upright_orient: np.ndarray, hand_pose: np.ndarray, betas: np.ndarray
    ) -> SyntheticSample:
        rng = np.random.default_rng([self._seed, index])
        ray, distance, source_focal_px = _placement(rng)
        R_camera_hand = looking_along(ray).T @ _random_roll(rng) @ rotation_matrices(upright_orient)
        hand = self.model.posed(axis_angles(R_camera_hand), hand_pose, betas, np.zeros(3))
        offset = ray * distance - hand.keypoints.mean(0)
        keypoints = hand.keypoints + offset
        scene = self._scene(index, hand, offset, keypoints, rng)

        # The crop is where a detector says the hand is, and what it says depends on what it sees.
        true_view = view_of_hand(keypoints, self._size)
        visible = scene.visible(keypoints, true_view)
        if visible.sum() < _LEAST_VISIBLE:
            scene = scene.alone()
            visible = scene.visible(keypoints, true_view)
        true_unit = true_view.to_unit(keypoints)
        noisy = noisy_keypoints(
            true_unit, _relative_depth(keypoints, true_view), visible, self._levels, rng, self._residuals
        )
        noisy_rays = true_view.rays(noisy)
        view = view_of_hand(noisy_rays, self._size)
        if rng.random() < _LOOSE_CROP:  # around a box that somebody else's detector gave
            roll, right, down, zoom = rng.normal(0.0, (0.2, 0.12, 0.12, 0.15))
            view = view.turned(roll, right, down, float(np.exp(zoom)))

        unit, points = view.to_unit(keypoints), keypoints @ view.R_crop_camera.T
        cues = detector_cues(
            view.to_unit(noisy_rays),
            unit,
            points,
            _relative_depth(keypoints, view),
            visible,
            self._levels,
            rng,
        )
        return _record(
            image=self._image(scene, view, source_focal_px, rng),
            cues=cues,
            global_orient=axis_angles(view.R_crop_camera @ R_camera_hand),
            hand_pose=hand_pose,
            betas=betas,
            points=points,
            unit=unit,
            visible=visible & (np.abs(unit) <= 1.0).all(1),
            view=view,
        )

    def _scene(
        self, index: int, hand: PosedHand, offset: np.ndarray, keypoints: np.ndarray, rng: np.random.Generator
    ) -> Scene:
        sleeve, skin = random_sleeve(rng), int(rng.integers(2**31))
        tint = np.exp(rng.normal(0.0, 0.06, 3))
        glove = srgb_to_linear(rng.uniform(0.05, 0.95, 3)) if rng.random() < _GLOVE else None

        def dressed(figures: HandFigures, posed: PosedHand, moved: np.ndarray) -> SceneHand:
            bend = rng.normal(0.0, 0.35, 3)
            vertices = figures.coarse_vertices(posed, bend, sleeve) + moved
            return SceneHand(figures, vertices, sleeve, skin, tint, glove)

        hands = [dressed(self._right, hand, offset)]
        if rng.random() < _SECOND_HAND:
            figures, other = self._second_hand(index, rng)
            hands.append(dressed(figures, other, keypoints.mean(0) + _beside(rng) - other.keypoints.mean(0)))
        props: list[Prop] = []
        if rng.random() < _HELD_PROP:
            props.append(prop_in_hand(keypoints, rng))
        if rng.random() < _FRONT_PROP:
            props.append(prop_in_front(keypoints, rng))
        return Scene(hands, props, _random_lighting(rng))

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
        if scene.has_props and rng.random() < 0.6:
            prop_texture = self._textures.patch(self._size, rng)
        light = scene.light(view, background, prop_texture, crease=float(rng.uniform(0.3, 0.8)))
        return self._photographer.picture(light, source_focal_px / view.focal_px, rng)


def _placement(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """Unit direction (3,) and distance in metres of a hand, and the focal length, in pixels, of a camera
    that has it in its picture."""
    width = int(rng.choice(_WIDTHS_PX))
    focal_share = rng.uniform(*_FOCAL_SHARES)
    distance = float(np.exp(rng.uniform(*np.log(_DISTANCES_M))))
    right, down = rng.uniform(-0.42, 0.42, 2) * (1.0, 0.75) / focal_share
    ray = np.array([right, down, 1.0])
    return ray / np.linalg.norm(ray), distance, focal_share * width


def _random_roll(rng: np.random.Generator) -> np.ndarray:
    """Turn (3,3) in the picture of a hand whose fingers point up: mostly they still do."""
    reach = np.pi / 2 if rng.random() < _FINGERS_UP else np.pi
    return rotation_matrices(np.array([0.0, 0.0, rng.uniform(-reach, reach)]))


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


def _relative_depth(keypoints: np.ndarray, view: CropView) -> np.ndarray:
    """Depths (21,) behind the wrist of keypoints (21,3), in half sides of the crop at the wrist's depth."""
    depth = keypoints @ view.R_crop_camera[2]
    return (depth - depth[0]) / depth[0] * (view.focal_px * 2.0 / view.size)


def _record(
    *,
    image: np.ndarray,
    cues: Cues,
    global_orient: np.ndarray,
    hand_pose: np.ndarray,
    betas: np.ndarray,
    points: np.ndarray,
    unit: np.ndarray,
    visible: np.ndarray,
    view: CropView,
) -> SyntheticSample:
    return SyntheticSample(
        image=image,
        cue_keypoints=cues.keypoints,
        cue_confidence=cues.confidence,
        cue_relative_depth=cues.relative_depth,
        cue_world=cues.world,
        cue_present=cues.present,
        global_orient=global_orient.astype(np.float32),
        hand_pose=hand_pose.astype(np.float32),
        betas=betas.astype(np.float32),
        keypoints_3d=(points - points[0]).astype(np.float32),
        root_depth_m=np.asarray(points[0, 2], np.float32),
        focal_px=np.asarray(view.focal_px, np.float32),
        keypoints_2d=(unit * (view.size / 2.0) + (view.size - 1) / 2.0).astype(np.float32),
        visible=visible,
        R_crop_camera=view.R_crop_camera.astype(np.float32),
    )
