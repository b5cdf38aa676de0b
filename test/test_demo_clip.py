"""The rendered clip: its files agree with each other and the hand model, and MediaPipe finds its hands."""

from __future__ import annotations

from pathlib import Path

import cv2
import mediapipe
import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.demo_clip import DemoClip, render_demo_clip
from hand_mesh_ros.datasets.gestures import GESTURES, GesturePoser, gesture_angles
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.keyed_files import load_cameras
from hand_mesh_ros.rendering.zbuffer import rasterise


@pytest.fixture(scope='module')
def clip(tmp_path_factory: pytest.TempPathFactory) -> DemoClip:
    """The whole choreography, two frames a second."""
    return render_demo_clip(tmp_path_factory.mktemp('clip') / 'clip.mp4', seconds=8.0, fps=2.0)


def frames_of(path: Path) -> list[np.ndarray]:
    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames


def test_files_agree(clip: DemoClip) -> None:
    frames, truth = frames_of(clip.video), np.load(clip.truth, allow_pickle=False)
    assert len(frames) == 16 and frames[0].shape == (480, 640, 3)
    camera = Camera(640, 480, *load_cameras(clip.cameras).get(clip.video))
    assert truth['sides'].tolist() == ['right', 'left']
    np.testing.assert_allclose(
        camera.project(truth['keypoints_3d']), truth['keypoints_2d'].reshape(-1, 2), atol=1e-6
    )
    assert truth['visible'][:, 0].all() and 0 < truth['visible'][:, 1].sum() < 16


def test_truth_is_the_hand_models_and_its_hands_are_in_the_picture(clip: DemoClip) -> None:
    frames, truth = frames_of(clip.video), np.load(clip.truth, allow_pickle=False)
    camera = Camera(640, 480, *load_cameras(clip.cameras).get(clip.video))
    for h, side in enumerate(truth['sides']):
        model = load_hand_model(None, side)
        for frame in np.flatnonzero(truth['visible'][:, h]):
            pose = (truth[name][frame, h] for name in ('global_orient', 'hand_pose'))
            posed = model.posed(*pose, truth['betas'][h], truth['transl'][frame, h])
            np.testing.assert_allclose(posed.keypoints, truth['keypoints_3d'][frame, h], atol=1e-9)
            mask = rasterise(posed.vertices, model.faces, camera).mask
            columns, rows = truth['keypoints_2d'][frame, h].round().astype(int).T
            inside = (columns >= 0) & (columns < 640) & (rows >= 0) & (rows < 480)
            near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5)))
            assert near[rows[inside], columns[inside]].all()
            skin = frames[frame][cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0].astype(int)
            assert np.mean(skin[:, 0] - skin[:, 2] > 20) > 0.95


def test_mediapipe_finds_the_hands_and_their_sides(clip: DemoClip) -> None:
    truth = np.load(clip.truth, allow_pickle=False)
    found = []
    with mediapipe.solutions.hands.Hands(static_image_mode=True, max_num_hands=2) as detector:
        for frame, image in enumerate(frames_of(clip.video)):
            result = detector.process(image)
            seen = []
            for marks, side in zip(
                result.multi_hand_landmarks or [], result.multi_handedness or [], strict=True
            ):
                # MediaPipe takes every picture for a mirrored one.
                mirrored = {'Left': 'right', 'Right': 'left'}[side.classification[0].label]
                seen.append((mirrored, np.array([(m.x * 640, m.y * 480) for m in marks.landmark])))
            for h in np.flatnonzero(truth['visible'][frame]):
                expected = truth['keypoints_2d'][frame, h]
                size = np.ptp(expected, axis=0).max()
                errors = [
                    np.linalg.norm(p - expected, axis=1).mean() / size
                    for s, p in seen
                    if s == truth['sides'][h]
                ]
                found.append(min(errors, default=np.inf) < 0.15)
    assert np.mean(found) >= 0.9


def test_same_seed_same_clip(tmp_path: Path) -> None:
    clips = [
        render_demo_clip(tmp_path / f'{name}.mp4', seconds=0.1, size=(160, 120), seed=seed)
        for name, seed in (('a', 3), ('b', 3), ('c', 4))
    ]
    a, b, c = (np.stack(frames_of(clip.video)) for clip in clips)
    np.testing.assert_array_equal(a, b)
    assert (a != c).mean() > 0.3
    first, second, other = (np.load(clip.truth) for clip in clips)
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name])
    assert (first['transl'] != other['transl']).any()


def test_hands_move_smoothly(tmp_path: Path) -> None:
    clip = render_demo_clip(tmp_path / 'clip.mp4', seconds=8.5, fps=30, size=(32, 32))
    keypoints = np.load(clip.truth)['keypoints_3d']
    steps = np.linalg.norm(np.diff(keypoints, axis=0), axis=-1)
    assert steps.max() < 0.06  # 1.8 m/s, a quick gesture
    np.testing.assert_allclose(keypoints[240:], keypoints[: len(keypoints) - 240], atol=1e-9)
    assert keypoints[:, 0, 9, 2].min() < 0.38 and keypoints[:, 0, 9, 2].max() > 0.65


@pytest.mark.parametrize('arguments', [{'seconds': 0.0}, {'fps': 0.0}, {'size': (4, 4)}])
def test_empty_clips_are_refused(tmp_path: Path, arguments: dict) -> None:
    with pytest.raises(ConfigurationError, match='empty'):
        render_demo_clip(tmp_path / 'clip.mp4', **arguments)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='nowhere'):
        render_demo_clip(tmp_path / 'nowhere' / 'clip.mp4', seconds=0.1)


def test_gestures_are_what_they_are_called() -> None:
    tips, roots = [4, 8, 12, 16, 20], [2, 5, 9, 13, 17]
    reach, keypoints = {}, {}
    for side in ('right', 'left'):
        model = load_hand_model(None, side)
        poser = GesturePoser(model)
        for name in GESTURES:
            hand_pose = poser.hand_pose(gesture_angles(name))
            k = model.posed(np.zeros(3), hand_pose, np.zeros(10), np.zeros(3)).keypoints
            keypoints[name, side] = k
            reach[name] = np.linalg.norm(k[tips] - k[0], axis=1) / np.linalg.norm(k[roots] - k[0], axis=1)
    for name in GESTURES:
        np.testing.assert_allclose(keypoints[name, 'left'], keypoints[name, 'right'] * (-1, 1, 1), atol=1e-9)
    assert (reach['open'][1:] > 1.6).all() and (reach['fist'][1:] < 1.1).all()
    assert reach['point'][1] > 1.6 and (reach['point'][2:] < 1.1).all()
    assert (reach['victory'][1:3] > 1.6).all() and (reach['victory'][3:] < 1.1).all()
    pinch = keypoints['pinch', 'right']
    assert np.linalg.norm(pinch[4] - pinch[8]) < 0.025
    spread, flat = keypoints['spread', 'right'], keypoints['open', 'right']
    assert np.linalg.norm(spread[8] - spread[20]) > np.linalg.norm(flat[8] - flat[20]) + 0.01
