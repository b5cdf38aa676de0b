"""Soft silhouettes: SoftRas's formula, right gradients, the hard mask in the limit, hands pulled home."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hand_mesh_ros.crop_view import CropView
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer, rotation_matrices
from hand_mesh_ros.rendering.silhouette import SoftSilhouette
from hand_mesh_ros.rendering.zbuffer import Raster, rasterise

HALF_SIDE = 4.0


@pytest.fixture(scope='module')
def faces() -> np.ndarray:
    return load_hand_model(None, 'right').faces


def hands(count: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Vertices of posed hands half a metre ahead, turned any way."""
    rng = np.random.default_rng(seed)
    model = load_hand_model(None, 'right')
    parameters = (
        rng.normal(size=(count, 3)) * 1.5,
        model.hands_mean + rng.normal(size=(count, 45)) * 0.3,
        rng.normal(size=(count, 10)) * 0.5,
        np.zeros((count, 3)),
    )
    vertices = HandLayer(model, dtype)(*(torch.tensor(value, dtype=dtype) for value in parameters)).vertices
    return vertices - vertices.mean(1, keepdim=True) + torch.tensor([0.0, 0.0, 0.5], dtype=dtype)


def half_sides(count: int, dtype: torch.dtype) -> Tensor:
    return torch.full((count,), HALF_SIDE, dtype=dtype)


def by_pairs(soft: SoftSilhouette, vertices: Tensor, sides: Tensor) -> Tensor:
    """What devices other than the CPU compute."""
    return soft._pairs(soft._seen(vertices, sides)[0]).covered()


def hard(vertices: Tensor, faces: np.ndarray, size: int) -> Raster:
    view = CropView(np.eye(3), HALF_SIDE * size / 2, size)
    return rasterise(vertices.numpy(), faces, view.camera())


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def published(points: np.ndarray, faces: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """SoftRas's formula as it is written, every face at every pixel, of points (V,2)."""
    centres = (2 * np.arange(size) + 1) / size - 1
    pixels = np.stack(np.meshgrid(centres, centres), -1)
    uncovered = np.ones((size, size))
    for face in faces:
        squared, turns = np.inf, []
        for k in range(3):
            start, end = points[face[k]], points[face[(k + 1) % 3]]
            t = np.clip((pixels - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
            squared = np.minimum(squared, ((start + t[..., None] * (end - start) - pixels) ** 2).sum(-1))
            turns.append(np.cross(end - start, pixels - start) > 0)
        sign = np.where(np.all(turns, 0) | ~np.any(turns, 0), 1.0, -1.0)
        uncovered *= 1 - 1 / (1 + np.exp(-sign * squared / sigma))
    return 1 - uncovered


def test_it_is_the_published_formula() -> None:
    rng = np.random.default_rng(5)
    points = rng.uniform(-1.3, 1.3, (12, 2))
    faces = np.concatenate([np.arange(12).reshape(4, 3), np.arange(12).reshape(4, 3)[:2, ::-1]])
    vertices = torch.tensor(np.hstack([points / HALF_SIDE, np.ones((12, 1))])[None])
    vertices *= torch.tensor(rng.uniform(0.3, 2.0, (1, 12, 1)))
    soft = SoftSilhouette(faces, 20, sigma=1e-2, cutoff=1e-9)
    expected = published(points, faces, 20, 1e-2)
    assert 0.1 < expected.mean() < 0.9
    for got in (soft, lambda *arguments: by_pairs(soft, *arguments)):
        np.testing.assert_allclose(
            got(vertices, half_sides(1, torch.float64))[0].numpy(), expected, atol=1e-6
        )


@pytest.mark.parametrize('size', [31, 64])
def test_half_covered_is_what_the_hard_mask_covers(faces: np.ndarray, size: int) -> None:
    vertices = hands(6, torch.float32)
    soft = SoftSilhouette(faces, size, sigma=1e-6)(vertices, half_sides(6, torch.float32)).numpy()
    assert soft.min() >= 0.0 and soft.max() <= 1.0
    for one, picture in zip(vertices, soft, strict=True):
        assert overlap(picture > 0.5, hard(one, faces, size).mask) > 0.97


def test_compiled_loops_and_list_of_pairs_agree(faces: np.ndarray) -> None:
    vertices, sides = hands(3, torch.float64), half_sides(3, torch.float64)
    vertices, sides = vertices.requires_grad_(), sides.requires_grad_()
    soft = SoftSilhouette(faces, 48)
    random = torch.rand(3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pictures = soft(vertices, sides), by_pairs(soft, vertices, sides)
    torch.testing.assert_close(pictures[0], pictures[1], rtol=0, atol=1e-6)
    gradients = [torch.autograd.grad((picture * random).sum(), (vertices, sides)) for picture in pictures]
    for compiled, listed in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, listed, rtol=1e-4, atol=1e-4 * float(listed.abs().max()))


@pytest.mark.parametrize('path', ['compiled', 'pairs', 'depth'])
def test_gradients_of_triangles(path: str) -> None:
    generator = torch.Generator().manual_seed(2)
    vertices = torch.rand(2, 6, 3, dtype=torch.float64, generator=generator) * 2 - 1
    vertices[..., 2] = vertices[..., 2].abs() + 0.5
    sides = torch.tensor([0.9, 1.3], dtype=torch.float64)
    # So small a cutoff that its step is no matter to finite differences.
    soft = SoftSilhouette(np.array([[0, 1, 2], [3, 5, 4]]), 9, sigma=0.02, gamma=0.3, cutoff=1e-15)
    drawn = {
        'compiled': soft,
        'pairs': lambda *arguments: by_pairs(soft, *arguments),
        'depth': lambda *arguments: soft.with_depth(*arguments)[1],
    }[path]
    arguments = (vertices.requires_grad_(), sides.requires_grad_())
    assert torch.autograd.gradcheck(drawn, arguments, eps=1e-7, atol=1e-5, rtol=1e-4)


def test_gradient_of_a_hand_is_what_moving_it_does(faces: np.ndarray) -> None:
    vertices, sides = hands(1, torch.float64, seed=4), half_sides(1, torch.float64)
    soft = SoftSilhouette(faces, 32, sigma=1e-3, cutoff=1e-12)
    generator = torch.Generator().manual_seed(0)
    wanted = torch.rand(1, 32, 32, dtype=torch.float64, generator=generator)
    moves = [torch.eye(3, dtype=torch.float64)[k].expand_as(vertices) for k in range(3)]
    moves.append(torch.randn(vertices.shape, dtype=torch.float64, generator=generator) * 0.1)

    def loss(moved: Tensor, zoomed: Tensor) -> Tensor:
        return (soft(moved, zoomed) - wanted).square().sum()

    arguments = (vertices.requires_grad_(), sides.requires_grad_())
    by_vertices, by_sides = torch.autograd.grad(loss(*arguments), arguments)
    step = 1e-6
    with torch.no_grad():
        for move in moves:
            measured = (loss(vertices + step * move, sides) - loss(vertices - step * move, sides)) / 2 / step
            assert float((by_vertices * move).sum()) == pytest.approx(float(measured), rel=1e-3)
        measured = (loss(vertices, sides + step) - loss(vertices, sides - step)) / 2 / step
    assert float(by_sides) == pytest.approx(float(measured), rel=1e-3)


NOTHING = {
    'behind': [[0, 0, -1], [1, 0, -1], [0, 1, -1]],
    'reaches behind': [[0, 0, 1], [1, 0, 1], [0, 1, -1]],
    'in the camera': [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
    'beside the picture': [[5, 0, 1], [6, 0, 1], [5, 1, 1]],
    'far away beside it': [[1e30, 0, 1], [1e30, 1, 1], [2e30, 1, 1]],
    'edge-on': [[0, 0, 1], [0.1, 0, 1], [0.2, 0, 1]],
    'a point': [[0.1, 0.1, 1]] * 3,
    'a side without length': [[0.1, 0.1, 1], [0.1, 0.1, 1], [0, 0, 1]],
    'not a number': [[0, 0, 1], [math.nan, 0, 1], [0, 1, 1]],
    'infinite': [[0, 0, 1], [math.inf, 0, 1], [0, 1, math.inf]],
}


@pytest.mark.parametrize('corners', NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_what_cannot_be_drawn_is_left_out_and_has_no_gradient(
    corners: list[list[float]], dtype: torch.dtype
) -> None:
    good = [[-0.1, -0.1, 1], [0.1, -0.1, 1], [0, 0.1, 1]]
    vertices = torch.tensor([good + corners], dtype=dtype, requires_grad=True)
    sides = half_sides(1, dtype).requires_grad_()
    alone = SoftSilhouette(np.array([[0, 1, 2]]), 16)(vertices, sides)
    soft = SoftSilhouette(np.array([[0, 1, 2], [3, 4, 5]]), 16)
    for picture in (soft(vertices, sides), *soft.with_depth(vertices, sides)):
        gradients = torch.autograd.grad(picture.sum(), (vertices, sides), retain_graph=True)
        for values in (picture, *gradients):
            assert values.isfinite().all()
        assert not gradients[0][:, 3:].any() and gradients[1].any()
    torch.testing.assert_close(soft(vertices, sides), alone)


def test_needles_have_finite_gradients() -> None:
    rng = np.random.default_rng(0)
    ends = rng.uniform(-0.3, 0.3, (200, 2, 3)) + (0, 0, 1)
    beside = ends[:, :1] + rng.normal(size=(200, 1, 3)) * 10.0 ** rng.uniform(-9, -3, (200, 1, 1))
    corners = np.concatenate([ends, beside], 1).reshape(1, 600, 3)
    soft = SoftSilhouette(np.arange(600).reshape(200, 3), 32)
    for dtype in (torch.float32, torch.float64):
        vertices = torch.tensor(corners, dtype=dtype, requires_grad=True)
        for picture in (
            soft(vertices, half_sides(1, dtype)),
            *soft.with_depth(vertices, half_sides(1, dtype)),
        ):
            (gradient,) = torch.autograd.grad(picture.sum(), vertices, retain_graph=True)
            assert picture.isfinite().all() and gradient.isfinite().all()


def test_a_step_of_gradient_descent_uncovers_or_covers() -> None:
    soft = SoftSilhouette(np.array([[0, 1, 2]]), 32)
    vertices = torch.tensor([[[-0.1, -0.1, 1], [0.1, -0.1, 1], [0, 0.1, 1]]], requires_grad=True)
    sides = half_sides(1, torch.float32).requires_grad_()
    by_vertices, by_sides = torch.autograd.grad(soft(vertices, sides).sum(), (vertices, sides))
    assert by_sides > 0  # nearer, larger
    assert by_vertices[0, 0, 0] < 0 < by_vertices[0, 1, 0]
    assert (by_vertices[..., 2] < 0).all()


def test_depth_is_that_of_the_nearest_surface(faces: np.ndarray) -> None:
    vertices = hands(3, torch.float32)
    soft, depth = SoftSilhouette(faces, 64, sigma=1e-6, gamma=1e-3).with_depth(
        vertices, half_sides(3, torch.float32)
    )
    for one, picture, seen in zip(vertices, soft.numpy(), depth.numpy(), strict=True):
        raster = hard(one, faces, 64)
        inside = raster.mask & (picture > 0.99)
        assert inside.sum() > 300
        assert np.quantile(np.abs(seen - raster.depth)[inside], 0.95) < 5e-4
        assert not seen[picture == 0].any() and (seen[picture > 0.5] > 0.3).all()


def test_threads_draw_the_same(faces: np.ndarray) -> None:
    vertices, sides = hands(5, torch.float32), half_sides(5, torch.float32)
    soft, threads = SoftSilhouette(faces, 32), torch.get_num_threads()
    results = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            moved = vertices.clone().requires_grad_()
            picture = soft(moved, sides)
            results.append((picture.detach(), *torch.autograd.grad(picture.square().sum(), moved)))
    finally:
        torch.set_num_threads(threads)
    for one, several in zip(*results, strict=True):
        assert torch.equal(one, several)


def test_half_precision_and_empty_batches(faces: np.ndarray) -> None:
    soft = SoftSilhouette(faces, 32)
    rough = soft(hands(1, torch.float32).bfloat16(), half_sides(1, torch.bfloat16))
    assert rough.dtype == torch.float32 and rough.isfinite().all() and rough.max() > 0.999
    none = torch.zeros(0, int(faces.max()) + 1, 3)
    assert soft(none, torch.zeros(0)).shape == (0, 32, 32)
    assert [image.shape for image in soft.with_depth(none, torch.zeros(0))] == [(0, 32, 32)] * 2
    assert not SoftSilhouette(np.zeros((0, 3), int), 8)(torch.zeros(1, 0, 3), torch.ones(1)).any()


def test_wrong_arguments_are_refused(faces: np.ndarray) -> None:
    for options in ({'size': 0}, {'sigma': 0.0}, {'gamma': -1.0}, {'cutoff': 0.5}, {'cutoff': 0.0}):
        with pytest.raises(ValueError, match='no silhouette can have'):
            SoftSilhouette(faces, **{'size': 32, **options})
    with pytest.raises(ValueError, match='vertex -1'):
        SoftSilhouette(np.array([[0, 1, -1]]), 32)
    with pytest.raises(ValueError, match='there are 5'):
        SoftSilhouette(faces, 32)(torch.ones(1, 5, 3), torch.ones(1))


@pytest.mark.parametrize('seed', [0, 1])
def test_descent_brings_a_displaced_hand_back(faces: np.ndarray, seed: int) -> None:
    target, sides = hands(1, torch.float32, seed), half_sides(1, torch.float32)
    middle = target.mean(1, keepdim=True)
    turn = torch.tensor([[0.15, -0.2, 0.4]], requires_grad=True)
    move = torch.tensor([[0.025, -0.02, 0.03]], requires_grad=True)

    def moved() -> Tensor:
        return (target - middle) @ rotation_matrices(turn).mT + middle + move

    def overlap_now() -> float:
        return overlap(hard(moved()[0].detach(), faces, 64).mask, hard(target[0], faces, 64).mask)

    assert overlap_now() < 0.7
    soft = SoftSilhouette(faces, 64)
    wanted = soft(target, sides)
    optimiser = torch.optim.Adam([{'params': [turn], 'lr': 0.02}, {'params': [move], 'lr': 0.002}])
    for _ in range(100):
        covered = soft(moved(), sides)
        both = (covered * wanted).sum()
        loss = 1 - both / (covered.sum() + wanted.sum() - both)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert overlap_now() > 0.95
    assert move.detach().abs().max() < 0.01


def test_sharp_outlines_are_no_trouble(faces: np.ndarray) -> None:
    # Exponents of 1e9 and more
    soft = SoftSilhouette(faces, 32, sigma=1e-12)
    vertices = hands(1, torch.float32).requires_grad_()
    picture = soft(vertices, half_sides(1, torch.float32))
    (gradient,) = torch.autograd.grad(picture.sum(), vertices)
    assert picture.isfinite().all() and gradient.isfinite().all()
