"""Where along a limb the hand ends: how wide limbs are about their wrists, learned from rendered ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hand_mesh_ros.errors import FileFormatError
from hand_mesh_ros.segmentation.limbs import BIN_M, BINS, Limb

WRIST_FILE = Path(__file__).with_name('data') / 'wrist.npz'

#: Cuts that are looked at, in bins from the far end, and how many bins before and after each one count.
CUTS = np.arange(5, 36)
_BEFORE, _AFTER = 14, 8
assert CUTS[-1] + _AFTER <= BINS
#: Widths beyond these make no difference; and what makes each about 1.
_WIDEST = np.array([[0.15], [0.15], [0.07]])
_PER_M = np.array([[10.0], [10.0], [20.0]])

#: Less than this is seen of hardly any hand.
_LEAST_AREA_M2 = 0.0042

FEATURES = 3 * (_BEFORE + _AFTER) + 5

#: Never the best, but still a number.
_IMPOSSIBLE = -1e4


@dataclass(frozen=True)
class Cut:
    """Where one limb's hand ends."""

    along_m: float  #: from the limb's far end
    score: float  #: above 0 where the limb ends in a hand rather than not


@dataclass(frozen=True, eq=False)
class WristFinder:
    """One hidden layer over the widths around each possible cut."""

    mean: np.ndarray  #: (FEATURES,) float32, taken off first
    inner: np.ndarray  #: (FEATURES,K) float32
    inner_bias: np.ndarray  #: (K,) float32
    outer: np.ndarray  #: (K,) float32
    outer_bias: float

    def cut(self, limb: Limb) -> Cut:
        """The best place to cut ``limb``."""
        hidden = np.tanh((wrist_features(limb.widths) - self.mean) @ self.inner + self.inner_bias)
        scores = np.where(possible_cuts(limb), hidden @ self.outer + self.outer_bias, _IMPOSSIBLE)
        best = int(scores.argmax())
        along = float(CUTS[best])
        if 0 < best < len(CUTS) - 1 and min(scores[best - 1], scores[best + 1]) > _IMPOSSIBLE:
            before, at, after = scores[best - 1 : best + 2]
            # The top of the parabola through the three
            along += 0.5 * (before - after) / min(before - 2.0 * at + after, -1e-6)
        top = float(scores[best])
        return Cut(BIN_M * along, top + float(np.log(np.exp(scores - top).sum())))


def possible_cuts(limb: Limb) -> np.ndarray:
    """Which of ``CUTS`` (N,) bool that limb may have: not beyond its other end, nor through its fingers."""
    within = limb.reach_m + 0.5 * BIN_M >= CUTS * BIN_M
    within[0] = True
    large = within & (BIN_M * np.cumsum(limb.widths[1])[CUTS - 1] >= _LEAST_AREA_M2)
    return large if large.any() else within


def wrist_features(widths: np.ndarray) -> np.ndarray:
    """What counts of ``Limb.widths`` for each of ``CUTS``: (N,FEATURES) float32."""
    scaled = np.minimum(widths, _WIDEST) * _PER_M
    area = np.cumsum(scaled[1])[CUTS - 1] * 0.1 - 1.5
    padded = np.pad(scaled, ((0, 0), (_BEFORE, 0)))
    around = padded[:, CUTS[:, None] + np.arange(_BEFORE + _AFTER)].transpose(1, 0, 2)
    place = CUTS / 20.0 - 1.0
    features = [around.reshape(len(CUTS), -1), place, place**2, place**3, area, area**2]
    return np.column_stack(features).astype(np.float32)


@cache
def load_wrist_finder(path: Path = WRIST_FILE) -> WristFinder:
    """Read what ``python -m hand_mesh_ros.training.wrist_fit`` wrote.

    :raises FileFormatError: the file cannot be read, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean, inner, inner_bias, outer, outer_bias = (
                np.asarray(arrays[name], np.float32)
                for name in ('mean', 'inner', 'inner_bias', 'outer', 'outer_bias')
            )
        finder = WristFinder(mean, inner, inner_bias, outer, float(outer_bias))
    except (OSError, KeyError, ValueError, TypeError, BadZipFile) as error:
        raise FileFormatError(f'{path}: holds no readable wrist finder ({error})') from error
    hidden = len(finder.outer) if finder.outer.ndim == 1 else -1
    shapes = (FEATURES,), (FEATURES, hidden), (hidden,)
    if (finder.mean.shape, finder.inner.shape, finder.inner_bias.shape) != shapes:
        raise FileFormatError(f'{path}: is of another version; run hand_mesh_ros.training.wrist_fit again')
    return finder
