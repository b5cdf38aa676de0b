"""What the overlay shows, and that no hand and no image makes it fail."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.hand import Hand, ScaleSource, Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.keypoints import TIP_KEYPOINTS
from hand_mesh_ros.rendering.overlay import SIDE_COLOURS, _blend_mesh, draw_hands, draw_keypoints
from hand_mesh_ros.rendering.zbuffer import rasterise

CAMERA = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)
MODELS = {side: load_hand_model(None, side) for side in ('right', 'left')}
FACES = {side: model.faces for side, model in MODELS.items()}


def make_hand(side: Side, position: tuple[float, float, float], camera: Camera = CAMERA) -> Hand:
    """A flat hand that shows its palm or back, the root of its middle finger about ``position``."""
    model = MODELS[side]
    # The model's fingers point along -x (right) or +x (left), its palm down -y: turn the palm to the camera.
    orient = np.array([np.pi / 2, 0.0, 0.0])
    posed = model.posed(orient, np.zeros(45), np.zeros(10), np.zeros(3))
    transl = np.array(position) - posed.keypoints[9]
    posed = model.posed(orient, np.zeros(45), np.zeros(10), transl)
    keypoints_px = camera.project(posed.keypoints)
    return Hand(
        side=side,
        side_score=0.9,
        score=0.8,
        bbox_px=np.concatenate([keypoints_px.min(0), keypoints_px.max(0)]).astype(np.float32),
        global_orient=orient.astype(np.float32),
        hand_pose=np.zeros(45, np.float32),
        betas=np.zeros(10, np.float32),
        transl=transl.astype(np.float32),
        keypoints_3d=posed.keypoints.astype(np.float32),
        keypoints_2d=keypoints_px.astype(np.float32),
        joint_confidence=np.ones(21, np.float32),
        vertices=posed.vertices.astype(np.float32),
        T_camera_hand=posed.T_camera_hand,
        T_camera_fingertips=posed.T_camera_fingertips,
        scale_source=ScaleSource.NOMINAL_HAND,
    )


def grey(camera: Camera = CAMERA) -> np.ndarray:
    return np.full((camera.height, camera.width, 3), 128, np.uint8)


def test_no_hands_gives_an_equal_copy() -> None:
    image = grey()
    picture = draw_hands(image, [], FACES, CAMERA)
    np.testing.assert_array_equal(picture, image)
    assert not np.shares_memory(picture, image)


def test_image_is_not_changed_and_may_be_a_view() -> None:
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    before = image.copy()
    mirrored = draw_hands(image[:, ::-1], [make_hand('right', (0, 0, 0.5))], FACES, CAMERA)
    np.testing.assert_array_equal(image, before)
    contiguous = draw_hands(image[:, ::-1].copy(), [make_hand('right', (0, 0, 0.5))], FACES, CAMERA)
    np.testing.assert_array_equal(mirrored, contiguous)


@pytest.mark.parametrize('side', ['right', 'left'])
def test_mesh_lies_where_the_camera_sees_it_in_its_sides_colour(side: Side) -> None:
    hand = make_hand(side, (0.02, 0.01, 0.5))
    # Without keypoints only mesh and label are drawn, the label above the box.
    hand = dataclasses.replace(hand, keypoints_2d=np.full((21, 2), np.nan, np.float32))
    picture = draw_hands(grey(), [hand], FACES, CAMERA).astype(int)
    changed = (picture != 128).any(2)
    mask = rasterise(hand.vertices, FACES[side], CAMERA).mask
    below_label = int(hand.bbox_px[1])
    disagreement = (changed != mask)[below_label:]
    assert mask.any() and disagreement.sum() < 0.08 * mask.sum()
    lean = picture[mask].mean(0) - 128
    towards = np.array(SIDE_COLOURS[side]) - np.mean(SIDE_COLOURS[side])
    assert np.corrcoef(lean, towards)[0, 1] > 0.9


def test_nearer_hand_hides_the_farther() -> None:
    blank = {'keypoints_2d': np.full((21, 2), np.nan, np.float32), 'bbox_px': np.zeros(4, np.float32)}
    near = dataclasses.replace(make_hand('left', (0, 0, 0.4)), **blank)
    far = dataclasses.replace(make_hand('right', (0, 0, 0.6)), **blank)
    both, alone = (draw_hands(grey(), hands, FACES, CAMERA) for hands in ([near, far], [near]))
    mask = rasterise(near.vertices, FACES['left'], CAMERA).mask
    inner = np.zeros_like(mask)
    inner[60:, :] = mask[60:, :]
    inner &= np.roll(mask, 2, 0) & np.roll(mask, -2, 0) & np.roll(mask, 2, 1) & np.roll(mask, -2, 1)
    assert inner.sum() > 1000
    np.testing.assert_array_equal(both[inner], alone[inner])
    reverse = draw_hands(grey(), [far, near], FACES, CAMERA)
    np.testing.assert_array_equal(reverse[inner], alone[inner])


@pytest.mark.parametrize(
    'position', [(0.27, 0, 0.5), (0, -0.25, 0.5), (5, 0, 0.5), (0, 0, 0.02), (0, 0, -0.3), (np.nan, 0, 0.5)]
)
def test_hands_partly_or_wholly_outside_are_drawn_as_far_as_they_are_seen(
    position: tuple[float, float, float],
) -> None:
    hands = [make_hand('right', position), make_hand('left', (0, 0, 0.5))]
    picture = draw_hands(grey(), hands, FACES, CAMERA)
    assert picture.shape == (240, 320, 3) and (picture != 128).any()


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('wrong', [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_is_left_out_and_the_rest_is_drawn(wrong: float) -> None:
    hand = make_hand('right', (0, 0, 0.5))
    whole = draw_hands(grey(), [hand], FACES, CAMERA)
    mask = rasterise(hand.vertices, FACES['right'], CAMERA).mask
    for broken in (0, 300, 777):
        vertices, keypoints = hand.vertices.copy(), hand.keypoints_2d.copy()
        vertices[broken, broken % 3] = wrong
        keypoints[5, 0] = wrong
        damaged = dataclasses.replace(hand, vertices=vertices, keypoints_2d=keypoints)
        picture = draw_hands(grey(), [damaged], FACES, CAMERA)
        assert (picture[mask] == whole[mask]).all(1).mean() > 0.85


def test_colours_that_are_not_numbers_leave_the_picture_as_it_is() -> None:
    hand = make_hand('right', (0, 0, 0.5))
    raster = rasterise(hand.vertices, FACES['right'], CAMERA)
    picture = grey()
    _blend_mesh(raster, FACES['right'], np.full((778, 4), np.nan, np.float32), 1, picture)
    np.testing.assert_array_equal(picture, grey())


@pytest.mark.parametrize('size', [(1, 1), (8, 6), (224, 224), (1920, 1080)])
def test_any_image_size(size: tuple[int, int]) -> None:
    camera = Camera.from_fov(*size)
    hand = make_hand('right', (0, 0, 0.4), camera)
    assert draw_hands(grey(camera), [hand], FACES, camera).shape == (size[1], size[0], 3)


def test_lines_grow_with_the_image() -> None:
    def share(camera: Camera) -> float:
        hand = make_hand('right', (0, 0, 0.4), camera)
        return float((draw_keypoints(grey(camera), hand.keypoints_2d) != 128).any(2).mean())

    # Not the same share: an antialiased edge is a pixel wide whatever the size.
    assert share(Camera.from_fov(1280, 960)) == pytest.approx(share(Camera.from_fov(640, 480)), rel=0.25)


def test_uncertain_keypoints_fade() -> None:
    keypoints = make_hand('right', (0, 0, 0.4)).keypoints_2d
    ink = [
        np.abs(draw_keypoints(grey(), keypoints, np.full(21, confidence)).astype(int) - 128).sum()
        for confidence in (1.0, 0.5, 0.0)
    ]
    assert ink[0] > 1.5 * ink[1] > 0 and ink[1] > 1.5 * ink[2] > 0


def test_keypoints_are_drawn_at_their_pixels_and_missing_ones_are_not() -> None:
    keypoints = np.full((21, 2), np.nan)
    keypoints[8] = 100.25, 60.75
    picture = draw_keypoints(grey(), keypoints)
    rows, columns = np.nonzero((picture != 128).any(2))
    assert (columns.mean(), rows.mean()) == pytest.approx((100.25, 60.75), abs=0.3)


def test_mesh_and_keypoints_agree_under_lens_distortion() -> None:
    camera = dataclasses.replace(
        CAMERA, fx=170.0, fy=170.0, distortion_model='plumb_bob', distortion=(-0.25, 0.05, 0.0, 0.0, 0.0)
    )
    hand = make_hand('right', (0.2, 0.1, 0.3), camera)
    without_keypoints = dataclasses.replace(hand, keypoints_2d=np.full((21, 2), np.nan, np.float32))
    picture = draw_hands(grey(camera), [without_keypoints], FACES, camera)
    # The tips lie on the mesh's outline, the other keypoints within.
    within = np.setdiff1d(np.arange(21), TIP_KEYPOINTS)
    columns, rows = hand.keypoints_2d[within].round().astype(int).T
    inside = (columns >= 0) & (columns < 320) & (rows >= 0) & (rows < 240)
    assert inside.sum() > 12
    assert (picture[rows[inside], columns[inside]] != 128).any(1).all()
