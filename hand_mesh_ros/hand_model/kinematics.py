"""Keypoints of a posed hand, and how they move with every parameter, without posing the whole mesh."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.hand_model.keypoints import JOINT_PARENTS, TIP_KEYPOINTS
from hand_mesh_ros.hand_model.model import JOINT_LEVELS, PARENTS, HandModel
from hand_mesh_ros.hand_model.rotations import right_jacobian, rotation_matrices, skew

#: Columns of the Jacobian of :meth:`KeypointKinematics.keypoints`.
ORIENT = slice(0, 3)
POSE = slice(3, 48)
TRANSL = slice(48, 51)
BETAS = slice(51, 61)
PARAMETERS = 61

_TIPS = np.array(TIP_KEYPOINTS)


def _descendants() -> np.ndarray:
    below = np.eye(16)
    for joint in range(15, 0, -1):
        below[JOINT_PARENTS[joint]] += below[joint]
    return below


#: (16,16): 1 where the column's joint is the row's joint or hangs below it
DESCENDANTS = _descendants()


class KeypointKinematics:
    """What the 21 keypoints need of a hand model, reduced once from its mesh.

    A tip is a skinned vertex, pose correction included; every other keypoint is rigid with one joint. Both
    are skinned points here, the latter with a single weight. The keypoints are those of ``HandModel.posed``.
    """

    def __init__(self, model: HandModel) -> None:
        regressors = np.vstack([model.joint_regressor, model.keypoint_regressor])
        rest = regressors @ model.v_template
        by_betas = np.tensordot(regressors, model.shapedirs, 1)
        self._joints, self._keypoints = rest[:16], rest[16:]
        self._joints_by_betas, self._keypoints_by_betas = by_betas[:16], by_betas[16:]
        self._weights = np.eye(16)[model.keypoint_joints]
        self._weights[_TIPS] = model.weights[model.tip_vertices]
        self._weights_below = self._weights @ DESCENDANTS.T
        self._tip_posedirs = model.posedirs[model.tip_vertices].reshape(15, 135)

    def rest_keypoints(self, betas: np.ndarray) -> np.ndarray:
        """Keypoints (21,3), metres, of the hand ``betas`` (10,) at zero pose."""
        return self._keypoints + self._keypoints_by_betas @ betas

    def hand_length(self, betas: np.ndarray) -> tuple[float, np.ndarray]:
        """Metres from wrist to middle tip at zero pose, and their derivative (10,) by ``betas``."""
        wrist, middle_tip = 0, TIP_KEYPOINTS[2]
        by_betas = self._keypoints_by_betas[middle_tip] - self._keypoints_by_betas[wrist]
        reach = self._keypoints[middle_tip] - self._keypoints[wrist] + by_betas @ betas
        length = float(np.linalg.norm(reach))
        return length, reach @ by_betas / length

    def keypoints(
        self, orientation: np.ndarray, hand_pose: np.ndarray, betas: np.ndarray, transl: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (21,3) in metres and their Jacobian (21,3,61).

        ``orientation`` is a rotation matrix (3,3), ``hand_pose`` (45,) axis-angle, ``betas`` (10,),
        ``transl`` (3,) metres. The Jacobian's ORIENT columns are by w in ``orientation @ exp(w)`` at w = 0,
        the others by the parameters themselves.
        """
        angles = hand_pose.reshape(15, 3)
        local = rotation_matrices(angles)
        turns = right_jacobian(angles)
        rest_joints = self._joints + self._joints_by_betas @ betas
        rest = self.rest_keypoints(betas)
        rest[_TIPS] += (self._tip_posedirs @ (local - np.eye(3)).reshape(135)).reshape(5, 3)

        rotations = np.empty((16, 3, 3))
        rotations[0] = orientation
        for level in JOINT_LEVELS:
            rotations[level] = rotations[PARENTS[level]] @ local[level - 1]
        joints = _along_bones(rotations, rest_joints[:, :, None])[:, :, 0] + transl

        # Where each keypoint would be if it were rigid with each joint, weighted: (21,16,3)
        offsets = joints - (rotations @ rest_joints[:, :, None])[:, :, 0]
        carried = (rest @ rotations.transpose(0, 2, 1)).transpose(1, 0, 2) + offsets
        carried *= self._weights[:, :, None]
        blended = (self._weights @ rotations.reshape(16, 9)).reshape(21, 3, 3)

        jacobian = np.empty((21, 3, PARAMETERS))
        # A joint turns what hangs below it about its own position
        axes = rotations.copy()
        axes[1:] = rotations[1:] @ turns
        levers = DESCENDANTS @ carried - self._weights_below[:, :, None] * joints
        jacobian[:, :, : POSE.stop] = -(skew(levers) @ axes).transpose(0, 2, 1, 3).reshape(21, 3, POSE.stop)
        jacobian[_TIPS, :, POSE] += blended[_TIPS] @ self._tips_by_pose(local, turns)
        jacobian[:, :, TRANSL] = np.eye(3)
        drift = _along_bones(rotations, self._joints_by_betas) - rotations @ self._joints_by_betas
        by_joints = (self._weights @ drift.reshape(16, -1)).reshape(21, 3, -1)
        jacobian[:, :, BETAS] = blended @ self._keypoints_by_betas + by_joints
        return carried.sum(axis=1), jacobian

    def keypoints_of_many(
        self, orientations: np.ndarray, hand_poses: np.ndarray, betas: np.ndarray
    ) -> np.ndarray:
        """Keypoints (N,21,3) float64 metres of N hands, the wrist joint where it is at rest.

        ``orientations`` are rotation matrices (N,3,3), ``hand_poses`` (N,45) axis-angle, ``betas`` (N,10).
        """
        count = len(betas)
        local = rotation_matrices(hand_poses.reshape(count, 15, 3))
        rest_joints = self._joints + (betas @ self._joints_by_betas.reshape(48, 10).T).reshape(count, 16, 3)
        rest = self._keypoints + (betas @ self._keypoints_by_betas.reshape(63, 10).T).reshape(count, 21, 3)
        turned_by = (local - np.eye(3)).reshape(count, 135)
        rest[:, _TIPS] += (turned_by @ self._tip_posedirs.T).reshape(count, 5, 3)

        rotations, joints = np.empty((count, 16, 3, 3)), np.empty((count, 16, 3))
        rotations[:, 0], joints[:, 0] = orientations, rest_joints[:, 0]
        for level in JOINT_LEVELS:
            parents = PARENTS[level]
            turned = rotations[:, parents]
            bones = rest_joints[:, level] - rest_joints[:, parents]
            rotations[:, level] = turned @ local[:, level - 1]
            joints[:, level] = joints[:, parents] + np.einsum('njab,njb->nja', turned, bones)
        offsets = joints - np.einsum('njab,njb->nja', rotations, rest_joints)
        blended = (self._weights @ rotations.reshape(count, 16, 9)).reshape(count, 21, 3, 3)
        return np.einsum('nkab,nkb->nka', blended, rest) + self._weights @ offsets

    def _tips_by_pose(self, local: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """(5,3,45): how the pose correction moves the tips of the unposed mesh."""
        matrices_by_pose = local[:, None] @ skew(turns.transpose(0, 2, 1))  # joint, component, matrix
        tips_by_matrices = self._tip_posedirs.reshape(15, 15, 9).transpose(1, 0, 2)  # joint, tip xyz, matrix
        by_pose = tips_by_matrices @ matrices_by_pose.reshape(15, 3, 9).transpose(0, 2, 1)
        return by_pose.transpose(1, 0, 2).reshape(5, 3, 45)


def _along_bones(rotations: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Sums ``rest`` (16,3,N), positions or their derivatives, along the turned bones: (16,3,N)."""
    placed = np.empty_like(rest)
    placed[0] = rest[0]
    for level in JOINT_LEVELS:
        parents = PARENTS[level]
        placed[level] = placed[parents] + rotations[parents] @ (rest[level] - rest[parents])
    return placed
