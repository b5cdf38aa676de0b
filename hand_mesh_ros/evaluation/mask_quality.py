"""How good the hand masks from depth are, and how fast: rendered scenes, as a depth camera has them.

Run as ``python -m hand_mesh_ros.evaluation.mask_quality [--frames N] [--seed S] [--worst OUT.png]``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.datasets.depth_scenes import DepthScene, DepthScenes
from hand_mesh_ros.detection.detection import HandBox
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.rendering.depth_camera import camera_depth
from hand_mesh_ros.segmentation import HandMasks, hand_masks

#: Scenes without hands, for each with one.
_EMPTY_SHARE = 0.5
_WORST = 12
_TRUE, _FOUND = (60, 220, 60), (60, 60, 255)


@dataclass(frozen=True)
class MaskQuality:
    """What was measured, of N frames with a hand and M without."""

    iou: np.ndarray  #: (N,) with the true mask, from depth alone
    iou_with_box: np.ndarray  #: (N,) given the box around the true mask
    iou_with_keypoints: np.ndarray  #: (N,) given the true keypoints
    missed: np.ndarray  #: (N,) bool: nothing was found from depth alone
    false_masks: np.ndarray  #: (M,) bool: something was
    seconds: np.ndarray  #: (N+M,) of a call from depth alone


def mask_quality(frames: int, seed: int, worst: Path | None = None) -> MaskQuality:
    """Measure on so many frames with a hand in them, and half as many without.

    :param worst: where to write a picture of the worst masks, or None.
    :raises ConfigurationError: there is nothing to measure on, or the picture cannot be written.
    """
    if frames < 1:
        raise ConfigurationError('masks can be measured on one frame or more')
    camera = Camera.from_fov(640, 480)
    scenes = DepthScenes(seed, camera)
    hand_masks(
        np.zeros((480, 640), np.float32), camera
    )  # what is compiled at the first call is no time of it
    rows, missed, seconds, tiles = [], [], [], []
    for number in range(frames):
        scene = scenes.with_hand(number)
        depth = camera_depth(scene.depth_m, camera, np.random.default_rng([seed, number, 2]))
        if number == 0:
            hand_masks(depth, camera)
        found, taken = _timed(depth, camera)
        seconds.append(taken)
        missed.append(not found.regions)
        guided = [
            hand_masks(depth, camera, boxes=[HandBox('right', _box_of(scene.mask))]),
            hand_masks(depth, camera, keypoints_px=[scene.keypoints_px]),
        ]
        rows.append([_iou(masks.mask > 0, scene.mask) for masks in (found, *guided)])
        if worst is not None:
            tiles.append(_tile(depth, scene, found, f'{number}: {rows[-1][0]:.2f}'))
    false_masks = []
    for number in range(int(_EMPTY_SHARE * frames)):
        scene = scenes.without_hand(number)
        depth = camera_depth(scene.depth_m, camera, np.random.default_rng([seed, number, 3]))
        found, taken = _timed(depth, camera)
        seconds.append(taken)
        false_masks.append(bool(found.regions))
        if worst is not None and found.regions:
            tiles.append(_tile(depth, scene, found, f'{number}: no hand'))
            rows.append([-1.0, 0.0, 0.0])
    if worst is not None:
        order = np.argsort([row[0] for row in rows], kind='stable')[:_WORST]
        _write_sheet(worst, [tiles[k] for k in order])
    iou = np.array(rows[:frames])
    alone, boxed, with_keypoints = iou.T
    return MaskQuality(
        alone, boxed, with_keypoints, np.array(missed), np.array(false_masks), np.array(seconds)
    )


def _timed(depth_m: np.ndarray, camera: Camera) -> tuple[HandMasks, float]:
    # Of this process alone: others on the machine would count else
    start = time.process_time()
    found = hand_masks(depth_m, camera)
    return found, time.process_time() - start


def _iou(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / max((found | true).sum(), 1))


def _box_of(mask: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(mask)
    if not len(ys):
        return np.zeros(4, np.float32)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)


def _tile(depth_m: np.ndarray, scene: DepthScene, found: HandMasks, text: str) -> np.ndarray:
    """Depth, the nearer the brighter, with the outlines of the true mask and of the one found."""
    grey = np.where(depth_m > 0, np.clip(1.4 - depth_m, 0.08, 1.0), 0.0) * 255.0
    tile = cv2.cvtColor(grey.astype(np.uint8), cv2.COLOR_GRAY2BGR)
    for mask, ink in ((scene.mask.astype(np.uint8), _TRUE), (found.mask, _FOUND)):
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(tile, outlines, -1, ink, 2)
    cv2.putText(tile, text, (8, 28), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
    return tile


def _write_sheet(path: Path, tiles: list[np.ndarray], columns: int = 4) -> None:
    tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    try:
        written = cv2.imwrite(str(path), np.vstack(rows))
    except cv2.error:  # a suffix that names no kind of picture
        written = False
    if not written:
        raise ConfigurationError(f'{path}: cannot be written as a picture; does its folder exist?')


def main() -> None:
    """Command line, see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=int, default=200)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--worst', type=Path, metavar='OUT.png', help='picture of the worst masks')
    options = parser.parse_args()
    cv2.setNumThreads(1)
    quality = mask_quality(options.frames, options.seed, options.worst)
    for name, values in (
        ('depth alone', quality.iou),
        ('with a box', quality.iou_with_box),
        ('with keypoints', quality.iou_with_keypoints),
    ):
        median, tenth = np.quantile(values, [0.5, 0.1])
        print(f'IoU {name:15} mean {values.mean():.3f}  median {median:.3f}  p10 {tenth:.3f}')
    print(f'no mask            {quality.missed.sum()} of {len(quality.missed)} frames with a hand')
    print(f'false masks        {quality.false_masks.sum()} of {len(quality.false_masks)} frames without')
    median, high = 1e3 * np.quantile(quality.seconds, [0.5, 0.95])
    print(f'time on one core   median {median:.1f} ms  p95 {high:.1f} ms')


if __name__ == '__main__':
    main()
