"""A crop's camera sees what it would see if it were there, whatever lens took the picture."""

from __future__ import annotations

import numpy as np
import pytest

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.crop_image import crop_image
from hand_mesh_ros.crop_view import CropView, looking_along, view_of_hand
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.rendering.zbuffer import rasterise

SIZE = 128
PINHOLE = Camera(640, 480, 420.0, 425.0, 322.0, 236.0)
LENSES = {
    'pinhole': PINHOLE,
    'barrel': Camera(640, 480, 420.0, 425.0, 322.0, 236.0, 'plumb_bob', (-0.25, 0.06, 0.002, -0.003, 0.0)),
    'fisheye': Camera(640, 480, 300.0, 300.0, 322.0, 236.0, 'equidistant', (0.05, -0.01, 0.0, 0.0)),
}


def directions(camera: Camera) -> np.ndarray:
    """Rays (H,W,2) of the pixels of a camera."""
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    pixels = np.column_stack([columns.ravel(), rows.ravel()])
    return camera.rays(pixels).reshape(camera.height, camera.width, 2)


def coloured(rays: np.ndarray, finest: float) -> np.ndarray:
    """A world (...,3) uint8 of coloured waves, the shortest so long, seen along rays (...,2)."""
    u, v = np.moveaxis(rays, -1, 0) * (2 * np.pi / finest)
    waves = np.stack([np.sin(u), np.sin(v + 1.0), np.sin(0.6 * u + 0.6 * v)], axis=-1)
    return np.rint(127.5 + 110.0 * waves).astype(np.uint8)


def seen_directly(view: CropView, finest: float, samples: int = 4) -> np.ndarray:
    """The same world as the crop's camera itself sees it, (S,S,3) float64."""
    rays = directions(view.camera(samples))
    towards = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=2) @ view.R_crop_camera
    fine = coloured(towards[..., :2] / towards[..., 2:], finest).astype(np.float64)
    return fine.reshape(view.size, samples, view.size, samples, 3).mean((1, 3))


def hand_before(camera: Camera, place_m: tuple[float, float, float]) -> np.ndarray:
    """Keypoints (21,3) of a hand, fingers to the upper left."""
    model = load_hand_model()
    pose = np.full(45, 0.1)
    return model.posed(np.array([1.2, 1.2, 0.5]), pose, np.zeros(10), np.array(place_m)).keypoints


@pytest.mark.parametrize('lens', LENSES)
@pytest.mark.parametrize(
    'place_m', [(0.02, 0.0, 0.5), (0.22, 0.08, 0.48), (-0.02, 0.05, 0.2), (0.3, 0.1, 1.5)]
)
def test_the_world_is_where_the_crops_own_camera_would_see_it(lens, place_m):
    camera = LENSES[lens]
    keypoints = hand_before(camera, place_m)
    seen = camera.project(keypoints)
    assert ((seen >= 0) & (seen < (640, 480))).all()
    view = view_of_hand(keypoints, SIZE)
    # Waves that both the image and the crop can show
    finest = 16.0 / min(view.focal_px, camera.fx)
    crop = crop_image(coloured(directions(camera), finest), camera, view)
    inside = camera.project(view.rays(unit_places()))
    inside = ((inside > 0) & (inside < (639, 479))).all(axis=1).reshape(SIZE, SIZE)
    assert inside.mean() > 0.6
    error = np.abs(crop.astype(np.float64) - seen_directly(view, finest))[inside]
    assert error.mean() < 1.2 and error.max() < 10.0, (error.mean(), error.max())


def unit_places() -> np.ndarray:
    """The middles of a crop's pixels (S*S,2), -1..1 over it."""
    middles = (np.arange(SIZE) + 0.5) * (2.0 / SIZE) - 1.0
    across, down = np.meshgrid(middles, middles)
    return np.column_stack([across.ravel(), down.ravel()])


@pytest.mark.parametrize('lens', LENSES)
def test_a_hand_drawn_in_the_image_is_the_hand_drawn_in_the_crop(lens):
    camera = LENSES[lens]
    model = load_hand_model()
    hand = model.posed(np.array([1.2, 1.2, 0.5]), np.full(45, 0.1), np.zeros(10), np.array([0.02, 0.03, 0.3]))
    view = view_of_hand(hand.keypoints, SIZE)
    in_image = rasterise(hand.vertices, model.faces, camera).mask
    image = np.repeat(255 * in_image[..., None].astype(np.uint8), 3, axis=2)
    crop = crop_image(image, camera, view)[..., 0] > 127
    in_crop = rasterise(hand.vertices @ view.R_crop_camera.T, model.faces, view.camera()).mask
    assert (crop & in_crop).sum() / (crop | in_crop).sum() > 0.97


def test_a_large_hand_is_averaged_and_not_sampled_here_and_there():
    camera = Camera(1920, 1440, 1800.0, 1800.0, 959.5, 719.5)
    rows, columns = np.mgrid[:1440, :1920]
    board = np.repeat((255 * ((rows + columns) % 2)).astype(np.uint8)[..., None], 3, axis=2)
    view = CropView(looking_along(np.array([-0.01, 0.02, 1.0])), 180.0, SIZE)  # of a hand 900 pixels large
    crop = crop_image(board, camera, view)
    assert abs(crop.mean() - 127.5) < 2.0 and crop.std() < 12.0


def test_beyond_its_edges_the_image_goes_on():
    image = np.full((480, 640, 3), (30, 90, 200), np.uint8)
    for lens in LENSES.values():
        corner = np.append(PINHOLE.rays(np.array([[630.0, 450.0]])), 1.0)
        crop = crop_image(image, lens, CropView(looking_along(corner), 270.0, SIZE))
        np.testing.assert_array_equal(crop, np.broadcast_to(image[0, 0], crop.shape))


def test_a_mirrored_image_gives_the_mirrored_crop():
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    mirrored_camera = Camera(640, 480, 420.0, 425.0, 639 - 322.0, 236.0)
    keypoints = hand_before(PINHOLE, (0.1, 0.0, 0.4))
    crop = crop_image(image, PINHOLE, view_of_hand(keypoints, SIZE))
    mirrored_view = view_of_hand(keypoints * (-1.0, 1.0, 1.0), SIZE)
    other = crop_image(np.ascontiguousarray(image[:, ::-1]), mirrored_camera, mirrored_view)
    # OpenCV rounds places to 1/32 of a pixel, halves always to the same side
    difference = np.abs(other[:, ::-1].astype(int) - crop)
    assert difference.mean() < 0.5 and np.median(difference) == 0.0
