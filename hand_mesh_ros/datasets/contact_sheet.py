"""A picture of many synthetic samples, to look at.

Run as ``python -m hand_mesh_ros.datasets.contact_sheet OUT.png``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from hand_mesh_ros.datasets.synthetic import SyntheticHands, SyntheticSample
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.hand_model.keypoints import KEYPOINT_PARENTS

_ZOOM = 2
_BONE, _SEEN, _HIDDEN, _CUE = (255, 255, 255), (40, 230, 60), (240, 50, 50), (60, 140, 255)


def write_contact_sheet(path: Path, hands: SyntheticHands, indices: np.ndarray, columns: int = 8) -> None:
    """Write the samples ``indices`` (N,), row by row, as one picture.

    On every second one the true keypoints are drawn, green where they are visible and red where they are
    not, and those of the cue in blue.

    :raises ConfigurationError: there is nothing to draw, or the file cannot be written.
    """
    if not len(indices):
        raise ConfigurationError('a contact sheet needs at least one sample')
    tiles = []
    for place, index in enumerate(indices):
        sample = hands.sample(int(index))
        size = _ZOOM * len(sample.image)
        tile = cv2.resize(sample.image, (size, size), interpolation=cv2.INTER_CUBIC)
        if place % 2:
            _draw_keypoints(tile, sample)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    sheet = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    try:
        written = cv2.imwrite(str(path), sheet)
    except cv2.error:  # a suffix that names no kind of picture
        written = False
    if not written:
        raise ConfigurationError(f'{path}: cannot be written as a picture; does its folder exist?')


def _draw_keypoints(tile: np.ndarray, sample: SyntheticSample) -> None:
    true = _on_tile(sample.keypoints_2d)
    for keypoint, parent in enumerate(KEYPOINT_PARENTS):
        if parent >= 0:
            cv2.line(tile, true[parent], true[keypoint], _BONE, 1, cv2.LINE_AA)
    for point, visible in zip(true, sample.visible, strict=True):
        cv2.circle(tile, point, 3, _SEEN if visible else _HIDDEN, cv2.FILLED, cv2.LINE_AA)
    size = len(sample.image)
    cues = _on_tile(sample.cue_keypoints * (size / 2.0) + (size - 1) / 2.0)
    for point, confidence in zip(cues, sample.cue_confidence, strict=True):
        if confidence > 0:
            cv2.circle(tile, point, 2, _CUE, 1, cv2.LINE_AA)


def _on_tile(pixels: np.ndarray) -> list[tuple[int, int]]:
    return [(round(float(x)), round(float(y))) for x, y in (pixels + 0.5) * _ZOOM - 0.5]


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description='Write a contact sheet of synthetic hands.')
    parser.add_argument('path', type=Path, help='the picture to write, e.g. sheet.png')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--first', type=int, default=0, help='number of the first sample')
    parser.add_argument('--count', type=int, default=64)
    parser.add_argument('--size', type=int, default=128, help='side of a crop in pixels')
    options = parser.parse_args(arguments)
    hands = SyntheticHands(options.seed, options.size)
    write_contact_sheet(options.path, hands, options.first + np.arange(options.count))


if __name__ == '__main__':
    main()
