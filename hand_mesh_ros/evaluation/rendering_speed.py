"""How fast the rasterisers are, in one thread: python -m hand_mesh_ros.evaluation.rendering_speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hand_mesh_ros.crop_view import CropViews, views_of_hands
from hand_mesh_ros.datasets.pose_sampler import PoseSampler
from hand_mesh_ros.evaluation.tables import markdown
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.layer import HandLayer
from hand_mesh_ros.rendering.silhouette import SoftSilhouette
from hand_mesh_ros.rendering.zbuffer import rasterise

#: Hands that are drawn at once.
BATCH = 32

HARD_SIZES = (64, 128, 224)
SOFT_SIZES = (64, 128)

#: How far the hands are from the camera, in metres.
_DISTANCE_M = 0.5

#: Each time told is the median of so many runs, after one that compiles. It is the processor's time: with one
#: thread that is what a clock shows on an idle machine.
_RUNS = 7


class CropHands(NamedTuple):
    """Posed hands, each in its crop's camera."""

    vertices: Tensor  #: (B,V,3) float32, metres
    half_sides: Tensor  #: (B,) float32
    faces: np.ndarray  #: (F,3)


def posed_hands(count: int) -> CropHands:
    """Hands as the synthetic data has them, before a camera, with the crops that a detector would give."""
    model = load_hand_model(None, 'right')
    poses = PoseSampler(model)(np.arange(count))
    parameters = [torch.tensor(value, dtype=torch.float32) for value in poses]
    hands = HandLayer(model)(*parameters, torch.tensor([[0.0, 0.0, _DISTANCE_M]]).expand(count, 3))
    views = views_of_hands(hands.keypoints.numpy().astype(np.float64), 1)
    turned = hands.vertices.numpy() @ views.R_crop_camera.swapaxes(1, 2)
    return CropHands(
        torch.tensor(turned, dtype=torch.float32),
        torch.tensor(views.half_sides, dtype=torch.float32),
        model.faces,
    )


def measured() -> list[dict[str, str | float]]:
    """Rows of what is drawn, at which size, and how many pictures of it a second."""
    hands = posed_hands(BATCH)
    rows = [_row('hard z-buffer', size, _hard(hands, size)) for size in HARD_SIZES]
    for size in SOFT_SIZES:
        rows.append(_row('soft silhouette', size, _soft(hands, size)))
        rows.append(_row('soft silhouette and its gradient', size, _soft_gradient(hands, size)))
    return rows


def _hard(hands: CropHands, size: int) -> Callable[[], None]:
    views = CropViews(np.tile(np.eye(3), (BATCH, 1, 1)), hands.half_sides.numpy() * size / 2.0, size)
    cameras = [views[row].camera() for row in range(BATCH)]

    def draw() -> None:
        for vertices, camera in zip(hands.vertices.numpy(), cameras, strict=True):
            rasterise(vertices, hands.faces, camera)

    return draw


def _soft(hands: CropHands, size: int) -> Callable[[], None]:
    soft = SoftSilhouette(hands.faces, size)

    def draw() -> None:
        soft(hands.vertices, hands.half_sides)

    return draw


def _soft_gradient(hands: CropHands, size: int) -> Callable[[], None]:
    soft = SoftSilhouette(hands.faces, size)
    vertices, half_sides = hands.vertices.clone().requires_grad_(), hands.half_sides.clone().requires_grad_()
    # Another hand's silhouette, so that the gradient is nowhere zero by chance
    wanted = soft(hands.vertices.roll(1, 0), hands.half_sides)

    def draw() -> None:
        loss = (soft(vertices, half_sides) - wanted).square().sum()
        torch.autograd.grad(loss, (vertices, half_sides))

    return draw


def _row(name: str, size: int, draw: Callable[[], None]) -> dict[str, str | float]:
    draw()
    times = []
    for _ in range(_RUNS):
        begun = time.process_time()
        draw()
        times.append(time.process_time() - begun)
    return {'drawn': name, 'size': str(size), 'pictures a second': str(round(BATCH / np.median(times)))}


def main() -> None:
    """Entry point."""
    torch.set_num_threads(1)
    print(markdown(measured()))


if __name__ == '__main__':
    main()
