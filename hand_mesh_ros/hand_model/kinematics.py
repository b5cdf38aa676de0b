"""Keypoints of a posed hand, and how they move with every parameter, without posing the whole mesh."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.compiled import compiled
from hand_mesh_ros.hand_model.keypoints import TIP_KEYPOINTS
from hand_mesh_ros.hand_model.model import JOINT_LEVELS, PARENTS, HandModel, forward_kinematics
from hand_mesh_ros.hand_model.rotations import right_jacobian, rotation_matrices

#: Columns of the Jacobian of :meth:`KeypointKinematics.keypoints`.
ORIENT = slice(0, 3)
POSE = slice(3, 48)
TRANSL = slice(48, 51)
BETAS = slice(51, 61)
PARAMETERS = 61

#: Slices' beginnings, for compiled loops.
_FIRST_SHIFT, _FIRST_BETA = TRANSL.start, BETAS.start

_TIPS = np.array(TIP_KEYPOINTS)


class KeypointKinematics:
    """What the 21 keypoints need of a hand model, reduced once from its mesh.

    A tip is a skinned vertex, pose correction included; every other keypoint is rigid with one joint. Both
    are skinned points here, the latter with a single weight. The keypoints are those of ``HandModel.posed``.
    """

    def __init__(self, model: HandModel) -> None:
        rest, by_betas = model.regressed_at_rest, model.regressed_by_betas
        self._joints, self._keypoints = rest[:16], rest[16:]
        self._joints_by_betas, self._keypoints_by_betas = by_betas[:16], by_betas[16:]
        self._weights = np.eye(16)[model.keypoint_joints]
        self._weights[_TIPS] = model.weights[model.tip_vertices]
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
        local = np.empty((16, 3, 3))
        local[0], local[1:] = orientation, rotation_matrices(angles)
        rest_joints = self._joints + self._joints_by_betas @ betas
        rotations, joints = forward_kinematics(local, rest_joints, np.ascontiguousarray(transl, np.float64))
        turns, rest = right_jacobian(angles), self.rest_keypoints(betas)
        tips_by_pose = _corrected_tips(rest, self._tip_posedirs, local, turns)
        axes = rotations.copy()
        axes[1:] = rotations[1:] @ turns
        return _moving_keypoints(
            rest,
            self._keypoints_by_betas,
            tips_by_pose,
            self._weights,
            rotations,
            axes,
            rest_joints,
            joints,
            moved_by_bones(rotations, self._joints_by_betas),
        )

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


@compiled
def _moving_keypoints(  # type: ignore[no-untyped-def]
    rest, by_betas, tips_by_pose, weights, rotations, axes, rest_joints, joints, joints_by_betas
):
    """Skins the keypoints ``rest`` (21,3): where they are, and their Jacobian (21,3,61)."""
    jacobian = np.zeros((21, 3, PARAMETERS))
    keypoints, blended = np.zeros((21, 3)), np.empty((3, 3))
    carried, share = np.empty((16, 3)), np.empty(16)
    tip = 0
    for k in range(21):
        blended[:] = 0.0
        for j in range(16):
            share[j] = weight = weights[k, j]
            for a in range(3):
                carried[j, a] = 0.0
                if weight == 0.0:
                    continue
                carried[j, a] = joints[j, a]
                for b in range(3):
                    carried[j, a] += rotations[j, a, b] * (rest[k, b] - rest_joints[j, b])
                    blended[a, b] += weight * rotations[j, a, b]
                carried[j, a] *= weight
                keypoints[k, a] += carried[j, a]
                for n in range(10):
                    jacobian[k, a, _FIRST_BETA + n] += weight * joints_by_betas[j, a, n]
        # A joint turns what hangs below it about its own position: from the leaves up, that and its share
        for j in range(15, -1, -1):
            if share[j] == 0.0:
                continue
            x = carried[j, 0] - share[j] * joints[j, 0]
            y = carried[j, 1] - share[j] * joints[j, 1]
            z = carried[j, 2] - share[j] * joints[j, 2]
            for b in range(3):
                ax, ay, az = axes[j, 0, b], axes[j, 1, b], axes[j, 2, b]
                jacobian[k, 0, 3 * j + b] = ay * z - az * y
                jacobian[k, 1, 3 * j + b] = az * x - ax * z
                jacobian[k, 2, 3 * j + b] = ax * y - ay * x
            if j > 0:
                share[PARENTS[j]] += share[j]
                for a in range(3):
                    carried[PARENTS[j], a] += carried[j, a]
        for a in range(3):
            jacobian[k, a, _FIRST_SHIFT + a] = 1.0
            for b in range(3):
                for n in range(10):
                    jacobian[k, a, _FIRST_BETA + n] += blended[a, b] * by_betas[k, b, n]
                if k == _TIPS[tip]:
                    for n in range(45):
                        jacobian[k, a, 3 + n] += blended[a, b] * tips_by_pose[tip, b, n]
        if k == _TIPS[tip]:
            tip = min(tip + 1, 4)
    return keypoints, jacobian


@compiled
def _corrected_tips(rest, tip_posedirs, local, turns):  # type: ignore[no-untyped-def]
    """Adds the pose's correction to the tips at rest; how it goes with the pose, (5,3,45)."""
    by_pose = np.zeros((5, 3, 45))
    change = np.empty(9)
    for j in range(15):
        matrix = local[j + 1]
        for i in range(3):
            x, y, z = turns[j, 0, i], turns[j, 1, i], turns[j, 2, i]
            for a in range(3):
                change[3 * a] = matrix[a, 1] * z - matrix[a, 2] * y
                change[3 * a + 1] = matrix[a, 2] * x - matrix[a, 0] * z
                change[3 * a + 2] = matrix[a, 0] * y - matrix[a, 1] * x
            for t in range(5):
                for a in range(3):
                    for e in range(9):
                        by_pose[t, a, 3 * j + i] += tip_posedirs[3 * t + a, 9 * j + e] * change[e]
        for t in range(5):
            for a in range(3):
                for e in range(9):
                    entry = matrix[e // 3, e % 3] - (1.0 if e % 4 == 0 else 0.0)
                    rest[_TIPS[t], a] += tip_posedirs[3 * t + a, 9 * j + e] * entry
    return by_pose


@compiled
def moved_by_bones(rotations, joints_by_betas):  # type: ignore[no-untyped-def]
    """How N betas move the posed joints beyond what the joints' own turning makes of it, (16,3,N)."""
    moved = np.empty_like(joints_by_betas)
    for j in range(16):
        parent = max(PARENTS[j], 0)
        for a in range(3):
            for n in range(moved.shape[2]):
                # The joint, a bone further along than its parent
                along = joints_by_betas[0, a, n] if j == 0 else moved[parent, a, n]
                for b in range(3):
                    turned = rotations[parent, a, b] if j > 0 else 0.0
                    along += (turned - rotations[j, a, b]) * joints_by_betas[j, b, n]
                moved[j, a, n] = along
    return moved
