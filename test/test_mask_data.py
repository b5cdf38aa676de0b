"""Synthetic masks: the same for the same number, true to what they say, spoilt as real ones are."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_image import crop_image
from hand_mesh_ros.datasets.mask_borders import BorderNoise, WristCut, worn
from hand_mesh_ros.datasets.masks import SyntheticMasks
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.mask_view import LEAST_PIXELS, MASK_RMS_SHARE, view_of_mask
from hand_mesh_ros.rendering.zbuffer import rasterise

MODEL = load_hand_model()
SIZE = 96
CAMERA = Camera(640, 480, 700.0, 700.0, 319.5, 239.5)


def crop_camera(half_side: float, size: int = SIZE) -> Camera:
    middle = (size - 1) / 2
    return Camera(size, size, half_side * size / 2, half_side * size / 2, middle, middle)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def posed(fields: dict[str, np.ndarray], row: int):
    names = ('global_orient', 'hand_pose', 'betas', 'transl')
    return MODEL.posed(*(fields[name][row].astype(np.float64) for name in names))


@pytest.fixture(scope='module')
def masks() -> SyntheticMasks:
    return SyntheticMasks(seed=5, model=MODEL)


@pytest.fixture(scope='module')
def perfect(masks) -> dict[str, np.ndarray]:
    return masks.batch(np.arange(40))


@pytest.fixture(scope='module')
def hand_mask() -> np.ndarray:
    """An open hand (480,640) bool, not in the middle of the picture but far from its edges."""
    hand = MODEL.posed(np.array([1.2, 1.2, 0.9]), np.full(45, 0.05), np.zeros(10), np.zeros(3))
    moved = np.array([0.06, 0.03, 0.6]) - hand.keypoints.mean(0)
    return rasterise(hand.vertices + moved, MODEL.faces, CAMERA).mask


def test_a_mask_depends_on_seed_and_number_alone():
    masks = SyntheticMasks(seed=3, worn_share=0.7, loose=True, model=MODEL)
    together, alone = masks.batch(np.arange(6)), SyntheticMasks(seed=3, worn_share=0.7, loose=True)
    for number in (4, 1):
        single = alone.batch(np.array([number]))
        for name, values in single.items():
            np.testing.assert_array_equal(values[0], together[name][number], err_msg=name)
    other = SyntheticMasks(seed=4, worn_share=0.7, loose=True, model=MODEL).batch(np.arange(6))
    assert not (other['mask'] == together['mask']).all(axis=(1, 2)).any()


def at_an_edge(mask: np.ndarray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def test_the_truth_reproduces_the_mask(masks, perfect):
    overlaps = []
    # A wrist may reach beyond the picture that it is drawn in
    whole = [not at_an_edge(drawn.mask) for drawn in masks.drawn(np.arange(40))]
    assert sum(whole) > 30
    for row in np.flatnonzero(whole):
        half_side = perfect['half_side'][row]
        hand = posed(perfect, row)
        np.testing.assert_allclose(hand.keypoints, perfect['keypoints'][row], atol=1e-5)
        seen = rasterise(hand.vertices, MODEL.faces, crop_camera(float(half_side))).mask
        overlaps.append(overlap(seen, perfect['mask'][row] > 127))
    assert np.min(overlaps) > 0.95


def test_masks_of_another_size_and_shape_and_place_are_true_too():
    masks = SyntheticMasks(seed=6, size=64, distances_m=(0.2, 0.3), betas_scale=2.0, loose=True, model=MODEL)
    fields = masks.batch(np.arange(8))
    assert fields['mask'].shape == (8, 64, 64)
    assert np.abs(fields['betas']).max() > 2.5
    for row, half_side in enumerate(fields['half_side']):
        hand = posed(fields, row)
        # The mean of keypoints is what is placed
        assert 0.19 < np.linalg.norm(hand.keypoints.mean(0)) < 0.31
        seen = rasterise(hand.vertices, MODEL.faces, crop_camera(float(half_side), 64)).mask
        assert overlap(seen, fields['mask'][row] > 127) > 0.96


def test_crops_are_the_views_of_their_masks(perfect):
    """Enlarged and centred as ``view_of_mask`` would, of a camera that sees what the crop does."""
    for mask, half_side in zip(perfect['mask'], perfect['half_side'], strict=True):
        places = np.argwhere(mask > 127)
        np.testing.assert_allclose(places.mean(0), (SIZE - 1) / 2, atol=2.5)
        spread = np.sqrt(((places - places.mean(0)) ** 2).sum(1).mean())
        assert spread == pytest.approx(MASK_RMS_SHARE * SIZE, rel=0.05)
        again = view_of_mask(mask > 127, crop_camera(float(half_side)), SIZE)
        assert again.focal_px * 2 / SIZE == pytest.approx(half_side, rel=0.06)


def test_drawn_masks_are_those_of_the_crops():
    masks = SyntheticMasks(seed=7, worn_share=0.5, model=MODEL)
    fields = masks.batch(np.arange(6))
    for row, drawn in enumerate(masks.drawn(np.arange(6))):
        view = view_of_mask(drawn.mask, drawn.camera, SIZE)
        crop = crop_image(drawn.mask, drawn.camera, view, border=cv2.BORDER_CONSTANT)
        np.testing.assert_array_equal(crop, fields['mask'][row])
        np.testing.assert_allclose(
            drawn.keypoints @ view.R_crop_camera.T, fields['keypoints'][row], atol=1e-5
        )
        assert overlap(drawn.hand_mask, drawn.mask > 127) > 0.4


# The view of a mask


def crop_of(mask: np.ndarray, camera: Camera) -> np.ndarray:
    view = view_of_mask(mask, camera, SIZE)
    return crop_image(mask.astype(np.uint8) * 255, camera, view, border=cv2.BORDER_CONSTANT)


def test_a_mirrored_mask_has_the_mirrored_view(hand_mask):
    mirrored = replace(CAMERA, cx=CAMERA.width - 1 - CAMERA.cx)
    view, other = view_of_mask(hand_mask, CAMERA, SIZE), view_of_mask(hand_mask[:, ::-1], mirrored, SIZE)
    mirror = np.diag([-1.0, 1.0, 1.0])
    np.testing.assert_allclose(other.R_crop_camera, mirror @ view.R_crop_camera @ mirror, atol=0.01)
    assert other.focal_px == pytest.approx(view.focal_px, rel=0.01)
    flipped = crop_of(hand_mask[:, ::-1], mirrored)[:, ::-1]
    assert overlap(flipped > 127, crop_of(hand_mask, CAMERA) > 127) > 0.97


@pytest.mark.parametrize('angle', [35.0, 90.0, 180.0, -110.0])
def test_a_turned_mask_gives_the_same_crop(hand_mask, angle):
    turn = cv2.getRotationMatrix2D((CAMERA.cx, CAMERA.cy), angle, 1.0)
    pixels = hand_mask.astype(np.uint8) * 255
    turned = cv2.warpAffine(pixels, turn, (640, 480)) > 127
    assert overlap(crop_of(turned, CAMERA) > 127, crop_of(hand_mask, CAMERA) > 127) > 0.96


def test_the_lens_is_taken_out_of_the_view(hand_mask):
    barrel = replace(CAMERA, distortion_model='plumb_bob', distortion=(-0.1, 0.02, 0.0, 0.0, 0.0))
    down, across = np.mgrid[:480, :640]
    rays = barrel.rays(np.column_stack([across.ravel(), down.ravel()]))
    seen_at = CAMERA.project(np.column_stack([rays, np.ones(len(rays))])).astype(np.float32)
    maps = seen_at.reshape(480, 640, 2)
    bent = cv2.remap(hand_mask.astype(np.uint8) * 255, maps, None, cv2.INTER_LINEAR) > 127
    assert overlap(crop_of(bent, barrel) > 127, crop_of(hand_mask, CAMERA) > 127) > 0.96


def test_what_is_no_hand_is_refused():
    nothing = np.zeros((480, 640), bool)
    with pytest.raises(FrameError, match='0 pixels'):
        view_of_mask(nothing, CAMERA, SIZE)
    few = nothing.copy()
    few[100, : LEAST_PIXELS - 1] = True
    with pytest.raises(FrameError, match='least'):
        view_of_mask(few, CAMERA, SIZE)
    line = nothing.copy()
    line[100] = True
    with pytest.raises(FrameError, match='line'):
        view_of_mask(line, CAMERA, SIZE)
    # A polynomial that folds back sees nothing in the corners
    folded = replace(CAMERA, distortion_model='plumb_bob', distortion=(-2.5, 0.0, 0.0, 0.0, 0.0))
    corner = nothing.copy()
    corner[:20, :20] = True
    with pytest.raises(FrameError, match='lens'):
        view_of_mask(corner, folded, SIZE)


# What masks suffer


def drawn(cut: WristCut, length_m: float) -> np.ndarray:
    hand = MODEL.posed(np.zeros(3), np.zeros(45), np.zeros(10), np.array([0.0, 0.0, 0.5]))
    vertices, faces = cut(hand, length_m)
    return rasterise(vertices, faces, CAMERA).mask


def window(mask: np.ndarray) -> np.ndarray:
    """A picture (420,420) uint8, of which the hand fills about half, as those that masks are drawn in."""
    return np.ascontiguousarray(mask[30:450, 180:600]).astype(np.uint8) * 255


def test_a_wrist_is_cut_before_or_behind():
    cut = WristCut(MODEL)
    whole, longer, shorter = (drawn(cut, length) for length in (0.0, 0.04, -0.015))
    assert not (whole & ~longer).any() and not (shorter & ~whole).any()
    # So many pixels has a wrist's width times what is there more, or less; it is nearly straight
    across = np.count_nonzero(longer & ~whole) / (0.04 * CAMERA.fx / 0.5)
    assert across == pytest.approx(0.055 * CAMERA.fx / 0.5, rel=0.4)
    lost = np.count_nonzero(whole & ~shorter) / across / (CAMERA.fx / 0.5)
    assert lost == pytest.approx(0.015, abs=0.008)


def test_worn_masks_are_masks_of_the_same_hand(hand_mask):
    mask = window(hand_mask)
    shared = []
    for seed in range(60):
        spoilt = worn(mask, BorderNoise(), np.random.default_rng(seed))
        assert set(np.unique(spoilt)) == {0, 255}
        assert np.array_equal(spoilt, worn(mask, BorderNoise(), np.random.default_rng(seed)))
        shared.append(overlap(spoilt > 0, mask > 0))
    assert np.median(shared) > 0.8 and np.min(shared) > 0.4
    assert np.max(shared) < 1


def test_without_noise_nothing_is_worn(hand_mask):
    mask = window(hand_mask)
    none = BorderNoise(ragged=0.0, grown=0.0, lost_share=0.0, edge_share=0.0)
    assert overlap(worn(mask, none, np.random.default_rng(0)) > 0, mask > 0) > 0.97
