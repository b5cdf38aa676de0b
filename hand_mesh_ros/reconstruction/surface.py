"""A hand whose metres are a guess, laid onto the surface that a depth camera measured, or into a mask.

Iterated closest points with a hand that bends: each round draws the hand, pairs what is seen of it with what
was measured at the same pixels, and moves it by one damped Gauss-Newton step. Compare A. Tagliasacchi et al.,
"Robust Articulated-ICP for Real-Time Hand Tracking", Computer Graphics Forum 34(5), 2015.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.hand import Hand, ScaleSource
from hand_mesh_ros.hand_model.fit_terms import HandState
from hand_mesh_ros.hand_model.kinematics import ORIENT, PARAMETERS, POSE, TRANSL
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.hand_model.vertex_kinematics import COLUMNS, LENGTH, VertexKinematics
from hand_mesh_ros.reconstruction.assembly import changed_hand
from hand_mesh_ros.reconstruction.surface_evidence import (
    Equations,
    Silhouette,
    depth_equations,
    explains,
    keypoint_equations,
)
from hand_mesh_ros.reconstruction.surface_start import LEAST_PIXELS, distance_ratio
from hand_mesh_ros.reconstruction.surface_view import SurfaceView, checked_images, view_around
from hand_mesh_ros.rendering.zbuffer import Raster, rasterise

#: Shares: how much hands differ in length, and how well a hand's size in the picture and its depth tell it
#: before the fit.
_LENGTHS_DIFFER, _LENGTH_SEEN = 0.08, 0.10

#: Lengths that a fit may end at, and those that tell that this is no hand, as shares of the mean hand's.
_LENGTHS = (0.75, 1.25)
_PLAUSIBLE_LENGTHS = (0.55, 1.8)

#: How wrong orientations may be, radians, and joints, as a share of half of their range.
_ORIENT_SIGMA, _POSE_SIGMA = 0.35, 0.16

#: The same where only the outline is known, of which many hands have the same one.
_OUTLINED_ORIENT_SIGMA, _OUTLINED_POSE_SIGMA = 0.15, 0.08

#: How far a joint gives beyond its limits, radians, and how far one gives that a model lets not bend.
_LIMIT_SIGMA, _LEAST_SIGMA = 0.02, 1e-4

#: From round to round: what is no longer taken for the hand's surface, metres.
_OUTLIERS_M = np.geomspace(0.04, 0.01, 9)

#: Until the hand lies about right its joints are so many times stiffer: else fingers take hold of others.
_STIFF_ROUNDS, _STIFFNESS = 4, 5.0

_OUTLINE_ROUNDS, _OUTLINE_STIFF_ROUNDS = 8, 2

#: How far what is held strays: distance, as a share, and length, in standard deviations of betas.
_HELD = 1e-3

_DAMPING = 1e-3

#: Faces so near to the rim at which the mesh ends, metres, are the wrist's.
_WRIST = 0.015

#: The hand's surface reaches so far beyond what was drawn at first, metres.
_BEYOND_DRAWN = 0.05


@dataclass(frozen=True, eq=False)
class _Prior:
    """Where a hand is before it is moved, and how far it goes."""

    start: HandState
    sigma: np.ndarray  #: (52,), infinite for what is free


class SurfaceFit:
    """Lays hands of one model onto what a depth camera or a mask shows of them."""

    def __init__(self, model: HandModel) -> None:
        self._model, self._kinematics = model, VertexKinematics(model)
        self._faces = np.ascontiguousarray(model.faces, np.int32)
        self._mean_length = model.hand_length(np.zeros(10))
        self._kept = ~_wrist_faces(model)
        self._lower, self._upper = model.pose_limits.T

    def fitted(
        self,
        hand: Hand,
        depth_m: np.ndarray,
        mask: np.ndarray | None,
        camera: Camera,
        *,
        keypoint_sigma: float = 0.4,
    ) -> Hand | None:
        """``hand`` where its surface was measured, of the size that follows; None where depth does not tell.

        :param hand: of this model's side; right in the picture to a tenth of its size, in orientation to some
            30 degrees, at any distance. Its length is kept if the user gave it, else it may change.
        :param depth_m: (H,W) float32 metres along the optical axis, 0, negative or not finite for none.
        :param mask: (H,W) bool, the hand's pixels, perhaps with a little of the arm; None if not known.
        :param camera: whose images both are.
        :param keypoint_sigma: how well ``hand.keypoints_2d`` tell where keypoints are, as a share of the
            hand's size in the image (median distance from their median).
        :raises FrameError: an image is not of the camera's size.
        """
        checked_images(camera, depth_m, mask)
        view = _view(hand, camera, depth_m, mask)
        if view is None:
            return None
        start = self._placed(hand, view)
        if start is None:
            return None
        sigma = self._sigma(_ORIENT_SIGMA, _POSE_SIGMA)
        if hand.scale_source == ScaleSource.HAND_LENGTH:
            sigma[LENGTH] = _HELD
        prior = _Prior(start, sigma)
        raster = self._drawn(start, view)
        if not raster.mask.any():
            return None
        silhouette = Silhouette(view, _seen(view, raster), self._kept)
        state = self._moved(hand, camera, view, silhouette, prior, keypoint_sigma)
        if state is None:
            return None
        moved = self._kinematics.at(state)
        drawn = rasterise(moved.vertices, self._faces, view.camera)
        if not explains(moved, self._faces, drawn, view):
            return None
        return self._changed(hand, camera, state, ScaleSource.DEPTH)

    def outlined(self, hand: Hand, mask: np.ndarray, camera: Camera, *, keypoint_sigma: float = 0.4) -> Hand:
        """``hand`` moved a little so that it fills ``mask`` (H,W) bool better, or as it is if it cannot.

        It turns, bends and shifts. Length and distance stay. ``keypoint_sigma`` is as for :meth:`fitted`.

        Raises FrameError for a mask that is not of the camera's size.
        """
        checked_images(camera, None, mask)
        view = _view(hand, camera, None, mask)
        if view is None or view.mask is None or np.count_nonzero(view.mask) < LEAST_PIXELS:
            return hand
        start = HandState(
            rotation_matrices(hand.global_orient),
            hand.hand_pose.astype(np.float64),
            hand.betas.astype(np.float64),
            hand.transl.astype(np.float64),
        )
        sigma = self._sigma(_OUTLINED_ORIENT_SIGMA, _OUTLINED_POSE_SIGMA)
        sigma[TRANSL.stop - 1] = _HELD * abs(start.transl[2])
        sigma[LENGTH] = _HELD
        prior = _Prior(start, sigma)
        silhouette = Silhouette(view, view.mask, self._kept)
        state = self._moved(hand, camera, view, silhouette, prior, keypoint_sigma)
        if state is None:
            return hand
        before, after = (_overlap(self._drawn(s, view), view) for s in (start, state))
        return self._changed(hand, camera, state, hand.scale_source) if after > before else hand

    def _placed(self, hand: Hand, view: SurfaceView) -> HandState | None:
        """The hand at its distance, at about its length, in the same place of the image."""
        given = self._model.hand_length(hand.betas)
        raster = rasterise(hand.vertices, self._faces, view.camera)
        ratio = distance_ratio(view, raster, given / self._mean_length)
        if ratio is None:
            return None
        # In the image it stays as large as it is
        seen = ratio * given / self._mean_length
        if not _PLAUSIBLE_LENGTHS[0] < seen < _PLAUSIBLE_LENGTHS[1]:
            return None
        betas = hand.betas.astype(np.float64)
        if hand.scale_source != ScaleSource.HAND_LENGTH:
            trust = _LENGTHS_DIFFER**2 / (_LENGTHS_DIFFER**2 + _LENGTH_SEEN**2)
            betas = self._lengthened(betas, self._mean_length * float(np.clip(seen**trust, *_LENGTHS)))
        orientation = rotation_matrices(hand.global_orient)
        pose = hand.hand_pose.astype(np.float64)
        around = self._kinematics.at(HandState(orientation, pose, betas, np.zeros(3))).keypoints.mean(axis=0)
        middle = ratio * hand.keypoints_3d.astype(np.float64).mean(axis=0)
        return HandState(orientation, pose, betas, middle - around)

    def _lengthened(self, betas: np.ndarray, length_m: float) -> np.ndarray:
        """Betas (10,) of a hand of that length and otherwise the same."""
        for _ in range(3):
            length, slope = self._length(betas)
            betas = betas + self._kinematics.lengthening * ((length_m - length) / slope)
        return betas

    def _length(self, betas: np.ndarray) -> tuple[float, float]:
        """Metres, and their derivative along ``lengthening``."""
        length = self._model.hand_length(betas)
        step = 1e-3
        return length, (self._model.hand_length(betas + step * self._kinematics.lengthening) - length) / step

    def _sigma(self, orient: float, pose: float) -> np.ndarray:
        """How far the parameters (52,) go, all but orientation and joints being free."""
        sigma = np.full(COLUMNS, np.inf)
        sigma[ORIENT] = orient
        sigma[POSE] = np.maximum(pose * (self._upper - self._lower) / 2.0, _LEAST_SIGMA)
        return sigma

    def _moved(
        self,
        hand: Hand,
        camera: Camera,
        view: SurfaceView,
        silhouette: Silhouette,
        prior: _Prior,
        keypoint_sigma: float,
    ) -> HandState | None:
        """The state that explains the view best, near the prior; None for one that left the view."""
        wanted = camera.rays(hand.keypoints_2d)
        trusted = np.isfinite(wanted).all(axis=1)
        middle = np.median(hand.keypoints_2d, axis=0)
        size_px = float(np.median(np.linalg.norm(hand.keypoints_2d - middle, axis=1)))
        slope_sigma = keypoint_sigma * max(size_px, 1.0) / math.sqrt(camera.fx * camera.fy)
        wanted = np.where(trusted[:, None], wanted, 0.0)
        deep = bool((view.depth_m > 0.0).any())
        rounds = len(_OUTLIERS_M) if deep else _OUTLINE_ROUNDS
        stiff_rounds = _STIFF_ROUNDS if deep else _OUTLINE_STIFF_ROUNDS
        state = prior.start
        for turn in range(rounds):
            moving = self._kinematics.at(state)
            raster = rasterise(moving.vertices, self._faces, view.camera)
            if not raster.mask.any() or moving.keypoints[:, 2].min() <= 0.0:
                return None
            parts = [
                self._prior_equations(state, prior, _STIFFNESS if turn < stiff_rounds else 1.0),
                keypoint_equations(moving, wanted, slope_sigma, trusted),
                silhouette.equations(moving, self._faces, raster),
            ]
            if deep:
                parts.append(depth_equations(moving, self._faces, raster, view, _OUTLIERS_M[turn]))
            step = _step(parts)
            if step is None:
                return None
            full = np.zeros(PARAMETERS)
            full[:LENGTH] = step[:LENGTH]
            full[LENGTH:] = step[LENGTH] * self._kinematics.lengthening
            state = state.moved(full)
            if not math.isfinite(prior.sigma[LENGTH]):
                state = self._within_lengths(state)
        return state

    def _within_lengths(self, state: HandState) -> HandState:
        shortest, longest = (share * self._mean_length for share in _LENGTHS)
        length = self._model.hand_length(state.betas)
        if shortest <= length <= longest:
            return state
        return replace(state, betas=self._lengthened(state.betas, float(np.clip(length, shortest, longest))))

    def _prior_equations(self, state: HandState, prior: _Prior, stiffness: float) -> Equations:
        start = prior.start
        sigma = prior.sigma.copy()
        sigma[POSE] /= stiffness
        moved = np.concatenate(
            [
                axis_angles(start.orientation.T @ state.orientation),
                state.hand_pose - start.hand_pose,
                state.transl - start.transl,
                [(state.betas - start.betas) @ self._kinematics.lengthening],
            ]
        )
        held = np.flatnonzero(np.isfinite(sigma))
        beyond = state.hand_pose - np.clip(state.hand_pose, self._lower, self._upper)
        bent = np.flatnonzero(beyond)
        rates = np.zeros((len(held) + len(bent) + 1, COLUMNS))
        rates[np.arange(len(held)), held] = 1.0 / sigma[held]
        rates[len(held) + np.arange(len(bent)), POSE.start + bent] = 1.0 / _LIMIT_SIGMA
        # A length that is held is so by its sigma
        length, slope = self._length(state.betas)
        free = 0.0 if np.isfinite(sigma[LENGTH]) else 1.0 / (_LENGTHS_DIFFER * self._mean_length)
        rates[-1, LENGTH] = slope * free
        too_long = (length - self._mean_length) * free
        return Equations(
            np.concatenate([moved[held] / sigma[held], beyond[bent] / _LIMIT_SIGMA, [too_long]]), rates
        )

    def _drawn(self, state: HandState, view: SurfaceView) -> Raster:
        return rasterise(self._kinematics.at(state).vertices, self._faces, view.camera)

    def _changed(self, hand: Hand, camera: Camera, state: HandState, scale: ScaleSource) -> Hand:
        return changed_hand(
            self._model,
            camera,
            hand,
            global_orient=axis_angles(state.orientation),
            hand_pose=state.hand_pose,
            betas=state.betas,
            transl=state.transl,
            scale=scale,
        )


def _view(
    hand: Hand, camera: Camera, depth_m: np.ndarray | None, mask: np.ndarray | None
) -> SurfaceView | None:
    """The window around the hand and its mask; None where the hand cannot be seen."""
    seen = camera.project(hand.vertices)
    if not (np.isfinite(seen).all() and np.isfinite(hand.keypoints_2d).all()):
        return None
    box = np.concatenate([seen.min(axis=0), seen.max(axis=0)])
    if mask is not None:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            box[:2] = np.minimum(box[:2], (columns[0], rows[0]))
            box[2:] = np.maximum(box[2:], (columns[-1], rows[-1]))
    return view_around(box, camera, depth_m, mask)


def _seen(view: SurfaceView, raster: Raster) -> np.ndarray:
    """Pixels (H,W) bool at which there may be hand: the mask's, else those at about the hand's depth."""
    if view.mask is not None:
        return view.mask
    drawn = raster.depth[raster.mask]
    return (view.depth_m > drawn.min() - _BEYOND_DRAWN) & (view.depth_m < drawn.max() + _BEYOND_DRAWN)


def _step(parts: list[Equations]) -> np.ndarray | None:
    """The damped Gauss-Newton step (52,); None where there is none."""
    rates = np.concatenate([part.rates for part in parts])
    residuals = np.concatenate([part.residuals for part in parts])
    curvature = cv2.mulTransposed(rates, True)
    diagonal = np.diag(curvature)
    curvature += np.diag(_DAMPING * diagonal + 1e-9)
    found, step = cv2.solve(curvature, -(residuals @ rates), flags=cv2.DECOMP_CHOLESKY)
    return step[:, 0] if found and np.isfinite(step).all() else None


def _overlap(raster: Raster, view: SurfaceView) -> float:
    if view.mask is None:
        return 0.0
    drawn = raster.mask & view.inside
    either = np.count_nonzero(drawn | view.mask)
    return np.count_nonzero(drawn & view.mask) / either if either else 0.0


def _wrist_faces(model: HandModel) -> np.ndarray:
    """Faces (F,) bool near the rim at which the mesh ends; none in a closed mesh."""
    edges = np.sort(model.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges, counts = np.unique(edges, axis=0, return_counts=True)
    rim = np.unique(edges[counts == 1])
    if not len(rim):
        return np.zeros(len(model.faces), bool)
    vertices = model.v_template
    distances = np.linalg.norm(vertices[:, None] - vertices[rim], axis=2).min(axis=1)
    return (distances < _WRIST)[model.faces].any(axis=1)
