"""What the cameras of one frame saw at one moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.errors import FrameError
from hand_mesh_ros.image import MAX_SIDE_PX, MIN_SIDE_PX, checked_rgb


@dataclass(frozen=True, eq=False)
class Observation:
    """An image, a mask, a depth image, or several of these, pixel on pixel, of one camera.

    :raises FrameError: one that is none, or not of the camera's size; or nothing at all.
    """

    camera: Camera
    image: np.ndarray | None = None  #: (H,W,3) uint8 RGB
    mask: np.ndarray | None = None  #: (H,W) bool or uint8: not 0 where a hand is
    depth_m: np.ndarray | None = None  #: (H,W) float32 metres; 0, negative or not finite: not measured

    def __post_init__(self) -> None:
        if self.image is None and self.mask is None and self.depth_m is None:
            raise FrameError('neither image nor mask nor depth')
        if self.image is not None:
            self._check_size('image', checked_rgb(self.image))
        if self.mask is not None:
            self._check_plane('mask', self.mask, 'bu')
        if self.depth_m is not None:
            self._check_plane('depth', self.depth_m, 'f')

    def _check_plane(self, name: str, plane: np.ndarray, kinds: str) -> None:
        if plane.ndim != 2 or plane.dtype.kind not in kinds:
            raise FrameError(f'{name} has shape {plane.shape} and type {plane.dtype}')
        self._check_size(name, plane)

    def _check_size(self, name: str, plane: np.ndarray) -> None:
        height, width = plane.shape[:2]
        if min(height, width) < MIN_SIDE_PX or max(height, width) > MAX_SIDE_PX:
            raise FrameError(
                f'{name} is {width}x{height}, a side may have {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels'
            )
        if (self.camera.width, self.camera.height) != (width, height):
            raise FrameError(
                f'{name} is {width}x{height}, its camera {self.camera.width}x{self.camera.height}'
            )
