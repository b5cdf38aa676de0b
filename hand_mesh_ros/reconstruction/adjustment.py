"""A hand that is known well already, brought onto the keypoints that are seen in the picture."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand_model.fit_terms import HandState, NormalEquations, Pixels, Term
from hand_mesh_ros.hand_model.fitting import image_size, minimised
from hand_mesh_ros.hand_model.kinematics import ORIENT, POSE, TRANSL, KeypointKinematics
from hand_mesh_ros.hand_model.model import HandModel
from hand_mesh_ros.hand_model.rotations import axis_angles

#: How well pixels tell where keypoints are, as a share of the hand's size in the image.
_PIXEL_SIGMA = 0.07

#: How far the hand may turn as a whole, radians. Keypoints of a detector are a little beside the model's, on
#: every hand alike; with more freedom that tilts all hands.
_ORIENT_SIGMA = 0.01

#: How far a joint may bend, as a share of half of its range.
_POSE_SIGMA = 0.05

#: Of a joint that a model lets not bend at all; radians.
_LEAST_SIGMA = 1e-4

#: How far the hand may come nearer, as a share of its distance. With more freedom a finger that is bent
#: too much pulls the hand to a wrong distance instead.
_DISTANCE_SIGMA = 0.002

#: The parameters that stay: orientation, pose and distance.
_STAYING = np.r_[ORIENT, POSE, TRANSL.stop - 1]


class Adjuster:
    """Brings hands of one model onto what is seen of them."""

    def __init__(self, model: HandModel) -> None:
        self._model, self._kinematics = model, KeypointKinematics(model)

    def adjusted(self, start: HandState, keypoints_px: np.ndarray, camera: Camera) -> HandState:
        """The hand ``start`` with its joints bent a little towards what is seen.

        ``start`` is in the camera optical frame and placed in front of the camera; ``keypoints_px`` (21,2)
        are pixels of ``camera``. Levenberg-Marquardt (see ``hand_model.fitting``) over the pixels, of which a
        few may be wrong, and the wish to stay: joints by their ranges, orientation and distance nearly fixed.
        A hand that appears where it is seen stays as it is.

        Raises FrameError where a keypoint is not finite or seen by no ray, or where most are on one pixel.
        """
        keypoints_px = np.asarray(keypoints_px, np.float64)
        rays = camera.rays(keypoints_px)
        if not np.isfinite(rays).all():
            raise FrameError('a keypoint lies where the lens of this camera sees nothing')
        sigma = _PIXEL_SIGMA * image_size(keypoints_px)
        terms: list[Term] = [
            Pixels(rays, np.array([camera.fx, camera.fy]), sigma, np.ones(21)),
            _Staying(self._model, start),
        ]
        return minimised(self._kinematics, terms, start, fit_shape=False).state


class _Staying:
    """Orientation, pose and distance are near those of ``start``."""

    def __init__(self, model: HandModel, start: HandState) -> None:
        self._start = start
        lower, upper = model.pose_limits.T
        self._sigma = np.concatenate(
            [
                np.full(3, _ORIENT_SIGMA),
                np.maximum(_POSE_SIGMA * (upper - lower) / 2.0, _LEAST_SIGMA),
                [_DISTANCE_SIGMA * abs(start.transl[2])],
            ]
        )

    def add_to(
        self, equations: NormalEquations, state: HandState, keypoints: np.ndarray, jacobian: np.ndarray
    ) -> None:
        start = self._start
        moved = np.empty(49)
        # Rotations this near to the start differ by their vectors
        moved[ORIENT] = axis_angles(start.orientation.T @ state.orientation)
        moved[POSE] = state.hand_pose - start.hand_pose
        moved[-1] = state.transl[2] - start.transl[2]
        equations.add_of_single(_STAYING, moved / self._sigma, 1.0 / self._sigma)
