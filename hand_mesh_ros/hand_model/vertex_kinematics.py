"""The whole mesh of a posed hand, and how points on it move with the parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.hand_model.fit_terms import HandState
from hand_mesh_ros.hand_model.keypoints import TIP_KEYPOINTS
from hand_mesh_ros.hand_model.kinematics import DESCENDANTS, POSE, TRANSL
from hand_mesh_ros.hand_model.model import JOINT_LEVELS, PARENTS, HandModel
from hand_mesh_ros.hand_model.rotations import right_jacobian, rotation_matrices

#: The column after those of orientation, pose and translation: the hand's length, in steps along
#: ``VertexKinematics.lengthening``.
LENGTH = TRANSL.stop
COLUMNS = LENGTH + 1

_TIPS = np.array(TIP_KEYPOINTS)


@dataclass(frozen=True, eq=False)
class MovingHand:
    """A posed hand that tells how its points move. Float64 metres; points are vertices, then keypoints."""

    vertices: np.ndarray  #: (V,3)
    keypoints: np.ndarray  #: (21,3)
    levers: np.ndarray  #: (V+21,48): from each joint to what it turns of a point, times its weight
    axes: np.ndarray  #: (16,3,3): about which the components of each joint's turn go
    by_length: np.ndarray  #: (V+21,3): derivative by the step along ``lengthening``

    def rates(self, corners: np.ndarray, shares: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """How fast N points go along ``directions`` with each parameter: (N,52).

        A point is the sum of the points ``corners`` (N,K), weighted by ``shares`` (N,K) that sum up to 1.
        ``directions`` are (N,3) of any length. The columns of the orientation are by w in
        ``orientation @ exp(w)`` at w = 0.
        """
        levers = np.einsum('nk,nkc->nc', shares, self.levers[corners]).reshape(-1, 16, 3)
        by_length = np.einsum('nk,nkc->nc', shares, self.by_length[corners])
        turning = np.cross(levers, directions[:, None])
        rates = np.empty((len(corners), COLUMNS))
        rates[:, : POSE.stop] = (turning[:, :, None] @ self.axes)[:, :, 0].reshape(-1, POSE.stop)
        rates[:, TRANSL] = directions
        rates[:, LENGTH] = np.einsum('nc,nc->n', by_length, directions)
        return rates


class VertexKinematics:
    """Poses the mesh of a hand model exactly, and tells its motion but for the pose corrections' own."""

    def __init__(self, model: HandModel) -> None:
        self._model = model
        #: (10,) unit: the direction in which betas change the hand's length and little else
        self.lengthening = lengthening(model)
        own = np.eye(16)[model.keypoint_joints]
        own[_TIPS] = model.weights[model.tip_vertices]
        self._weights = np.concatenate([model.weights, own])
        self._weights_below = self._weights @ DESCENDANTS.T
        self._tips = len(model.v_template) + _TIPS
        longer, mean = model.rest(self.lengthening), model.rest(np.zeros(10))
        self._points_by_length = np.concatenate(
            [longer.vertices - mean.vertices, longer.keypoints - mean.keypoints]
        )
        self._joints_by_length = longer.joints - mean.joints
        self._posedirs = np.ascontiguousarray(model.posedirs.reshape(-1, 135))

    def at(self, state: HandState) -> MovingHand:
        """The hand of that state; its vertices and keypoints are those of ``HandModel.posed``."""
        angles = state.hand_pose.reshape(15, 3)
        local = rotation_matrices(angles)
        rotations = np.empty((16, 3, 3))
        rotations[0] = state.orientation
        for level in JOINT_LEVELS:
            rotations[level] = rotations[PARENTS[level]] @ local[level - 1]
        rest = self._model.rest(state.betas)
        corrected = rest.vertices + (self._posedirs @ (local - np.eye(3)).ravel()).reshape(-1, 3)
        points = np.concatenate([corrected, rest.keypoints])
        points[self._tips] = corrected[self._model.tip_vertices]

        joints = _along_bones(rotations, rest.joints) + state.transl
        offsets = joints - (rotations @ rest.joints[:, :, None])[:, :, 0]
        # Rest points as each joint alone would have them, weighted: (16,V+21,3)
        carried = points @ rotations.transpose(0, 2, 1) + offsets[:, None]
        carried *= self._weights.T[:, :, None]
        moved = carried.sum(axis=0)
        levers = (DESCENDANTS @ carried.reshape(16, -1)).reshape(16, -1, 3)
        levers -= self._weights_below.T[:, :, None] * joints[:, None]
        axes = rotations.copy()
        axes[1:] = rotations[1:] @ right_jacobian(angles)
        blended = (self._weights @ rotations.reshape(16, 9)).reshape(-1, 3, 3)
        drift = _along_bones(rotations, self._joints_by_length)
        drift -= (rotations @ self._joints_by_length[:, :, None])[:, :, 0]
        by_length = (blended @ self._points_by_length[:, :, None])[:, :, 0] + self._weights @ drift
        vertices = len(corrected)
        return MovingHand(
            vertices=moved[:vertices],
            keypoints=moved[vertices:],
            levers=levers.transpose(1, 0, 2).reshape(-1, 48),
            axes=axes,
            by_length=by_length,
        )


def _along_bones(rotations: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Joints (16,3), or their derivatives, as ``rotations`` (16,3,3) pose them; the first one stays."""
    posed = np.empty_like(rest)
    posed[0] = rest[0]
    for level in JOINT_LEVELS:
        parents = PARENTS[level]
        bones = (rest[level] - rest[parents])[:, :, None]
        posed[level] = posed[parents] + (rotations[parents] @ bones)[:, :, 0]
    return posed


def lengthening(model: HandModel) -> np.ndarray:
    """The unit direction (10,) in betas that changes the length of the model's hand the most.

    Length is so nearly linear in betas that one direction serves all of them.
    """
    longer = model.betas_for_length(1.01 * model.hand_length(np.zeros(10)))
    return longer / np.linalg.norm(longer)
