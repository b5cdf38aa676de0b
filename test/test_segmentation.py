"""Hand masks from one depth image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.depth_scenes import DepthScene, DepthScenes
from hand_mesh_ros.detection.detection import HandBox
from hand_mesh_ros.errors import ConfigurationError, FileFormatError, FrameError
from hand_mesh_ros.evaluation import mask_quality
from hand_mesh_ros.rendering.depth_camera import camera_depth
from hand_mesh_ros.segmentation import MaskSettings, hand_masks
from hand_mesh_ros.segmentation.wrist import WRIST_FILE, load_wrist_finder
from hand_mesh_ros.training import wrist_fit

CAMERA = Camera.from_fov(640, 480)


@pytest.fixture(scope='module')
def scenes() -> DepthScenes:
    return DepthScenes(4, CAMERA)


@pytest.fixture(scope='module')
def shown(scenes: DepthScenes) -> list[tuple[DepthScene, np.ndarray]]:
    """Scenes with a hand, and what a depth camera measures of them."""
    rendered = [scenes.with_hand(number) for number in range(16)]
    return [(s, camera_depth(s.depth_m, CAMERA, np.random.default_rng(k))) for k, s in enumerate(rendered)]


@pytest.fixture(scope='module')
def clear(shown: list[tuple[DepthScene, np.ndarray]]) -> tuple[DepthScene, np.ndarray]:
    """The one of them that is found best."""
    return max(shown, key=lambda pair: _iou(hand_masks(pair[1], CAMERA).mask, pair[0].mask))


def test_depth_alone_shows_where_the_hand_is(shown: list[tuple[DepthScene, np.ndarray]]) -> None:
    ious = [_iou(hand_masks(depth, CAMERA).mask, scene.mask) for scene, depth in shown]
    assert np.mean(ious) > 0.78
    assert np.median(ious) > 0.84


def test_the_arm_is_cut_off(shown: list[tuple[DepthScene, np.ndarray]]) -> None:
    found = [(hand_masks(depth, CAMERA).mask > 0, scene.mask) for scene, depth in shown]
    beside = [(mask & ~true).sum() / true.sum() for mask, true in found if mask.any()]
    assert np.median(beside) < 0.12


def test_a_box_or_keypoints_of_a_detector_help(shown: list[tuple[DepthScene, np.ndarray]]) -> None:
    boxed = [_iou(_with_box(depth, scene).mask, scene.mask) for scene, depth in shown]
    guided = [
        _iou(hand_masks(depth, CAMERA, keypoints_px=[scene.keypoints_px]).mask, scene.mask)
        for scene, depth in shown
    ]
    assert np.median(boxed) > 0.84
    assert np.median(guided) > 0.84


def test_a_region_tells_of_its_hand(clear: tuple[DepthScene, np.ndarray]) -> None:
    scene, depth = clear
    masks = hand_masks(depth, CAMERA)
    (region,) = masks.regions
    ys, xs = np.nonzero(masks.mask)
    assert masks.mask.dtype == np.uint8 and set(np.unique(masks.mask)) == {0, 255}
    assert region.bbox_px.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert region.pixels == len(ys)
    assert region.depth_m == pytest.approx(np.median(scene.depth_m[scene.mask]), abs=0.02)
    assert region.side is None
    assert _with_box(depth, scene).regions[0].side == 'left'


def test_rooms_without_hands_have_no_mask(scenes: DepthScenes) -> None:
    seen = 0
    for number in range(20):
        depth = camera_depth(scenes.without_hand(number).depth_m, CAMERA, np.random.default_rng(number))
        masks = hand_masks(depth, CAMERA)
        assert masks.mask.any() == bool(masks.regions)
        seen += bool(masks.regions)
    assert seen <= 1


def test_a_bare_wall_has_no_mask() -> None:
    wall = np.full((480, 640), 0.7, np.float32)
    for depth in (wall, camera_depth(wall, CAMERA, np.random.default_rng(0)), np.zeros_like(wall)):
        masks = hand_masks(depth, CAMERA)
        assert not masks.mask.any() and masks.regions == ()


def test_whatever_marks_missing_depth_is_the_same(clear: tuple[DepthScene, np.ndarray]) -> None:
    _, depth = clear
    expected = hand_masks(depth, CAMERA).mask
    assert expected.any()
    for missing in (np.nan, np.inf, -np.inf, -1.0):
        other = np.where(depth == 0, np.float32(missing), depth)
        np.testing.assert_array_equal(hand_masks(other, CAMERA).mask, expected)


def test_small_holes_are_filled_and_specks_are_none(clear: tuple[DepthScene, np.ndarray]) -> None:
    scene, depth = clear
    ys, xs = np.nonzero(hand_masks(depth, CAMERA).mask)
    centre = np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2)
    y, x = ys[centre], xs[centre]
    marred = depth.copy()
    marred[y - 1 : y + 2, x - 1 : x + 2] = 0.0
    marred[4:7, 4:7] = 0.5
    mask = hand_masks(marred, CAMERA).mask
    assert mask[y, x] == 255 and not mask[:12, :12].any()
    assert _iou(mask, scene.mask) > 0.8


def test_hands_out_of_range_are_none(clear: tuple[DepthScene, np.ndarray]) -> None:
    scene, depth = clear
    at = float(np.median(scene.depth_m[scene.mask]))
    assert not hand_masks(depth, CAMERA, MaskSettings(max_depth_m=at - 0.2)).mask.any()
    assert not hand_masks(depth, CAMERA, MaskSettings(0.15 + at, 2.0)).mask.any()


def test_two_hands_are_two_regions_or_as_many_as_asked(scenes: DepthScenes) -> None:
    both, singles = _two_hands(scenes)
    masks = hand_masks(both, CAMERA)
    assert len(masks.regions) == 2
    assert masks.regions[0].depth_m <= masks.regions[1].depth_m
    assert _iou(masks.mask, singles[0] | singles[1]) > 0.75
    nearest = hand_masks(both, CAMERA, MaskSettings(max_hands=1))
    assert len(nearest.regions) == 1
    assert nearest.regions[0].bbox_px.tolist() == masks.regions[0].bbox_px.tolist()


def test_a_box_picks_its_hand(scenes: DepthScenes) -> None:
    both, singles = _two_hands(scenes)
    for mask in singles:
        found = hand_masks(both, CAMERA, boxes=[HandBox('right', _box(mask))])
        assert len(found.regions) == 1
        assert _iou(found.mask, mask) > 0.7


def test_a_box_of_nothing_has_no_region(clear: tuple[DepthScene, np.ndarray]) -> None:
    _, depth = clear
    for box in ([-50, -50, -10, -10], [np.nan] * 4, [5, 5, 5, 5]):
        assert hand_masks(depth, CAMERA, boxes=[HandBox('right', np.array(box, np.float32))]).regions == ()
    nowhere = np.full((21, 2), np.nan)
    assert hand_masks(depth, CAMERA, keypoints_px=[nowhere]).regions == ()
    assert hand_masks(depth, CAMERA, keypoints_px=[np.full((21, 2), -500.0)]).regions == ()


def test_other_resolutions_are_masked_alike(scenes: DepthScenes) -> None:
    for width, height in ((320, 240), (1280, 720)):
        camera = Camera.from_fov(width, height)
        others = DepthScenes(4, camera)
        rendered = [others.with_hand(number) for number in range(5)]
        ious = [_iou(hand_masks(s.depth_m, camera).mask, s.mask) for s in rendered]
        assert np.median(ious) > 0.75


def test_what_does_not_fit_is_refused() -> None:
    depth = np.zeros((480, 640), np.float32)
    with pytest.raises(FrameError, match='camera'):
        hand_masks(depth, replace(CAMERA, width=320))
    with pytest.raises(FrameError, match='boxes'):
        hand_masks(depth, CAMERA, boxes=[], keypoints_px=[np.zeros((21, 2))])
    for settings in ((0.5, 0.4, 1), (0.0, 1.0, 1), (0.2, 1.0, 0), (0.2, np.inf, 1)):
        with pytest.raises(ConfigurationError):
            MaskSettings(*settings)


def test_a_damaged_wrist_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / 'wrist.npz'
    broken.write_bytes(WRIST_FILE.read_bytes()[:100])
    with pytest.raises(FileFormatError, match='wrist.npz'):
        load_wrist_finder(broken)
    np.savez(broken, **{name: np.zeros(3) for name in ('mean', 'inner', 'inner_bias', 'outer')}, outer_bias=0)
    with pytest.raises(FileFormatError, match='another version'):
        load_wrist_finder(broken)


def test_wrists_can_be_learned_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / 'wrist.npz'
    monkeypatch.setattr('sys.argv', ['wrist_fit', '--scenes', '8', '--rounds', '4', str(out)])
    wrist_fit.main()
    assert load_wrist_finder(out).outer.shape == load_wrist_finder().outer.shape


def test_quality_is_measured_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / 'worst.png'
    monkeypatch.setattr('sys.argv', ['mask_quality', '--frames', '3', '--worst', str(sheet)])
    mask_quality.main()
    printed = capsys.readouterr().out
    assert all(word in printed for word in ('depth alone', 'keypoints', 'false masks', 'ms'))
    assert sheet.stat().st_size > 1000
    with pytest.raises(ConfigurationError):
        mask_quality.mask_quality(0, 1)


def _two_hands(scenes: DepthScenes) -> tuple[np.ndarray, list[np.ndarray]]:
    """Depth of two hands in one picture, and the mask of each."""
    # Each in its half of the picture, before the same wall
    left, right = (_alone(scenes, number) for number in _well_seen(scenes))
    depth = np.full((480, 640), 1.1, np.float32)
    masks = []
    for (part, mask), moved in ((left, -160), (right, 160)):
        shifted, hand = np.roll(part, moved, 1), np.roll(mask, moved, 1)
        depth = np.where((shifted > 0) & (shifted < depth), shifted, depth)
        masks.append(hand)
    return depth, masks


def _alone(scenes: DepthScenes, number: int) -> tuple[np.ndarray, np.ndarray]:
    scene = scenes.with_hand(number)
    near = scene.depth_m < float(np.median(scene.depth_m[scene.mask])) + 0.25
    return np.where(near, scene.depth_m, 0.0).astype(np.float32), scene.mask


def _well_seen(scenes: DepthScenes) -> list[int]:
    """Two hands that are found alone, in the middle half of the picture with all of their arms."""
    good = []
    for number in range(60):
        depth, mask = _alone(scenes, number)
        xs = np.nonzero((depth > 0).any(0))[0]
        if len(xs) and xs.min() > 165 and xs.max() < 475:
            with_wall = np.where(depth > 0, depth, np.float32(1.1))
            if _iou(hand_masks(with_wall, CAMERA).mask, mask) > 0.85:
                good.append(number)
        if len(good) == 2:
            return good
    raise AssertionError('no two such hands')


def _with_box(depth: np.ndarray, scene: DepthScene):  # type: ignore[no-untyped-def]
    return hand_masks(depth, CAMERA, boxes=[HandBox('left', _box(scene.mask))])


def _box(mask: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)


def _iou(found: np.ndarray, true: np.ndarray) -> float:
    return float(((found > 0) & true).sum() / max(((found > 0) | true).sum(), 1))
