"""Which poses a hand takes: synergies, blends of hand shapes, anything in range, without collisions.

There is no recorded data in it. Real hands are more varied than any such sampler, so half of the samples mix
fingers of different hand shapes and shake every joint.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hand_mesh_ros.hand_model.build.pose_space import (
    ANGLES,
    ANGLES_OF,
    HIGHEST,
    LOWEST,
    NAMED_SHAPES,
    PoseSpace,
)
from hand_mesh_ros.hand_model.build.rig import FINGER_JOINTS
from hand_mesh_ros.hand_model.build.skinning import forward_kinematics
from hand_mesh_ros.hand_model.keypoints import FINGERS

#: Parts of the samples drawn as synergies, as blends of two named shapes and uniformly from the ranges.
_MIX = (0.35, 0.5, 0.15)

#: Standard deviation on each axis-angle component, degrees: joints are not perfect hinges.
_JITTER_DEG = 1.5

#: Skin gives way: fingers may come this close, as part of the sum of their radii.
_CLOSEST = 0.72

#: A last phalanx inside this box (metres, model axes) is inside the palm. The skin of the palm lies at y =
#: -14 mm; real palms give way and arch, which this model does not, so that in a tight fist the fingers sink
#: in.
_PALM_LOW = np.array([0.005, -0.008, -0.032])
_PALM_HIGH = np.array([0.085, np.inf, 0.030])

_BATCH = 5000


@dataclass(frozen=True)
class PosePrior:
    """Collision-free poses and their principal components.

    poses (N, 45), axis-angles in radians; mean (45,); components (45, 45), one per row, largest variance
    first; coefficients (N, 45) of the poses; rejected, the part of the draws that collided.
    """

    poses: np.ndarray
    mean: np.ndarray
    components: np.ndarray
    coefficients: np.ndarray
    rejected: float


def build_pose_prior(
    space: PoseSpace, joints: np.ndarray, tips: np.ndarray, radii: np.ndarray, draws: int, seed: int
) -> PosePrior:
    """Principal components of the collision-free ones among ``draws`` sampled poses.

    joints (16, 3) and tips (5, 3) at rest, radii (16,) of the flesh around each joint's bone, metres.
    """
    rng = np.random.default_rng(seed)
    angles = sample_angles(draws, rng)
    rotations = space.rotations(angles)
    bad = np.concatenate(
        [
            collides(rotations[start : start + _BATCH], joints, tips, radii)
            for start in range(0, draws, _BATCH)
        ]
    )
    poses = space.hand_pose(angles[~bad])
    poses += rng.normal(0, np.radians(_JITTER_DEG), poses.shape)
    mean = poses.mean(0)
    variances, directions = np.linalg.eigh(np.cov((poses - mean).T))
    components = directions[:, np.argsort(variances)[::-1]].T
    largest = np.abs(components).argmax(1)
    components *= np.sign(components[np.arange(45), largest])[:, None]
    return PosePrior(poses, mean, components, (poses - mean) @ components.T, float(bad.mean()))


def sample_angles(count: int, rng: np.random.Generator) -> np.ndarray:
    """Hand shapes (count, 21), degrees, within the ranges of the pose space; some of them collide."""
    kind = rng.choice(3, count, p=_MIX)[:, None]
    angles = np.select(
        [kind == 0, kind == 1], [_synergies(count, rng), _blends(count, rng)], _uniform(count, rng)
    )
    return np.clip(_mix_fingers(angles, rng), LOWEST, HIGHEST)


def collides(rotations: np.ndarray, joints: np.ndarray, tips: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Whether fingers, as capsules, run into each other or into the palm: (N,) bool.

    rotations (N, 15, 3, 3) local; joints (16, 3), tips (5, 3) and radii (16,) at rest, metres.
    """
    placed, turned = forward_kinematics(rotations, joints)
    phalanges = {}
    for finger, tip in zip(FINGERS, tips, strict=True):
        root, middle, last = FINGER_JOINTS[finger]
        # A capsule ends round: its axis stops before the skin does.
        reach = 0.8 * (tip - joints[last])
        end = placed[:, last] + turned[:, last] @ reach
        phalanges[finger] = [
            (placed[:, root], placed[:, middle], radii[root]),
            (placed[:, middle], placed[:, last], radii[middle]),
            (placed[:, last], end, radii[last]),
        ]
    bad = np.zeros(len(rotations), bool)
    for one, other in combinations(FINGERS, 2):
        for i, (start, end, radius) in enumerate(phalanges[one]):
            for k, (other_start, other_end, other_radius) in enumerate(phalanges[other]):
                # Proximal phalanges of neighbours share their flesh.
                if i or k:
                    gap = _segment_distance(start, end, other_start, other_end)
                    bad |= gap < _CLOSEST * (radius + other_radius)
    for finger in FINGERS:
        start, end, _ = phalanges[finger][2]
        for point in (end, (start + end) / 2):
            bad |= ((point > _PALM_LOW) & (point < _PALM_HIGH)).all(1)
    return bad


def bone_radii(vertices: np.ndarray, weights: np.ndarray, joints: np.ndarray, tips: np.ndarray) -> np.ndarray:
    """Mean radius (16,) of the flesh that the bone of each finger joint holds, metres; 0 for the wrist."""
    radii = np.zeros(16)
    for finger, chain in FINGER_JOINTS.items():
        ends = (joints[chain[1]], joints[chain[2]], tips[FINGERS.index(finger)])
        for joint, end in zip(chain, ends, strict=True):
            axis = (end - joints[joint]) / np.linalg.norm(end - joints[joint])
            held = vertices[weights[:, joint] > 0.7]
            radii[joint] = np.linalg.norm(np.cross(held - held.mean(0), axis), axis=1).mean()
    return radii


def _synergies(count: int, rng: np.random.Generator) -> np.ndarray:
    """Fingers that close more or less together, DIP with PIP, while the thumb opposes freely."""

    def noise(deviation: float) -> np.ndarray:
        return rng.normal(0, deviation, count)

    angles = np.empty((count, ANGLES))
    closing = rng.beta(1.1, 1.1, count)
    fan = rng.normal(-0.4, 1, count)
    for finger, fanning in (('index', 6), ('middle', 1), ('ring', -5), ('pinky', -9)):
        closed = np.clip(closing + noise(0.2), 0, 1)
        curled = np.clip(0.3 * closing + 0.7 * closed + noise(0.15), 0, 1)
        mcp = -10 + 92 * closed + noise(7)
        pip = 100 * curled + noise(6)
        dip = 0.56 * pip + noise(6)
        abduction = (fan * fanning + noise(4)) * (1 - 0.75 * closed)
        angles[:, ANGLES_OF[finger]] = np.stack([mcp, pip, dip, abduction], axis=1)
    opposing = rng.beta(1.2, 1.2, count)
    thumb_mcp = rng.uniform(-5, 40, count)
    thumb_ip = 0.8 * thumb_mcp + rng.normal(5, 15, count)
    twist = -40 * opposing + noise(6)
    angles[:, ANGLES_OF['thumb']] = np.stack(
        [rng.uniform(-12, 30, count), thumb_mcp, thumb_ip, -4 + 55 * opposing, twist], axis=1
    )
    return angles


def _blends(count: int, rng: np.random.Generator) -> np.ndarray:
    """Between two named shapes, every finger at a slightly different point of the way."""
    shapes = np.array(list(NAMED_SHAPES.values()))
    start, end = shapes[rng.integers(len(shapes), size=(2, count))]
    way = rng.uniform(0, 1, (count, 1))
    angles = np.empty((count, ANGLES))
    for finger in FINGERS:
        part = np.clip(way + rng.normal(0, 0.12, (count, 1)), 0, 1)
        here = ANGLES_OF[finger]
        angles[:, here] = start[:, here] * (1 - part) + end[:, here] * part
    return angles + rng.normal(0, 4, angles.shape)


def _uniform(count: int, rng: np.random.Generator) -> np.ndarray:
    """Anywhere in the ranges, but DIP follows PIP and the thumb's twist its abduction."""
    angles = rng.uniform(LOWEST, HIGHEST, (count, ANGLES))
    for finger in FINGERS[1:]:
        first = ANGLES_OF[finger].start
        angles[:, first + 2] = 0.6 * angles[:, first + 1] + rng.normal(0, 8, count)
        angles[:, first + 3] *= 0.6
    thumb = ANGLES_OF['thumb'].start
    angles[:, thumb + 4] = -0.75 * angles[:, thumb + 3] + rng.normal(0, 8, count)
    return angles


def _mix_fingers(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the hands get each finger from another hand, and all their joints shaken."""
    mixed = angles.copy()
    for finger in FINGERS:
        mixed[:, ANGLES_OF[finger]] = angles[rng.permutation(len(angles)), ANGLES_OF[finger]]
    mixed += rng.uniform(0, 12, (len(angles), 1)) * rng.standard_normal(angles.shape)
    return np.where(rng.random((len(angles), 1)) < 0.5, mixed, angles)


def _segment_distance(
    start: np.ndarray, end: np.ndarray, other_start: np.ndarray, other_end: np.ndarray, points: int = 7
) -> np.ndarray:
    """Smallest distance (N,) between points spread over two segments: within a millimetre for phalanges."""
    steps = np.linspace(0, 1, points)[:, None]
    one = start[:, None] + (end - start)[:, None] * steps
    other = other_start[:, None] + (other_end - other_start)[:, None] * steps
    return np.asarray(np.linalg.norm(one[:, :, None] - other[:, None], axis=-1).min((1, 2)))
