"""The open hand model that the package ships: what its file holds and what its hands look like."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from hand_mesh_ros.hand_model.files import OPEN_HAND_PATH, load_hand_model
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_NAMES, TIP_KEYPOINTS
from hand_mesh_ros.hand_model.model import HandModel

FIELDS = {
    'v_template': (778, 3),
    'f': (1538, 3),
    'shapedirs': (778, 3, 10),
    'posedirs': (778, 3, 135),
    'J_regressor': (16, 778),
    'J': (16, 3),
    'weights': (778, 16),
    'kintree_table': (2, 16),
    'hands_components': (45, 45),
    'hands_mean': (45,),
    'hands_coeffs': (512, 45),
    'bs_style': (),
    'bs_type': (),
    'name': (),
    'license': (),
    'tip_vertices': (5,),
    'keypoint_regressor': (21, 778),
    'keypoint_joints': (21,),
    'pose_limits': (45, 2),
    'pose_samples': (4096, 45),
    'nail': (778,),
}

#: Joints of the model, thumb to pinky.
KNUCKLES = [13, 1, 4, 10, 7]
LAST_JOINTS = [15, 3, 6, 12, 9]


@pytest.fixture(scope='module')
def fields() -> dict[str, np.ndarray]:
    with np.load(OPEN_HAND_PATH, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope='module')
def model() -> HandModel:
    return load_hand_model()


def sampled_betas(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 10)).clip(-2.5, 2.5)


def closed(vertices: np.ndarray, faces: np.ndarray) -> trimesh.Trimesh:
    """The mesh with its rim closed by a fan around a new vertex at the rim's centre."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    inner = {(b, a) for a, b in edges.tolist()}
    rim = [(a, b) for a, b in edges.tolist() if (a, b) not in inner]
    centre = vertices[[a for a, _ in rim]].mean(0)
    fan = [(b, a, len(vertices)) for a, b in rim]
    return trimesh.Trimesh(np.vstack([vertices, centre]), np.vstack([faces, fan]), process=False)


def winding_numbers(mesh: trimesh.Trimesh, points: list[np.ndarray]) -> np.ndarray:
    """How often a closed mesh goes around each point: 1 inside, 0 outside.

    Solid angles by A. van Oosterom, J. Strackee, "The solid angle of a plane triangle", 1983.
    """
    a, b, c = (mesh.triangles - np.array(points)[:, None, None]).transpose(2, 0, 1, 3)
    length_a, length_b, length_c = (np.linalg.norm(corner, axis=2) for corner in (a, b, c))
    volume = (a * np.cross(b, c)).sum(2)
    below = length_a * length_b * length_c + (a * b).sum(2) * length_c
    below += (b * c).sum(2) * length_a + (c * a).sum(2) * length_b
    return np.asarray(np.arctan2(volume, below).sum(1) / (2 * np.pi))


# The file


def test_it_holds_plain_numbers_and_texts_of_known_shape(fields: dict[str, np.ndarray]) -> None:
    assert {key: array.shape for key, array in fields.items()} == FIELDS
    assert all(array.dtype.kind in 'fiuU' for array in fields.values())
    assert all(np.isfinite(array).all() for array in fields.values() if array.dtype.kind == 'f')
    assert str(fields['license']) == 'CC0-1.0'


def test_it_is_small() -> None:
    assert OPEN_HAND_PATH.stat().st_size < 1.2e6


def test_its_provenance_is_that_of_this_very_file() -> None:
    provenance = (OPEN_HAND_PATH.parent / 'PROVENANCE.md').read_text()
    assert hashlib.sha256(OPEN_HAND_PATH.read_bytes()).hexdigest() in provenance


# The mesh


def test_it_is_one_surface_open_at_the_wrist_only(fields: dict[str, np.ndarray]) -> None:
    faces = fields['f'].astype(int)
    mesh = trimesh.Trimesh(fields['v_template'], faces, process=False)
    assert mesh.body_count == 1
    assert mesh.euler_number == 1
    assert mesh.is_winding_consistent
    edges, counts = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
    rim = edges[counts == 1]
    assert counts.max() == 2
    assert len(rim) == 16
    assert (np.unique(rim, return_counts=True)[1] == 2).all()
    assert fields['v_template'][rim, 0].min() > fields['J'][0, 0]


def test_it_looks_outwards_and_keeps_its_volume_in_every_size(model: HandModel) -> None:
    volumes = [closed(model.rest(betas).vertices, model.faces).volume for betas in sampled_betas(20)]
    assert min(volumes) > 150e-6
    assert max(volumes) < 480e-6


def test_tips_are_the_ends_of_the_fingers(model: HandModel) -> None:
    rest = model.rest(np.zeros(10))
    for joint, tip in zip(LAST_JOINTS, model.tip_vertices, strict=True):
        finger = np.nonzero(model.weights[:, joint] > 0.5)[0]
        out = rest.vertices[tip] - rest.joints[joint]
        along = (rest.vertices[finger] - rest.joints[joint]) @ out / np.linalg.norm(out)
        assert np.linalg.norm(out) > along.max() - 1e-3


def test_nails_are_on_the_backs_of_the_finger_ends(model: HandModel, fields: dict[str, np.ndarray]) -> None:
    nails = fields['nail'] > 0.5
    normals = trimesh.Trimesh(model.v_template, model.faces, process=False).vertex_normals
    assert (model.weights[nails][:, LAST_JOINTS].sum(1) > 0.5).all()
    fingers = nails & (model.weights[:, 15] < 0.5)
    assert normals[fingers, 1].mean() > 0.8


def test_weights_are_local(model: HandModel) -> None:
    np.testing.assert_allclose(model.weights.sum(1), 1, atol=1e-6)
    for joint, tip in zip(LAST_JOINTS, model.tip_vertices, strict=True):
        assert model.weights[tip, joint] > 0.95


# Sizes and shapes


def test_hands_have_the_sizes_of_adults(model: HandModel) -> None:
    lengths = np.array([model.hand_length(betas) for betas in sampled_betas(400)])
    assert 0.178 < lengths.mean() < 0.183
    assert 0.011 < lengths.std() < 0.016
    assert lengths.min() > 0.130
    assert lengths.max() < 0.230


def test_the_first_beta_lengthens_the_hand(model: HandModel) -> None:
    lengths = [model.hand_length(beta * np.eye(10)[0]) for beta in (-2, -1, 0, 1, 2)]
    assert (np.diff(lengths) > 0.008).all()


def test_fingers_have_the_proportions_of_a_hand(model: HandModel) -> None:
    rest = model.rest(np.zeros(10))
    _, index, middle, ring, pinky = np.linalg.norm(
        rest.vertices[model.tip_vertices] - rest.joints[KNUCKLES], axis=1
    )
    assert pinky < index < middle
    assert pinky < ring < middle
    # Knuckles of index, ring and pinky lie behind that of the middle finger.
    assert (rest.joints[[1, 10, 7], 0] > rest.joints[4, 0]).all()
    phalanges = np.linalg.norm(np.diff(rest.joints, axis=0), axis=1)
    np.testing.assert_allclose(phalanges[[1, 7]] / phalanges[4], (39.78 / 44.63, 32.74 / 44.63), atol=0.02)


def test_rest_is_flat_and_along_the_axes(model: HandModel) -> None:
    joints = model.rest(np.zeros(10)).joints
    assert np.ptp(joints[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 1]) < 0.006
    assert (joints[[3, 6, 9, 12], 0] < joints[[1, 4, 7, 10], 0]).all()
    assert joints[1, 2] > joints[4, 2] > joints[10, 2] > joints[7, 2]
    assert joints[13, 2] > joints[4, 2]


# Keypoints


def test_regressor_rows_are_averages(model: HandModel) -> None:
    for regressor in (model.joint_regressor, model.keypoint_regressor):
        assert regressor.min() >= 0
        np.testing.assert_allclose(regressor.sum(1), 1, atol=1e-6)
        assert (regressor > 0).sum(1).max() < 40


def test_wrist_and_thumb_cmc_are_where_annotators_put_them(model: HandModel) -> None:
    mean_length = model.hand_length(np.zeros(10))
    for betas in (np.zeros(10), *sampled_betas(20)):
        rest = model.rest(betas)
        size = model.hand_length(betas) / mean_length
        tolerance = 0.0002 if not betas.any() else 0.002
        wrist, thumb_cmc = rest.keypoints[0] - rest.joints[0], rest.keypoints[1] - rest.joints[13]
        np.testing.assert_allclose(wrist, size * np.array([-0.012, 0.005, 0]), atol=tolerance)
        np.testing.assert_allclose(thumb_cmc, size * np.array([0.0035, -0.0065, 0]), atol=tolerance)
    assert (model.keypoint_joints[:2] == 0).all()


def test_all_other_keypoints_are_joints_and_tips(model: HandModel) -> None:
    rest = model.rest(sampled_betas(1)[0])
    tips = list(TIP_KEYPOINTS)
    np.testing.assert_allclose(rest.keypoints[tips], rest.vertices[model.tip_vertices], atol=1e-9)
    others = [number for number in range(2, len(KEYPOINT_NAMES)) if number not in tips]
    np.testing.assert_allclose(rest.keypoints[others], rest.joints[model.keypoint_joints[others]], atol=1e-9)


def test_joints_lie_inside_the_hand(model: HandModel) -> None:
    for betas in (np.zeros(10), *sampled_betas(5)):
        rest = model.rest(betas)
        inside = winding_numbers(closed(rest.vertices, model.faces), [*rest.joints, *rest.keypoints[:2]])
        np.testing.assert_allclose(inside, 1, atol=1e-6)


# Poses


def test_pose_samples_are_within_the_limits(model: HandModel, fields: dict[str, np.ndarray]) -> None:
    samples = fields['pose_samples'].astype(float)
    assert ((samples > model.pose_limits[:, 0]) & (samples < model.pose_limits[:, 1])).all()
    assert ((model.pose_limits[:, 0] < 0) & (model.pose_limits[:, 1] > 0)).all()
    assert (np.abs(model.pose_limits) < np.pi).all()


def test_components_describe_the_pose_samples(model: HandModel, fields: dict[str, np.ndarray]) -> None:
    components = model.hands_components
    np.testing.assert_allclose(components @ components.T, np.eye(45), atol=1e-6)
    rebuilt = model.hands_mean + fields['hands_coeffs'].astype(float) @ components
    np.testing.assert_allclose(rebuilt, fields['pose_samples'][:512], atol=2e-3)
    spread = (fields['pose_samples'].astype(float) - model.hands_mean) @ components.T
    assert (np.diff(spread.std(0)[[0, 1, 5, 10, 15, 20, 30]]) < 0).all()


def test_pose_samples_are_varied(model: HandModel, fields: dict[str, np.ndarray]) -> None:
    """From open to closed for every finger on its own, so that no finger's pose follows from the others'."""
    bends = fields['pose_samples'].astype(float).reshape(-1, 15, 3)[:, [1, 4, 10, 7]]
    bends = np.degrees(np.linalg.norm(bends, axis=2))
    assert (np.percentile(bends, 5, axis=0) < 10).all()
    assert (np.percentile(bends, 95, axis=0) > 90).all()
    assert np.corrcoef(bends.T)[np.triu_indices(4, 1)].max() < 0.8


# What the build says of poses; it needs scipy.


@pytest.fixture(scope='module')
def named_poses(model: HandModel) -> dict[str, np.ndarray]:
    pytest.importorskip('scipy', reason='the pose space is part of the build, which needs scipy')
    from hand_mesh_ros.hand_model.build.pose_space import NAMED_SHAPES, PoseSpace

    rest = model.rest(np.zeros(10))
    space = PoseSpace(rest.joints, rest.keypoints[list(TIP_KEYPOINTS)])
    return dict(zip(NAMED_SHAPES, space.hand_pose(np.array(list(NAMED_SHAPES.values()))), strict=True))


def posed_vertices(model: HandModel, hand_pose: np.ndarray) -> np.ndarray:
    return model.posed(np.zeros(3), hand_pose, np.zeros(10), np.zeros(3)).vertices


def test_limits_leave_room_around_named_poses(model: HandModel, named_poses: dict[str, np.ndarray]) -> None:
    room = np.radians(10)
    for name in ('flat', 'fist', 'thumbs_up', 'spread', 'together', 'point', 'pinch', 'hook', 'victory'):
        pose = named_poses[name]
        assert (pose > model.pose_limits[:, 0] + room).all(), name
        assert (pose < model.pose_limits[:, 1] - room).all(), name


def test_a_fist_is_a_fist(model: HandModel, named_poses: dict[str, np.ndarray]) -> None:
    flat = model.rest(np.zeros(10)).vertices
    fist = posed_vertices(model, named_poses['fist'])
    kept = closed(fist, model.faces).volume / closed(flat, model.faces).volume
    assert 0.85 < kept < 1.0
    fingertips = fist[model.tip_vertices[1:]]
    assert (fingertips[:, 1] < 0).all()
    assert np.linalg.norm(fingertips - model.rest(np.zeros(10)).joints[[1, 4, 10, 7]], axis=1).max() < 0.05


def test_thumb_and_index_touch_in_a_pinch(model: HandModel, named_poses: dict[str, np.ndarray]) -> None:
    pinch = posed_vertices(model, named_poses['pinch'])
    thumb, index = (pinch[model.weights[:, joint] > 0.7] for joint in (15, 3))
    assert np.linalg.norm(thumb[:, None] - index, axis=2).min() < 0.006


def test_pose_blend_shapes_keep_volume(model: HandModel, named_poses: dict[str, np.ndarray]) -> None:
    plain = replace(model, posedirs=np.zeros_like(model.posedirs))
    for name in ('fist', 'point', 'pinch', 'cylinder'):
        with_shapes, without = (
            closed(posed_vertices(hand, named_poses[name]), model.faces).volume for hand in (model, plain)
        )
        assert with_shapes > 1.01 * without, name


def test_spread_fingers_are_further_apart_than_closed_ones(
    model: HandModel, named_poses: dict[str, np.ndarray]
) -> None:
    def gaps(name: str) -> np.ndarray:
        tips = posed_vertices(model, named_poses[name])[model.tip_vertices]
        return np.asarray(np.linalg.norm(np.diff(tips[1:], axis=0), axis=1))

    assert (gaps('spread') > gaps('flat')).all()
    assert (gaps('flat') > gaps('together')).all()
