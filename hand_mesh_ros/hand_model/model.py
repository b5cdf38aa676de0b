"""The hand model in NumPy: from MANO parameters to a mesh, its joints, keypoints and frames.

Linear blend skinning as in J. Romero, D. Tzionas, M. J. Black, "Embodied Hands: Modeling and
Capturing Hands and Bodies Together", SIGGRAPH Asia 2017, so that any model in MANO's schema works.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model import mirroring
from hand_mesh_ros.hand_model.frames import fingertip_axes_at_rest, hand_axes_at_rest, transforms
from hand_mesh_ros.hand_model.keypoints import JOINT_PARENTS, KEYPOINT_JOINTS, TIP_KEYPOINTS
from hand_mesh_ros.hand_model.rotations import rotation_matrices

#: Betas further from the mean than this, in standard deviations, are no human hand's.
MAX_BETAS_NORM = 4.0

#: Joints of the five fingers by distance from the wrist: MANO orders its joints finger by finger.
JOINT_LEVELS = np.arange(1, 16).reshape(5, 3).T

#: The last joint of each finger, thumb to pinky.
_LAST_JOINTS = np.array(KEYPOINT_JOINTS)[list(TIP_KEYPOINTS)]

#: Parent of each joint, for indexing.
PARENTS = np.array(JOINT_PARENTS)


@dataclass(frozen=True, eq=False)
class RestHand:
    """A hand of some shape at zero pose. Float64 metres in model axes (see ``frames``)."""

    vertices: np.ndarray  #: (V,3)
    joints: np.ndarray  #: (16,3)
    keypoints: np.ndarray  #: (21,3)


@dataclass(frozen=True, eq=False)
class PosedHand:
    """A posed hand. Float64, metres, in the frame that ``transl`` and ``global_orient`` are in."""

    vertices: np.ndarray  #: (V,3)
    joints: np.ndarray  #: (16,3)
    keypoints: np.ndarray  #: (21,3)
    joint_rotations: np.ndarray  #: (16,3,3): of each joint against the model's rest, all ancestors included
    T_camera_hand: np.ndarray  #: (4,4)
    T_camera_fingertips: np.ndarray  #: (5,4,4): thumb to pinky


@dataclass(frozen=True, eq=False)
class HandModel:
    """A hand model of one side, in MANO's schema. Float64 and metres where nothing else is said.

    Poses always include the model's mean pose: zero pose is the flat hand of ``v_template``.
    """

    name: str
    license: str
    sha256: str  #: of the file that the model came from
    side: Side
    v_template: np.ndarray  #: (V,3)
    faces: np.ndarray  #: (F,3) int32
    shapedirs: np.ndarray  #: (V,3,10): displacement for each beta
    posedirs: np.ndarray  #: (V,3,135): displacement for each entry of the 15 rotation matrices minus identity
    joint_regressor: np.ndarray  #: (16,V)
    weights: np.ndarray  #: (V,16): how much each vertex moves with each joint
    hands_mean: np.ndarray  #: (45,) radians, axis-angle
    hands_components: np.ndarray  #: (45,45): principal components of the pose, one a row
    tip_vertices: np.ndarray  #: (5,) int64: thumb to pinky
    keypoint_regressor: np.ndarray  #: (21,V): rest keypoints from rest vertices
    keypoint_joints: np.ndarray  #: (21,) int64: the joint that each keypoint moves with
    pose_limits: np.ndarray  #: (45,2) radians: lower and upper limit of each axis-angle component

    def rest(self, betas: np.ndarray) -> RestHand:
        """The hand of shape ``betas`` (10,) at zero pose."""
        betas = np.asarray(betas, np.float64)
        return RestHand(
            vertices=self.v_template + self.shapedirs @ betas,
            joints=self._joint_template + self._joint_shapedirs @ betas,
            keypoints=self._keypoint_template + self._keypoint_shapedirs @ betas,
        )

    def posed(
        self, global_orient: np.ndarray, hand_pose: np.ndarray, betas: np.ndarray, transl: np.ndarray
    ) -> PosedHand:
        """The hand of these MANO parameters.

        ``global_orient`` (3,) radians turns the hand about its wrist joint; ``hand_pose`` (45,)
        radians, axis-angle, mean pose included; ``betas`` (10,); ``transl`` (3,) metres.
        """
        local = np.concatenate([np.reshape(global_orient, (1, 3)), np.reshape(hand_pose, (15, 3))])
        local_rotations = rotation_matrices(local)
        transl = np.asarray(transl, np.float64)
        rest = self.rest(betas)
        rotations, joints = _forward_kinematics(local_rotations, rest.joints)
        vertices = self._skinned(rest, local_rotations, rotations, joints) + transl
        joints = joints + transl
        keypoints = self._posed_keypoints(rest, rotations, joints, vertices)
        tips_at_rest = rest.keypoints[list(TIP_KEYPOINTS)]
        fingertip_axes = fingertip_axes_at_rest(self.side, rest.joints[_LAST_JOINTS], tips_at_rest)
        return PosedHand(
            vertices=vertices,
            joints=joints,
            keypoints=keypoints,
            joint_rotations=rotations,
            T_camera_hand=transforms(rotations[0] @ hand_axes_at_rest(self.side), keypoints[0]),
            T_camera_fingertips=transforms(
                rotations[_LAST_JOINTS] @ fingertip_axes, keypoints[list(TIP_KEYPOINTS)]
            ),
        )

    def hand_length(self, betas: np.ndarray) -> float:
        """Metres from the wrist keypoint to the tip of the middle finger, both at zero pose."""
        offset, per_beta = self._wrist_to_middle_tip
        return float(np.linalg.norm(offset + per_beta @ np.asarray(betas, np.float64)))

    def betas_for_length(self, length_m: float) -> np.ndarray:
        """The betas (10,) nearest to the mean shape whose hand is ``length_m`` long.

        Raises ConfigurationError for a length that no plausible shape of this model has.
        """
        offset, per_beta = self._wrist_to_middle_tip
        betas = np.zeros(per_beta.shape[1])
        if np.isfinite(length_m):
            # The smallest betas of the linearised length, again and again: the length is so nearly linear
            # in betas that a few rounds reach the last digit.
            for _ in range(20):
                reach = offset + per_beta @ betas
                length = np.linalg.norm(reach)
                slope = per_beta.T @ reach / length
                betas = slope * ((length_m - length + slope @ betas) / (slope @ slope))
        if np.linalg.norm(betas) > MAX_BETAS_NORM or not abs(self.hand_length(betas) - length_m) < 1e-6:
            mean = np.linalg.norm(offset)
            raise ConfigurationError(
                f'no hand of model {self.name!r} is {length_m} m long from the wrist to the tip of the '
                f'middle finger; its mean hand has {mean:.3f} m'
            )
        return betas

    def mirrored(self) -> HandModel:
        """The model of the other side. Mirrored parameters (see ``mirroring``) give the mirrored hand."""
        return replace(
            self,
            side='left' if self.side == 'right' else 'right',
            v_template=mirroring.mirrored_points(self.v_template),
            faces=mirroring.mirrored_faces(self.faces),
            shapedirs=mirroring.mirrored_shapedirs(self.shapedirs),
            posedirs=mirroring.mirrored_posedirs(self.posedirs),
            hands_mean=mirroring.mirrored_axis_angles(self.hands_mean),
            hands_components=mirroring.mirrored_axis_angles(self.hands_components),
            pose_limits=mirroring.mirrored_pose_limits(self.pose_limits),
        )

    def _skinned(
        self, rest: RestHand, local_rotations: np.ndarray, rotations: np.ndarray, joints: np.ndarray
    ) -> np.ndarray:
        pose_feature = (local_rotations[1:] - np.eye(3)).ravel()
        shaped = rest.vertices + (self._flat_posedirs @ pose_feature).reshape(-1, 3)
        # Of each joint: what takes a rest position to its posed one
        offsets = joints - np.einsum('jab,jb->ja', rotations, rest.joints)
        motions = np.concatenate([rotations, offsets[:, :, None]], axis=2).reshape(16, 12)
        blended = (self.weights @ motions).reshape(-1, 3, 4)
        return np.einsum('vab,vb->va', blended[:, :, :3], shaped) + blended[:, :, 3]

    def _posed_keypoints(
        self, rest: RestHand, rotations: np.ndarray, joints: np.ndarray, vertices: np.ndarray
    ) -> np.ndarray:
        own = self.keypoint_joints
        offsets = rest.keypoints - rest.joints[own]
        keypoints = joints[own] + np.einsum('kab,kb->ka', rotations[own], offsets)
        keypoints[list(TIP_KEYPOINTS)] = vertices[self.tip_vertices]
        return keypoints

    @cached_property
    def _flat_posedirs(self) -> np.ndarray:
        return np.ascontiguousarray(self.posedirs.reshape(-1, self.posedirs.shape[2]))

    @cached_property
    def _joint_template(self) -> np.ndarray:
        return self.joint_regressor @ self.v_template

    @cached_property
    def _joint_shapedirs(self) -> np.ndarray:
        return np.einsum('jv,vak->jak', self.joint_regressor, self.shapedirs)

    @cached_property
    def _keypoint_template(self) -> np.ndarray:
        return self.keypoint_regressor @ self.v_template

    @cached_property
    def _keypoint_shapedirs(self) -> np.ndarray:
        return np.einsum('kv,vab->kab', self.keypoint_regressor, self.shapedirs)

    @cached_property
    def _wrist_to_middle_tip(self) -> tuple[np.ndarray, np.ndarray]:
        """The vector (3,) of the mean shape, and its change (3,10) with betas."""
        wrist, middle_tip = 0, TIP_KEYPOINTS[2]
        return (
            self._keypoint_template[middle_tip] - self._keypoint_template[wrist],
            self._keypoint_shapedirs[middle_tip] - self._keypoint_shapedirs[wrist],
        )


def _forward_kinematics(
    local_rotations: np.ndarray, rest_joints: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Global rotations (16,3,3) and positions (16,3) of the joints, the wrist staying in its place."""
    rotations = np.empty((16, 3, 3))
    joints = np.empty((16, 3))
    rotations[0], joints[0] = local_rotations[0], rest_joints[0]
    for level in JOINT_LEVELS:
        parents = PARENTS[level]
        bones = rest_joints[level] - rest_joints[parents]
        rotations[level] = rotations[parents] @ local_rotations[level]
        joints[level] = joints[parents] + np.einsum('jab,jb->ja', rotations[parents], bones)
    return rotations, joints
