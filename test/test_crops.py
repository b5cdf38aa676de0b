"""Crops show what they should, to the pixel, and lead back exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hand_mesh_ros.crops import Square, crop_square, crop_transform, upright_turn


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def test_square_around_a_square_image_is_the_image(picture):
    crop = crop_square(picture, Square.around_image(40, 40), 40)
    np.testing.assert_array_equal(crop.pixels, picture)
    np.testing.assert_allclose(crop.T_crop_image, np.eye(3), atol=1e-12)


@pytest.mark.parametrize('quarters', [1, 2, 3])
def test_quarter_turns_are_those_of_numpy(picture, quarters):
    # A square turned clockwise shows the image turned the other way.
    crop = crop_square(picture, Square.around_image(40, 40, quarters * math.pi / 2), 40)
    np.testing.assert_array_equal(crop.pixels, np.rot90(picture, quarters))
    assert math.remainder(crop.turn_rad - quarters * math.pi / 2, 2 * math.pi) == pytest.approx(
        0.0, abs=1e-12
    )


def test_shift_by_whole_pixels_copies_them(picture):
    square = Square((14.5, 20.5), 10.0)  # columns 10 to 19, rows 16 to 25
    np.testing.assert_array_equal(crop_square(picture, square, 10).pixels, picture[16:26, 10:20])


def test_enlarging_keeps_areas_in_place():
    image = np.zeros((8, 8, 3), np.uint8)
    image[2:4, 4:6] = 255
    crop = crop_square(image, Square.around_image(8, 8), 64)
    assert crop.scale == pytest.approx(8.0)
    # The middle of the white 2x2 pixels is at (4.5, 2.5); in the crop, white covers 32..47 x 16..31.
    np.testing.assert_allclose(crop.to_crop(np.array([[4.5, 2.5]])), [[39.5, 23.5]])
    weights = crop.pixels[..., 0].astype(float)
    rows, columns = np.mgrid[:64, :64]
    assert (weights * columns).sum() / weights.sum() == pytest.approx(39.5, abs=0.05)
    assert (weights * rows).sum() / weights.sum() == pytest.approx(23.5, abs=0.05)


def test_a_dot_lands_where_predicted():
    image = np.zeros((200, 300, 3), np.uint8)
    image[119:122, 79:82] = 255  # centre (80, 120)
    crop = crop_square(image, Square((90.0, 110.0), 60.0, 0.7), 240)
    weights = crop.pixels[..., 0].astype(float)
    rows, columns = np.mgrid[:240, :240]
    found = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
    np.testing.assert_allclose(found, crop.to_crop(np.array([[80.0, 120.0]]))[0], atol=0.05)


def test_round_trip():
    rng = np.random.default_rng(1)
    for _ in range(100):
        square = Square(tuple(rng.uniform(-500, 2000, 2)), rng.uniform(5, 3000), rng.uniform(-4, 4))
        transform = crop_transform(square, 224)
        np.testing.assert_allclose(transform @ np.linalg.inv(transform), np.eye(3), atol=1e-9)
    crop = crop_square(np.zeros((480, 640, 3), np.uint8), square, 224)
    points = rng.uniform(-100, 800, (50, 2))
    np.testing.assert_allclose(crop.to_image(crop.to_crop(points)), points, atol=1e-9)
    np.testing.assert_allclose(crop.T_image_crop @ crop.T_crop_image, np.eye(3), atol=1e-9)


def test_border_is_black_or_the_edge(picture):
    square = Square((0.0, 0.0), 40.0)
    assert not crop_square(picture, square, 40).pixels[:19, :19].any()
    np.testing.assert_array_equal(crop_square(picture, square, 40, border='edge').pixels[0, 0], picture[0, 0])


def test_square_around_points_is_tight_in_its_own_turn():
    turn = 0.5
    local = np.array([[-30.0, 5.0], [30.0, -5.0], [0.0, 10.0], [4.0, -10.0]])
    cos, sin = math.cos(turn), math.sin(turn)
    points = local @ np.array([[cos, sin], [-sin, cos]]) + (100.0, 200.0)
    square = Square.around_points(points, turn)
    assert square.side_px == pytest.approx(60.0)
    np.testing.assert_allclose(square.center_px, (100.0, 200.0))
    inside = crop_square(np.zeros((300, 300, 3), np.uint8), square, 60).to_crop(points)
    np.testing.assert_allclose(inside, local + 29.5)


def test_square_around_a_box_takes_its_longer_side():
    square = Square.around_box(np.array([10.0, 20.0, 40.0, 120.0])).scaled(1.5)
    assert square.center_px == (25.0, 70.0)
    assert square.side_px == pytest.approx(150.0)


def test_shift_is_along_the_turned_axes():
    # A quarter turn: the square's right is the image's down.
    square = Square((50.0, 60.0), 20.0, math.pi / 2).shifted(0.5, 0.0)
    np.testing.assert_allclose(square.center_px, (50.0, 70.0))


@pytest.mark.parametrize('above', [(0, -5), (5, 0), (0, 5), (-5, 0), (3, -4)])
def test_upright_turn_puts_the_point_above(above):
    below = np.array([50.0, 60.0])
    turn = upright_turn(below, below + above)
    crop = crop_square(np.zeros((100, 100, 3), np.uint8), Square((50.0, 60.0), 100.0, turn), 100)
    (x0, y0), (x1, y1) = crop.to_crop(np.array([below, below + above]))
    assert x1 == pytest.approx(x0)
    assert y1 < y0


@pytest.mark.parametrize('bad', [((0.0, 0.0), 0.0), ((0.0, math.nan), 5.0), ((0.0, 0.0), -1.0)])
def test_impossible_squares_are_refused(bad):
    with pytest.raises(ValueError, match='not a square'):
        Square(*bad)
