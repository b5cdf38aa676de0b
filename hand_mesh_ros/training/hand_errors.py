"""How far reconstructed hands are from the true ones, in torch: for losses and for evaluation in training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hand_mesh_ros.hand_model.layer import HandLayer, HandLayerOutput
from hand_mesh_ros.hand_model.model import HandModel


def thin_hand_layer(model: HandModel, vertices: int) -> HandLayer:
    """The hand model's layer with so many of its vertices, the fingertips' first, the rest far apart."""
    chosen = list(map(int, model.tip_vertices))
    distances = np.linalg.norm(model.v_template[:, None] - model.v_template[chosen], axis=2).min(axis=1)
    while len(chosen) < min(vertices, len(model.v_template)):
        chosen.append(int(distances.argmax()))
        added = np.linalg.norm(model.v_template - model.v_template[chosen[-1]], axis=1)
        distances = np.minimum(distances, added)
    layer = HandLayer(model)
    layer.v_template = layer.v_template[chosen]
    layer.weights = layer.weights[chosen]
    layer.shapedirs = layer.shapedirs.unflatten(1, (-1, 3))[:, chosen].flatten(1)
    layer.posedirs = layer.posedirs.unflatten(1, (-1, 3))[:, chosen].flatten(1)
    layer.tip_vertices = torch.arange(len(model.tip_vertices))
    return layer


def posed(layer: HandLayer, rotations: Tensor, betas: Tensor) -> HandLayerOutput:
    """Hands of rotations (B,16,3,3) and betas (B,10), their wrist joints where the model has them."""
    return layer.from_rotations(rotations, betas, torch.zeros_like(betas[:, :3]))


def angles_between(a: Tensor, b: Tensor) -> Tensor:
    """Angles (...) in radians between rotations (...,3,3)."""
    # By the chord, not the trace: the arc cosine loses small angles in float32
    chord = (a - b).flatten(-2).norm(dim=-1)
    return 2 * torch.asin((chord / 8**0.5).clamp(max=1))


@torch.no_grad()
def aligned_errors(points: Tensor, truth: Tensor) -> Tensor:
    """Distances (B,N) of points (B,N,3) from the truth, once a similarity has brought them closest to it.

    Source: S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    1991, equations 40 to 42.
    """
    points, truth = points.double(), truth.double()
    source, target = (p - p.mean(dim=1, keepdim=True) for p in (points, truth))
    u, singular, vt = torch.linalg.svd(target.transpose(1, 2) @ source)
    signs = torch.ones_like(singular)
    signs[:, 2] = torch.linalg.det(u @ vt).sign()
    rotation = (u * signs[:, None]) @ vt
    size = source.square().sum(dim=(1, 2)).clamp(min=torch.finfo(torch.float64).tiny)
    scale = (singular * signs).sum(dim=1) / size
    aligned = scale[:, None, None] * source @ rotation.transpose(1, 2)
    return (aligned - target).norm(dim=-1).to(torch.float32)
