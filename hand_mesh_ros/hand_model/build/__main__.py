"""Command line of the build: ``python -m hand_mesh_ros.hand_model.build --out FILE``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(
        prog='python -m hand_mesh_ros.hand_model.build',
        description="Make the open hand model, a right hand in MANO's schema, from public-domain body data.",
    )
    parser.add_argument('--out', type=Path, required=True, help='the .npz file to write')
    parser.add_argument('--seed', type=int, default=0, help='of all random draws (default: %(default)s)')
    arguments = parser.parse_args()
    try:
        from hand_mesh_ros.hand_model.build.open_hand import build_open_hand
    except ModuleNotFoundError as error:
        parser.error(f'{error}; install the dependencies of the build: pip install "hand_mesh_ros[build]"')

    start = time.monotonic()

    def progress(line: str) -> None:
        print(f'[{time.monotonic() - start:4.0f} s] {line}', flush=True)

    fields = build_open_hand(arguments.seed, progress)
    with arguments.out.open('wb') as file:
        np.savez_compressed(file, **fields)
    progress(f'wrote {arguments.out}, {arguments.out.stat().st_size / 1e6:.2f} MB')


if __name__ == '__main__':
    main()
