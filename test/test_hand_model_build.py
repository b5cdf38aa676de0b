"""Pieces of the open hand model's build, on shapes small enough to know the answer."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from hand_mesh_ros.hand_model.build.decimation import decimate
from hand_mesh_ros.hand_model.build.rig import (
    FINGER_JOINTS,
    JOINT_BONES,
    WRIST_BONES,
    HandSamples,
    flatten,
    fold_weights,
    rotation_between,
    to_hand_frame,
)
from hand_mesh_ros.hand_model.build.topology import closed_edge_loops, triangulate
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.keypoints import FINGERS, TIP_KEYPOINTS
from hand_mesh_ros.hand_model.model import HandModel

pytest.importorskip('scipy', reason='the build of the open hand model needs scipy')

from scipy.spatial.transform import Rotation

from hand_mesh_ros.hand_model.build.pose_blendshapes import regress_posedirs
from hand_mesh_ros.hand_model.build.pose_prior import (
    bone_radii,
    build_pose_prior,
    collides,
    sample_angles,
)
from hand_mesh_ros.hand_model.build.pose_space import (
    ANGLES,
    ANGLES_OF,
    HIGHEST,
    LOWEST,
    NAMED_SHAPES,
    PoseSpace,
)
from hand_mesh_ros.hand_model.build.shape_space import convex_row, principal_components
from hand_mesh_ros.hand_model.build.skinning import (
    forward_kinematics,
    joint_translations,
    skin_dual_quaternions,
    skin_linear,
)
from hand_mesh_ros.hand_model.build.variation import (
    hand_lengths,
    set_sizes,
    tip_vertices,
    vary_proportions,
)


@pytest.fixture(scope='module')
def model() -> HandModel:
    return load_hand_model()


@pytest.fixture(scope='module')
def rest(model: HandModel) -> tuple[np.ndarray, np.ndarray]:
    """Joints (16, 3) and tips (5, 3) of the mean hand."""
    hand = model.rest(np.zeros(10))
    return hand.joints, hand.keypoints[list(TIP_KEYPOINTS)]


@pytest.fixture(scope='module')
def people(model: HandModel) -> HandSamples:
    """A few hands of the shipped model, as if sampled."""
    betas = np.random.default_rng(0).normal(size=(8, 10))
    hands = [model.rest(row) for row in betas]
    return HandSamples(
        vertices=np.stack([hand.vertices for hand in hands]),
        joints=np.stack([hand.joints for hand in hands]),
        tips=np.stack([hand.keypoints[list(TIP_KEYPOINTS)] for hand in hands]),
        weights=model.weights,
        faces=model.faces,
        nail=np.zeros(len(model.v_template)),
        is_male=np.arange(8) % 2 == 0,
    )


def tube(rings: int, around: int) -> tuple[np.ndarray, np.ndarray]:
    """An open cylinder of radius 1 along z and its quads, facing outwards."""
    angles = 2 * np.pi * np.arange(around) / around
    ring, step = np.meshgrid(np.arange(rings), np.arange(around), indexing='ij')
    vertices = np.stack([np.cos(angles)[step], np.sin(angles)[step], 0.3 * ring], axis=-1).reshape(-1, 3)
    corner = around * ring[:-1] + step[:-1]
    beside = around * ring[:-1] + (step[:-1] + 1) % around
    return vertices, np.stack([corner, beside, beside + around, corner + around], axis=-1).reshape(-1, 4)


# Meshes


def test_triangulation_takes_the_shorter_diagonals_and_keeps_the_winding() -> None:
    vertices = np.array([[0, 0, 0], [2, 1, 0], [4, 4, 0], [1, 2, 0]], dtype=float)
    faces = triangulate(np.array([[0, 1, 2, 3]]), vertices)
    assert all({1, 3} <= set(face) for face in faces.tolist())
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert (mesh.face_normals[:, 2] > 0).all()
    assert mesh.area == pytest.approx(4.0)


def test_edge_loops_of_a_tube_are_its_inner_rings() -> None:
    _, quads = tube(rings=6, around=9)
    loops = sorted(sorted(loop) for loop in closed_edge_loops(quads))
    assert loops == [list(range(9 * ring, 9 * ring + 9)) for ring in range(1, 5)]


def test_decimated_tube_is_still_a_tube() -> None:
    vertices, quads = tube(rings=12, around=24)
    locked = {30, 100, 200}
    kept, faces = decimate(vertices, triangulate(quads, vertices), 120, 32, locked)
    mesh = trimesh.Trimesh(vertices[kept], faces, process=False)
    assert len(kept) == 120
    assert locked <= set(kept.tolist())
    assert mesh.euler_number == 0
    assert mesh.is_winding_consistent
    edges, counts = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
    assert len(edges[counts == 1]) == 32
    assert mesh.area == pytest.approx(2 * np.pi * 3.3, rel=0.05)
    assert (mesh.face_normals * mesh.triangles_center)[:, :2].sum(1).min() > 0


def test_decimation_spends_vertices_where_it_matters() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=3)
    importance = np.where(sphere.vertices[:, 2] > 0, 100.0, 1.0)
    kept, faces = decimate(sphere.vertices, sphere.faces, 300, 0, importance=importance)
    mesh = trimesh.Trimesh(sphere.vertices[kept], faces, process=False)
    assert mesh.euler_number == 2
    assert (mesh.vertices[:, 2] > 0).sum() > 1.3 * (mesh.vertices[:, 2] < 0).sum()


def test_decimation_says_when_it_is_stuck() -> None:
    vertices, quads = tube(rings=3, around=6)
    with pytest.raises(ValueError, match='no collapse is left'):
        decimate(vertices, triangulate(quads, vertices), 6, 3, locked=set(range(18)))


# Rig


def test_folded_weights_of_palm_bones_go_to_the_wrist() -> None:
    labels = [*JOINT_BONES, *WRIST_BONES, 'head']
    weights = np.zeros((2, len(labels)))
    weights[0, labels.index('metacarpal2.R')], weights[0, labels.index('finger2-1.R')] = 0.6, 0.4
    weights[1, labels.index('finger5-3.R')], weights[1, labels.index('head')] = 0.49, 0.01
    folded = fold_weights(weights, labels)
    np.testing.assert_allclose(folded[0, [0, 1]], [0.6, 0.4])
    np.testing.assert_allclose(folded[1, 9], 1)


def test_smallest_rotations_turn_one_direction_into_another() -> None:
    starts = Rotation.random(20, random_state=0).apply([1, 0, 0])
    end = np.array([0.6, 0, 0.8])
    turns = rotation_between(starts, end)
    np.testing.assert_allclose(turns @ starts[..., None], np.tile(end[:, None], (20, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(Rotation.from_matrix(turns).magnitude(), np.arccos(starts @ end), atol=1e-7)


def test_hand_frame_and_flattening_undo_any_placement_and_pose(people: HandSamples) -> None:
    """However a hand was turned and bent, it comes out flat with the same bones."""
    placed, turned = forward_kinematics(
        Rotation.from_rotvec(np.tile([0.0, 0.0, 0.4], (15, 1))).as_matrix()[None], people.joints[0]
    )
    translations = joint_translations(placed, turned, people.joints[0])
    bent, _ = skin_linear(people.vertices[0], people.weights, turned, translations)
    lasts = [FINGER_JOINTS[finger][2] for finger in FINGERS]
    tips = (
        placed[:, lasts] + (turned[:, lasts] @ (people.tips[0] - people.joints[0, lasts])[..., None])[..., 0]
    )
    away = Rotation.from_rotvec([0.3, -1.2, 0.8])
    one = HandSamples(
        vertices=away.apply(bent[0])[None] + 0.5,
        joints=away.apply(placed[0])[None] + 0.5,
        tips=away.apply(tips[0])[None] + 0.5,
        weights=people.weights,
        faces=people.faces,
        nail=people.nail,
        is_male=people.is_male[:1],
    )
    flat = flatten(to_hand_frame(one))
    np.testing.assert_allclose(flat.joints[0, 0], 0, atol=1e-12)
    assert flat.joints[0, 4, 0] < 0
    for finger in FINGERS[1:]:
        chain = list(FINGER_JOINTS[finger])
        points = np.vstack([flat.joints[0, chain], flat.tips[0, FINGERS.index(finger)]])
        np.testing.assert_allclose(np.ptp(points[:, 1]), 0, atol=1e-9)
        np.testing.assert_allclose(
            np.linalg.norm(np.diff(points[:3], axis=0), axis=1),
            np.linalg.norm(np.diff(people.joints[0, chain], axis=0), axis=1),
            atol=1e-9,
        )
    assert np.abs(flat.vertices).max() < 0.25


# Variation


def test_varied_hands_differ_in_proportions_and_get_true_sizes(people: HandSamples) -> None:
    same = HandSamples(
        **{
            **vars(people),
            **{
                name: np.repeat(getattr(people, name)[:1], 400, axis=0)
                for name in ('vertices', 'joints', 'tips')
            },
            'is_male': np.arange(400) % 2 == 0,
        }
    )
    at_origin = -same.joints[:, :1]
    same = HandSamples(
        **{**vars(same), **{name: getattr(same, name) + at_origin for name in ('vertices', 'joints', 'tips')}}
    )
    middle_tip = int(tip_vertices(same)[2])
    varied = set_sizes(vary_proportions(same, seed=1), middle_tip)
    lengths = hand_lengths(varied, middle_tip)
    assert lengths[varied.is_male].mean() == pytest.approx(0.189)
    assert lengths[~varied.is_male].mean() == pytest.approx(0.172)
    fingers = np.linalg.norm(varied.tips - varied.joints[:, [13, 1, 4, 10, 7]], axis=2)
    shares = fingers / fingers.sum(1, keepdims=True)
    assert (shares.std(0) / shares.mean(0) > 0.01).all()
    assert (shares.std(0) / shares.mean(0) < 0.05).all()
    np.testing.assert_allclose(varied.joints[:, 0], 0, atol=1e-12)


# Shape space


def test_principal_components_are_uncorrelated_with_unit_variance() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(30, 10)) * np.arange(10, 0, -1)
    samples = (rng.normal(size=(5000, 10)) @ truth.T).reshape(5000, 10, 3)
    mean, components, explained = principal_components(samples)
    assert explained.sum() == pytest.approx(1)
    covariance = np.cov(samples.reshape(5000, 30).T)
    np.testing.assert_allclose(
        components.reshape(30, 10) @ components.reshape(30, 10).T, covariance, atol=1e-8 * covariance.max()
    )
    np.testing.assert_allclose(mean, samples.mean(0))


def test_convex_row_finds_an_average_that_exists() -> None:
    rng = np.random.default_rng(0)
    shapes = rng.normal(size=(50, 12, 3))
    truth = np.array([0, 0, 0.5, 0, 0.3, 0, 0, 0.2, 0, 0, 0, 0])
    row = convex_row(shapes, np.einsum('v,svk->sk', truth, shapes), np.array([1, 2, 4, 5, 7, 9]))
    np.testing.assert_allclose(row, truth, atol=1e-9)


# Poses


@pytest.mark.parametrize('finger', FINGERS[1:])
def test_flexion_goes_to_the_palm_and_abduction_to_the_thumb(
    rest: tuple[np.ndarray, np.ndarray], finger: str
) -> None:
    joints, tips = rest
    root, _, last = FINGER_JOINTS[finger]
    angles = np.zeros((4, ANGLES))
    angles[np.arange(4), np.arange(4) + ANGLES_OF[finger].start] = 20
    placed, turned = forward_kinematics(PoseSpace(joints, tips).rotations(angles), joints)
    tip = tips[FINGERS.index(finger)]
    moved = placed[:, last] + turned[:, last] @ (tip - joints[last]) - tip
    assert (moved[:3, 1] < -0.003).all()
    assert moved[3, 2] > 0.005
    others = [joint for joint in range(16) if joint not in FINGER_JOINTS[finger]]
    np.testing.assert_allclose(placed[:, others], np.tile(joints[others], (4, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(placed[:, root], np.tile(joints[root], (4, 1)), atol=1e-12)


def test_the_thumb_flexes_across_the_palm_and_abducts_away_from_it(
    rest: tuple[np.ndarray, np.ndarray],
) -> None:
    joints, tips = rest
    angles = np.zeros((4, ANGLES))
    angles[np.arange(4), np.arange(4)] = 20
    placed, turned = forward_kinematics(PoseSpace(joints, tips).rotations(angles), joints)
    moved = placed[:, 15] + turned[:, 15] @ (tips[0] - joints[15]) - tips[0]
    assert (moved[:3, 2] < -0.003).all()
    assert moved[3, 1] < -0.01


def test_sampled_angles_stay_in_range_and_use_it() -> None:
    angles = sample_angles(5000, np.random.default_rng(0))
    assert (angles >= LOWEST).all()
    assert (angles <= HIGHEST).all()
    assert (np.ptp(angles, axis=0) > 0.9 * (HIGHEST - LOWEST)).all()


def test_named_shapes_do_not_collide_but_crossed_fingers_do(
    model: HandModel, rest: tuple[np.ndarray, np.ndarray]
) -> None:
    joints, tips = rest
    space = PoseSpace(joints, tips)
    radii = bone_radii(model.v_template, model.weights, joints, tips)
    assert ((radii[1:] > 0.003) & (radii[1:] < 0.013)).all()
    shapes = np.array(list(NAMED_SHAPES.values()))
    assert not collides(space.rotations(shapes), joints, tips, radii).any()

    crossed = np.zeros((2, ANGLES))
    crossed[0, ANGLES_OF['index']], crossed[0, ANGLES_OF['middle']] = (0, 0, 0, -20), (0, 0, 0, 10)
    crossed[1, ANGLES_OF['ring']] = (90, 108, 75, 0)  # through the palm
    assert collides(space.rotations(crossed), joints, tips, radii).all()


def test_prior_is_the_same_for_the_same_seed(model: HandModel, rest: tuple[np.ndarray, np.ndarray]) -> None:
    joints, tips = rest
    space = PoseSpace(joints, tips)
    radii = bone_radii(model.v_template, model.weights, joints, tips)
    one, other = (build_pose_prior(space, joints, tips, radii, 300, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.poses, other.poses)
    np.testing.assert_allclose(one.mean + one.coefficients @ one.components, one.poses, atol=1e-12)
    assert 0 < one.rejected < 0.5
    limits = space.limits(seed=0)
    assert ((one.poses > limits[:, 0]) & (one.poses < limits[:, 1])).all()


# Skinning


def posing(model: HandModel, rotvecs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    joints = model.rest(np.zeros(10)).joints
    rotations = Rotation.from_rotvec(rotvecs.reshape(-1, 3)).as_matrix().reshape(-1, 15, 3, 3)
    placed, turned = forward_kinematics(rotations, joints)
    return turned, joint_translations(placed, turned, joints), rotations


def test_linear_skinning_is_that_of_the_model(model: HandModel) -> None:
    poses = np.random.default_rng(0).normal(0, 0.4, (3, 45))
    turned, translations, rotations = posing(model, poses)
    corrected = model.v_template + np.einsum(
        'vkp,np->nvk', model.posedirs, (rotations - np.eye(3)).reshape(3, 135)
    )
    vertices, _ = skin_linear(corrected, model.weights, turned, translations)
    for pose, expected in zip(poses, vertices, strict=True):
        posed = model.posed(np.zeros(3), pose, np.zeros(10), np.zeros(3))
        np.testing.assert_allclose(posed.vertices, expected, atol=1e-9)


def test_dual_quaternions_agree_with_linear_skinning_where_one_joint_holds(model: HandModel) -> None:
    poses = np.random.default_rng(1).normal(0, 0.6, (3, 45))
    turned, translations, _ = posing(model, poses)
    rigid = np.eye(16)[model.weights.argmax(1)]
    linear, _ = skin_linear(model.v_template, rigid, turned, translations)
    dual = skin_dual_quaternions(model.v_template, rigid, turned, translations)
    np.testing.assert_allclose(dual, linear, atol=1e-9)


def test_dual_quaternions_twist_without_shrinking(model: HandModel) -> None:
    """A tube twisted by half a turn keeps its radius; linear blending pinches it to nothing."""
    vertices, _ = tube(rings=3, around=8)
    weights = np.zeros((len(vertices), 16))
    weights[:, 0], weights[:, 1] = 0.5, 0.5
    turned = np.tile(np.eye(3), (1, 16, 1, 1))
    turned[0, 1] = Rotation.from_rotvec([0, 0, np.radians(170)]).as_matrix()
    still = np.zeros((1, 16, 3))
    radius = np.linalg.norm(skin_dual_quaternions(vertices, weights, turned, still)[0, :, :2], axis=1)
    pinched = np.linalg.norm(skin_linear(vertices, weights, turned, still)[0][0, :, :2], axis=1)
    np.testing.assert_allclose(radius, 1, atol=1e-9)
    assert pinched.max() < 0.1


def test_pose_blend_shapes_bring_linear_skinning_towards_dual_quaternions(
    model: HandModel, rest: tuple[np.ndarray, np.ndarray]
) -> None:
    joints, tips = rest
    space = PoseSpace(joints, tips)
    poses = space.hand_pose(sample_angles(220, np.random.default_rng(0)))
    posedirs = regress_posedirs(model.v_template, model.weights, joints, poses[:200])
    turned, translations, rotations = posing(model, poses[200:])
    linear, _ = skin_linear(model.v_template, model.weights, turned, translations)
    dual = skin_dual_quaternions(model.v_template, model.weights, turned, translations)
    features = (rotations - np.eye(3)).reshape(len(rotations), 135)
    corrected, _ = skin_linear(
        model.v_template + np.einsum('vkp,np->nvk', posedirs, features), model.weights, turned, translations
    )
    assert np.square(corrected - dual).mean() < 0.35 * np.square(linear - dual).mean()
    held_by_wrist = model.weights[:, 0] == 1
    assert not posedirs[held_by_wrist].any()


# Sampling


def test_sampled_bodies_have_right_hands() -> None:
    pytest.importorskip('anny', reason='sampling bodies needs anny, a dependency of the build only')
    from hand_mesh_ros.hand_model.build.sampling import sample_hands

    hands = to_hand_frame(sample_hands(20, seed=0))
    assert hands.joints.shape == (20, 16, 3)
    np.testing.assert_allclose(hands.weights.sum(1), 1, atol=1e-9)
    thumb, pinky = hands.tips[:, 0], hands.tips[:, 4]
    assert (thumb[:, 2] > pinky[:, 2]).all()
    normals = trimesh.Trimesh(
        hands.vertices[0], triangulate(hands.faces, hands.vertices[0]), process=False
    ).vertex_normals
    fingers = (hands.nail > 0.5) & (hands.weights[:, [3, 6, 9, 12]].sum(1) > 0.5)
    assert normals[fingers, 1].mean() > 0.5
