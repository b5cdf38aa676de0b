"""MakeHuman's hand bones seen as MANO's 16 joints, the hand frame and the flat rest pose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hand_mesh_ros.hand_model.keypoints import FINGERS, JOINT_PARENTS

#: The three joints of each finger, from root to end.
FINGER_JOINTS: dict[str, tuple[int, int, int]] = {
    'thumb': (13, 14, 15),
    'index': (1, 2, 3),
    'middle': (4, 5, 6),
    'ring': (10, 11, 12),
    'pinky': (7, 8, 9),
}

#: The MakeHuman bone whose head is each joint.
JOINT_BONES = ('wrist.R',) + tuple(f'finger{n}-{k}.R' for n in (2, 3, 5, 4, 1) for k in (1, 2, 3))

#: Directions of the thumb's bones in the flat rest pose, chosen close to those of MANO so that poses
#: transfer.
_FLAT_THUMB = np.array([[-0.704, -0.207, 0.680], [-0.785, -0.242, 0.570], [-0.831, -0.203, 0.519]])

#: Where the wrist joint is in the model, about as in MANO (metres).
_WRIST_POSITION_M = np.array([0.095, 0.006, 0.006])

#: Bones without a joint of their own in MANO's skeleton; the skin that they hold moves with the wrist.
WRIST_BONES = ('lowerarm01.R', 'lowerarm02.R', *(f'metacarpal{n}.R' for n in (1, 2, 3, 4)))


@dataclass(frozen=True)
class HandSamples:
    """The same right hand mesh on N people.

    vertices (N, V, 3), joints (N, 16, 3) and tips (N, 5, 3), float64 in metres; tips are the ends of the last
    bones, thumb to pinky. Shared by all: weights (V, 16), which sum to 1 per vertex; faces (F, 4) or (F, 3);
    nail (V,), 1 on the nails. is_male (N,) bool.
    """

    vertices: np.ndarray
    joints: np.ndarray
    tips: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    nail: np.ndarray
    is_male: np.ndarray

    def bone_ends(self) -> np.ndarray:
        """Where the bone of each finger joint ends, (N, 16, 3): next joint or tip; NaN for the wrist."""
        ends = np.full_like(self.joints, np.nan)
        for finger, (root, middle, last) in FINGER_JOINTS.items():
            ends[:, root] = self.joints[:, middle]
            ends[:, middle] = self.joints[:, last]
            ends[:, last] = self.tips[:, FINGERS.index(finger)]
        return ends


def fold_weights(bone_weights: np.ndarray, bone_labels: list[str]) -> np.ndarray:
    """Skinning weights of all bones (V, bones) as weights of the joints (V, 16) that sum to 1 per vertex."""
    weights = bone_weights[:, [bone_labels.index(label) for label in JOINT_BONES]]
    weights[:, 0] += bone_weights[:, [bone_labels.index(label) for label in WRIST_BONES]].sum(1)
    return weights / weights.sum(1, keepdims=True)


def to_hand_frame(samples: HandSamples) -> HandSamples:
    """Each hand with its wrist joint at the origin, middle MCP on -x, back of the hand +y, thumb +z.

    The index and pinky MCP then have the same y.
    """
    joints = samples.joints
    x_axis = _normalised(joints[:, 0] - joints[:, 4])
    y_axis = _normalised(np.cross(joints[:, 1] - joints[:, 7], x_axis))
    rotation = np.stack([x_axis, y_axis, np.cross(x_axis, y_axis)], axis=1)
    origin = joints[:, :1]

    def move(points: np.ndarray) -> np.ndarray:
        return np.asarray((points - origin) @ rotation.transpose(0, 2, 1))

    return replace(samples, vertices=move(samples.vertices), joints=move(joints), tips=move(samples.tips))


def flatten(samples: HandSamples) -> HandSamples:
    """Bring all hands, in the hand frame, into one rest pose, so that pose does not pass for shape.

    The four fingers are straight and parallel to the palm (y = 0), each in its mean direction; the thumb is
    spread. Joints turn by the smallest rotation that does this; skin follows by linear blending.
    """
    joints = samples.joints
    directions = _normalised(samples.bone_ends()[:, 1:] - joints[:, 1:])
    turned = np.broadcast_to(np.eye(3), (*joints.shape, 3)).copy()
    for finger, chain in FINGER_JOINTS.items():
        along_palm = directions[:, chain[0] - 1].mean(0) * (1, 0, 1)
        targets = _FLAT_THUMB if finger == 'thumb' else np.tile(along_palm, (3, 1))
        for joint, target in zip(chain, _normalised(targets), strict=True):
            turned[:, joint] = rotation_between(directions[:, joint - 1], target)

    flat = joints.copy()
    for joint, parent in enumerate(JOINT_PARENTS):
        if parent >= 0:
            bone = joints[:, joint] - joints[:, parent]
            flat[:, joint] = flat[:, parent] + _rotate(turned[:, parent], bone)

    vertices = np.zeros_like(samples.vertices)
    for joint in range(len(JOINT_PARENTS)):
        held = np.nonzero(samples.weights[:, joint] > 0)[0]
        moved = (samples.vertices[:, held] - joints[:, None, joint]) @ turned[:, joint].transpose(0, 2, 1)
        vertices[:, held] += samples.weights[held, joint, None] * (moved + flat[:, None, joint])

    last = [FINGER_JOINTS[finger][2] for finger in FINGERS]
    tips = flat[:, last] + _rotate(turned[:, last], samples.tips - joints[:, last])
    return replace(samples, vertices=vertices, joints=flat, tips=tips)


def place_wrist(samples: HandSamples) -> HandSamples:
    """From the wrist joint at the origin to where the model has it."""
    return replace(
        samples,
        vertices=samples.vertices + _WRIST_POSITION_M,
        joints=samples.joints + _WRIST_POSITION_M,
        tips=samples.tips + _WRIST_POSITION_M,
    )


def rotation_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Smallest rotations (N, 3, 3) that turn the unit vectors ``start`` (N, 3) into the one ``end`` (3,).

    Rodrigues' formula with sin and cos taken from the cross and dot product; not for opposite vectors.
    """
    axis = np.cross(start, end)
    cross = np.zeros((len(axis), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross -= cross.transpose(0, 2, 1)
    cosine = (start @ end)[:, None, None]
    return np.asarray(np.eye(3) + cross + cross @ cross / (1 + cosine))


def _rotate(rotations: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.einsum('...ij,...j->...i', rotations, vectors)


def _normalised(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
