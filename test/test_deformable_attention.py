"""Attention to images: its sampling against PyTorch's own, its sum against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import grid_sample

from hand_mesh_ros.networks.deformable_attention import DeformableAttention, sample_bilinear


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_bilinear_sampling_is_that_of_grid_sample() -> None:
    features = torch.randn(2, 5, 6, 9, dtype=torch.float64)
    points = torch.rand(2, 200, 2) * 1.6 - 0.3  # beyond the edges, too
    points[:, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-5.0, 0.5], [0.5 / 9, 0.5 / 6]])
    expected = grid_sample(features, points.double()[:, None] * 2 - 1, align_corners=False)[:, :, 0]
    sampled = sample_bilinear(features.flatten(2).transpose(1, 2), (6, 9), points)
    torch.testing.assert_close(sampled, expected.transpose(1, 2), rtol=1e-5, atol=2e-6)


def test_gradients_of_bilinear_sampling_are_those_of_grid_sample() -> None:
    features = torch.randn(1, 3, 5, 4, requires_grad=True)
    points = (torch.rand(1, 50, 2) * 1.2 - 0.1).requires_grad_()
    cotangent = torch.randn(1, 50, 3)
    sampled = sample_bilinear(features.flatten(2).transpose(1, 2), (5, 4), points)
    reference = grid_sample(features, points[:, None] * 2 - 1, align_corners=False)[:, :, 0].transpose(1, 2)
    for ours, theirs in zip(
        torch.autograd.grad(sampled, (features, points), cotangent),
        torch.autograd.grad(reference, (features, points), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_deformable_attention_is_the_sum_over_its_points() -> None:
    width, heads, points, hands, queries = 12, 3, 2, 2, 4
    shapes = ((4, 6), (2, 3))
    attention = DeformableAttention(width, heads, shapes, points)
    for layer in (attention.offsets, attention.weights):
        nn.init.normal_(layer.weight)
    q, references = torch.randn(hands, queries, width), torch.rand(hands, queries, 2)
    values = torch.randn(hands, heads, 24 + 6, width // heads)
    with torch.no_grad():
        found = attention(q, references, values)
        offsets = attention.offsets(q).reshape(hands, queries, heads, 2, points, 2)
        weights = attention.weights(q).reshape(hands, queries, heads, 2 * points).softmax(-1)
        weights = weights.reshape(hands, queries, heads, 2, points)
        seen = torch.zeros(hands, queries, heads, width // heads)
        for b, i, h, level, p in np.ndindex(hands, queries, heads, 2, points):
            (height, columns), first = shapes[level], (0, 24)[level]
            pixels = values[b, h, first : first + height * columns].T.reshape(1, -1, height, columns)
            place = references[b, i] + offsets[b, i, h, level, p] / torch.tensor([columns, height])
            pixel = grid_sample(pixels, place[None, None, None] * 2 - 1, align_corners=False)
            seen[b, i, h] += weights[b, i, h, level, p] * pixel[0, :, 0, 0]
        torch.testing.assert_close(found, attention.out(seen.flatten(2)), rtol=1e-4, atol=1e-5)
