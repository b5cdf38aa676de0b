"""Hands with a landmark network in the loop: what it says, what it is shown and the truth fit together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_view import RMS_SHARE, views_of_hands
from hand_mesh_ros.cues import normalised_world
from hand_mesh_ros.datasets.cue_noise import NoiseLevels, true_landmarks
from hand_mesh_ros.datasets.detected import DetectedHands, Look, Looked, first_views
from hand_mesh_ros.datasets.synthetic import SyntheticHands
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.rendering.zbuffer import rasterise

SEED, SIZE, COUNT = 3, 84, 20
NUMBERS = np.arange(COUNT)
AS_IT_IS = np.eye(2, 3)
#: Rolled by 20 degrees, enlarged by 1.15 and moved.
ELSEWHERE = cv2.getRotationMatrix2D((0, 0), 20.0, 1.15) + [[0, 0, 0.12], [0, 0, -0.06]]
COMPLETE = NoiseLevels(
    keypoint_missing_rate=0, keypoints_missing_rate=0, depth_missing_rate=0, world_missing_rate=0
)


@pytest.fixture(scope='module')
def synthetic() -> SyntheticHands:
    return SyntheticHands(SEED, SIZE)


@pytest.fixture(scope='module')
def keypoints(synthetic: SyntheticHands) -> np.ndarray:
    """Of the hands NUMBERS, (N,21,3) metres, in the frames of the cameras that took the whole pictures."""
    batch = synthetic.cue_batch(NUMBERS)
    wrist = np.concatenate(
        [
            (batch['keypoints_2d'][:, 0] - (SIZE - 1) / 2) / batch['focal_px'][:, None],
            np.ones((COUNT, 1)),
        ],
        axis=1,
    )
    points = batch['keypoints_3d'] + (wrist * batch['root_depth_m'][:, None])[:, None]
    return points.astype(np.float64) @ batch['R_crop_camera']


def knowing_look(
    keypoints: np.ndarray, crops: list[np.ndarray] | None = None, misplaced: np.ndarray = AS_IT_IS
) -> Look:
    """A look at the first crops of the hands NUMBERS, all at once, that knows the truth of them.

    :param misplaced: (2,3), how it puts all keypoints in the wrong place.
    """
    views = first_views(SEED, NUMBERS, keypoints, SIZE)

    def look(images: np.ndarray) -> Looked:
        if crops is not None:
            crops.append(images)
        truth = true_landmarks(keypoints, views)
        wrong = truth.keypoints @ misplaced[:, :2].T + misplaced[:, 2]
        return Looked(wrong, truth.relative_depth, truth.world, np.full(len(images), 0.9))

    return look


def fixed_look(presence: float = 0.8, scale: float = 1.0) -> Look:
    """A look that takes every crop for one and the same hand, its fingers up."""
    x, y = np.meshgrid(np.linspace(-0.4, 0.4, 5), np.linspace(0.1, -0.6, 4), indexing='ij')
    fingers = np.column_stack([x.ravel(), y.ravel()])
    hand = np.concatenate([[[0.0, 0.6]], fingers]) * scale
    depth = np.concatenate([[0.0], 0.2 * fingers[:, 0]])
    world = normalised_world(np.column_stack([hand, depth]))

    def look(images: np.ndarray) -> Looked:
        assert images.dtype == np.uint8 and images.shape[1:] == (SIZE, SIZE, 3)
        count = len(images)
        # Like a network's: a little of the crop is in everything
        seen = 0.01 * images.mean((1, 2, 3)) / 255.0
        return Looked(
            hand + seen[:, None, None],
            np.tile(depth, (count, 1)),
            np.tile(world, (count, 1, 1)),
            np.full(count, presence),
        )

    return look


def unit_of(batch: dict[str, np.ndarray]) -> np.ndarray:
    return (batch['keypoints_2d'] - (SIZE - 1) / 2) / (SIZE / 2)


@pytest.fixture(scope='module')
def truly_seen(keypoints: np.ndarray) -> dict[str, np.ndarray]:
    hands = DetectedHands(SEED, SIZE, knowing_look(keypoints), COMPLETE, covered=0.0, share=1.0)
    return hands.batch(NUMBERS)


@pytest.fixture(scope='module')
def wrongly_seen(keypoints: np.ndarray) -> dict[str, np.ndarray]:
    hands = DetectedHands(SEED, SIZE, knowing_look(keypoints, misplaced=ELSEWHERE), COMPLETE, share=1.0)
    return hands.batch(NUMBERS)


@pytest.fixture(scope='module')
def fixedly_seen() -> dict[str, np.ndarray]:
    return DetectedHands(SEED, SIZE, fixed_look(), COMPLETE, share=1.0).batch(NUMBERS)


def test_what_a_faultless_network_says_is_the_truth(truly_seen):
    assert truly_seen['in_the_loop'].all()
    np.testing.assert_allclose(truly_seen['cue_keypoints'], unit_of(truly_seen), atol=1e-4)
    world = normalised_world(truly_seen['keypoints_3d'])
    np.testing.assert_allclose(truly_seen['cue_world'], world, atol=1e-4)
    half_sides = truly_seen['focal_px'] * 2 / SIZE
    depth = truly_seen['keypoints_3d'][..., 2] / truly_seen['root_depth_m'][:, None] * half_sides[:, None]
    # Along the axis of the first crop, which is a few degrees off
    assert np.abs(truly_seen['cue_relative_depth'] - depth).max(1).mean() < 0.05
    assert (truly_seen['cue_confidence'] == np.float32(0.9)).all()


def test_a_faultless_network_leads_to_the_true_crop(truly_seen, keypoints):
    views = views_of_hands(keypoints, SIZE)
    np.testing.assert_allclose(truly_seen['R_crop_camera'], views.R_crop_camera, atol=1e-5)
    np.testing.assert_allclose(truly_seen['focal_px'], views.focal_px, rtol=1e-5)


@pytest.mark.parametrize('seen', ['truly_seen', 'wrongly_seen'])
def test_crops_show_the_hand_where_the_truth_has_it(seen: str, request: pytest.FixtureRequest):
    batch = request.getfixturevalue(seen)
    middle = (SIZE - 1) / 2
    changes = [
        cv2.getRotationMatrix2D((middle, middle), degrees, zoom) + [[0, 0, right], [0, 0, down]]
        for degrees, zoom, right, down in (
            *((0, 1, 0, 0), (0, 1, 3, 0), (0, 1, -3, 0), (0, 1, 0, 3), (0, 1, 0, -3)),
            *((12, 1, 0, 0), (-12, 1, 0, 0), (0, 1.12, 0, 0), (0, 0.9, 0, 0)),
        )
    ]
    contrasts = np.array([contrast_along_outline(batch, row, changes) for row in range(len(batch['image']))])
    as_it_is, *changed = contrasts.mean(0)
    assert as_it_is > 1.15 * max(changed)


def contrast_along_outline(batch: dict[str, np.ndarray], row: int, changes: list[np.ndarray]) -> list[float]:
    """How much the picture changes where the hand's outline would be after each change (2,3) of the crop."""
    model, focal = load_hand_model(), float(batch['focal_px'][row])
    camera = Camera(SIZE, SIZE, focal, focal, (SIZE - 1) / 2, (SIZE - 1) / 2)
    hand = model.posed(*(batch[name][row] for name in ('global_orient', 'hand_pose', 'betas')), np.zeros(3))
    wrist = np.append((batch['keypoints_2d'][row, 0] - (SIZE - 1) / 2) / focal, 1.0)
    vertices = hand.vertices - hand.keypoints[0] + wrist * batch['root_depth_m'][row]
    mask = rasterise(vertices, model.faces, camera).mask.astype(np.float32)
    grey = cv2.GaussianBlur(cv2.cvtColor(batch['image'][row], cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
    steepness = np.hypot(*np.gradient(grey.astype(np.float32)))
    outlines = [np.hypot(*np.gradient(cv2.warpAffine(mask, change, (SIZE, SIZE)))) for change in changes]
    return [float((steepness * line).sum() / line.sum() / steepness.mean()) for line in outlines]


def test_the_first_crops_show_the_hand_about_where_a_palm_detector_has_it(keypoints):
    crops: list[np.ndarray] = []
    hands = DetectedHands(SEED, SIZE, knowing_look(keypoints, crops), covered=0.0, share=1.0)
    hands.batch(NUMBERS)
    (seen,) = crops
    assert seen.shape == (COUNT, SIZE, SIZE, 3) and seen.dtype == np.uint8
    many = np.arange(2000)
    points = np.repeat(keypoints[:1], len(many), axis=0)
    unit = first_views(SEED, many, points, SIZE).to_unit(points)
    right, down = (unit[:, 9] - unit[:, 0]).T
    assert np.arctan2(right, -down).std() == pytest.approx(0.15, rel=0.1)
    np.testing.assert_allclose(unit.mean(1).std(0), 0.07, rtol=0.15)
    extents = np.log(np.sqrt(((unit - unit.mean(1, keepdims=True)) ** 2).sum(2).mean(1)) / (2 * RMS_SHARE))
    assert extents.mean() == pytest.approx(-0.05, abs=0.02)
    assert extents.std() == pytest.approx(0.1, rel=0.1)


def test_the_landmarks_say_where_the_crop_is(wrongly_seen):
    assert wrongly_seen['in_the_loop'].all()
    cues, truth = wrongly_seen['cue_keypoints'], unit_of(wrongly_seen)
    right, down = (cues[:, 9] - cues[:, 0]).T
    np.testing.assert_allclose(right, 0.0, atol=1e-5)
    assert (down < 0).all()
    np.testing.assert_allclose(np.sqrt((cues**2).sum(2).mean(1)), 2 * RMS_SHARE, rtol=1e-2)
    # The hand itself is then seen turned the other way, smaller, and aside
    right, down = (truth[:, 9] - truth[:, 0]).T
    np.testing.assert_allclose(np.degrees(np.arctan2(right, -down)), 20.0, atol=2.0)
    spread = np.sqrt(((truth - truth.mean(1, keepdims=True)) ** 2).sum(2).mean(1))
    np.testing.assert_allclose(spread * 1.15, 2 * RMS_SHARE, rtol=0.03)
    assert np.linalg.norm(truth.mean(1), axis=1).min() > 0.05


def test_samples_have_the_form_of_synthetic_ones(fixedly_seen, synthetic: SyntheticHands):
    rendered = synthetic.batch(NUMBERS[:2])
    form = {name: (values.dtype, values.shape[1:]) for name, values in fixedly_seen.items()}
    assert form.pop('in_the_loop') == (bool, ())
    assert form == {name: (values.dtype, values.shape[1:]) for name, values in rendered.items()}
    assert all(np.isfinite(values).all() for values in fixedly_seen.values())


def test_hands_that_the_network_does_not_find_are_the_synthetic_ones(synthetic: SyntheticHands):
    numbers = NUMBERS[:4]
    expected = synthetic.batch(numbers)
    looks = [fixed_look(presence=0.5), *(fixed_look(scale=scale) for scale in (0.1, 3.0, np.nan))]
    hands = DetectedHands(SEED, SIZE, lambda images: looks.pop()(images), share=1.0)
    while looks:
        batch = hands.batch(numbers)
        assert not batch.pop('in_the_loop').any()
        assert batch.keys() == expected.keys()
        for name, values in batch.items():
            np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_a_share_of_the_samples_is_made_in_the_loop(fixedly_seen):
    asked: list[int] = []

    def counting(images: np.ndarray) -> Looked:
        asked.append(len(images))
        return fixed_look()(images)

    batch = DetectedHands(SEED, SIZE, counting, COMPLETE, share=0.5).batch(NUMBERS)
    assert len(asked) == 1 and 0.25 < asked[0] / COUNT < 0.75
    looped = batch['in_the_loop']
    assert looped.any() and not looped.all()
    # Which samples are made so does not change what they are
    assert_same({name: values[looped] for name, values in batch.items()}, fixedly_seen, NUMBERS[looped])
    rest = NUMBERS[~looped]
    for name, values in SyntheticHands(SEED, SIZE, COMPLETE).batch(rest).items():
        np.testing.assert_allclose(batch[name][rest], values, rtol=1e-5, atol=1e-6, err_msg=name)
    none = DetectedHands(SEED, SIZE, counting, share=0.0).batch(NUMBERS[:3])
    assert not none['in_the_loop'].any() and len(asked) == 1


def assert_same(some: dict[str, np.ndarray], many: dict[str, np.ndarray], rows: np.ndarray) -> None:
    """The samples are those in these rows of many, but for rounding."""
    for name, values in some.items():
        if name == 'image':
            assert (values == many[name][rows]).mean() > 0.9999
        else:
            np.testing.assert_allclose(values, many[name][rows], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_sample_is_the_same_in_any_batch():
    hands = DetectedHands(SEED, SIZE, fixed_look())
    many = hands.batch(np.arange(40))  # more than one block
    assert 0 < many['in_the_loop'][[37, 2, 3, 9]].sum() < 4
    for some in ([37, 2, 3, 9], [2], [3]):
        assert_same(hands.batch(np.array(some)), many, np.array(some))


def test_cues_of_a_network_have_the_gaps_of_all_cues():
    levels = NoiseLevels(
        keypoint_missing_rate=0.2, keypoints_missing_rate=0.3, depth_missing_rate=0.3, world_missing_rate=0.3
    )
    batch = DetectedHands(SEED, SIZE, fixed_look(), levels, share=1.0).batch(np.arange(64))
    batch = {name: values[batch['in_the_loop']] for name, values in batch.items()}
    present, confidence = batch['cue_present'], batch['cue_confidence']
    np.testing.assert_allclose(present.mean(0), 0.7, atol=0.22)
    assert set(np.unique(confidence)) == {np.float32(0.0), np.float32(0.8)}
    assert (confidence[present[:, 0]] == 0).mean() == pytest.approx(0.2, abs=0.06)
    assert not confidence[~present[:, 0]].any() and not batch['cue_keypoints'][confidence == 0].any()
    assert not batch['cue_relative_depth'][~present[:, 1]].any()
    assert not batch['cue_world'][~present[:, 2]].any()


@pytest.mark.parametrize('share', [-0.1, 1.1, float('nan')])
def test_a_share_is_from_none_to_all(share: float):
    with pytest.raises(ConfigurationError, match='share'):
        DetectedHands(SEED, SIZE, fixed_look(), share=share)


def test_hands_of_another_size_are_the_same_hands(synthetic: SyntheticHands):
    expected = SyntheticHands(SEED, 64).batch(NUMBERS[:3])
    for name, values in synthetic.sized(64).batch(NUMBERS[:3]).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
    assert synthetic.batch(NUMBERS[:1])['image'].shape[1] == SIZE


def test_many_pictures_are_those_of_each_hand(synthetic: SyntheticHands):
    pictures = synthetic.pictures(np.array([4, 2]), 0.6)
    for row, number in enumerate((4, 2)):
        image, keypoints, view = synthetic.picture(number, 0.6)
        np.testing.assert_array_equal(pictures.images[row], image)
        np.testing.assert_allclose(pictures.hands.keypoints[row], keypoints, atol=1e-12)
        np.testing.assert_allclose(pictures.views[row].R_crop_camera, view.R_crop_camera, atol=1e-12)
        assert pictures.views[row].focal_px == pytest.approx(view.focal_px)
