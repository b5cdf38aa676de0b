"""What ``hand-mesh run`` looks at: frames, with the masks and depth images that belong to them."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hand_mesh_ros.depth_files import DEPTH_SUFFIXES, MASK_SUFFIXES, CompanionFiles, read_depth, read_mask
from hand_mesh_ros.errors import ConfigurationError
from hand_mesh_ros.reconstruction import MASK_METHODS
from hand_mesh_ros.sources import Frame, is_video, list_sources, read_frames

#: What a mask is drawn with when it is the picture: not white, which would hide what is drawn over it.
_MASK_GREY = 160

#: The nearest and the farthest depth as grey, and which percentiles they are.
_NEAR_GREY, _FAR_GREY, _DEPTH_RANGE = 230.0, 40.0, (1.0, 95.0)


@dataclass(frozen=True, eq=False)
class Look:
    """One frame as the estimator takes it."""

    frame: Frame  #: without an image file, its image is a grey picture of the mask or the depth
    mask: np.ndarray | None  #: (H,W) bool
    depth_m: np.ndarray | None  #: (H,W) float32 metres, 0 for none
    read_ms: float  #: how long reading all of it took


class Frames:
    """The sources that a command names, and the folders of masks and depth images beside them."""

    def __init__(self, arguments: argparse.Namespace, outputs: Collection[Path]) -> None:
        """List the files.

        :param arguments: has ``sources``, ``masks``, ``depth`` and ``method``.
        :param outputs: folders that will be written to.
        :raises ConfigurationError: sources that are not there, or options that do not go together.
        """
        folders: list[Path] = [folder for folder in (arguments.masks, arguments.depth) if folder is not None]
        self._of_masks: bool = arguments.method in MASK_METHODS
        if self._of_masks and not folders:
            raise ConfigurationError(f'method {arguments.method} needs --masks DIR or --depth DIR')
        if arguments.masks and not arguments.depth and not self._of_masks:
            raise ConfigurationError(
                f'--masks is for --method mask2hand, or goes with --depth; the method is {arguments.method}'
            )
        if arguments.depth and not (arguments.camera or arguments.cameras):
            raise ConfigurationError('--depth needs the intrinsics of its camera: --camera or --cameras')
        self._masks = CompanionFiles(arguments.masks, MASK_SUFFIXES, outputs) if arguments.masks else None
        self._depth = CompanionFiles(arguments.depth, DEPTH_SUFFIXES, outputs) if arguments.depth else None
        self._folders = {'mask': arguments.masks, 'depth image': arguments.depth}
        self._missing: Counter[str] = Counter()
        #: whether the files are masks or depth images themselves
        self._alone = not arguments.sources
        if not self._alone:
            left_out = [folder for folder in folders if not _holds_any(folder, arguments.sources)]
            self.files = list_sources(arguments.sources, [*outputs, *left_out])
        elif self._of_masks:
            companions = self._masks or self._depth
            assert companions is not None
            self.files = companions.files
        else:
            raise ConfigurationError(f'method {arguments.method} needs a SOURCE: image, video or folder')

    def of(self, file: Path) -> Iterator[Look]:
        """The frames of one of ``files``, in order.

        :raises FileFormatError: a file that cannot be read, or an image without a mask where the method needs
            one; frames of a video that have none show no hands.
        """
        start = time.perf_counter()
        if self._alone:
            mask, depth_m = self._companions(file, 0)
            frame = Frame(file, 0, 0.0, _picture(mask, depth_m))
            yield Look(frame, mask, depth_m, 1e3 * (time.perf_counter() - start))
            return
        for frame in read_frames(file):
            mask, depth_m = self._companions(file, frame.index)
            if self._of_masks and mask is None and depth_m is None:  # of a video: its other frames may have
                mask = np.zeros(frame.image.shape[:2], bool)
            yield Look(frame, mask, depth_m, 1e3 * (time.perf_counter() - start))
            start = time.perf_counter()

    def report(self) -> None:
        """Print how many frames lacked a mask or a depth image."""
        for kind, count in self._missing.items():
            if count:
                print(f'{count} frames have no {kind} in {self._folders[kind]}')

    def _companions(self, file: Path, index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        mask_file = None if self._masks is None else self._masks.find(file, index)
        depth_file = None if self._depth is None else self._depth.find(file, index)
        if self._of_masks and mask_file is None and depth_file is None and not is_video(file):
            for companions in (self._masks, self._depth):
                if companions is not None:
                    companions.of(file, index)  # raises, and says what is missing
        self._missing['mask'] += self._masks is not None and mask_file is None
        self._missing['depth image'] += self._depth is not None and depth_file is None
        return (
            None if mask_file is None else read_mask(mask_file),
            None if depth_file is None else read_depth(depth_file),
        )


def _holds_any(folder: Path, paths: Collection[Path]) -> bool:
    return any(path.resolve().is_relative_to(folder.resolve()) for path in paths)


def _picture(mask: np.ndarray | None, depth_m: np.ndarray | None) -> np.ndarray:
    """A picture (H,W,3) uint8 of what was measured, the near being bright; else of the mask."""
    if depth_m is None:
        assert mask is not None
        grey = np.where(mask, _MASK_GREY, 0).astype(np.uint8)
    else:
        measured = depth_m[depth_m > 0.0]
        nearest, farthest = np.percentile(measured, _DEPTH_RANGE) if measured.size else (0.0, 1.0)
        share = (depth_m - nearest) / max(farthest - nearest, 1e-3)
        brightness = _NEAR_GREY + (_FAR_GREY - _NEAR_GREY) * np.clip(share, 0.0, 1.0)
        grey = np.where(depth_m > 0.0, brightness, 0.0).astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
