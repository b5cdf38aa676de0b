"""Synthetic samples: their pictures, parameters and keypoints tell of the same hand."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_view import RMS_SHARE, view_of_hand
from hand_mesh_ros.cues import normalised_world
from hand_mesh_ros.datasets.contact_sheet import write_contact_sheet
from hand_mesh_ros.datasets.gestures import GesturePoser, gesture_angles
from hand_mesh_ros.datasets.hand_figure import HandFigures, Sleeve
from hand_mesh_ros.datasets.props import Prop, prop_covering, prop_in_front, prop_in_hand
from hand_mesh_ros.datasets.residuals import ResidualBank
from hand_mesh_ros.datasets.scene import Scene, SceneHand
from hand_mesh_ros.datasets.shadows import in_shadow, shade_with_shadows
from hand_mesh_ros.datasets.synthetic import SyntheticHands, SyntheticSample
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.kinematics import KeypointKinematics
from hand_mesh_ros.hand_model.model import HandModel, PosedHand
from hand_mesh_ros.hand_model.rotations import rotation_matrices
from hand_mesh_ros.rendering.shading import Lighting, shade
from hand_mesh_ros.rendering.zbuffer import join_meshes, rasterise

COUNT = 60
BARE = Sleeve(1.0, 1.0, np.zeros(3))


@pytest.fixture(scope='module')
def hands() -> SyntheticHands:
    return SyntheticHands(seed=1)


@pytest.fixture(scope='module')
def samples(hands: SyntheticHands) -> list[SyntheticSample]:
    return [hands.sample(k) for k in range(COUNT)]


@pytest.fixture(scope='module')
def figures() -> HandFigures:
    return HandFigures(load_hand_model(), seed=0)


def posed(gesture: str, back: bool) -> PosedHand:
    """A hand half a metre before the camera, fingers up, its palm or its back seen."""
    model = load_hand_model()
    # Model axes at rest: fingers -x, back +y. Columns: where they point in the camera.
    x, y = np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0 if back else 1.0])
    R = np.column_stack([x, y, np.cross(x, y)])
    orient = cv2.Rodrigues(R)[0].ravel()
    pose = GesturePoser(model).hand_pose(gesture_angles(gesture))
    return model.posed(orient, pose, np.zeros(10), np.array([0.0, 0.0, 0.5]))


def scene_of(figures: HandFigures, hand: PosedHand, *props: Prop) -> Scene:
    coarse = figures.coarse_vertices(hand, np.zeros(3), BARE)
    return Scene([SceneHand(figures, coarse, BARE, 5, np.ones(3), None)], list(props), Lighting())


def hand_of(model: HandModel, sample: SyntheticSample) -> PosedHand:
    """The hand of a sample's parameters, placed by its root's depth and pixel."""
    size = len(sample.image)
    hand = model.posed(sample.global_orient, sample.hand_pose, sample.betas, np.zeros(3))
    slope = (sample.keypoints_2d[0] - (size - 1) / 2) / sample.focal_px
    wrist = np.append(slope, 1.0) * sample.root_depth_m
    return model.posed(sample.global_orient, sample.hand_pose, sample.betas, wrist - hand.keypoints[0])


def test_the_same_number_gives_the_same_sample(hands: SyntheticHands, samples: list[SyntheticSample]):
    hands.sample(1000)
    batch = SyntheticHands(seed=1).batch(np.array([17, 3]))
    for field in dataclasses.fields(SyntheticSample):
        for row, number in enumerate((17, 3)):
            np.testing.assert_array_equal(
                batch[field.name][row], getattr(samples[number], field.name), err_msg=field.name
            )


def test_many_keypoints_at_once_are_those_of_the_model(hands: SyntheticHands):
    orient, pose, betas = hands.poses(np.arange(50))
    keypoints = KeypointKinematics(hands.model).keypoints_of_many(rotation_matrices(orient), pose, betas)
    for row in range(50):
        expected = hands.model.posed(orient[row], pose[row], betas[row], np.zeros(3)).keypoints
        np.testing.assert_allclose(keypoints[row], expected, atol=1e-12)


def test_cues_without_pictures_are_of_the_same_hands(hands: SyntheticHands, samples: list[SyntheticSample]):
    rendered = hands.batch(np.arange(2))
    cues = hands.cue_batch(np.arange(COUNT))
    assert {name: (v.dtype, v.shape[1:]) for name, v in cues.items()} == {
        name: (v.dtype, v.shape[1:]) for name, v in rendered.items() if name != 'image'
    }
    assert all(np.isfinite(values).all() for values in cues.values())
    np.testing.assert_array_equal(cues['hand_pose'], [sample.hand_pose for sample in samples])
    np.testing.assert_array_equal(cues['betas'], [sample.betas for sample in samples])
    # Whoever sees more of a hand places it a little differently.
    turned = cues['R_crop_camera'].transpose(0, 2, 1) @ [sample.R_crop_camera for sample in samples]
    degrees = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert np.median(degrees) < 3


@pytest.mark.parametrize('residuals', [False, True])
def test_cues_without_pictures_depend_on_their_numbers_alone(residuals: bool):
    bank = ResidualBank.shipped() if residuals else None
    hands = SyntheticHands(seed=1, residuals=bank)
    many = hands.cue_batch(np.arange(1500))
    for some in (np.array([1499, 3, 700, 3]), np.array([3])):
        for name, values in hands.cue_batch(some).items():
            np.testing.assert_array_equal(values, many[name][some], err_msg=name)


def test_cues_without_pictures_err_as_those_with_pictures(hands: SyntheticHands):
    rendered, invented = hands.batch(np.arange(1000, 1400)), hands.cue_batch(np.arange(20000))
    assert invented['visible'].mean() == pytest.approx(rendered['visible'].mean(), abs=0.03)
    np.testing.assert_allclose(invented['visible'].mean(0), rendered['visible'].mean(0), atol=0.13)
    for sizes in zip(cue_errors(rendered), cue_errors(invented), strict=True):
        assert np.median(sizes[0]) == pytest.approx(np.median(sizes[1]), rel=0.12)
        np.testing.assert_allclose(*(values.mean() for values in sizes), atol=4 * sizes[0].std() / 20)
        np.testing.assert_allclose(*(values.std() for values in sizes), rtol=0.25)
    for name in ('cue_confidence', 'cue_present'):
        a, b = rendered[name].astype(float), invented[name].astype(float)
        assert a.mean() == pytest.approx(b.mean(), abs=0.03)
        assert a.std() == pytest.approx(b.std(), abs=0.03)


def cue_errors(batch: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Of each kind of cue, the mean error of each hand that has it (N,)."""
    present = batch['cue_present'].T
    unit = (batch['keypoints_2d'] - 63.5) / 64
    points = batch['keypoints_3d']
    depth = points[..., 2] / batch['root_depth_m'][:, None] * batch['focal_px'][:, None] / 64
    world = np.array([normalised_world(hand) for hand in points])
    given = batch['cue_confidence'] > 0
    distances = np.linalg.norm(batch['cue_keypoints'] - unit, axis=2)
    return [
        (np.where(given, distances, 0.0).sum(1) / np.maximum(given.sum(1), 1))[present[0]],
        np.abs(batch['cue_relative_depth'] - depth).mean(1)[present[1]],
        np.linalg.norm(batch['cue_world'] - world, axis=2).mean(1)[present[2]],
    ]


def test_thousands_of_cues_are_made_in_a_second(hands: SyntheticHands):
    hands.cue_batch(np.arange(512))
    began = time.process_time()
    hands.cue_batch(np.arange(8192))
    assert 8192 / (time.process_time() - began) > 4000  # alone on its processor, several times as many


def test_other_seeds_give_other_samples(samples: list[SyntheticSample]):
    other = SyntheticHands(seed=2).sample(3)
    assert np.abs(other.image.astype(int) - samples[3].image).mean() > 5
    assert np.abs(other.hand_pose - samples[3].hand_pose).max() > 0.05


def test_batches_hold_what_training_reads(hands: SyntheticHands):
    batch = hands.batch(np.arange(3))
    shapes = {name: (values.dtype.name, values.shape[1:]) for name, values in batch.items()}
    assert shapes == {
        'image': ('uint8', (128, 128, 3)),
        'cue_keypoints': ('float32', (21, 2)),
        'cue_confidence': ('float32', (21,)),
        'cue_relative_depth': ('float32', (21,)),
        'cue_world': ('float32', (21, 3)),
        'cue_present': ('bool', (3,)),
        'global_orient': ('float32', (3,)),
        'hand_pose': ('float32', (45,)),
        'betas': ('float32', (10,)),
        'keypoints_3d': ('float32', (21, 3)),
        'root_depth_m': ('float32', ()),
        'focal_px': ('float32', ()),
        'keypoints_2d': ('float32', (21, 2)),
        'visible': ('bool', (21,)),
        'R_crop_camera': ('float32', (3, 3)),
    }
    assert all(np.isfinite(values).all() for values in batch.values())


@pytest.mark.parametrize('size', [64, 192])
def test_crops_come_in_any_size(size: int):
    sample = SyntheticHands(seed=1, size=size).sample(4)
    assert sample.image.shape == (size, size, 3)
    wrist = np.append((sample.keypoints_2d[0] - (size - 1) / 2) / sample.focal_px, 1.0)
    points = sample.keypoints_3d + wrist * sample.root_depth_m
    pixels = points[:, :2] / points[:, 2:] * sample.focal_px + (size - 1) / 2
    np.testing.assert_allclose(pixels, sample.keypoints_2d, atol=0.01)


def test_parameters_give_the_keypoints(hands: SyntheticHands, samples: list[SyntheticSample]):
    for sample in samples:
        keypoints = hand_of(hands.model, sample).keypoints
        np.testing.assert_allclose(keypoints - keypoints[0], sample.keypoints_3d, atol=2e-6)
        focal, middle = float(sample.focal_px), 63.5
        pixels = Camera(128, 128, focal, focal, middle, middle).project(keypoints)
        np.testing.assert_allclose(pixels, sample.keypoints_2d, atol=0.01)


def test_keypoints_lie_on_the_hand(hands: SyntheticHands, samples: list[SyntheticSample]):
    for sample in samples:
        focal = float(sample.focal_px)
        camera = Camera(128, 128, focal, focal, 63.5, 63.5)
        mask = rasterise(hand_of(hands.model, sample).vertices, hands.model.faces, camera).mask
        away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
        inside = ((sample.keypoints_2d > 0) & (sample.keypoints_2d < 127)).all(1)
        columns, rows = np.rint(sample.keypoints_2d[inside]).astype(int).T
        assert away[rows, columns].max() <= 2.0


def test_crops_are_centred_upright_and_of_one_scale(samples: list[SyntheticSample]):
    unit = np.array([(sample.keypoints_2d - 63.5) / 64 for sample in samples])
    right, down = (unit[:, 9] - unit[:, 0]).T
    tilt = np.abs(np.degrees(np.arctan2(right, -down)))
    assert np.median(tilt) < 6 and np.percentile(tilt, 90) < 30
    assert np.median(np.linalg.norm(unit.mean(1), axis=1)) < 0.08
    sizes = np.sqrt((unit**2).sum(2).mean(1))
    assert np.median(sizes) == pytest.approx(2 * RMS_SHARE, rel=0.06)
    assert (np.abs(unit) <= 1).mean() > 0.98


def test_fast_poses_are_those_of_the_samples(hands: SyntheticHands, samples: list[SyntheticSample]):
    poses = hands.poses(np.arange(COUNT))
    np.testing.assert_allclose(poses.hand_pose, [sample.hand_pose for sample in samples], atol=1e-6)
    np.testing.assert_allclose(poses.betas, [sample.betas for sample in samples], atol=1e-6)
    turned = rotation_matrices(poses.global_orient).transpose(0, 2, 1) @ rotation_matrices(
        np.array([sample.global_orient for sample in samples])
    )
    degrees = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert np.median(degrees) < 12  # perspective and the errors of the crop


def test_pictures_are_neither_black_nor_white_nor_empty(samples: list[SyntheticSample]):
    images = np.array([sample.image for sample in samples])
    assert np.mean((images.mean((1, 2, 3)) > 15) & (images.mean((1, 2, 3)) < 240)) > 0.95
    assert np.mean(images.std((1, 2, 3)) > 8) > 0.9


def test_the_picture_shows_the_hand_where_it_is(figures: HandFigures):
    hand = posed('spread', back=False)
    view = view_of_hand(hand.keypoints, 128)
    black, plain = np.zeros((128, 128, 3), np.uint8), np.full((128, 128, 3), 128, np.uint8)
    light = scene_of(figures, hand).light(view, black, plain, crease=0.5)
    mask = rasterise(hand.vertices @ view.R_crop_camera.T, load_hand_model().faces, view.camera()).mask
    lit = light.max(2) > 0
    assert lit[mask].mean() > 0.999
    above_wrist = (
        np.arange(128)[:, None] < view.camera().project(hand.keypoints[:1] @ view.R_crop_camera.T)[0, 1] - 8
    )
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert not (lit & ~grown & above_wrist).any()
    assert (light >= 0).all() and np.isfinite(light).all()


def test_nothing_of_an_open_palm_is_hidden(figures: HandFigures):
    hand = posed('spread', back=False)
    view = view_of_hand(hand.keypoints, 128)
    assert scene_of(figures, hand).visible(hand.keypoints, view).all()


def test_a_fist_hides_its_fingertips_from_behind(figures: HandFigures):
    hand = posed('fist', back=True)
    visible = scene_of(figures, hand).visible(hand.keypoints, view_of_hand(hand.keypoints, 128))
    assert not visible[[8, 12, 16]].any()
    assert visible[[0, 5, 9, 13, 17]].all()


def test_things_in_front_hide_keypoints(figures: HandFigures):
    hand = posed('open', back=False)
    view = view_of_hand(hand.keypoints, 128)
    before = scene_of(figures, hand).visible(hand.keypoints, view)
    fewer = 0
    for seed in range(20):
        prop = prop_in_front(hand.keypoints, np.random.default_rng(seed))
        after = scene_of(figures, hand, prop).visible(hand.keypoints, view)
        assert not (after & ~before).any()
        fewer += after.sum() < before.sum()
    assert fewer >= 15


@pytest.mark.parametrize('share', [0.05, 0.3, 0.6])
def test_a_cover_hides_its_share_of_the_hand(share: float):
    model = load_hand_model()
    for seed, gesture in enumerate(['open', 'fist', 'spread', 'relaxed'] * 3):
        hand = posed(gesture, back=seed % 2 == 0)
        view = view_of_hand(hand.keypoints, 128)
        seen = hand.vertices @ view.R_crop_camera.T
        mask = rasterise(seen, model.faces, view.camera()).mask
        rng = np.random.default_rng(seed)
        prop = prop_covering(share, mask, hand.keypoints, hand.vertices, view, rng)
        vertices, faces = join_meshes(
            [(seen, model.faces), (prop.vertices @ view.R_crop_camera.T, prop.faces)]
        )
        assert vertices[len(seen) :, 2].min() > 0 and vertices[len(seen) :, 2].max() < seen[:, 2].min()
        left = rasterise(vertices, faces, view.camera()).face_index
        still_seen = (left >= 0) & (left < len(model.faces))
        assert 1 - still_seen.sum() / mask.sum() == pytest.approx(share, abs=0.03)


def test_covered_hands_are_the_same_hands_with_less_to_be_seen(samples: list[SyntheticSample]):
    bare, half = (SyntheticHands(seed=1, covered=share).batch(np.arange(40)) for share in (0.0, 0.5))
    np.testing.assert_array_equal(half['hand_pose'], [sample.hand_pose for sample in samples[:40]])
    assert bare['visible'].mean() >= np.mean([sample.visible for sample in samples[:40]])
    assert half['visible'].mean() < bare['visible'].mean() - 0.2
    again = SyntheticHands(seed=1, covered=0.5).sample(7)
    np.testing.assert_array_equal(again.image, half['image'][7])


@pytest.mark.parametrize('covered', [-0.1, 0.9, float('nan')])
def test_hands_cannot_be_covered_wholly(covered: float):
    with pytest.raises(ConfigurationError, match='covered'):
        SyntheticHands(covered=covered)


def test_a_hand_alone_is_hidden_by_nothing_else(figures: HandFigures):
    hand = posed('spread', back=False)
    view = view_of_hand(hand.keypoints, 128)
    corners = np.array([[x, y, 0.3] for x in (-0.5, 0.5) for y in (-0.5, 0.5)])
    prop = Prop(corners, np.array([[0, 1, 2], [1, 3, 2]], np.int32), np.zeros((4, 3)), np.ones(3))
    scene = scene_of(figures, hand, prop)
    assert not scene.visible(hand.keypoints, view).any()
    assert scene.alone().visible(hand.keypoints, view).all()


@pytest.mark.parametrize('make', [prop_in_front, prop_in_hand])
def test_props_are_closed_and_face_outwards(make):
    keypoints = posed('open', back=False).keypoints
    for seed in range(40):
        prop = make(keypoints, np.random.default_rng(seed))
        corners = prop.vertices[prop.faces] - prop.vertices.mean(0)
        volume = np.einsum('fk,fk->f', corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
        assert volume > 0
        outwards = np.einsum('vk,vk->v', prop.normals, prop.vertices - prop.vertices.mean(0))
        assert (outwards > -1e-9).mean() > 0.95


def test_without_shadow_light_is_that_of_the_renderer(figures: HandFigures):
    hand = posed('relaxed', back=False)
    figure = figures.figure(figures.coarse_vertices(hand, np.zeros(3), BARE), BARE, skin=3)
    lighting = Lighting(gloss=0.1)
    expected = shade(figure.albedo, figure.vertices, figure.normals.astype(np.float32), lighting)
    lit = np.zeros(len(expected), bool)
    actual = shade_with_shadows(figure.albedo, figure.vertices, figure.normals, lighting, lit)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    dark = shade_with_shadows(figure.albedo, figure.vertices, figure.normals, lighting, ~lit)
    unlit = Lighting(lamp=(0, 0, 0), gloss=0.0)
    np.testing.assert_allclose(dark, shade(figure.albedo, figure.vertices, figure.normals, unlit), atol=1e-4)


def test_a_plate_casts_its_shadow_away_from_the_lamp():
    plate = np.array([[-0.05, -0.05, 0.5], [0.05, -0.05, 0.5], [0.05, 0.05, 0.5], [-0.05, 0.05, 0.5]])
    points = np.array([[0.0, 0.0, 0.55], [0.0, 0.0, 0.45], [0.09, 0.0, 0.55], [0.0, 0.0, 0.5]])
    lighting = Lighting(direction=(0.0, 0.0, -2.0))
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    shadowed = in_shadow(points, plate, faces, np.array([0.0, 0.0, 0.5]), lighting)
    assert shadowed.tolist() == [True, False, False, False]


def test_contact_sheet_is_a_picture_of_its_samples(hands: SyntheticHands, tmp_path: Path):
    path = tmp_path / 'sheet.png'
    write_contact_sheet(path, hands, np.arange(5), columns=3)
    sheet = cv2.imread(str(path))
    assert sheet.shape == (2 * 256, 3 * 256, 3)
    assert sheet[256:, 512:].max() == 0  # the place of a sixth one
    for bad in (tmp_path / 'missing' / 'sheet.png', tmp_path / 'sheet.none'):
        with pytest.raises(ConfigurationError, match=bad.name):
            write_contact_sheet(bad, hands, np.arange(1))
