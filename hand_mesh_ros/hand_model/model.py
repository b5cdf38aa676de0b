"""The hand model in NumPy: from MANO parameters to a mesh, its joints, keypoints and frames.

Linear blend skinning as in J. Romero, D. Tzionas, M. J. Black, "Embodied Hands: Modeling and
Capturing Hands and Bodies Together", SIGGRAPH Asia 2017, so that any model in MANO's schema works.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hand_mesh_ros.compiled import compiled
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

_TIPS = np.array(TIP_KEYPOINTS)

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
        betas = np.ascontiguousarray(betas, np.float64)
        points = _sum_of_rows(self._points_at_rest, self._points_by_betas, betas).reshape(-1, 3)
        return RestHand(vertices=points[:-37], joints=points[-37:-21], keypoints=points[-21:])

    def posed(
        self, global_orient: np.ndarray, hand_pose: np.ndarray, betas: np.ndarray, transl: np.ndarray
    ) -> PosedHand:
        """The hand of these MANO parameters.

        ``global_orient`` (3,) radians turns the hand about its wrist joint; ``hand_pose`` (45,)
        radians, axis-angle, mean pose included; ``betas`` (10,); ``transl`` (3,) metres.
        """
        local = rotation_matrices(np.append(global_orient, hand_pose).reshape(16, 3))
        rest = self.rest(betas)
        rotations, joints = forward_kinematics(local, rest.joints, np.zeros(3))
        corrected = self.corrected(rest.vertices, local[1:])
        vertices = _skinned(corrected, *self.weights_by_vertex, rotations, rest.joints, joints) + transl
        joints += transl
        keypoints = self._posed_keypoints(rest, rotations, joints, vertices)
        tips_at_rest = rest.keypoints[_TIPS]
        fingertip_axes = fingertip_axes_at_rest(self.side, rest.joints[_LAST_JOINTS], tips_at_rest)
        return PosedHand(
            vertices=vertices,
            joints=joints,
            keypoints=keypoints,
            joint_rotations=rotations,
            T_camera_hand=transforms(rotations[0] @ hand_axes_at_rest(self.side), keypoints[0]),
            T_camera_fingertips=transforms(rotations[_LAST_JOINTS] @ fingertip_axes, keypoints[_TIPS]),
        )

    def corrected(self, vertices: np.ndarray, local_rotations: np.ndarray) -> np.ndarray:
        """Rest vertices (V,3) moved as the joints' own rotations (15,3,3) change a hand before skinning."""
        feature = (local_rotations - np.eye(3)).reshape(135)
        return _sum_of_rows(vertices.reshape(-1), self._posedirs_by_entry, feature).reshape(-1, 3)

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

    def _posed_keypoints(
        self, rest: RestHand, rotations: np.ndarray, joints: np.ndarray, vertices: np.ndarray
    ) -> np.ndarray:
        own = self.keypoint_joints
        offsets = rest.keypoints - rest.joints[own]
        keypoints = joints[own] + (rotations[own] @ offsets[:, :, None])[:, :, 0]
        keypoints[_TIPS] = vertices[self.tip_vertices]
        return keypoints

    @cached_property
    def regressed_at_rest(self) -> np.ndarray:
        """The 16 joints, then the 21 keypoints, (37,3), of the mean shape at zero pose."""
        return self._regressors @ self.v_template

    @cached_property
    def regressed_by_betas(self) -> np.ndarray:
        """How joints and keypoints at zero pose change with betas, (37,3,10)."""
        return np.tensordot(self._regressors, self.shapedirs, 1)

    @cached_property
    def _regressors(self) -> np.ndarray:
        return np.concatenate([self.joint_regressor, self.keypoint_regressor])

    @cached_property
    def _points_at_rest(self) -> np.ndarray:
        """Vertices, joints and keypoints, one after the other: (3(V+37),)."""
        return np.concatenate([self.v_template, self.regressed_at_rest]).reshape(-1)

    @cached_property
    def _points_by_betas(self) -> np.ndarray:
        """(10,3(V+37)): one row for each of the betas."""
        return np.ascontiguousarray(
            np.concatenate([self.shapedirs, self.regressed_by_betas]).reshape(-1, 10).T
        )

    @cached_property
    def _posedirs_by_entry(self) -> np.ndarray:
        """(135,3V): one row for each entry of the rotation matrices."""
        return np.ascontiguousarray(self.posedirs.reshape(-1, 135).T, np.float64)

    @cached_property
    def weights_by_vertex(self) -> tuple[np.ndarray, np.ndarray]:
        """Joints (V,K) int64 that move each vertex, and their weights (V,K); see ``nonzero_weights``."""
        return nonzero_weights(self.weights)

    @cached_property
    def _wrist_to_middle_tip(self) -> tuple[np.ndarray, np.ndarray]:
        """The vector (3,) of the mean shape, and its change (3,10) with betas."""
        wrist, middle_tip = 0, TIP_KEYPOINTS[2]
        at_rest, by_betas = self.regressed_at_rest[16:], self.regressed_by_betas[16:]
        return at_rest[middle_tip] - at_rest[wrist], by_betas[middle_tip] - by_betas[wrist]


def nonzero_weights(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Skinning weights (N,16) without their zeros: joints (N,K) int64 and weights (N,K), padded by zeros."""
    most = int(np.count_nonzero(weights, axis=1).max())
    joints = np.argsort(weights == 0.0, axis=1, kind='stable')[:, :most]
    return np.ascontiguousarray(joints), np.take_along_axis(weights, joints, axis=1)


@compiled
def forward_kinematics(local_rotations, rest_joints, transl):  # type: ignore[no-untyped-def]
    """Global rotations (16,3,3) and positions (16,3) of the joints, the wrist moved by ``transl`` (3,)."""
    rotations, joints = np.empty((16, 3, 3)), np.empty((16, 3))
    for j in range(16):
        parent = PARENTS[j]
        for a in range(3):
            if j == 0:
                joints[j, a] = rest_joints[j, a] + transl[a]
                for b in range(3):
                    rotations[j, a, b] = local_rotations[j, a, b]
                continue
            joints[j, a] = joints[parent, a]
            for b in range(3):
                joints[j, a] += rotations[parent, a, b] * (rest_joints[j, b] - rest_joints[parent, b])
                rotations[j, a, b] = 0.0
                for c in range(3):
                    rotations[j, a, b] += rotations[parent, a, c] * local_rotations[j, c, b]
    return rotations, joints


@compiled
def _sum_of_rows(start, rows, shares):  # type: ignore[no-untyped-def]
    """``start + shares @ rows``, without the threads of a BLAS, which are slow on a busy machine."""
    total = start.copy()
    for r in range(len(rows)):
        if shares[r] != 0.0:
            share, row = shares[r], rows[r]
            for n in range(len(total)):
                total[n] += share * row[n]
    return total


@compiled
def _skinned(points, joint_of, weights, rotations, rest_joints, joints):  # type: ignore[no-untyped-def]
    """Linear blend skinning of points (V,3) by joints and weights (V,K)."""
    # Of each joint: what takes a rest position to its posed one
    motions = np.empty((16, 3, 4))
    for j in range(16):
        for a in range(3):
            motions[j, a, 3] = joints[j, a]
            for b in range(3):
                motions[j, a, b] = rotations[j, a, b]
                motions[j, a, 3] -= rotations[j, a, b] * rest_joints[j, b]
    skinned = np.zeros_like(points)
    for v in range(len(points)):
        x, y, z = points[v]
        for k in range(weights.shape[1]):
            share, motion = weights[v, k], motions[joint_of[v, k]]
            if share == 0.0:
                break
            for a in range(3):
                moved = motion[a, 0] * x + motion[a, 1] * y + motion[a, 2] * z + motion[a, 3]
                skinned[v, a] += share * moved
    return skinned
