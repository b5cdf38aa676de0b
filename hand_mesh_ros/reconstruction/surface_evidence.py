"""What holds or moves a hand that is laid onto its measured surface: linear equations of its parameters.

All residuals are in metres before they are weighted: pixels count by what they are worth at the hand's
distance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hand_mesh_ros.hand_model.vertex_kinematics import COLUMNS, MovingHand
from hand_mesh_ros.reconstruction.surface_view import SurfaceView, nearest_in
from hand_mesh_ros.rendering.zbuffer import Raster

#: Surface points of one kind that are looked at.
_SAMPLES = 300

#: As many independent measurements as all pixels of a hand count: neighbours say and err the same.
_WORTH = 300.0

#: How well depth and outlines tell where the surface is, metres: the model is not quite the hand's.
_DEPTH_SIGMA, _OUTLINE_SIGMA = 0.004, 0.004

#: What is measured so much nearer than the hand covers it, and so much farther lies behind it; metres.
_COVERING, _BEHIND = 0.02, 0.02

#: What is measured so near to the hand's surface, metres, is its own.
_OWN = 0.015

#: Of a hand at least that share is, within its mask and where nothing tells what is hand.
_LEAST_OWN_MASKED, _LEAST_OWN = 0.25, 0.45

#: Without a mask, a plane so much nearer to what was measured is what is there, not the hand.
_FLATTER = 0.6

#: Slope of the measured surface, as a cosine, below which depth says nothing.
_LEAST_FACING = 0.2

#: Outlines further apart than this, metres, are not of the same thing.
_OUTLINES_APART = 0.04


class Equations(NamedTuple):
    """Residuals, which are to be 0, and how they change with the parameters (see ``vertex_kinematics``)."""

    residuals: np.ndarray  #: (N,), weighted
    rates: np.ndarray  #: (N,52), weighted

    @staticmethod
    def of(residuals: np.ndarray, rates: np.ndarray, weights: np.ndarray) -> Equations:
        scale = np.sqrt(weights)
        return Equations(residuals * scale, rates * scale[:, None])


NOTHING = Equations(np.zeros(0), np.zeros((0, COLUMNS)))


class _SurfacePoints(NamedTuple):
    corners: np.ndarray  # (N,3) vertices
    shares: np.ndarray  # (N,3)
    positions: np.ndarray  # (N,3)


def surface_points(hand: MovingHand, faces: np.ndarray, raster: Raster, pixels: np.ndarray) -> _SurfacePoints:
    """Points of the mesh that are seen at ``pixels`` (N,) of the raster, numbered row by row."""
    corners = faces[raster.face_index.ravel()[pixels]]
    shares = raster.barycentrics.reshape(-1, 3)[pixels].astype(np.float64)
    return _SurfacePoints(corners, shares, np.einsum('nk,nkc->nc', shares, hand.vertices[corners]))


def _measured(hand: MovingHand, faces: np.ndarray, raster: Raster, view: SurfaceView) -> np.ndarray:
    """Pixels (H,W) bool at which depth was measured and the outside of the hand is drawn.

    The mesh is open at the wrist, where from behind its inside is drawn and an arm is seen.
    """
    a, b, c = (hand.vertices[corner] for corner in faces.T)
    outside = np.einsum('fc,fc->f', np.cross(b - a, c - a), a) < 0.0
    known = raster.mask & (view.depth_m > 0.0) & outside[raster.face_index]
    return known if view.mask is None else known & view.mask


def depth_equations(
    hand: MovingHand, faces: np.ndarray, raster: Raster, view: SurfaceView, outlier_m: float
) -> Equations:
    """The visible surface is where depth was measured, along the normals of the mesh.

    Differences beyond ``outlier_m`` are taken for something else's.
    """
    pixels, each = _some(_measured(hand, faces, raster, view))
    if not len(pixels):
        return NOTHING
    points = surface_points(hand, faces, raster, pixels)
    corners = hand.vertices[points.corners]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    rays = np.column_stack([view.rays.reshape(-1, 2)[pixels], np.ones(len(pixels))])
    facing = np.einsum('nc,nc->n', normals, rays)
    gap = points.positions[:, 2] - view.depth_m.ravel()[pixels]
    trust = 1.0 / (1.0 + (gap / outlier_m) ** 2) ** 2
    trust *= np.abs(facing) > _LEAST_FACING
    weights = trust * each * (_WORTH / np.count_nonzero(raster.mask)) / _DEPTH_SIGMA**2
    rates = hand.rates(points.corners, points.shares, normals)
    return Equations.of(gap * facing, rates, weights)


class Silhouette:
    """Where hand is seen in a view."""

    def __init__(self, view: SurfaceView, seen: np.ndarray, kept: np.ndarray) -> None:
        """``seen`` (H,W) bool: the hand's pixels, perhaps with others of an arm.

        ``kept`` (F,) bool: faces that are drawn to pixels of the hand that none covers. Those at the wrist
        are not: an arm is no hand.
        """
        self._view, self._seen, self._kept = view, seen, kept
        self._nearest_seen = nearest_in(seen)[0].ravel() if seen.any() else None

    def equations(self, hand: MovingHand, faces: np.ndarray, raster: Raster) -> Equations:
        """The mesh covers what is hand, and nothing that is known not to be."""
        if self._nearest_seen is None:
            return NOTHING
        view = self._view
        gap = np.where(view.depth_m > 0.0, raster.depth - view.depth_m, 0.0)
        spilt = raster.mask & view.inside & ~self._seen & (gap < _COVERING)
        if view.mask is None:
            spilt &= gap < -_BEHIND
        spilling, each = _some(spilt)

        drawn, distance = nearest_in(raster.mask)
        per_pixel = np.median(raster.depth[raster.mask]) / view.focal_px
        apart = np.where(view.depth_m > 0.0, raster.depth.ravel()[drawn] - view.depth_m, 0.0)
        bare = self._seen & ~raster.mask & (np.abs(apart) < _OUTLINES_APART)
        bare &= (distance * per_pixel < 2.0 * _OUTLINES_APART) & self._kept[raster.face_index.ravel()[drawn]]
        baring, each_bare = _some(bare)

        points = surface_points(hand, faces, raster, np.append(spilling, drawn.ravel()[baring]))
        wanted = view.rays.reshape(-1, 2)[np.append(self._nearest_seen[spilling], baring)]
        weights = np.repeat([each, each_bare], [len(spilling), len(baring)])
        return _along_image(hand, points, wanted, weights * _WORTH / np.count_nonzero(raster.mask))


def _along_image(
    hand: MovingHand, points: _SurfacePoints, wanted: np.ndarray, weights: np.ndarray
) -> Equations:
    """Points of the mesh appear along the rays ``wanted`` (N,2)."""
    depth = points.positions[:, 2]
    rays = points.positions[:, :2] / depth[:, None]
    away = rays - wanted
    distance = np.linalg.norm(away, axis=1)
    across = away / np.maximum(distance, 1e-12)[:, None]
    directions = np.column_stack([across, -np.einsum('nc,nc->n', across, rays)])
    residuals = distance * depth
    trust = 1.0 / (1.0 + (residuals / _OUTLINES_APART) ** 2) ** 2
    rates = hand.rates(points.corners, points.shares, directions)
    return Equations.of(residuals, rates, weights * trust / _OUTLINE_SIGMA**2)


def keypoint_equations(hand: MovingHand, wanted: np.ndarray, sigma: float, trusted: np.ndarray) -> Equations:
    """The keypoints appear along the rays ``wanted`` (21,2), to within a slope of ``sigma``.

    ``trusted`` (21,) are their weights; those far off count less.
    """
    depth = hand.keypoints[:, 2]
    rays = hand.keypoints[:, :2] / depth[:, None]
    away = rays - wanted
    squared = np.einsum('nc,nc->n', away, away) / sigma**2
    weights = np.repeat(trusted / (1.0 + squared / 9.0) ** 2 / sigma**2 / depth**2, 2)
    numbers = np.repeat(len(hand.vertices) + np.arange(21), 2)[:, None]
    directions = np.zeros((21, 2, 3))
    directions[:, 0, 0] = directions[:, 1, 1] = 1.0
    directions[:, :, 2] = -rays
    rates = hand.rates(numbers, np.ones((42, 1)), directions.reshape(-1, 3))
    return Equations.of((away * depth[:, None]).ravel(), rates, weights)


def _some(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Numbers of evenly chosen pixels (H,W) bool, and for how many each stands."""
    numbers = np.flatnonzero(pixels)
    step = max(1, -(-len(numbers) // _SAMPLES))
    return numbers[step // 2 :: step], float(step)


def explains(hand: MovingHand, faces: np.ndarray, raster: Raster, view: SurfaceView) -> bool:
    """Whether what was measured where the hand was drawn is its surface.

    Where no mask says so, a plane must not say it better: something large may stand before the hand.
    """
    pixels, _ = _some(_measured(hand, faces, raster, view))
    if not len(pixels):
        return False
    depth = view.depth_m.ravel()[pixels]
    gap = np.abs(raster.depth.ravel()[pixels] - depth)
    if np.mean(gap < _OWN) < (_LEAST_OWN if view.mask is None else _LEAST_OWN_MASKED):
        return False
    if view.mask is not None:
        return True
    flat = np.abs(_nearest_plane(view.rays.reshape(-1, 2)[pixels], depth) - depth)
    return bool(np.minimum(flat, _OWN).mean() > _FLATTER * np.minimum(gap, _OWN).mean())


def _nearest_plane(rays: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Depths (N,) along ``rays`` (N,2) of the plane that most of the measured ``depth`` (N,) are near to."""
    # On a plane the inverse of depth is linear in the rays
    rows = np.column_stack([rays, np.ones(len(rays))])
    weights = np.ones(len(rays))
    found = depth
    for _ in range(5):
        inverse = rows @ np.linalg.lstsq(rows * weights[:, None], weights / depth, rcond=None)[0]
        found = 1.0 / np.maximum(inverse, 1e-3)
        weights = 1.0 / (1.0 + ((found - depth) / _OWN) ** 2)
    return found
