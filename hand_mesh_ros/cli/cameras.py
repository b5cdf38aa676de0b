"""Options that say which camera took a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from hand_mesh_ros.camera import DEFAULT_FOV_DEG, Camera
from hand_mesh_ros.cli.options import camera_numbers
from hand_mesh_ros.keyed_files import load_cameras


def add_camera_options(parser: argparse.ArgumentParser, pixels: str = 'in pixels of the picture') -> None:
    """Add ``--camera``, ``--cameras`` and ``--fov``; ``pixels`` says what the numbers of the file are in."""
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        '--camera', type=camera_numbers, metavar='FX,FY,CX,CY', help='intrinsics in pixels, of all pictures'
    )
    camera.add_argument(
        '--cameras',
        type=Path,
        metavar='FILE',
        help=f'JSON object: file name -> [fx, fy, cx, cy], {pixels}',
    )
    parser.add_argument(
        '--fov',
        type=float,
        default=DEFAULT_FOV_DEG,
        metavar='DEG',
        help='horizontal field of view guessed where no intrinsics are given (default: %(default)s)',
    )


class CameraChoice:
    """Which camera took a file: of --cameras, else --camera, else guessed from --fov."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Take the options of :func:`add_camera_options`.

        :raises CameraError: numbers that no camera has.
        :raises FileFormatError: --cameras is no such file.
        """
        self._numbers: tuple[float, ...] | None = arguments.camera
        self.by_file = load_cameras(arguments.cameras) if arguments.cameras else None
        self._fov_deg: float = arguments.fov
        # Bad numbers are told before any work.
        Camera.from_fov(640, 480, self._fov_deg)
        if self._numbers is not None:
            Camera(640, 480, *self._numbers)

    def __call__(self, file: Path, width: int, height: int) -> Camera:
        numbers = self._numbers if self.by_file is None else self.by_file.get(file)
        if numbers is None:
            return Camera.from_fov(width, height, self._fov_deg)
        fx, fy, cx, cy = numbers
        return Camera(width, height, fx, fy, cx, cy)
