"""How far away a hand is whose metres are a guess, read from the depth that was measured around it."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.reconstruction.surface_view import SurfaceView
from hand_mesh_ros.rendering.zbuffer import Raster

#: Fewer pixels than these say nothing of a hand.
LEAST_PIXELS = 20

#: A hand reaches over so much depth, metres, mostly.
_REACH = 0.12

#: How much sizes of hands, as far as pixels and depth tell them, differ from the mean; standard deviation of
#: the logarithm.
_SIZES_DIFFER = 0.2

#: A nearer surface is taken for the hand when it fits at least so well as a share of the best.
_NEARER_PREFERRED = 0.6

#: Share of the hand that must lie in the mask for it to be compared with depth pixel by pixel.
_OVERLAPPING = 0.3


def distance_ratio(view: SurfaceView, raster: Raster, length_share: float) -> float | None:
    """By how much farther away the hand is than it was drawn; None where depth does not tell.

    ``raster`` is the hand as ``view.camera`` sees it, ``length_share`` how long it is against the mean hand.
    Without a mask the hand is the nearest surface under its drawing that makes it a hand of plausible size.
    """
    measured = view.depth_m > 0.0
    if np.count_nonzero(raster.mask) < LEAST_PIXELS:
        return None
    if view.mask is None:
        return _unmasked_ratio(view, raster, measured & raster.mask, length_share)
    measured &= view.mask
    if np.count_nonzero(measured) < LEAST_PIXELS:
        return None
    both = measured & raster.mask
    if np.count_nonzero(both) > _OVERLAPPING * np.count_nonzero(raster.mask):
        return float(np.median(view.depth_m[both] / raster.depth[both]))
    return float(np.median(view.depth_m[measured]) / np.median(raster.depth[raster.mask]))


def _unmasked_ratio(
    view: SurfaceView, raster: Raster, known: np.ndarray, length_share: float
) -> float | None:
    if np.count_nonzero(known) < LEAST_PIXELS:
        return None
    depth, drawn = view.depth_m[known], raster.depth[known].astype(np.float64)
    order = np.argsort(depth)
    depth, drawn = depth[order], drawn[order]
    # A window of depths begins at each measurement
    ends = np.searchsorted(depth, depth + _REACH, side='right')
    counts = ends - np.arange(len(depth))
    size = np.log(length_share * (depth + 0.5 * _REACH) / np.median(drawn))
    fits = counts * np.exp(-0.5 * (size / _SIZES_DIFFER) ** 2)
    first = int(np.argmax(fits >= _NEARER_PREFERRED * fits.max()))
    first += int(np.argmax(fits[first : ends[first]]))
    chosen = slice(first, int(ends[first]))
    if counts[first] < LEAST_PIXELS:
        return None
    return float(np.median(depth[chosen] / drawn[chosen]))
