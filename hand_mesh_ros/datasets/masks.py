"""Masks of hands to learn from, without end, each a function of its number. Right hands only."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_image import crop_image
from hand_mesh_ros.crop_view import CropView, looking_along, view_of_hand
from hand_mesh_ros.datasets.draws import Draws
from hand_mesh_ros.datasets.mask_borders import BorderNoise, WristCut, worn
from hand_mesh_ros.datasets.pose_sampler import PoseSampler
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.model import HandModel, PosedHand
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.mask_view import view_of_mask
from hand_mesh_ros.rendering.zbuffer import Raster, rasterise

#: What a depth camera sees hands at, metres.
_DISTANCES_M = (0.25, 1.5)
#: How far off the optical axis hands may be, as slopes.
_SLOPES = (0.45, 0.34)

#: Pixels of the pictures that masks are first drawn in, in which hands are as large as in a depth camera's,
#: and how much wider they are than the crops of colour images.
_DRAWN_PX, _DRAWN_ZOOM = 256, 0.6

#: Standard deviations of what is different in a loose view: roll in radians, middle in half sides,
#: logarithm of the zoom.
_LOOSE_VIEW = np.array([0.25, 0.06, 0.06, 0.08])
_LOOSE_SHARE = 0.4
#: Of loose views, how many are turned anyhow.
_TURNED_SHARE = 0.15

_PLACEMENT_DRAWS, _BORDER_DRAWS = 11, 12


@dataclass(frozen=True, eq=False)
class DrawnMask:
    """The mask of a right hand as a camera sees it, and the truth in that camera's frame."""

    mask: np.ndarray  #: (P,P) uint8 0/255, spoilt where masks are
    hand_mask: np.ndarray  #: (P,P) bool: what the whole hand covers, without a forearm
    camera: Camera  #: of P by P pixels
    keypoints: np.ndarray  #: (21,3) metres
    vertices: np.ndarray  #: (V,3) metres


@dataclass(frozen=True, eq=False)
class _Drawing:
    """A hand as it was placed and drawn."""

    mask: np.ndarray  # (P,P) uint8 0/255
    view: CropView  # of which it is the picture
    hand: PosedHand  # not yet moved by transl
    orient: np.ndarray  # (3,)
    transl: np.ndarray  # (3,)
    raster: Raster  # of the hand, whatever became of the mask
    faces: np.ndarray  # (F,3) of the mesh that was drawn
    rng: np.random.Generator  # what is left to be drawn


class SyntheticMasks:
    """Masks by number. The same (seed, number) always gives the same mask."""

    def __init__(
        self,
        seed: int = 0,
        size: int = 96,
        *,
        worn_share: float = 0.0,
        noise: BorderNoise | None = None,
        loose: bool = False,
        distances_m: tuple[float, float] = _DISTANCES_M,
        betas_scale: float = 1.0,
        model: HandModel | None = None,
        map_size: int = 0,
    ) -> None:
        """Prepare to draw.

        :param size: S, side of the crops in pixels.
        :param worn_share: of masks that are not perfect.
        :param noise: of those.
        :param loose: whether some views are not quite those that ``view_of_mask`` gives.
        :param betas_scale: how much more hands differ from the mean than those of a ``PoseSampler``.
        :param model: a right-hand model; the open one of this package where none is given.
        :param map_size: side of the maps of what a mask is of, see ``batch``; 0 for none.
        """
        self.model = model or load_hand_model()
        self.size = size
        self._map_size = map_size
        #: The joint that each vertex moves with; 0, the wrist's, also of forearms, numbers beyond them
        self._vertex_joints = np.zeros(2 * len(self.model.v_template), np.int8)
        self._vertex_joints[: len(self.model.v_template)] = self.model.weights.argmax(axis=1)
        self._seed, self._worn_share, self._noise, self._loose = (
            seed,
            worn_share,
            noise or BorderNoise(),
            loose,
        )
        self._distances_m, self._betas_scale = distances_m, betas_scale
        self._sampler, self._wrist_cut = PoseSampler(self.model, seed), WristCut(self.model)

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The masks with these numbers (N,), and the truth in the cameras of their crops, float32.

        ``mask`` (N,S,S) uint8 0..255, grey along its border; ``half_side`` (N,) focal length over half the
        crop's side; ``global_orient`` (N,3) and ``hand_pose`` (N,45) radians; ``betas`` (N,10);
        ``transl`` (N,3) and ``keypoints`` (N,21,3) metres. With a map size M also what a mask does not show
        at M by M places of the crop: ``joint_map`` (N,M,M) int8, the joint that what is seen there moves
        with, -1 for no hand, and ``depth_map`` (N,M,M), how far that is behind the wrist, as a share of the
        wrist's distance.
        """
        drawings, hand_pose, betas = self._drawings(indices)
        samples = [self._sample(*of_one) for of_one in zip(drawings, betas, strict=True)]
        fields = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
        return {
            **{name: v.astype(np.float32) if v.dtype == np.float64 else v for name, v in fields.items()},
            'hand_pose': hand_pose.astype(np.float32),
            'betas': betas.astype(np.float32),
        }

    def drawn(self, indices: np.ndarray) -> list[DrawnMask]:
        """The masks with these numbers (N,) as a camera sees them, of which ``batch`` gives the crops."""
        return [self._whole(drawing) for drawing in self._drawings(indices)[0]]

    def _drawings(self, indices: np.ndarray) -> tuple[list[_Drawing], np.ndarray, np.ndarray]:
        """Drawn hands, their poses (N,45) and betas (N,10)."""
        upright, hand_pose, betas = self._sampler(indices)
        betas = betas * self._betas_scale
        directions, distances = self._placed(indices)
        drawings = [
            self._drawing(
                int(index), upright[row], hand_pose[row], betas[row], directions[row], distances[row]
            )
            for row, index in enumerate(indices)
        ]
        return drawings, hand_pose, betas

    def _placed(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unit directions (N,3) of the hands' middles, and their distances (N,)."""
        uniform = Draws(self._seed, _PLACEMENT_DRAWS, indices).uniform(3)
        rays = np.column_stack([(2 * uniform[:, :2] - 1) * _SLOPES, np.ones(len(uniform))])
        nearest, farthest = np.log(self._distances_m)
        distances = np.exp(nearest + (farthest - nearest) * uniform[:, 2])
        return rays / np.linalg.norm(rays, axis=1, keepdims=True), distances

    def _drawing(
        self,
        index: int,
        upright: np.ndarray,
        hand_pose: np.ndarray,
        betas: np.ndarray,
        direction: np.ndarray,
        distance: float,
    ) -> _Drawing:
        rng = np.random.default_rng([self._seed, _BORDER_DRAWS, index])
        spoilt = rng.random() < self._worn_share
        orient = axis_angles(looking_along(direction).T @ rotation_matrices(upright))
        hand = self.model.posed(orient, hand_pose, betas, np.zeros(3))
        transl = direction * distance - hand.keypoints.mean(0)
        view = view_of_hand(hand.keypoints + transl, _DRAWN_PX).turned(0.0, 0.0, 0.0, _DRAWN_ZOOM)
        length = self._arm_length(rng) if spoilt else 0.0
        vertices, faces = self._wrist_cut(hand, length)
        raster = rasterise((vertices + transl) @ view.R_crop_camera.T, faces, view.camera())
        mask = raster.mask.astype(np.uint8) * 255
        if spoilt:
            mask = worn(mask, self._noise, rng)
        return _Drawing(mask, view, hand, orient, transl, raster, faces, rng)

    def _sample(self, drawing: _Drawing, betas: np.ndarray) -> dict[str, np.ndarray]:
        rng, transl = drawing.rng, drawing.transl
        view = view_of_mask(drawing.mask, drawing.view.camera(), self.size)
        if self._loose and rng.random() < _LOOSE_SHARE:
            view = _loosened(view, rng)
        R_crop_camera = view.R_crop_camera @ drawing.view.R_crop_camera
        # The model turns a hand about its wrist joint, which betas move
        wrist = self.model.rest(betas).joints[0]
        maps = self._maps(drawing, view) if self._map_size else {}
        return {
            **maps,
            'mask': crop_mask(drawing.mask, drawing.view, view),
            'half_side': np.float32(view.focal_px * 2.0 / view.size),
            'global_orient': axis_angles(R_crop_camera @ rotation_matrices(drawing.orient)),
            'transl': R_crop_camera @ (transl + wrist) - wrist,
            'keypoints': (drawing.hand.keypoints + transl) @ R_crop_camera.T,
        }

    def _maps(self, drawing: _Drawing, view: CropView) -> dict[str, np.ndarray]:
        """``joint_map`` and ``depth_map`` of ``batch``, in a view from the drawn picture's camera."""
        size = self._map_size
        places = (np.arange(size) + 0.5) * (2.0 / size) - 1.0
        across, down = np.meshgrid(places, places)
        rays = view.rays(np.column_stack([across.ravel(), down.ravel()]))
        pixels = np.rint(drawing.view.camera().project(rays)).astype(np.int64)
        inside = ((pixels >= 0) & (pixels < _DRAWN_PX)).all(axis=1)
        columns, rows = np.where(inside[:, None], pixels, 0).T
        faces = np.where(inside, drawing.raster.face_index[rows, columns], -1)
        joints = np.where(faces >= 0, self._vertex_joints[drawing.faces[faces, 0]], -1)
        # Depth along the crop's axis, not the drawn picture's
        depth = drawing.raster.depth[rows, columns] * (rays @ view.R_crop_camera[2]) / rays[:, 2]
        wrist = drawing.hand.keypoints[0] + drawing.transl
        wrist_depth = view.R_crop_camera[2] @ drawing.view.R_crop_camera @ wrist
        behind = np.where(faces >= 0, depth / wrist_depth - 1.0, 0.0)
        return {
            'joint_map': joints.astype(np.int8).reshape(size, size),
            'depth_map': behind.astype(np.float32).reshape(size, size),
        }

    def _whole(self, drawing: _Drawing) -> DrawnMask:
        camera, R_drawn_camera = drawing.view.camera(), drawing.view.R_crop_camera
        keypoints, vertices = (
            (points + drawing.transl) @ R_drawn_camera.T
            for points in (drawing.hand.keypoints, drawing.hand.vertices)
        )
        hand_mask = rasterise(vertices, self.model.faces, camera).mask
        return DrawnMask(drawing.mask, hand_mask, camera, keypoints, vertices)

    def _arm_length(self, rng: np.random.Generator) -> float:
        """Metres of forearm that the mask of a hand shows; below 0, of hand that it lacks."""
        if rng.random() > self._noise.arm_share:
            return 0.0
        return float(rng.uniform(-self._noise.cut_m, self._noise.arm_m))


def crop_mask(mask: np.ndarray, drawn_view: CropView, view: CropView) -> np.ndarray:
    """What ``view``, of the camera of ``drawn_view``, sees (S,S) uint8 of a mask drawn there."""
    return crop_image(mask, drawn_view.camera(), view, border=cv2.BORDER_CONSTANT)


def _loosened(view: CropView, rng: np.random.Generator) -> CropView:
    changes = rng.normal(0.0, 1.0, 4) * _LOOSE_VIEW
    roll = rng.uniform(-np.pi, np.pi) if rng.random() < _TURNED_SHARE else changes[0]
    right, down = map(float, changes[1:3])
    return view.turned(float(roll), right, down, float(np.exp(changes[3])))
