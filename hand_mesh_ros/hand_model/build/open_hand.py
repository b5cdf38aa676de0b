"""All steps from sampled bodies to the arrays of the open hand model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hand_mesh_ros.hand_model.build.pose_blendshapes import regress_posedirs
from hand_mesh_ros.hand_model.build.pose_prior import PosePrior, bone_radii, build_pose_prior
from hand_mesh_ros.hand_model.build.pose_space import PoseSpace
from hand_mesh_ros.hand_model.build.rig import HandSamples, flatten, place_wrist, to_hand_frame
from hand_mesh_ros.hand_model.build.sampling import sample_hands
from hand_mesh_ros.hand_model.build.shape_space import ShapeSpace, build_shape_space
from hand_mesh_ros.hand_model.build.topology import (
    MANO_TIP_VERTICES,
    cut_behind_wrist,
    reduce_to_mano_size,
)
from hand_mesh_ros.hand_model.build.variation import (
    hand_lengths,
    set_knuckles,
    set_sizes,
    smooth_thumb_web,
    tip_vertices,
    vary_proportions,
)
from hand_mesh_ros.hand_model.keypoints import JOINT_PARENTS

_PEOPLE = 6000
_POSE_DRAWS = 60_000
_BLENDSHAPE_POSES = 1500

#: How many poses of the prior go into the file, and of how many of them the coefficients as well.
_POSE_SAMPLES = 4096
_COEFFICIENT_SAMPLES = 512


def build_open_hand(seed: int, progress: Callable[[str], None]) -> dict[str, np.ndarray]:
    """The arrays of the model file, by key: those of MANO and this project's own. Takes a minute or two.

    The same seed and the same versions of the build's dependencies give the same arrays. ``progress`` gets
    one line of text per step.
    """
    progress(f'sampling {_PEOPLE} adults from anny (minutes when its cache is empty)')
    samples = sample_hands(_PEOPLE, seed)

    samples = flatten(cut_behind_wrist(to_hand_frame(samples)))
    tips = tip_vertices(samples)
    progress(f'one rest pose, {samples.vertices.shape[1]} vertices; varying proportions, setting sizes')
    samples = set_knuckles(smooth_thumb_web(samples))
    samples = place_wrist(set_sizes(vary_proportions(samples, seed + 1), tips[2]))
    for name, group in (('men', samples.is_male), ('women', ~samples.is_male)):
        lengths = hand_lengths(samples, tips[2])[group] * 1e3
        progress(f'  hand length of {name}: {lengths.mean():.1f} mm, standard deviation {lengths.std():.1f}')

    samples = reduce_to_mano_size(samples, tips)
    progress(f'{samples.vertices.shape[1]} vertices, {len(samples.faces)} triangles; shape space')
    shape = build_shape_space(samples, np.array(MANO_TIP_VERTICES), seed + 2)
    errors = np.linalg.norm(shape.joint_regressor @ samples.vertices - samples.joints, axis=2) * 1e3
    progress(f'  {shape.explained.sum():.2%} of the variance in {len(shape.explained)} components')
    progress(
        f'  joint regressor: {errors.mean():.2f} mm mean error, worst joint {errors.mean(0).max():.2f} mm'
    )

    progress(f'pose prior from {_POSE_DRAWS} draws')
    joints = shape.joint_regressor @ shape.v_template
    rest_tips = samples.tips.mean(0)
    space = PoseSpace(joints, rest_tips)
    radii = bone_radii(shape.v_template, samples.weights, joints, rest_tips)
    prior = build_pose_prior(space, joints, rest_tips, radii, _POSE_DRAWS, seed + 3)
    progress(f'  {prior.rejected:.0%} rejected for collisions')

    progress('pose blend shapes')
    posedirs = regress_posedirs(shape.v_template, samples.weights, joints, prior.poses[:_BLENDSHAPE_POSES])
    return _mano_fields(samples, shape, prior, posedirs) | _own_fields(
        samples, shape, prior, space.limits(seed + 4)
    )


def _mano_fields(
    samples: HandSamples, shape: ShapeSpace, prior: PosePrior, posedirs: np.ndarray
) -> dict[str, np.ndarray]:
    # MANO's files hold the root's missing parent as an unsigned -1.
    parents = np.array([2**32 - 1, *JOINT_PARENTS[1:]])
    return {
        'v_template': shape.v_template.astype(np.float32),
        'f': samples.faces.astype(np.uint32),
        'shapedirs': shape.shapedirs.astype(np.float32),
        'posedirs': posedirs.astype(np.float32),
        'J_regressor': shape.joint_regressor.astype(np.float32),
        'J': (shape.joint_regressor @ shape.v_template).astype(np.float32),
        'weights': samples.weights.astype(np.float32),
        'kintree_table': np.stack([parents, np.arange(len(parents))]),
        'hands_components': prior.components.astype(np.float32),
        'hands_mean': prior.mean.astype(np.float32),
        'hands_coeffs': prior.coefficients[:_COEFFICIENT_SAMPLES].astype(np.float32),
        'bs_style': np.array('lbs'),
        'bs_type': np.array('lrotmin'),
    }


def _own_fields(
    samples: HandSamples, shape: ShapeSpace, prior: PosePrior, limits: np.ndarray
) -> dict[str, np.ndarray]:
    return {
        'name': np.array('open_hand'),
        'license': np.array('CC0-1.0'),
        'tip_vertices': np.array(MANO_TIP_VERTICES),
        'keypoint_regressor': shape.keypoint_regressor.astype(np.float32),
        'keypoint_joints': shape.keypoint_joints,
        'pose_limits': limits.astype(np.float32),
        'pose_samples': prior.poses[:_POSE_SAMPLES].astype(np.float16),
        'nail': samples.nail.astype(np.float32),
    }
