"""What a detector says, as the networks take it: true where the detector is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_view import CropView, looking_along, view_of_hand
from hand_mesh_ros.cues import Cues, normalised_world
from hand_mesh_ros.detection.cues import detected_cues
from hand_mesh_ros.detection.detection import Detection
from hand_mesh_ros.hand_model.files import load_hand_model

CAMERA = Camera(640, 480, 550.0, 550.0, 319.5, 239.5)


def hand_at(*middle: float) -> np.ndarray:
    """Keypoints (21,3) metres of a half-open hand around a point."""
    model = load_hand_model()
    posed = model.posed(np.array([1.0, 0.4, -1.2]), 0.6 * model.hands_mean, np.zeros(10), np.zeros(3))
    return posed.keypoints - posed.keypoints.mean(0) + np.array(middle)


def exact_detection(keypoints: np.ndarray, camera: Camera) -> Detection:
    """What a faultless detector says that takes every hand for one straight ahead and far away."""
    rays = keypoints / np.linalg.norm(keypoints, axis=1, keepdims=True)
    look = looking_along(rays.mean(0))
    ahead = keypoints @ look.T
    pixels = camera.project(keypoints)
    # Of a millimetre to the right and one down at the wrist's depth
    corner = np.array([(0.0, 0.0, 0.0), (0.001, 0.0, 0.0), (0.0, 0.001, 0.0)]) + (0.0, 0.0, ahead[0, 2])
    middle, right, down = camera.project(corner @ look)
    px_per_m = np.sqrt(np.cross(right - middle, down - middle)) / 0.001
    return Detection(
        side='right',
        side_score=0.9,
        score=0.8,
        bbox_px=np.concatenate([pixels.min(0), pixels.max(0)]).astype(np.float32),
        keypoints_px=pixels.astype(np.float32),
        keypoints_depth=((ahead[:, 2] - ahead[0, 2]) * px_per_m).astype(np.float32),
        landmarks_world=(ahead - ahead.mean(0)).astype(np.float32),
    )


def true_cues(keypoints: np.ndarray, view: CropView) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints (21,2), relative depths (21,) and world landmarks (21,3) as ``Cues`` defines them."""
    points = keypoints @ view.R_crop_camera.T
    depth = (points[:, 2] - points[0, 2]) / points[0, 2] * view.focal_px / (view.size / 2)
    return view.to_unit(keypoints), depth, normalised_world(points)


def roll_between(found: np.ndarray, true: np.ndarray) -> float:
    """Angle in radians by which the first hand (21,3) is turned in the picture."""
    a, b = (points[:, :2] - points[:, :2].mean(0) for points in (found, true))
    return float(np.arctan2((b[:, 0] * a[:, 1] - b[:, 1] * a[:, 0]).sum(), (a * b).sum()))


def assert_near(cues: Cues, keypoints: np.ndarray, view: CropView, tolerance: float) -> None:
    unit, depth, world = true_cues(keypoints, view)
    np.testing.assert_allclose(cues.keypoints, unit, atol=1e-4)
    np.testing.assert_allclose(cues.relative_depth, depth, atol=tolerance)
    np.testing.assert_allclose(cues.world, world, atol=tolerance)


def test_an_exact_detection_of_a_far_hand_straight_ahead_gives_the_exact_cues():
    camera = replace(CAMERA, fx=11000.0, fy=11000.0)
    hand = hand_at(0.0, 0.0, 12.0)
    view = view_of_hand(hand, 128)
    cues = detected_cues(exact_detection(hand, camera), camera, view)
    assert_near(cues, hand, view, 1e-4)
    assert cues.present.all()
    np.testing.assert_allclose(cues.confidence, 0.8)
    assert {v.dtype for v in (cues.keypoints, cues.confidence, cues.relative_depth, cues.world)} == {
        np.dtype(np.float32)
    }


@pytest.mark.parametrize('middle', [(0.0, 0.0, 0.5), (0.25, 0.0, 0.5), (-0.2, 0.18, 0.5), (1.4, -0.9, 3.0)])
def test_off_the_middle_they_are_true_but_for_the_weak_perspective(middle: tuple[float, float, float]):
    hand = hand_at(*middle)
    view = view_of_hand(hand, 128)
    cues = detected_cues(exact_detection(hand, CAMERA), CAMERA, view)
    assert_near(cues, hand, view, 0.02)
    assert roll_between(cues.world, true_cues(hand, view)[2]) == pytest.approx(0.0, abs=0.002)


def test_they_are_of_the_view_even_if_it_is_not_the_upright_one():
    hand = hand_at(0.2, 0.1, 0.5)
    view = view_of_hand(hand, 128).turned(0.4, 0.0, 0.0, 0.8)
    assert_near(detected_cues(exact_detection(hand, CAMERA), CAMERA, view), hand, view, 0.02)


def test_world_landmarks_are_turned_into_a_view_that_does_not_look_straight_at_the_hand():
    hand = hand_at(0.2, 0.1, 0.5)
    view = view_of_hand(hand, 128).turned(0.4, 0.5, -0.3, 0.8)
    cues = detected_cues(exact_detection(hand, CAMERA), CAMERA, view)
    unit, _, world = true_cues(hand, view)
    np.testing.assert_allclose(cues.keypoints, unit, atol=1e-4)
    np.testing.assert_allclose(cues.world, world, atol=0.02)


def test_a_distorting_lens_makes_no_difference():
    camera = replace(CAMERA, distortion_model='plumb_bob', distortion=(-0.25, 0.06, 0.001, -0.001, 0.0))
    hand = hand_at(0.2, 0.12, 0.5)
    view = view_of_hand(hand, 128)
    assert_near(detected_cues(exact_detection(hand, camera), camera, view), hand, view, 0.02)


@pytest.mark.parametrize(
    ('field', 'place', 'empty'),
    [
        ('keypoints_px', [False, False, True], ('keypoints', 'confidence', 'relative_depth')),
        ('keypoints_depth', [True, False, True], ('relative_depth',)),
        ('landmarks_world', [True, True, False], ('world',)),
    ],
)
def test_what_the_detection_lacks_is_absent(field: str, place: list[bool], empty: tuple[str, ...]):
    hand = hand_at(0.1, 0.0, 0.5)
    detection = replace(exact_detection(hand, CAMERA), **{field: None})
    cues = detected_cues(detection, CAMERA, view_of_hand(hand, 128))
    assert cues.present.tolist() == place
    for name in ('keypoints', 'confidence', 'relative_depth', 'world'):
        assert getattr(cues, name).any() == (name not in empty)


def test_without_keypoints_the_hand_is_where_the_view_looks():
    hand = hand_at(0.2, 0.1, 0.5)
    view = view_of_hand(hand, 128)
    detection = exact_detection(hand, CAMERA)
    kept = detected_cues(detection, CAMERA, view).world
    without = detected_cues(replace(detection, keypoints_px=None), CAMERA, view).world
    np.testing.assert_allclose(without, kept, atol=1e-5)


def test_a_keypoint_that_is_no_number_has_no_confidence_and_spoils_no_other():
    hand = hand_at(0.1, 0.0, 0.5)
    view = view_of_hand(hand, 128)
    detection = exact_detection(hand, CAMERA)
    pixels = detection.keypoints_px.copy()
    pixels[7] = np.nan
    cues = detected_cues(replace(detection, keypoints_px=pixels), CAMERA, view)
    assert cues.confidence[7] == 0 and not cues.keypoints[7].any()
    others = np.arange(21) != 7
    unit, depth, _ = true_cues(hand, view)
    np.testing.assert_allclose(cues.keypoints[others], unit[others], atol=1e-4)
    np.testing.assert_allclose(cues.relative_depth, depth, atol=0.02)
    assert cues.present.all()


def test_depths_and_landmarks_that_are_no_numbers_are_absent():
    hand = hand_at(0.1, 0.0, 0.5)
    detection = exact_detection(hand, CAMERA)
    broken = replace(detection, keypoints_depth=np.full(21, np.nan), landmarks_world=np.full((21, 3), np.inf))
    cues = detected_cues(broken, CAMERA, view_of_hand(hand, 128))
    assert cues.present.tolist() == [True, False, False]
    assert np.isfinite(cues.relative_depth).all() and np.isfinite(cues.world).all()


def test_keypoints_all_on_one_pixel_stay_finite():
    hand = hand_at(0.0, 0.0, 0.5)
    detection = replace(exact_detection(hand, CAMERA), keypoints_px=np.full((21, 2), 300.0, np.float32))
    cues = detected_cues(detection, CAMERA, view_of_hand(hand, 128))
    for values in (cues.keypoints, cues.relative_depth, cues.world):
        assert np.isfinite(values).all()
