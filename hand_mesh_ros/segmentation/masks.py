"""Masks of the hands in one depth image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hand_mesh_ros.camera import Camera
from hand_mesh_ros.detection.detection import HandBox
from hand_mesh_ros.errors import ConfigurationError, FrameError
from hand_mesh_ros.hand import Side
from hand_mesh_ros.segmentation.guided import hand_at_keypoints, surface_in_box
from hand_mesh_ros.segmentation.limbs import Limb, limbs_of
from hand_mesh_ros.segmentation.pieces import Part, with_pieces
from hand_mesh_ros.segmentation.refine import full_mask
from hand_mesh_ros.segmentation.surfaces import Surfaces, find_surfaces, hidden_share
from hand_mesh_ros.segmentation.wrist import load_wrist_finder

#: Of the area that is seen of a hand, in square metres, and of its largest circle's radius, in metres.
_HAND_AREAS_M2, _HAND_RADII_M = (0.0018, 0.028), (0.009, 0.065)
#: Of a hand's outline, how much may be hidden by something nearer; what is seen through gaps has more.
#: And of the outline of its far end, so many metres of it: an arm behind its own hand ends there.
_MOST_HIDDEN, _MOST_HIDDEN_END, _END_M = 0.4, 0.5, 0.03
#: Of ends of limbs that are scored so, few are no hands.
_LEAST_SCORE = -1.0
#: A hand that was cut off at its wrist is no less of what the box shows of its surface; limbs tried for that.
_LEAST_BOX_SHARE, _LIMBS_IN_BOX = 0.5, 4
#: No more surfaces than so many are looked at, nearest first.
_MOST_SURFACES = 8
#: How near a surface is: so many hundredths of its pixels are nearer.
_NEAREST_PERCENT = 5


@dataclass(frozen=True)
class MaskSettings:
    """Where hands are sought."""

    min_depth_m: float = 0.15
    max_depth_m: float = 1.2
    max_hands: int = 2

    def __post_init__(self) -> None:
        if not 0.0 < self.min_depth_m < self.max_depth_m < math.inf:
            raise ConfigurationError(
                f'min_depth_m {self.min_depth_m} and max_depth_m {self.max_depth_m} must be a range of depths'
            )
        if self.max_hands < 1:
            raise ConfigurationError(f'max_hands must be at least 1, got {self.max_hands}')


@dataclass(frozen=True)
class HandRegion:
    """One hand of a mask."""

    bbox_px: np.ndarray  #: (4,) float32: x0, y0, x1, y1 in pixels
    depth_m: float  #: median
    side: Side | None  #: as the box says that it was sought in
    pixels: int


@dataclass(frozen=True)
class HandMasks:
    """What was found in one depth image."""

    mask: np.ndarray  #: (H,W) uint8: 255 on hands, without their arms, else 0
    regions: tuple[HandRegion, ...]  #: nearest first; in the order of the boxes or keypoints, if given


def hand_masks(
    depth_m: np.ndarray,
    camera: Camera,
    settings: MaskSettings | None = None,
    boxes: Sequence[HandBox] | None = None,
    keypoints_px: Sequence[np.ndarray] | None = None,
) -> HandMasks:
    """Hands in a depth image, each cut off at the wrist where the hand model ends.

    With ``keypoints_px``, or else with ``boxes``, only hands that these show are sought, and one of which
    the depth shows no hand has no region. Else what reaches out of a body or out of the picture's border and
    ends like a hand is one. There is no network in this; a thing of a hand's size and shape is taken for one.

    :param depth_m: (H,W) float, metres along the optical axis; NaN, infinite, 0 and negative for nothing.
    :param settings: None for the default ones.
    :param boxes: of hands, as a detector gave them.
    :param keypoints_px: of each hand (21,2) pixels, in the 21-keypoint order; with ``boxes`` as many.
    :raises FrameError: the image is not of the camera's size.
    """
    settings = settings or MaskSettings()
    depth = np.ascontiguousarray(depth_m, np.float32)
    if depth.shape != (camera.height, camera.width):
        raise FrameError(f'depth is {depth.shape}, the camera {(camera.height, camera.width)}')
    if keypoints_px is not None and boxes is not None and len(keypoints_px) != len(boxes):
        raise FrameError(f'{len(keypoints_px)} hands have keypoints, {len(boxes)} have boxes')
    sides = [box.side for box in boxes] if boxes is not None else []
    if keypoints_px is not None:
        surfaces = find_surfaces(depth, camera, settings.min_depth_m, settings.max_depth_m)
        found = [hand_at_keypoints(surfaces, np.asarray(hand, np.float64)) for hand in keypoints_px]
    elif boxes is not None:
        surfaces = find_surfaces(depth, camera, settings.min_depth_m, settings.max_depth_m)
        found = [_hand_in_box(surfaces, box.bbox_px) for box in boxes]
    else:
        surfaces, groups = limb_choices(depth, camera, settings)
        hands = [hand for group in groups if (hand := _hand_of(surfaces, group)) is not None]
        depths = [float(np.median(surfaces.depth_m[window][hand])) for hand, window in hands]
        nearest = [k for k in np.argsort(depths) if depths[k] <= settings.max_depth_m]
        found = [hands[k] for k in nearest[: settings.max_hands]]
    return _painted(depth, surfaces, found, sides or [None] * len(found))


def limb_choices(
    depth_m: np.ndarray, camera: Camera, settings: MaskSettings
) -> tuple[Surfaces, list[list[Limb]]]:
    """Surfaces, and for everything that may end in a hand the limbs that it may be."""
    surfaces = find_surfaces(depth_m, camera, settings.min_depth_m, settings.max_depth_m)
    groups = []
    for label in _nearest_first(surfaces):
        groups += limbs_of(surfaces, label, settings.max_hands)
    return surfaces, groups


def _nearest_first(surfaces: Surfaces) -> list[int]:
    """Surfaces that are large enough for a hand."""
    near = []
    for label in range(1, len(surfaces.sizes)):
        x0, y0, x1, y1, pixels = surfaces.sizes[label]
        # Of the nearest that there can be in the window, to be quick
        if pixels < 24:
            continue
        window = np.s_[y0:y1, x0:x1]
        own = surfaces.label[window] == label
        depths = surfaces.depth_m[window][own]
        if float((surfaces.pitch[window][own] ** 2).sum()) >= _HAND_AREAS_M2[0]:
            k = len(depths) * _NEAREST_PERCENT // 100
            near.append((float(np.partition(depths, k)[k]), label))
    return [label for _, label in sorted(near)[:_MOST_SURFACES]]


def _hand_of(surfaces: Surfaces, choices: Sequence[Limb]) -> Part | None:
    """The hand at the end of a limb, or of the likeliest of what it may be."""
    cuts = [load_wrist_finder().cut(limb) for limb in choices]
    for limb, cut in sorted(zip(choices, cuts, strict=True), key=lambda pair: -pair[1].score):
        hand = limb.along_m < cut.along_m
        if cut.score < _LEAST_SCORE or not _is_hand_like(surfaces, limb.window, hand):
            continue
        if _hidden(surfaces, limb.window, limb.along_m < _END_M) <= _MOST_HIDDEN_END:
            return with_pieces(surfaces, (hand, limb.window))
    return None


def _is_hand_like(surfaces: Surfaces, window: tuple[slice, slice], hand: np.ndarray) -> bool:
    if not hand.any():
        return False
    area = float((surfaces.pitch[window][hand] ** 2).sum())
    radius = float(surfaces.radius_m[window][hand].max())
    if (
        not _HAND_AREAS_M2[0] <= area <= _HAND_AREAS_M2[1]
        or not _HAND_RADII_M[0] <= radius <= _HAND_RADII_M[1]
    ):
        return False
    return _hidden(surfaces, window, hand) <= _MOST_HIDDEN


def _hidden(surfaces: Surfaces, window: tuple[slice, slice], part: np.ndarray) -> float:
    return float(hidden_share(surfaces.depth_m, surfaces.label, part, window[0].start, window[1].start))


def _hand_in_box(surfaces: Surfaces, bbox_px: np.ndarray) -> Part | None:
    place = surface_in_box(surfaces, bbox_px)
    if place is None:
        return None
    label, inside = place
    everything = slice(0, inside.shape[0]), slice(0, inside.shape[1])
    surface = inside & (surfaces.label == label)
    best: Part = surface, everything
    most = _LEAST_BOX_SHARE * surface.sum()
    # The box says which end it is
    for limb in (limb for group in limbs_of(surfaces, label, _LIMBS_IN_BOX) for limb in group):
        hand = (limb.along_m < load_wrist_finder().cut(limb).along_m) & inside[limb.window]
        if hand.sum() > most:
            best, most = (hand, limb.window), hand.sum()
    if not _is_hand_like(surfaces, best[1], best[0]):
        return None
    return with_pieces(surfaces, best)


def _painted(
    depth_m: np.ndarray,
    surfaces: Surfaces,
    found: Sequence[Part | None],
    sides: Sequence[Side | None],
) -> HandMasks:
    mask = np.zeros(depth_m.shape, np.uint8)
    regions = []
    for hand, side in zip(found, sides, strict=True):
        if hand is None:
            continue
        own, (rows, columns) = full_mask(*hand, surfaces, depth_m)
        ys, xs = np.nonzero(own)
        if not len(ys):
            continue
        mask[rows, columns] |= own
        measured = depth_m[rows, columns][ys, xs]
        measured = measured[(measured > 0) & (measured < np.inf)]
        box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32)
        box += np.array([columns.start, rows.start] * 2, np.float32)
        regions.append(HandRegion(box, float(np.median(measured)), side, len(ys)))
    return HandMasks(mask, tuple(regions))
