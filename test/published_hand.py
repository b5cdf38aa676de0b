"""A hand that is known, its pictures and its ground truth, to write data sets of and to know it again.

Every picture shows the hand's keypoints as dots, each of its own brightness, so that order, axes and
intrinsics are checked against the picture too.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.annotated import AnnotatedHand
from hand_mesh_ros.hand import Side
from hand_mesh_ros.hand_model.files import load_hand_model
from hand_mesh_ros.hand_model.model import PosedHand
from hand_mesh_ros.sources import read_image

SMALL = Camera(224, 224, 480.0, 470.0, 110.0, 114.0)
WIDE = Camera(640, 480, 613.0, 612.0, 313.0, 245.0)


def hand_at(x: float, z: float, side: Side = 'right') -> PosedHand:
    """An open hand with its palm to the camera, ``z`` metres before it."""
    model = load_hand_model(side=side)
    orient = np.array([np.pi / 2, 0.0, 0.0])
    return model.posed(orient, np.zeros(45), np.zeros(10), np.array([x, 0.0, z]))


HANDS = [hand_at(-0.02, 0.65), hand_at(0.01, 0.75)]


def brightness(keypoint: int) -> int:
    return 40 + 10 * keypoint


def pixels(points: np.ndarray, camera: Camera) -> np.ndarray:
    return points[:, :2] / points[:, 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)


def write_picture(path: Path, points: np.ndarray | None, camera: Camera) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    if points is not None:
        for number, pixel in enumerate(pixels(points, camera)):
            cv2.circle(image, np.rint(pixel).astype(int).tolist(), 3, [brightness(number)] * 3, -1)
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 100])


def write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document), encoding='utf-8')


def check(hand: AnnotatedHand, truth: PosedHand, camera: Camera, vertices: bool = True) -> None:
    """Everything that is annotated is the true hand's, and the picture shows it there."""
    assert hand.intrinsics == (camera.fx, camera.fy, camera.cx, camera.cy)
    assert hand.keypoints_3d is not None and hand.keypoints_2d is not None
    np.testing.assert_allclose(hand.keypoints_3d, truth.keypoints, atol=1e-6)
    np.testing.assert_allclose(hand.keypoints_2d, pixels(truth.keypoints, camera), atol=1e-2)
    assert hand.visible.all()
    if vertices:
        assert hand.vertices is not None
        np.testing.assert_allclose(hand.vertices, truth.vertices, atol=1e-6)
    else:
        assert hand.vertices is None
    image = read_image(hand.image)
    assert image.shape == (camera.height, camera.width, 3)
    columns, rows = np.rint(hand.keypoints_2d).astype(int).T
    shown = image[rows, columns].mean(axis=1)
    np.testing.assert_allclose(shown, [brightness(number) for number in range(21)], atol=4)


class Malice:
    """Makes the folder ``victim`` when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.victim),)
