"""Writes a folder of rendered pictures with their truth, for detectors and whole pipelines to be measured on.

Run as ``python -m hand_mesh_ros.datasets.rendered_set --out DIR --count N [--covered SHARE]``, then
``hand-mesh eval DIR``. The same numbers are the same hands in the same places, whatever covers them; to tell
what covering costs, write one folder with ``--covered 0`` and others with more, and run
``hand-mesh eval DIR DIR --same-hands``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from hand_mesh_ros.datasets.synthetic import SyntheticHands
from hand_mesh_ros.errors import ConfigurationError

#: None that training, held-out hands, calibration, the residual bank or the test on crops have.
DEFAULT_SEED = 1_000_000_033

_PICTURE_PX = 320

#: A hand is so many times as large in its picture as in a crop, of which it fills about 0.7.
_ZOOM = 0.7


def write_rendered_set(folder: Path, hands: SyntheticHands, count: int, name: str) -> None:
    """Write hands 0 to ``count`` - 1 as ``index.json``, which ``read_index`` reads, and pictures beside it.

    :param name: of the data set, in tables.
    :raises ConfigurationError: a count below 1, or a folder that cannot be written to.
    """
    if count < 1:
        raise ConfigurationError(f'count must be at least 1, got {count}')
    samples = []
    try:
        (folder / 'pictures').mkdir(parents=True, exist_ok=True)
        for number in tqdm(range(count), unit='picture', disable=None):
            picture, keypoints, view = hands.picture(number, _ZOOM)
            path = f'pictures/{number:05d}.png'
            if not cv2.imwrite(str(folder / path), picture[..., ::-1]):
                raise ConfigurationError(f'{folder / path}: cannot be written')
            camera = view.camera()
            points = keypoints @ view.R_crop_camera.T
            samples.append(
                {
                    'id': f'{number:05d}',
                    'set': name,
                    'image': path,
                    'side': 'right',
                    'K': [camera.fx, camera.fy, camera.cx, camera.cy],
                    'j3d': np.round(points, 6).tolist(),
                }
            )
        (folder / 'index.json').write_text(json.dumps({'samples': samples}), encoding='utf-8')
    except OSError as error:
        raise ConfigurationError(f'{folder}: cannot be written: {error.strerror}') from error


def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description='Write rendered pictures of hands, with their truth.')
    parser.add_argument('--out', type=Path, required=True, help='folder to write')
    parser.add_argument('--count', type=int, default=500)
    parser.add_argument(
        '--covered',
        type=float,
        help='share of each hand that an object covers, 0 to 0.8; 0 shows the hand alone '
        '(default: things in hands, things in front of them, second hands, or nothing, as in training)',
    )
    parser.add_argument('--seed', type=int, default=DEFAULT_SEED)
    options = parser.parse_args(arguments)
    hands = SyntheticHands(options.seed, _PICTURE_PX, covered=options.covered)
    name = 'rendered' if options.covered is None else f'rendered-covered-{options.covered:g}'
    write_rendered_set(options.out, hands, options.count, name)


if __name__ == '__main__':
    main()
