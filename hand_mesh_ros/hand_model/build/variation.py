"""What MakeHuman's hands lack: proportions that vary between people, anatomical knuckles, true sizes.

Bodies sampled from anny differ in their hands by little but size (97 % of the variance is one component), so
fingers and palm get variation of their own here. Its spread is an assumption: a few per cent, as between real
hands.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.interpolate import RBFInterpolator

from hand_mesh_ros.hand_model.build.rig import FINGER_JOINTS, HandSamples
from hand_mesh_ros.hand_model.build.shape_space import WRIST_OFFSET_M
from hand_mesh_ros.hand_model.build.topology import vertex_neighbours
from hand_mesh_ros.hand_model.keypoints import FINGERS

#: Mean lengths of proximal phalanges, and of the middle finger's middle phalanx, in A. Buryanov, V. Kotiuk,
#: "Proportions of hand segments", International Journal of Morphology 28(3), 2010.
_PROXIMAL_PHALANX_MM = {'index': 39.78, 'middle': 44.63, 'ring': 41.37, 'pinky': 32.74}
_MIDDLE_PHALANX_MM = 26.33

#: Relative standard deviations.
_PALM_LENGTH, _PALM_THICKNESS, _PALM_BREADTH = 0.02, 0.03, 0.03
_FINGER_LENGTH, _THUMB_LENGTH = 0.025, 0.03
_GIRTH_OF_HAND, _GIRTH_OF_FINGER = 0.03, 0.015

#: Mean length of the hand, from the crease of the wrist, where its keypoint lies, to the tip of the middle
#: finger, of men and of women (metres).
_HAND_LENGTH_MEN, _HAND_LENGTH_WOMEN = 0.189, 0.172

#: The wrist keypoint's offset is in metres, so lengths are not quite proportional to the scale.
_SIZE_ROUNDS = 8

#: The web between thumb and index, in the flat rest pose with the wrist joint at the origin (metres).
_WEB_CENTRE = np.array([-0.082, -0.007, 0.033])
_WEB_RADIUS_M = 0.027


def smooth_thumb_web(samples: HandSamples) -> HandSamples:
    """Smooth the folds that spreading the thumb leaves between thumb and index, and the weights there."""
    mean = samples.vertices.mean(0)
    strength = 0.6 * np.clip(1.2 * (1 - np.linalg.norm(mean - _WEB_CENTRE, axis=1) / _WEB_RADIUS_M), 0, 1)
    of_thumb = samples.weights[:, FINGER_JOINTS['thumb'][:2]].sum(1)
    strength[of_thumb < 0.01] = 0
    neighbours = vertex_neighbours(samples.faces)
    smoothing = np.eye(len(mean))
    for vertex in np.nonzero(strength)[0]:
        ring = list(neighbours[vertex])
        smoothing[vertex, vertex] = 1 - strength[vertex]
        smoothing[vertex, ring] = strength[vertex] / len(ring)
    smoothing = np.linalg.matrix_power(smoothing, 12)
    vertices = samples.vertices.copy()
    for vertex in np.nonzero(strength)[0]:
        around = np.nonzero(smoothing[vertex])[0]
        vertices[:, vertex] = smoothing[vertex, around] @ samples.vertices[:, around]
    return replace(samples, vertices=vertices, weights=smoothing @ samples.weights)


def set_knuckles(samples: HandSamples) -> HandSamples:
    """Move the MCP joints towards the wrist, to give the proximal phalanges better proportions.

    MakeHuman has them at the roots of the fingers, all in a line. In a hand they lie deeper in the palm. The
    middle finger's goes half the way to where the proportions of bones would put it: further, and the skin
    would not bend well. The other phalanges have their true proportions to that one. The skin stays; the
    border between palm and finger in its weights moves along with the joint.
    """
    joints, weights = samples.joints.copy(), samples.weights.copy()
    mean, mean_joints = samples.vertices.mean(0), samples.joints.mean(0)
    bones = np.linalg.norm(np.diff(mean_joints, axis=0), axis=1)
    knuckle, next_joint, _ = FINGER_JOINTS['middle']
    anatomical = bones[next_joint] * _PROXIMAL_PHALANX_MM['middle'] / _MIDDLE_PHALANX_MM
    middle_phalanx = (bones[knuckle] + anatomical) / 2
    for finger, length in _PROXIMAL_PHALANX_MM.items():
        knuckle, next_joint, _ = FINGER_JOINTS[finger]
        stretch = middle_phalanx * length / _PROXIMAL_PHALANX_MM['middle'] / bones[knuckle]
        joints[:, knuckle] = joints[:, next_joint] + stretch * (joints[:, knuckle] - joints[:, next_joint])
        shift = joints[:, knuckle].mean(0) - mean_joints[knuckle]

        both = weights[:, 0] + weights[:, knuckle]
        border = np.nonzero((both > 0.05) & (np.linalg.norm(mean - mean_joints[knuckle], axis=1) < 0.04))[0]
        share = weights[border, knuckle] / both[border]
        shares = RBFInterpolator(mean[border], share, neighbors=20, kernel='linear')
        moved = np.clip(shares(mean[border] - shift), 0, 1)
        weights[border, knuckle] = moved * both[border]
        weights[border, 0] = (1 - moved) * both[border]
    return replace(samples, joints=joints, weights=weights)


def vary_proportions(samples: HandSamples, seed: int) -> HandSamples:
    """Vary the palm's size along each axis and the length and girth of every finger.

    In the flat rest pose with the wrist joint at the origin. A finger is stretched along its bones, widened
    around them and carried by its knuckle, which moves with the palm.
    """
    rng = np.random.default_rng(seed)
    count = len(samples.vertices)

    def spread(deviation: float) -> np.ndarray:
        return deviation * np.clip(rng.standard_normal(count), -3, 3)

    palm = np.stack([spread(_PALM_LENGTH), spread(_PALM_THICKNESS), spread(_PALM_BREADTH)], axis=1)[:, None]
    girth_of_hand = spread(_GIRTH_OF_HAND)
    vertices = samples.vertices + samples.weights[:, :1] * samples.vertices * palm
    joints, tips = samples.joints.copy(), samples.tips.copy()
    ends = samples.bone_ends()
    for number, (finger, chain) in enumerate(FINGER_JOINTS.items()):
        length = spread(_THUMB_LENGTH if finger == 'thumb' else _FINGER_LENGTH)[:, None]
        girth = (girth_of_hand + spread(_GIRTH_OF_FINGER))[:, None, None]
        carried = samples.joints[:, chain[0]] * palm[:, 0]
        for joint in chain:
            joints[:, joint] += carried
            bone = ends[:, joint] - samples.joints[:, joint]
            along = bone / np.linalg.norm(bone, axis=1, keepdims=True)
            held = np.nonzero(samples.weights[:, joint] > 0)[0]
            arm = samples.vertices[:, held] - samples.joints[:, None, joint]
            axial = np.einsum('nvi,ni->nv', arm, along)[..., None] * along[:, None]
            moved = carried[:, None] + length[:, None] * axial + girth * (arm - axial)
            vertices[:, held] += samples.weights[held, joint, None] * moved
            carried = carried + length * bone
        tips[:, number] += carried
    return replace(samples, vertices=vertices, joints=joints, tips=tips)


def set_sizes(samples: HandSamples, middle_tip: int) -> HandSamples:
    """Scale all men's and all women's hands so that their mean lengths are true."""
    for _ in range(_SIZE_ROUNDS):
        length = hand_lengths(samples, middle_tip)
        scale = np.where(
            samples.is_male,
            _HAND_LENGTH_MEN / length[samples.is_male].mean(),
            _HAND_LENGTH_WOMEN / length[~samples.is_male].mean(),
        )[:, None, None]
        samples = replace(
            samples,
            vertices=samples.vertices * scale,
            joints=samples.joints * scale,
            tips=samples.tips * scale,
        )
    return samples


def hand_lengths(samples: HandSamples, middle_tip: int) -> np.ndarray:
    """Wrist keypoint to the vertex at the middle finger's tip (N,), metres."""
    reach = samples.vertices[:, middle_tip] - samples.joints[:, 0]
    from_joint = np.linalg.norm(reach, axis=1, keepdims=True)
    return np.asarray(np.linalg.norm(reach - WRIST_OFFSET_M * from_joint / from_joint.mean(), axis=1))


def tip_vertices(samples: HandSamples) -> np.ndarray:
    """The vertex furthest out along each last bone, thumb to pinky (5,)."""
    mean, joints, ends = samples.vertices.mean(0), samples.joints.mean(0), samples.bone_ends().mean(0)
    tips = []
    for finger in FINGERS:
        last = FINGER_JOINTS[finger][2]
        held = np.nonzero(samples.weights[:, last] > 0.8)[0]
        tips.append(held[np.argmax((mean[held] - joints[last]) @ (ends[last] - joints[last]))])
    return np.array(tips)
