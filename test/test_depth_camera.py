"""The depth camera's errors are of the size, at the places and on the side that its data sheet gives."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.rendering.depth_camera import NO_NOISE, DepthNoise, camera_depth

CAMERA = Camera.from_fov(640, 480)


def scene(near_m: float = 0.5, far_m: float = 1.5) -> np.ndarray:
    """A disc of 100 pixels radius in the middle, before a wall."""
    depth_m = np.full((480, 640), far_m, np.float32)
    cv2.circle(depth_m, (320, 240), 100, near_m, cv2.FILLED)
    return depth_m


def measured(depth_m: np.ndarray, seed: int = 0, **levels: object) -> np.ndarray:
    noise = dataclasses.replace(NO_NOISE, **levels)  # type: ignore[arg-type]
    return camera_depth(depth_m, CAMERA, np.random.default_rng(seed), noise)


def test_a_camera_without_errors_gives_back_what_is_there() -> None:
    np.testing.assert_allclose(measured(scene()), scene(), rtol=1e-6)
    assert measured(scene()).dtype == np.float32


@pytest.mark.parametrize('depth', [0.4, 0.8, 1.6])
def test_the_error_grows_with_depth_squared(depth: float) -> None:
    error = measured(np.full((480, 640), depth, np.float32), disparity_px=0.08) - depth
    expected = depth**2 * 0.08 / (CAMERA.fx * 0.05)
    assert error.std() == pytest.approx(expected, rel=0.05) and abs(error.mean()) < 0.05 * expected
    # Neighbours err alike, pixels further apart do not.
    assert np.corrcoef(error[:, 1:].ravel(), error[:, :-1].ravel())[0, 1] > 0.8
    assert abs(np.corrcoef(error[:, 12:].ravel(), error[:, :-12].ravel())[0, 1]) < 0.1


def test_depths_come_in_steps() -> None:
    slope = np.tile(np.linspace(0.9, 1.1, 640, dtype=np.float32), (480, 1))
    millimetres = measured(slope, depth_step_m=0.001) * 1000
    np.testing.assert_allclose(millimetres, np.rint(millimetres), atol=1e-3)
    disparity = CAMERA.fx * 0.05 / measured(slope, disparity_step_px=1 / 32)
    np.testing.assert_allclose(disparity * 32, np.rint(disparity * 32), atol=1e-3)


def test_the_wall_is_lost_left_of_what_is_before_it_as_far_as_the_second_imager_does_not_see_it() -> None:
    row = measured(scene(), shadows=True)[240]
    expected = CAMERA.fx * 0.05 * (1 / 0.5 - 1 / 1.5)  # 37 pixels
    lost = np.flatnonzero(row == 0)
    assert len(lost) == pytest.approx(expected, abs=1.0)
    assert lost.max() == 219 and (np.diff(lost) == 1).all()


def test_borders_are_ragged_and_fattened_by_a_few_pixels() -> None:
    true = scene() < 1.0
    seen = measured(scene(), border_shift_px=1.2, border_fattening_px=0.6) < 1.0
    distance = np.hypot(*np.mgrid[-240:240, -320:320]) - 100
    wrong = seen != true
    assert np.abs(distance[wrong]).max() < 4.5
    assert np.mean(distance[wrong] > 0) > 0.6, 'mostly outwards'
    assert (seen & ~true).sum() > 200 and (true & ~seen).sum() > 30
    other = measured(scene(), seed=1, border_shift_px=1.2, border_fattening_px=0.6) < 1.0
    assert (seen != other).sum() > 200, 'other borders in the next frame'


def test_flying_pixels_and_dropouts_lie_at_borders() -> None:
    depth_m = measured(scene(), flying=0.5, edge_dropout=0.3)
    distance = np.abs(np.hypot(*np.mgrid[-240:240, -320:320]) - 100)
    flying, lost = (depth_m > 0.51) & (depth_m < 1.49), depth_m == 0
    assert flying.sum() > 100 and lost.sum() > 100
    assert distance[flying | lost].max() < 3.0
    at_border = distance < 1.0
    assert lost[at_border].mean() == pytest.approx(0.3, abs=0.1)


def test_holes_and_speckles_take_their_shares() -> None:
    flat = np.full((480, 640), 0.7, np.float32)
    speckled, holed = measured(flat, speckles=0.01) == 0, measured(flat, holes=0.02, hole_px=7.0) == 0
    assert speckled.mean() == pytest.approx(0.01, rel=0.15)
    assert holed.mean() == pytest.approx(0.02, rel=0.5)
    pieces = (
        cv2.connectedComponents(speckled.astype(np.uint8))[0],
        cv2.connectedComponents(holed.astype(np.uint8))[0],
    )
    assert speckled.sum() / pieces[0] < 1.5 and holed.sum() / pieces[1] > 8


def test_steep_surfaces_are_lost_and_slanted_ones_are_not() -> None:
    # Planes z = z0 + tan(angle) X, seen by parallel columns: z = z0 / (1 - tan(angle) x).
    x = (np.arange(640) - CAMERA.cx) / CAMERA.fx
    shares = {}
    for angle in (45.0, 80.0):
        z = 0.6 / (1.0 - np.tan(np.radians(angle)) * x)
        depth_m = np.where((np.abs(x) < 0.03) & (z > 0), z, 0.0).astype(np.float32)
        depth_m = np.tile(depth_m, (480, 1))
        inner = np.zeros_like(depth_m, bool)
        inner[:, np.abs(x) < 0.02] = True
        shares[angle] = (measured(depth_m, grazing_deg=(70.0, 78.0)) == 0)[inner].mean()
    assert shares[45.0] == 0.0 and shares[80.0] > 0.9


@pytest.mark.parametrize('nothing', [0.0, np.nan, np.inf, -1.0])
def test_nothing_is_measured_where_nothing_is_or_out_of_range(nothing: float) -> None:
    depth_m = scene(far_m=1.0)
    depth_m[:100] = nothing
    depth_m[100:110], depth_m[-10:] = 0.1, 9.0
    result = camera_depth(depth_m, CAMERA, np.random.default_rng(0))
    assert np.isfinite(result).all()
    assert (result[:90] == 0).all() and (result[103:107] == 0).all() and (result[-5:] == 0).all()
    inside = result[result > 0]
    assert inside.min() >= 0.2 and inside.max() <= 6.0


def test_a_realsense_sees_most_of_a_hand_to_within_millimetres() -> None:
    true = scene(near_m=0.6)
    result = camera_depth(true, CAMERA, np.random.default_rng(0))
    on_disc = cv2.erode((true < 1.0).astype(np.uint8), np.ones((9, 9))) > 0
    assert (result[on_disc] > 0).mean() > 0.98
    assert np.median(np.abs(result - true)[on_disc]) < 0.002


def test_same_generator_same_picture() -> None:
    first, second, other = (camera_depth(scene(), CAMERA, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize(
    'levels',
    [
        {'edge_dropout': -0.1},
        {'flying': 1.5},
        {'baseline_m': 0.0},
        {'range_m': (2.0, 1.0)},
        {'hole_px': np.nan},
        {'disparity_px': -1.0},
    ],
)
def test_levels_that_cannot_be_are_refused(levels: dict) -> None:
    with pytest.raises(ConfigurationError):
        DepthNoise(**levels)
