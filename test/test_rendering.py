"""The rasteriser against a brute-force ray caster and closed forms; shading, skin and mesh files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import trimesh

from hand_mesh_ros import compiled
from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.rendering.meshes import write_mesh
from hand_mesh_ros.rendering.shading import Lighting, linear_to_srgb, shade, srgb_to_linear, vertex_normals
from hand_mesh_ros.rendering.skin import skin_albedo
from hand_mesh_ros.rendering.subdivision import Subdivision
from hand_mesh_ros.rendering.zbuffer import NEAR_M, interpolate, join_meshes, rasterise

CAMERA = Camera(64, 48, 60.0, 62.0, 31.0, 24.5)


def cast_rays(vertices: np.ndarray, faces: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Depth and face index (H,W) by Moeller-Trumbore, every pixel's ray against every face, in float64."""
    rows, columns = np.mgrid[: camera.height, : camera.width]
    pixels = np.stack([columns.ravel(), rows.ravel()], 1)
    rays = np.hstack([camera.rays(pixels), np.ones((len(pixels), 1))])
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    depth, index = np.full(len(rays), np.inf), np.full(len(rays), -1)
    with np.errstate(divide='ignore', invalid='ignore'):
        for f, (origin, ab, ac) in enumerate(zip(a, b - a, c - a, strict=True)):
            p = np.cross(rays, ac)
            determinant = p @ ab
            u = -(p @ origin) / determinant
            q = np.cross(-origin, ab)
            v = rays @ q / determinant
            z = (ac @ q) / determinant
            hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (z >= NEAR_M) & (z < depth)
            depth[hit], index[hit] = z[hit], f
    shape = (camera.height, camera.width)
    return np.where(np.isinf(depth), 0.0, depth).reshape(shape), index.reshape(shape)


def assert_agrees_with_rays(vertices: np.ndarray, faces: np.ndarray, camera: Camera) -> None:
    raster = rasterise(vertices, faces, camera)
    depth, index = cast_rays(vertices, faces, camera)
    # A ray through an edge may fall to either side of it by rounding: nothing else may differ.
    assert np.count_nonzero(raster.mask != (index >= 0)) <= 1
    both = raster.mask & (index >= 0)
    assert both.any()
    np.testing.assert_allclose(raster.depth[both], depth[both], rtol=1e-5)
    assert np.count_nonzero(raster.face_index[both] != index[both]) <= 2


@pytest.fixture(scope='module')
def hand() -> tuple[np.ndarray, np.ndarray]:
    """Vertices of an obliquely seen, relaxed hand in front of the camera, and its faces."""
    model = load_hand_model(None, 'right')
    posed = model.posed(np.array([0.7, -0.4, 1.1]), model.hands_mean, np.zeros(10), np.zeros(3))
    return posed.vertices - posed.vertices.mean(0) + (0.0, 0.0, 0.25), model.faces


def test_hand_agrees_with_ray_caster(hand: tuple[np.ndarray, np.ndarray]) -> None:
    assert_agrees_with_rays(*hand, CAMERA)


@pytest.mark.parametrize('distance', [0.02, 0.0, -0.03])
def test_hand_around_the_camera_agrees_with_ray_caster(
    hand: tuple[np.ndarray, np.ndarray], distance: float
) -> None:
    vertices, faces = hand
    moved = vertices + (0.01, 0.005, distance - 0.25)
    assert (moved[:, 2] < 0).any() and (moved[:, 2] > NEAR_M).any()
    assert_agrees_with_rays(moved, faces, CAMERA)


def test_random_triangles_through_the_near_plane_agree_with_ray_caster() -> None:
    rng = np.random.default_rng(3)
    vertices = rng.uniform((-0.5, -0.5, -0.3), (0.5, 0.5, 0.8), (60, 3))
    assert_agrees_with_rays(vertices, np.arange(60).reshape(20, 3), CAMERA)


def test_floor_reaches_the_horizon_and_not_beyond() -> None:
    corners = np.array([[-50, 0.1, -50], [50, 0.1, -50], [50, 0.1, 50], [-50, 0.1, 50.0]])
    raster = rasterise(corners, np.array([[0, 1, 2], [0, 2, 3]]), CAMERA)
    rows = np.arange(CAMERA.height)
    expected = np.where(rows > CAMERA.cy, 0.1 * CAMERA.fy / np.maximum(rows - CAMERA.cy, 1e-9), 0.0)
    np.testing.assert_allclose(raster.depth, np.tile(expected[:, None], CAMERA.width), rtol=1e-5)


def test_pixels_on_the_edge_belong_to_the_triangle() -> None:
    camera = Camera(16, 16, 1.0, 1.0, 0.0, 0.0)
    triangle = np.array([[2, 2, 1], [10, 2, 1], [2, 10, 1.0]])
    # Pick's theorem: grid points in a grid triangle, edge included, are area + boundary / 2 + 1.
    assert rasterise(triangle, np.array([[0, 1, 2]]), camera).mask.sum() == 32 + 24 / 2 + 1


def test_neighbours_leave_no_gap_and_winding_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:30, :30]
    grid = np.stack([columns.ravel() * 3.0 - 10, rows.ravel() * 3.0 - 10, np.ones(900)], 1)
    grid[:, :2] += rng.uniform(-1, 1, (900, 2))
    depths = rng.uniform(0.5, 2.0, (900, 1))
    vertices = (grid - (CAMERA.cx, CAMERA.cy, 0)) / (CAMERA.fx, CAMERA.fy, 1) * depths
    corner = (rows[:-1, :-1] * 30 + columns[:-1, :-1]).ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + 1, corner + 30], 1), np.stack([corner + 30, corner + 1, corner + 31], 1)]
    )
    raster = rasterise(vertices, faces, CAMERA)
    assert raster.mask.all()
    turned = rasterise(vertices, faces[:, ::-1], CAMERA)
    np.testing.assert_array_equal(turned.face_index, raster.face_index)


def test_values_are_interpolated_on_the_surface_not_in_the_picture() -> None:
    slanted = np.array([[-0.4, -0.3, 0.3], [0.6, -0.9, 2.0], [0.1, 1.2, 3.0]])
    face = np.array([[0, 1, 2]])
    raster = rasterise(slanted, face, CAMERA)
    seen = interpolate(raster, face, slanted)[raster.mask]
    rows, columns = np.nonzero(raster.mask)
    expected = CAMERA.unproject(np.stack([columns, rows], 1), raster.depth[raster.mask])
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_nearer_mesh_hides_the_farther_whatever_their_order() -> None:
    quad = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    near, far = quad * 0.1 + (0, 0, 0.5), quad + (0, 0, 1.0)
    for meshes in ([(near, faces), (far, faces)], [(far, faces), (near, faces)]):
        raster = rasterise(*join_meshes(meshes), CAMERA)
        assert raster.depth[24, 31] == pytest.approx(0.5)
        assert raster.depth[2, 2] == pytest.approx(1.0)
    assert join_meshes([])[1].shape == (0, 3)


def test_nothing_to_see() -> None:
    for vertices, faces in (
        (np.zeros((0, 3)), np.zeros((0, 3), int)),
        (np.array([[0, 0, -1], [1, 0, -1], [0, 1, -1.0]]), np.array([[0, 1, 2]])),
        (np.array([[50, 0, 1], [51, 0, 1], [50, 1, 1.0]]), np.array([[0, 1, 2]])),
        (np.array([[0, 0, 1], [0, 0, 2], [0, 0, 3.0]]), np.array([[0, 1, 2]])),
        (np.array([[0, 0, 1], [1, 0, np.nan], [0, 1, 1.0]]), np.array([[0, 1, 2]])),
        (np.array([[0, 0, 1], [1, np.inf, 1], [0, 1, 1.0]]), np.array([[0, 1, 2]])),
    ):
        raster = rasterise(vertices, faces, CAMERA)
        assert not raster.mask.any() and not raster.depth.any() and not raster.barycentrics.any()


def test_faces_of_vertices_that_are_not_there_are_refused() -> None:
    for face in ([0, 1, 3], [-1, 0, 1]):
        with pytest.raises(ValueError, match='there are 3'):
            rasterise(np.eye(3), np.array([face]), CAMERA)


@pytest.mark.parametrize(
    ('model', 'coefficients'),
    [('plumb_bob', (-0.3, 0.1, 0.001, -0.002, 0.0)), ('equidistant', (0.05, -0.01, 0.0, 0.0))],
)
def test_lens_distortion_moves_the_mesh(model: str, coefficients: tuple[float, ...]) -> None:
    camera = dataclasses.replace(
        CAMERA.window(0, 0, 64, 48, 8.0), distortion_model=model, distortion=coefficients
    )
    straight = CAMERA.window(0, 0, 64, 48, 8.0)
    rng = np.random.default_rng(1)
    targets = camera.unproject(rng.uniform((20, 20), (490, 360), (40, 2)), rng.uniform(0.3, 1.0, 40))
    corners = np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0]]) * 0.005
    specks = (targets[:, None] + corners * targets[:, None, 2:]).reshape(-1, 3)
    raster = rasterise(specks, np.arange(120).reshape(40, 3), camera)
    u, v = camera.project(targets).round().astype(int).T
    assert raster.mask[v, u].all()
    u, v = np.clip(straight.project(targets), 0, (511, 383)).round().astype(int).T
    assert raster.mask[v, u].mean() < 0.5


def test_window_sees_the_same_as_the_whole(hand: tuple[np.ndarray, np.ndarray]) -> None:
    whole = rasterise(*hand, CAMERA)
    part = rasterise(*hand, CAMERA.window(10, 5, 40, 30))
    np.testing.assert_array_equal(part.face_index, whole.face_index[5:35, 10:50])
    # Nine samples to the pixel: the middle one is the pixel's own centre.
    fine = rasterise(*hand, CAMERA.window(10, 5, 40, 30, 3.0))
    np.testing.assert_array_equal(fine.face_index[1::3, 1::3], part.face_index)


def test_compiles_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_cache(**options: bool):
        if options.get('cache'):
            raise RuntimeError('cannot cache function: no locator available')
        return lambda function: function

    monkeypatch.setattr(compiled, 'njit', without_cache)
    assert compiled.compiled(abs)(-3) == 3


def test_normals_of_a_sphere_point_outwards() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=3)
    normals = vertex_normals(sphere.vertices, sphere.faces)
    assert np.degrees(np.arccos(np.clip((normals * sphere.vertices).sum(1), -1, 1))).max() < 1.0


def test_a_vertex_that_is_not_finite_leaves_its_neighbours_their_normals() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=3)
    for wrong in (np.nan, np.inf):
        vertices = sphere.vertices.copy()
        vertices[7, 1] = wrong
        normals = vertex_normals(vertices, sphere.faces)
        others = np.arange(len(vertices)) != 7
        cosines = (normals * sphere.vertices).sum(1)[others]
        assert np.degrees(np.arccos(np.clip(cosines, -1, 1))).max() < 10.0


def test_srgb_is_iec_61966() -> None:
    values = np.linspace(0, 1, 256)
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-5)
    np.testing.assert_allclose(
        srgb_to_linear(np.array([0.04045, 0.5, 1.0])), [0.0031308, 0.214041, 1.0], atol=1e-5
    )


def test_light_is_lambert_and_sky() -> None:
    lighting = Lighting(
        direction=(0, 0, -2), lamp=(0.5, 0.5, 0.5), sky=(0.3, 0.3, 0.3), ground=(0.1, 0.1, 0.1), gloss=0.0
    )
    normals = np.array([[0, 0, -1], [0, -1, 0], [0, 1, 0], [0, -np.sqrt(0.5), -np.sqrt(0.5)]], np.float32)
    colours = shade(np.array([0.8, 0.4, 0.2]), np.tile([0, 0, 1.0], (4, 1)), normals, lighting)
    half = np.sqrt(0.5)
    light = np.array([0.5 + 0.2, 0.3, 0.1, 0.5 * half + 0.3 * (1 + half) / 2 + 0.1 * (1 - half) / 2])
    np.testing.assert_allclose(colours, light[:, None] * [0.8, 0.4, 0.2], rtol=1e-5)


def test_skin_is_lighter_in_the_palm_and_the_same_on_both_hands() -> None:
    albedos = {}
    for side in ('right', 'left'):
        model = load_hand_model(None, side)
        rest = model.rest(np.zeros(10))
        normals = vertex_normals(rest.vertices, model.faces)
        albedos[side] = skin_albedo(rest, side, rest.vertices, normals, tone=0.7)
    right = albedos['right']
    assert right.min() >= 0 and right.max() <= 1
    luminance = right.mean(1)
    assert luminance[normals[:, 1] < -0.8].mean() > 1.2 * luminance[normals[:, 1] > 0.8].mean()
    lighter = skin_albedo(rest, 'left', rest.vertices, normals, tone=0.1)
    assert (lighter > albedos['left']).all()
    # The blotches do not mirror, the rest does.
    np.testing.assert_allclose(albedos['left'], right, rtol=0.6)


def test_subdivision_keeps_the_surface() -> None:
    box = trimesh.creation.box()
    fine = Subdivision(box.faces, rounds=2)
    cut = trimesh.Trimesh(fine(np.asarray(box.vertices)), fine.faces, process=False)
    assert len(cut.faces) == 16 * len(box.faces)
    assert (
        cut.is_watertight and cut.volume == pytest.approx(box.volume) and cut.area == pytest.approx(box.area)
    )
    np.testing.assert_array_equal(cut.vertices[: len(box.vertices)], box.vertices)


@pytest.mark.parametrize('suffix', ['.ply', '.glb'])
def test_mesh_file_reads_back(tmp_path: Path, hand: tuple[np.ndarray, np.ndarray], suffix: str) -> None:
    vertices, faces = hand
    write_mesh(tmp_path / f'hand{suffix}', vertices, faces)
    mesh = trimesh.load(tmp_path / f'hand{suffix}', process=False, force='mesh')
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, faces)


def test_mesh_file_of_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r'hand\.stl.*\.ply'):
        write_mesh(tmp_path / 'hand.stl', np.eye(3), np.array([[0, 1, 2]]))
