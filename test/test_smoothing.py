"""Smoothed hands are steadier, hardly late, and still hands of the model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from hand_mesh_ros import Camera, HandMeshEstimator
from hand_mesh_ros.cli.main import main
from hand_mesh_ros.datasets.demo_clip import render_demo_clip
from hand_mesh_ros.detection.detection import Detection
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.evaluation import jitter
from hand_mesh_ros.hand import UNTRACKED, Hand, ScaleSource, Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.mirroring import mirrored_axis_angles, mirrored_points
from hand_mesh_ros.hand_model.rotations import axis_angles, rotation_matrices
from hand_mesh_ros.reconstruction import assemble_hand
from hand_mesh_ros.tracking.smoothing import HandSmoother

CAMERA = Camera(640, 480, 600.0, 600.0, 319.5, 239.5)
SIDES: tuple[Side, Side] = ('right', 'left')
MODELS = {side: load_hand_model(None, side) for side in SIDES}
FPS = 30.0

#: What of a hand its parameters do not determine.
KEPT = ('side', 'side_score', 'score', 'bbox_px', 'joint_confidence', 'scale_source', 'track_id')


def hand(track_id: int = 1, side: Side = 'right', **changes: Any) -> Hand:
    """A hand half a metre away, somewhat bent."""
    parameters: dict[str, Any] = {
        'global_orient': np.array([0.3, -0.5, 0.8]),
        'hand_pose': np.tile([0.1, -0.05, 0.4], 15),
        'betas': np.linspace(-0.5, 0.5, 10),
        'transl': np.array([0.02, -0.03, 0.5]),
    }
    detection = Detection(side, 0.9, 0.8, np.array([1.0, 2.0, 101.0, 102.0]), None, None, None)
    made = assemble_hand(
        MODELS[side],
        CAMERA,
        detection,
        **{**parameters, **changes},
        confidence=np.linspace(0.5, 0.9, 21),
        scale=ScaleSource.NOMINAL_HAND,
    )
    return replace(made, track_id=track_id)


def smoothed(hands: Sequence[Hand], smoother: HandSmoother | None = None) -> list[Hand]:
    """One hand a frame, at 30 Hz."""
    smoother = smoother or HandSmoother(MODELS)
    return [smoother.smoothed(each, CAMERA, 100.0 + number / FPS) for number, each in enumerate(hands)]


def turned(about: Sequence[float], angles: np.ndarray) -> np.ndarray:
    """Axis-angles (N,3), all no longer than pi, which therefore wrap."""
    axis = np.asarray(about) / np.linalg.norm(about)
    return axis_angles(rotation_matrices(angles[:, None] * axis))


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Radians between two axis-angles (3,)."""
    turn = rotation_matrices(np.asarray(a, float)).T @ rotation_matrices(np.asarray(b, float))
    return float(np.linalg.norm(axis_angles(turn)))


def keypoints(hands: Sequence[Hand]) -> np.ndarray:
    """(N,21,3) float64, metres."""
    return np.array([each.keypoints_3d for each in hands], np.float64)


def shaken(track: Sequence[Hand], rng: np.random.Generator) -> list[Hand]:
    """The same hands with about the noise of a network."""
    return [
        hand(
            side=each.side,
            global_orient=each.global_orient + rng.normal(0.0, 0.02, 3),
            hand_pose=each.hand_pose + rng.normal(0.0, 0.03, 45),
            betas=each.betas + rng.normal(0.0, 0.1, 10),
            transl=each.transl + rng.normal(0.0, [0.0005, 0.0005, 0.004]),
        )
        for each in track
    ]


def moving(frames: int, hertz: float) -> list[Hand]:
    """Waving: 20 cm to and fro, 100 degrees about the forearm, a fist and open again."""
    swing = np.sin(2.0 * np.pi * hertz * np.arange(frames) / FPS)
    return [
        hand(
            global_orient=np.array([0.2, 0.0, 0.4]) + s * np.array([0.0, 0.87, 0.0]),
            hand_pose=np.tile([0.0, 0.0, 0.7 + 0.7 * s], 15),
            transl=np.array([0.1 * s, 0.05 * s, 0.5 + 0.05 * s]),
        )
        for s in swing
    ]


def second_differences(hands: Sequence[Hand]) -> float:
    return float(np.linalg.norm(np.diff(keypoints(hands), 2, axis=0), axis=-1).mean())


@pytest.mark.parametrize('side', SIDES)
def test_a_hand_that_does_not_move_stays_what_it_is(side: Side):
    still = hand(side=side, global_orient=np.array([2.0, 1.5, -1.0]))
    for each in smoothed([still] * 60):
        for field in fields(Hand):
            if field.name in KEPT:
                continue
            tolerance = 1e-3 if field.name == 'keypoints_2d' else 1e-6  # pixels
            np.testing.assert_allclose(
                getattr(each, field.name), getattr(still, field.name), atol=tolerance, err_msg=field.name
            )


def test_what_comes_out_is_a_hand_of_the_model_and_says_of_itself_what_it_said():
    noisy = shaken([hand()] * 20, np.random.default_rng(0))
    for before, after in zip(noisy, smoothed(noisy), strict=True):
        posed = MODELS['right'].posed(after.global_orient, after.hand_pose, after.betas, after.transl)
        np.testing.assert_allclose(after.vertices, posed.vertices, atol=1e-6)
        np.testing.assert_allclose(after.keypoints_3d, posed.keypoints, atol=1e-6)
        np.testing.assert_allclose(after.keypoints_2d, CAMERA.project(posed.keypoints), atol=1e-3)
        np.testing.assert_allclose(after.T_camera_hand, posed.T_camera_hand, atol=1e-9)
        np.testing.assert_allclose(after.T_camera_fingertips, posed.T_camera_fingertips, atol=1e-9)
        for name in KEPT:
            assert np.array_equal(getattr(after, name), getattr(before, name)), name
        for field in fields(Hand):
            value, was = getattr(after, field.name), getattr(before, field.name)
            assert not isinstance(was, np.ndarray) or (value.dtype, value.shape) == (was.dtype, was.shape)


def test_at_rest_the_jitter_falls_by_more_than_half():
    still = hand()
    noisy = shaken([still] * 200, np.random.default_rng(1))
    steady = smoothed(noisy)
    assert second_differences(steady) < 0.5 * second_differences(noisy)
    off = [np.linalg.norm(keypoints(hands) - still.keypoints_3d, axis=-1).mean() for hands in (steady, noisy)]
    assert off[0] < 0.8 * off[1]
    shapes = [np.std([each.betas for each in hands[100:]], axis=0).mean() for hands in (steady, noisy)]
    assert shapes[0] < 0.2 * shapes[1]


@pytest.mark.parametrize('hertz', [0.5, 1.0, 2.0])
def test_in_motion_it_is_late_by_less_than_a_frame(hertz: float):
    true = moving(150, hertz)
    late = smoothed(true)
    points, expected = keypoints(late), keypoints(true)
    assert 0.0 < jitter.lag(jitter.correlation(expected, points)) < 1.0
    from_wrist = [values[:, 1:] - values[:, :1] for values in (expected, points)]
    assert 0.0 < jitter.lag(jitter.correlation(*from_wrist)) < 1.0
    # Late by so much at every moment: farther from where it is than from where it was a frame ago, never.
    behind = np.linalg.norm(points[15:] - expected[15:], axis=-1).mean()
    assert behind < np.linalg.norm(np.diff(expected[14:], axis=0), axis=-1).mean()


def test_a_noisy_motion_is_no_farther_from_the_truth():
    true = moving(150, 0.1)
    noisy = shaken(true, np.random.default_rng(2))
    error = [
        np.linalg.norm(keypoints(hands) - keypoints(true), axis=-1).mean()
        for hands in (smoothed(noisy), noisy)
    ]
    assert error[0] < error[1]


@pytest.mark.parametrize('name', ['global_orient', 'hand_pose'])
def test_a_turn_goes_on_through_pi(name: str):
    """There the sign of an axis-angle vector changes, and a mean of the two would be no turn at all."""
    turns = turned([0.2, 1.0, -0.4], np.linspace(2.5, 4.2, 40))
    assert np.linalg.norm(np.diff(turns, axis=0), axis=1).max() > 6.0
    track = []
    for turn in turns:
        pose = np.tile([0.1, -0.05, 0.4], 15)
        pose[6:9] = turn
        track.append(hand(**{name: turn if name == 'global_orient' else pose}))
    of = slice(0, 3) if name == 'global_orient' else slice(6, 9)
    for before, after in zip(track, smoothed(track), strict=True):
        assert angle_between(getattr(after, name)[of], getattr(before, name)[of]) < 0.1
        assert np.isfinite(after.vertices).all()


def test_a_left_hand_is_smoothed_as_the_mirror_image_of_a_right_one():
    right = shaken(moving(40, 1.0), np.random.default_rng(3))
    left = []
    for each in right:
        # The model mirrors about its own origin, so that transl mirrors like any point.
        left.append(
            hand(
                side='left',
                global_orient=mirrored_axis_angles(each.global_orient.astype(np.float64)),
                hand_pose=mirrored_axis_angles(each.hand_pose.astype(np.float64)),
                betas=each.betas,
                transl=mirrored_points(each.transl.astype(np.float64)),
            )
        )
    for one, other in zip(smoothed(right), smoothed(left), strict=True):
        np.testing.assert_allclose(other.keypoints_3d, mirrored_points(one.keypoints_3d), atol=2e-6)
        np.testing.assert_allclose(other.vertices, mirrored_points(one.vertices), atol=2e-6)


def test_after_a_gap_or_when_time_does_not_go_on_a_hand_begins_anew():
    here, there = hand(), hand(transl=np.array([0.05, 0.02, 0.6]))
    for stamp_s, goes_on in [
        (10.033, True),
        (10.29, True),
        (10.35, False),
        (10.0, False),
        (9.99, False),
        (-1e9, False),
        (math.nan, False),
        (math.inf, False),
        (-math.inf, False),
    ]:
        smoother = HandSmoother(MODELS)
        assert smoother.smoothed(here, CAMERA, 10.0) is here
        after = smoother.smoothed(there, CAMERA, stamp_s)
        assert (after is not there) == goes_on, stamp_s
        assert np.isfinite(after.vertices).all()
        # And it goes on from there, wherever that was.
        again = smoother.smoothed(there, CAMERA, 20.0)
        assert again is there
        np.testing.assert_allclose(
            smoother.smoothed(there, CAMERA, 20.03).vertices, there.vertices, atol=1e-6
        )


@pytest.mark.parametrize(
    'other',
    [
        hand(side='left'),
        replace(hand(transl=np.array([0.0, 0.0, 0.7])), scale_source=ScaleSource.DEPTH),
        hand(track_id=2),
        hand(track_id=UNTRACKED),
        hand(transl=np.array([0.0, 0.0, -0.5])),
        replace(hand(), transl=np.array([0.0, math.nan, 0.5], np.float32)),
    ],
    ids=['side', 'scale', 'id', 'untracked', 'behind', 'not finite'],
)
def test_a_hand_that_is_another_one_is_not_mixed_with_it(other: Hand):
    smoother = HandSmoother(MODELS)
    smoother.smoothed(hand(), CAMERA, 1.0)
    assert smoother.smoothed(other, CAMERA, 1.03) is other
    np.testing.assert_allclose(smoother.smoothed(hand(), CAMERA, 1.06).vertices, hand().vertices, atol=1e-6)


def test_hands_of_one_picture_do_not_know_of_each_other():
    rng = np.random.default_rng(4)
    first = shaken(moving(20, 1.0), rng)
    second = [replace(each, track_id=2) for each in shaken([hand(side='left')] * 20, rng)]
    smoother = HandSmoother(MODELS)
    together = [
        [smoother.smoothed(each, CAMERA, 100.0 + number / FPS) for each in pair]
        for number, pair in enumerate(zip(first, second, strict=True))
    ]
    alone = zip(smoothed(first), smoothed(second), strict=True)
    for pair, expected in zip(together, alone, strict=True):
        for one, other in zip(pair, expected, strict=True):
            np.testing.assert_array_equal(one.vertices, other.vertices)


def test_hands_that_are_gone_are_not_remembered():
    smoother = HandSmoother(MODELS)
    for number in range(100):
        smoother.smoothed(hand(track_id=number), CAMERA, number / FPS)
        assert smoother.remembered <= 11  # 0.3 s
    smoother.forget()
    assert smoother.remembered == 0
    assert smoother.smoothed(last := hand(track_id=99), CAMERA, 100 / FPS) is last


def test_vertices_that_were_moved_apart_from_the_parameters_stay_moved():
    bump = np.zeros((len(MODELS['right'].v_template), 3), np.float32)
    bump[7] = 0.003, 0.0, 0.004
    plain = shaken([hand()] * 10, np.random.default_rng(5))
    bumped = [replace(each, vertices=each.vertices + bump) for each in plain]
    for without, having in zip(smoothed(plain), smoothed(bumped), strict=True):
        moved = np.linalg.norm(having.vertices - without.vertices, axis=1)
        assert moved[7] == pytest.approx(0.005, abs=1e-6)
        assert np.delete(moved, 7).max() < 1e-6


@pytest.fixture(scope='module')
def moments() -> list[jitter.Moment]:
    """The first half second of the rendered clip."""
    return list(jitter.rendered_moments(0.5))


@pytest.fixture(scope='module')
def plain(moments: list[jitter.Moment]) -> list[Hand]:
    """Its right hand, not smoothed."""
    with HandMeshEstimator(streaming=True, threads=1) as estimator:
        return [estimator.estimate(moment.image, moment.camera).hands[0] for moment in moments]


def test_the_estimator_smooths_when_it_is_told_to(moments: list[jitter.Moment], plain: list[Hand]):
    def estimated(stamp_of: Callable[[int], float | None]) -> list[Hand]:
        estimator.forget()
        return [
            estimator.estimate(moment.image, moment.camera, stamp_s=stamp_of(number)).hands[0]
            for number, moment in enumerate(moments[:8])
        ]

    with HandMeshEstimator(streaming=True, smoothing=True, threads=1) as estimator:
        stamped = estimated(lambda number: 1.7e9 + number / FPS)
        unstamped = estimated(lambda _: None)
        slow = estimated(lambda number: 0.5 * number)
        estimator.smoothing = False
        off = estimated(lambda _: None)
        slow_off = estimated(lambda number: 0.5 * number)
    # Stamps of today in seconds are exact to a quarter of a microsecond.
    for raw, *others in zip(plain[:8], smoothed(plain[:8]), stamped, unstamped, strict=True):
        vertices = [each.vertices for each in others]
        np.testing.assert_allclose(vertices[1], vertices[0], atol=1e-5)
        np.testing.assert_allclose(vertices[2], vertices[0], atol=1e-5)
        np.testing.assert_array_equal(others[1].bbox_px, raw.bbox_px)
    assert np.abs(stamped[-1].vertices - plain[7].vertices).max() > 1e-4
    for expected, without in zip(plain[:8], off, strict=True):
        np.testing.assert_allclose(without.vertices, expected.vertices, atol=1e-5)
    for expected, gapped in zip(slow_off[1:], slow[1:], strict=True):  # too far apart to be smoothed
        np.testing.assert_allclose(gapped.vertices, expected.vertices, atol=1e-3)


def test_unrelated_images_cannot_be_smoothed():
    with pytest.raises(ConfigurationError, match='streaming'):
        HandMeshEstimator('fit', smoothing=True)


def test_videos_are_smoothed_on_demand(tmp_path):
    clip = render_demo_clip(tmp_path / 'clip.mp4', seconds=0.2)
    found = []
    for options in ([], ['--smoothing']):
        out = tmp_path / f'out{len(options)}'
        command = ['run', str(clip.video), '--out', str(out), '--no-overlays', '--cameras', str(clip.cameras)]
        assert main([*command, *options]) == 0
        lines = (out / 'hands.jsonl').read_text(encoding='utf-8').splitlines()
        found.append(np.array([json.loads(line)['hands'][0]['keypoints_3d'] for line in lines]))
    assert found[0].shape == found[1].shape == (6, 21, 3)
    assert np.array_equal(found[0][0], found[1][0])
    assert np.abs(found[0][1:] - found[1][1:]).max() > 1e-4


@pytest.mark.parametrize('late', [0, 1, 3])
def test_lag_is_told_to_a_fraction_of_a_frame(late: int):
    rng = np.random.default_rng(6)
    path = np.cumsum(np.cumsum(rng.normal(size=(200, 2, 3)), axis=0), axis=0)
    before, after = path[late:], path[: len(path) - late]
    assert jitter.lag(jitter.correlation(before, after)) == pytest.approx(late, abs=0.1)
    half = 0.5 * (path[1:] + path[:-1])
    assert jitter.lag(jitter.correlation(path[1:], half)) == pytest.approx(0.5, abs=0.1)
    gaps = after.copy()
    gaps[50:60] = np.nan
    assert jitter.lag(jitter.correlation(before, gaps)) == pytest.approx(late, abs=0.1)
    assert math.isnan(jitter.lag(jitter.correlation(before[:9], after[:9])))


def test_steadiness_is_told_beside_mediapipe_and_the_truth(moments: list[jitter.Moment]):
    with HandMeshEstimator(streaming=True, threads=1) as estimator:
        watched = jitter.watch(moments, estimator)
    peer, raw, steady = jitter.compared(watched)
    assert watched.frames == 15 and watched.with_hand[jitter.RAW] == 15 and watched.lost == 0
    assert list(watched.tracks) == [1] and 0 < watched.detected < 15
    for row in (peer, raw, steady):
        assert 0.0 < float(row['jitter, mm / frame^2']) < 20.0
        assert 0.0 < float(row['error from wrist, mm']) < 60.0
        assert 70.0 < float(row['wrist to root of middle finger, mm']) < 120.0
    assert float(steady['jitter, mm / frame^2']) < 0.6 * float(raw['jitter, mm / frame^2'])


def test_a_video_that_is_none_is_told(tmp_path, capsys):
    (tmp_path / 'none.mp4').write_bytes(b'nothing')
    assert jitter.main([str(tmp_path / 'none.mp4'), '--threads', '1']) == 1
    assert 'none.mp4' in capsys.readouterr().err
