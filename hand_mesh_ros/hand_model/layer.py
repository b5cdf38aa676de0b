"""The hand model in PyTorch: batched, differentiable, and exportable to ONNX.

The same skinning as ``HandModel.posed`` (see ``model`` for its source); the only module of a running
hand that needs torch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hand_mesh_ros.hand_model.model import HandModel

#: Squared angle below which a Taylor series stands in for a quotient of two vanishing numbers.
_SMALL_SQUARED_ANGLE = 1e-3


class HandLayerOutput(NamedTuple):
    """Posed hands, metres."""

    vertices: Tensor  #: (B,V,3)
    joints: Tensor  #: (B,16,3)
    keypoints: Tensor  #: (B,21,3)


class HandLayer(nn.Module):
    """Poses hands of one model. Has no parameters; its buffers follow ``.to(device)`` and ``.to(dtype)``."""

    v_template: Tensor
    shapedirs: Tensor
    posedirs: Tensor
    weights: Tensor
    rest_template: Tensor
    rest_shapedirs: Tensor
    keypoint_joints: Tensor
    tip_vertices: Tensor
    identity: Tensor

    def __init__(self, model: HandModel, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        vertices = len(model.v_template)
        # Joints and keypoints are linear in betas: regressing them once saves the product in every pass.
        regressor = np.concatenate([model.joint_regressor, model.keypoint_regressor])
        self._add_buffer('v_template', model.v_template, dtype)
        self._add_buffer('shapedirs', model.shapedirs.reshape(vertices * 3, -1).T, dtype)
        self._add_buffer('posedirs', model.posedirs.reshape(vertices * 3, -1).T, dtype)
        self._add_buffer('weights', model.weights, dtype)
        self._add_buffer('rest_template', regressor @ model.v_template, dtype)
        self._add_buffer(
            'rest_shapedirs', np.einsum('jv,vak->kja', regressor, model.shapedirs).reshape(-1, 37 * 3), dtype
        )
        self._add_buffer('keypoint_joints', model.keypoint_joints, torch.int64)
        self._add_buffer('tip_vertices', model.tip_vertices, torch.int64)
        self._add_buffer('identity', np.eye(3), dtype)

    def forward(
        self, global_orient: Tensor, hand_pose: Tensor, betas: Tensor, transl: Tensor
    ) -> HandLayerOutput:
        """Hands of ``global_orient`` (B,3), ``hand_pose`` (B,45), ``betas`` (B,10) and ``transl`` (B,3).

        Axis-angles in radians, the model's mean pose included; metres.
        """
        vectors = torch.cat([global_orient, hand_pose], dim=1).reshape(-1, 16, 3)
        return self.from_rotations(rotation_matrices(vectors), betas, transl)

    def from_rotations(self, rotations: Tensor, betas: Tensor, transl: Tensor) -> HandLayerOutput:
        """Hands of joint rotations (B,16,3,3), each against its parent, the wrist's first."""
        rest = self.rest_template + (betas @ self.rest_shapedirs).reshape(-1, 37, 3)
        rest_joints, rest_keypoints = rest[:, :16], rest[:, 16:]
        global_rotations, joints = _forward_kinematics(rotations, rest_joints)
        vertices = self._skinned(betas, rotations, rest_joints, global_rotations, joints)
        keypoints = self._keypoints(rest_joints, rest_keypoints, global_rotations, joints, vertices)
        shift = transl[:, None]
        return HandLayerOutput(vertices + shift, joints + shift, keypoints + shift)

    def _skinned(
        self, betas: Tensor, rotations: Tensor, rest_joints: Tensor, global_rotations: Tensor, joints: Tensor
    ) -> Tensor:
        pose_feature = (rotations[:, 1:] - self.identity).reshape(-1, 135)
        displacements = betas @ self.shapedirs + pose_feature @ self.posedirs
        shaped = self.v_template + displacements.reshape(-1, *self.v_template.shape)
        offsets = joints[..., None] - global_rotations @ rest_joints[..., None]
        motions = torch.cat([global_rotations, offsets], dim=3).reshape(-1, 16, 12)
        blended = (self.weights @ motions).reshape(-1, len(self.weights), 3, 4)
        return (blended[..., :3] @ shaped[..., None] + blended[..., 3:]).squeeze(-1)

    def _keypoints(
        self,
        rest_joints: Tensor,
        rest_keypoints: Tensor,
        global_rotations: Tensor,
        joints: Tensor,
        vertices: Tensor,
    ) -> Tensor:
        own = self.keypoint_joints
        # Not [:, own], which exporters make several operators of
        offsets = (rest_keypoints - rest_joints.index_select(1, own))[..., None]
        turned = (global_rotations.index_select(1, own) @ offsets).squeeze(-1)
        rigid = joints.index_select(1, own) + turned
        # Each finger's tip is the last of its four keypoints, after the wrist
        fingers = rigid[:, 1:].reshape(-1, 5, 4, 3)
        tips = vertices.index_select(1, self.tip_vertices)[:, :, None]
        return torch.cat([rigid[:, :1], torch.cat([fingers[:, :, :3], tips], dim=2).flatten(1, 2)], dim=1)

    def _add_buffer(self, name: str, array: np.ndarray, dtype: torch.dtype) -> None:
        # The model file is where these come from: a network's checkpoint must not carry a copy of it.
        # A copy, lest a change of the buffer reach the model.
        self.register_buffer(name, torch.tensor(np.ascontiguousarray(array), dtype=dtype), persistent=False)


def rotation_matrices(vectors: Tensor) -> Tensor:
    """Rotation matrices (...,3,3) of axis-angle vectors (...,3), radians; smooth everywhere, at zero too."""
    squared = (vectors * vectors).sum(dim=-1)[..., None, None]
    small = squared < _SMALL_SQUARED_ANGLE
    # The closed forms get a harmless angle where the series is taken: a NaN in the branch not taken
    # would still reach the gradient.
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    half_sine = torch.sin(angle / 2)
    a = torch.where(
        small, 1 - squared / 6 * (1 - squared / 20 * (1 - squared / 42)), torch.sin(angle) / angle
    )
    b_series = (1 - squared / 12 * (1 - squared / 30 * (1 - squared / 56))) / 2
    b = torch.where(small, b_series, 2 * half_sine * half_sine / (angle * angle))
    x, y, z = vectors.unbind(dim=-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return identity + a * cross + b * (cross @ cross)


def _forward_kinematics(rotations: Tensor, rest_joints: Tensor) -> tuple[Tensor, Tensor]:
    """Global rotations (B,16,3,3) and positions (B,16,3) of the joints, the wrist staying in its place."""
    # MANO orders its joints finger by finger, three each, from root to tip
    finger_rotations = rotations[:, 1:].reshape(-1, 5, 3, 3, 3)
    finger_joints = rest_joints[:, 1:].reshape(-1, 5, 3, 3)
    wrist_rotation, wrist = rotations[:, :1], rest_joints[:, :1]
    rotation, joint, rest_joint = wrist_rotation.expand(-1, 5, -1, -1), wrist, wrist
    all_rotations, all_joints = [], []
    for level in range(3):
        bone = finger_joints[:, :, level] - rest_joint
        joint = joint + (rotation @ bone[..., None]).squeeze(-1)
        rotation = rotation @ finger_rotations[:, :, level]
        rest_joint = finger_joints[:, :, level]
        all_rotations.append(rotation)
        all_joints.append(joint)
    fingers = torch.stack(all_rotations, dim=2).flatten(1, 2)
    return (
        torch.cat([wrist_rotation, fingers], dim=1),
        torch.cat([wrist, torch.stack(all_joints, dim=2).flatten(1, 2)], dim=1),
    )
