"""Rendered RGB-D clips: colour, depth, masks and truth show the same hand at the same place."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.demo_clip import demo_performers
from hand_mesh_ros.datasets.rgbd_clip import RgbdClip, render_rgbd_clip, wandering_performer
from hand_mesh_ros.depth_files import read_depth, read_mask
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.keyed_files import load_cameras
from hand_mesh_ros.rendering.depth_camera import NO_NOISE
from hand_mesh_ros.rendering.zbuffer import rasterise
from hand_mesh_ros.sources import read_image

FRAMES = 8


@pytest.fixture(scope='module')
def clip(tmp_path_factory: pytest.TempPathFactory) -> RgbdClip:
    """All distances, one frame a second, as a perfect camera measures them."""
    return render_rgbd_clip(tmp_path_factory.mktemp('perfect'), seconds=8.0, fps=1.0, noise=NO_NOISE)


@pytest.fixture(scope='module')
def noisy(tmp_path_factory: pytest.TempPathFactory) -> RgbdClip:
    return render_rgbd_clip(tmp_path_factory.mktemp('noisy'), seconds=4.0, fps=1.0)


def names_in(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.iterdir())


def hand_raster(truth, frame: int, camera: Camera):
    """Depth and mask of the hand alone, from the truth's parameters."""
    model = load_hand_model(None, 'right')
    posed = model.posed(
        truth['global_orient'][frame, 0],
        truth['hand_pose'][frame, 0],
        truth['betas'][0],
        truth['transl'][frame, 0],
    )
    np.testing.assert_allclose(posed.keypoints, truth['keypoints_3d'][frame, 0], atol=1e-9)
    return rasterise(posed.vertices, model.faces, camera)


def test_what_belongs_together_has_the_same_name_and_size(clip: RgbdClip) -> None:
    names = [f'{frame:06d}' for frame in range(FRAMES)]
    for folder in (clip.images, clip.depth, clip.masks):
        assert names_in(folder) == names
    cameras = load_cameras(clip.cameras)
    for name in names:
        assert read_image(clip.images / f'{name}.jpg').shape == (480, 640, 3)
        assert read_depth(clip.depth / f'{name}.png').shape == (480, 640)
        assert read_mask(clip.masks / f'{name}.png').shape == (480, 640)
        assert cameras.get(clip.images / f'{name}.jpg') == cameras.get(clip.depth / f'{name}.png') is not None


def test_depth_and_mask_are_those_of_the_true_hand(clip: RgbdClip) -> None:
    truth = np.load(clip.truth, allow_pickle=False)
    camera = Camera(640, 480, *load_cameras(clip.cameras).get(Path('000000.jpg')))
    assert truth['visible'].all() and truth['sides'].tolist() == ['right']
    for frame in range(FRAMES):
        raster = hand_raster(truth, frame, camera)
        mask = read_mask(clip.masks / f'{frame:06d}.png')
        depth_m = read_depth(clip.depth / f'{frame:06d}.png')
        # The forearm hides some of the hand when fingers point at the camera's back; else they agree.
        assert (mask & raster.mask).sum() / (mask | raster.mask).sum() > 0.95
        both = mask & raster.mask
        assert np.abs(depth_m - raster.depth)[both].max() < 0.0006, 'to the millimetre that the file holds'
        assert depth_m[~mask].max() > 1.0
        assert (depth_m > 0).mean() > 0.999


def test_the_hand_passes_through_all_distances_smoothly() -> None:
    for seed in range(2):
        performer = wandering_performer('right', seed)
        palms = np.array([performer.at(time_s).posed.keypoints for time_s in np.arange(0.0, 8.0, 0.1)])
        assert palms[:, 9, 2].min() < 0.42 and palms[:, 9, 2].max() > 0.78
        assert np.linalg.norm(np.diff(palms, axis=0), axis=-1).max() / 0.1 < 1.5, 'metres a second'


def test_forearm_and_sleeve_are_in_the_depth_and_not_in_the_mask(clip: RgbdClip) -> None:
    truth = np.load(clip.truth, allow_pickle=False)
    seen = 0
    for frame in range(FRAMES):
        mask = read_mask(clip.masks / f'{frame:06d}.png')
        depth_m = read_depth(clip.depth / f'{frame:06d}.png')
        wrist = truth['keypoints_3d'][frame, 0, 0, 2]
        arm = (np.abs(depth_m - wrist) < 0.1) & ~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))).astype(
            bool
        )
        seen += arm.sum() > 0.1 * mask.sum()
    assert seen >= 6


def test_the_depth_camera_errs_by_millimetres_and_loses_borders(clip: RgbdClip, noisy: RgbdClip) -> None:
    errors, lost = [], []
    for frame in range(4):
        mask = read_mask(noisy.masks / f'{frame:06d}.png')
        np.testing.assert_array_equal(mask, read_mask(clip.masks / f'{frame:06d}.png'))
        depth_m, true = (read_depth(c.depth / f'{frame:06d}.png') for c in (noisy, clip))
        measured = mask & (depth_m > 0)
        errors.append(np.abs(depth_m - true)[measured])
        lost.append((mask & ~measured).sum() / mask.sum())
    assert 0.0003 < np.median(np.concatenate(errors)) < 0.003
    assert 0.005 < np.mean(lost) < 0.15


def test_same_seed_same_clip_and_nothing_is_left_of_an_earlier_one(tmp_path: Path) -> None:
    small = {'fps': 10.0, 'size': (160, 120)}
    for name, seed, seconds in (('a', 3, 0.2), ('b', 4, 0.5), ('b', 3, 0.2), ('c', 4, 0.2)):
        render_rgbd_clip(tmp_path / name, seconds=seconds, seed=seed, **small)
    a, b, c = (
        {file.relative_to(tmp_path / name): file.read_bytes() for file in (tmp_path / name).glob('*/*')}
        for name in 'abc'
    )
    assert a == b and a.keys() == c.keys() and a != c


def test_a_room_without_hands_is_empty(tmp_path: Path) -> None:
    clip = render_rgbd_clip(tmp_path, seconds=0.3, fps=10.0, performers=[])
    truth = np.load(clip.truth, allow_pickle=False)
    assert truth['keypoints_3d'].shape == (3, 0, 21, 3) and truth['betas'].shape == (0, 10)
    for frame in range(3):
        assert not read_mask(clip.masks / f'{frame:06d}.png').any()
        depth_m = read_depth(clip.depth / f'{frame:06d}.png')
        assert (depth_m > 0).mean() > 0.9 and np.percentile(depth_m[depth_m > 0], 1) > 0.9


def test_the_demos_two_hands_are_to_be_had_with_depth(tmp_path: Path) -> None:
    clip = render_rgbd_clip(tmp_path, seconds=4.0, fps=0.5, performers=demo_performers(0))
    truth = np.load(clip.truth, allow_pickle=False)
    assert truth['sides'].tolist() == ['right', 'left'] and truth['keypoints_3d'].shape == (2, 2, 21, 3)
    assert read_mask(clip.masks / '000000.png').sum() > 5000


@pytest.mark.parametrize('arguments', [{'seconds': 0.0}, {'fps': 0.0}, {'size': (4, 4)}])
def test_empty_clips_are_refused(tmp_path: Path, arguments: dict) -> None:
    with pytest.raises(ConfigurationError, match='empty'):
        render_rgbd_clip(tmp_path / 'clip', **arguments)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigurationError, match='file'):
        render_rgbd_clip(tmp_path / 'file', seconds=0.1)
