"""Shape: principal components of the sampled hands, and regressors from vertices to joints and keypoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from hand_mesh_ros.hand_model.build.rig import HandSamples
from hand_mesh_ros.hand_model.keypoints import JOINT_PARENTS, KEYPOINT_JOINTS, TIP_KEYPOINTS

COMPONENTS = 10

#: Joints of the model against keypoints as annotators and detectors place them: the wrist sits closer to the
#: fingers and to the back of the hand, the thumb CMC closer to the palm and to the wrist. Offsets in metres,
#: in the model's axes, on the mean hand; both keypoints move with the wrist joint.
WRIST_OFFSET_M = np.array([-0.012, 0.005, 0.0])
THUMB_CMC_OFFSET_M = np.array([0.0035, -0.0065, 0.0])

_WRIST, _THUMB_CMC = 0, 13
_THUMB_CMC_KEYPOINT = 1

#: How many of the sampled shapes a regressor is fitted to.
_FITTED_SHAPES = 400

#: How far from a joint the vertices are that may take part in its regressor.
_REACH_M = 0.034
_WRIST_REACH_M = 0.06

#: Weight of the condition that a row sums to 1, against errors in metres.
_SUM_WEIGHT = 10.0


@dataclass(frozen=True)
class ShapeSpace:
    """Shapes of hands and what follows from a shape.

    v_template (V, 3), metres; shapedirs (V, 3, 10), metres per standard deviation; explained (10,), the part
    of the variance of each component; joint_regressor (16, V) and keypoint_regressor (21, V), whose rows are
    not negative and sum to 1; keypoint_joints (21,), the joint that each keypoint moves with.
    """

    v_template: np.ndarray
    shapedirs: np.ndarray
    explained: np.ndarray
    joint_regressor: np.ndarray
    keypoint_regressor: np.ndarray
    keypoint_joints: np.ndarray


def build_shape_space(samples: HandSamples, tip_vertices: np.ndarray, seed: int) -> ShapeSpace:
    """Shape space of hands in one rest pose; the first component is signed so that it lengthens the hand."""
    v_template, shapedirs, explained = principal_components(samples.vertices)
    lengthening = shapedirs[tip_vertices[2], 0]
    shapedirs *= np.where(lengthening > 0, -1.0, 1.0)

    chosen = np.random.default_rng(seed).choice(len(samples.vertices), _FITTED_SHAPES, replace=False)
    shapes, joints = samples.vertices[chosen], samples.joints[chosen]
    joint_regressor = np.stack(
        [
            convex_row(shapes, joints[:, joint], candidates)
            for joint, candidates in enumerate(_joint_candidates(samples))
        ]
    )
    keypoint_regressor = joint_regressor[list(KEYPOINT_JOINTS)]
    keypoint_regressor[list(TIP_KEYPOINTS)] = np.eye(len(v_template))[tip_vertices]
    keypoint_joints = np.array(KEYPOINT_JOINTS)

    lengths = np.linalg.norm(shapes[:, tip_vertices[2]] - joints[:, 0], axis=1)
    size = (lengths / np.linalg.norm(v_template[tip_vertices[2]] - samples.joints[:, 0].mean(0)))[:, None]
    on_palm = samples.weights[:, _WRIST] > 0.5
    for keypoint, joint, offset in (
        (_WRIST, _WRIST, WRIST_OFFSET_M),
        (_THUMB_CMC_KEYPOINT, _THUMB_CMC, THUMB_CMC_OFFSET_M),
    ):
        targets = joints[:, joint] + size * offset
        near = np.linalg.norm(v_template - targets.mean(0), axis=1) < _WRIST_REACH_M
        keypoint_regressor[keypoint] = convex_row(shapes, targets, np.nonzero(near & on_palm)[0])
        keypoint_joints[keypoint] = _WRIST
    return ShapeSpace(v_template, shapedirs, explained, joint_regressor, keypoint_regressor, keypoint_joints)


def principal_components(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (V, 3), first components (V, 3, 10) with unit variance, and the part of the variance of each."""
    count = len(vertices)
    mean = vertices.mean(0)
    centred = (vertices - mean).reshape(count, -1)
    variances, directions = np.linalg.eigh(centred.T @ centred / (count - 1))
    largest = np.argsort(variances)[::-1][:COMPONENTS]
    shapedirs = (directions[:, largest] * np.sqrt(variances[largest])).reshape(*mean.shape, COMPONENTS)
    return mean, shapedirs, variances[largest] / variances.sum()


def convex_row(shapes: np.ndarray, targets: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Non-negative weights (V,) that sum to 1 and turn vertices (S, V, 3) into targets (S, 3).

    Only ``candidates`` take part; of them few get a weight, as always with non-negative least squares.
    """
    around = (shapes[:, candidates] - targets[:, None]).transpose(0, 2, 1).reshape(-1, len(candidates))
    equations = np.vstack([around, np.full(len(candidates), _SUM_WEIGHT)])
    solution, _ = nnls(
        equations, np.append(np.zeros(len(around)), _SUM_WEIGHT), maxiter=200 * len(candidates)
    )
    row = np.zeros(shapes.shape[1])
    row[candidates] = solution / solution.sum()
    return row


def _joint_candidates(samples: HandSamples) -> list[np.ndarray]:
    """For each joint the vertices around it that move with it, with its parent or with the palm."""
    mean, joints, weights = samples.vertices.mean(0), samples.joints.mean(0), samples.weights
    candidates = []
    for joint, parent in enumerate(JOINT_PARENTS):
        near = np.linalg.norm(mean - joints[joint], axis=1) < (_WRIST_REACH_M if parent < 0 else _REACH_M)
        family = list({_WRIST, joint, max(parent, 0)})
        candidates.append(np.nonzero(near & (weights[:, family].sum(1) > 0.9))[0])
    return candidates
