"""The whole mesh of a posed hand, and how points on it move with the parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.compiled import compiled
from hand_mesh_ros.hand_model.fit_terms import HandState
from hand_mesh_ros.hand_model.keypoints import TIP_KEYPOINTS
from hand_mesh_ros.hand_model.kinematics import TRANSL, moved_by_bones
from hand_mesh_ros.hand_model.model import PARENTS, HandModel, forward_kinematics, nonzero_weights
from hand_mesh_ros.hand_model.rotations import right_jacobian, rotation_matrices

#: The column after those of orientation, pose and translation: the hand's length, in steps along
#: ``VertexKinematics.lengthening``.
LENGTH = TRANSL.stop
COLUMNS = LENGTH + 1

_SHIFT = TRANSL.start

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
        # Of one type each, that the loops are compiled once
        corners = np.ascontiguousarray(corners, np.int64)
        shares = np.ascontiguousarray(shares, np.float64)
        directions = np.ascontiguousarray(directions, np.float64)
        return _rates(corners, shares, directions, self.levers, self.axes, self.by_length)


class VertexKinematics:
    """Poses the mesh of a hand model exactly, and tells its motion but for the pose corrections' own."""

    def __init__(self, model: HandModel) -> None:
        self._model = model
        #: (10,) unit: the direction in which betas change the hand's length and little else
        self.lengthening = lengthening(model)
        own = np.eye(16)[model.keypoint_joints]
        own[_TIPS] = model.weights[model.tip_vertices]
        self._joint_of, self._weights = nonzero_weights(np.concatenate([model.weights, own]))
        self._tips = len(model.v_template) + _TIPS
        longer, mean = model.rest(self.lengthening), model.rest(np.zeros(10))
        self._points_by_length = np.concatenate(
            [longer.vertices - mean.vertices, longer.keypoints - mean.keypoints]
        )
        self._joints_by_length = longer.joints - mean.joints

    def at(self, state: HandState) -> MovingHand:
        """The hand of that state; its vertices and keypoints are those of ``HandModel.posed``."""
        angles = state.hand_pose.reshape(15, 3)
        local = np.empty((16, 3, 3))
        local[0], local[1:] = state.orientation, rotation_matrices(angles)
        rest = self._model.rest(state.betas)
        rotations, joints = forward_kinematics(
            local, rest.joints, np.ascontiguousarray(state.transl, np.float64)
        )
        corrected = self._model.corrected(rest.vertices, local[1:])
        points = np.concatenate([corrected, rest.keypoints])
        points[self._tips] = corrected[self._model.tip_vertices]
        moved, levers, by_length = _moving(
            points,
            self._joint_of,
            self._weights,
            rotations,
            rest.joints,
            joints,
            self._points_by_length,
            moved_by_bones(rotations, self._joints_by_length[:, :, None])[:, :, 0],
        )
        axes = rotations.copy()
        axes[1:] = rotations[1:] @ right_jacobian(angles)
        vertices = len(corrected)
        return MovingHand(moved[:vertices], moved[vertices:], levers, axes, by_length)


def lengthening(model: HandModel) -> np.ndarray:
    """The unit direction (10,) in betas that changes the length of the model's hand the most.

    Length is so nearly linear in betas that one direction serves all of them.
    """
    longer = model.betas_for_length(1.01 * model.hand_length(np.zeros(10)))
    return longer / np.linalg.norm(longer)


@compiled
def _moving(  # type: ignore[no-untyped-def]
    points, joint_of, weights, rotations, rest_joints, joints, points_by_length, joints_by_length
):
    """Skinned points (N,3), their levers (N,48) and their derivatives by length (N,3)."""
    moved, by_length = np.zeros_like(points), np.zeros_like(points)
    levers = np.zeros((len(points), 16, 3))
    share = np.empty(16)
    for n in range(len(points)):
        share[:] = 0.0
        lever = levers[n]
        for k in range(weights.shape[1]):
            j, weight = joint_of[n, k], weights[n, k]
            if weight == 0.0:
                break
            share[j] = weight
            for a in range(3):
                # Where the point would be if it were rigid with the joint
                carried, longer = joints[j, a], joints_by_length[j, a]
                for b in range(3):
                    carried += rotations[j, a, b] * (points[n, b] - rest_joints[j, b])
                    longer += rotations[j, a, b] * points_by_length[n, b]
                lever[j, a] = weight * carried
                moved[n, a] += weight * carried
                by_length[n, a] += weight * longer
        # A joint turns what hangs below it about its own position
        for j in range(15, -1, -1):
            if share[j] == 0.0:
                continue
            if j > 0:
                share[PARENTS[j]] += share[j]
            for a in range(3):
                if j > 0:
                    lever[PARENTS[j], a] += lever[j, a]
                lever[j, a] -= share[j] * joints[j, a]
    return moved, levers.reshape(-1, 48), by_length


@compiled
def _rates(corners, shares, directions, levers, axes, by_length):  # type: ignore[no-untyped-def]
    """What ``MovingHand.rates`` gives."""
    rates = np.zeros((len(corners), COLUMNS))
    for n in range(len(corners)):
        dx, dy, dz = directions[n]
        for j in range(16):
            x = y = z = 0.0
            for k in range(corners.shape[1]):
                share, lever = shares[n, k], levers[corners[n, k]]
                x += share * lever[3 * j]
                y += share * lever[3 * j + 1]
                z += share * lever[3 * j + 2]
            if x == 0.0 and y == 0.0 and z == 0.0:
                continue
            turning_x, turning_y, turning_z = y * dz - z * dy, z * dx - x * dz, x * dy - y * dx
            for b in range(3):
                rates[n, 3 * j + b] = (
                    turning_x * axes[j, 0, b] + turning_y * axes[j, 1, b] + turning_z * axes[j, 2, b]
                )
        for a in range(3):
            rates[n, _SHIFT + a] = directions[n, a]
            for k in range(corners.shape[1]):
                rates[n, LENGTH] += shares[n, k] * by_length[corners[n, k], a] * directions[n, a]
    return rates
