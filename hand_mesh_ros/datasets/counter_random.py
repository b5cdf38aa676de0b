"""Random numbers by number: any of them is had without drawing those before it.

Makes a data set's sample n a function of n alone, and thousands of samples at once cheap.
"""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniforms(seed: int, indices: np.ndarray, count: int) -> np.ndarray:
    """``count`` numbers (N,count) float64, uniform in (0, 1), for each of ``indices`` (N,) from 0.

    They are a hash of (seed, index, place): G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom
    Number Generators", 2014 (SplitMix64).
    """
    with np.errstate(over='ignore'):  # arithmetic modulo 2**64 is what is wanted
        key = _mixed(np.array([seed], np.uint64) * _GOLDEN + _GOLDEN)
        rows = _mixed(key + (np.asarray(indices, np.uint64) + np.uint64(1)) * _GOLDEN)
        bits = _mixed(rows[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normals(uniform: np.ndarray) -> np.ndarray:
    """Standard normal numbers (N,K) of uniform ones (N,K), K even (Box and Muller's transform)."""
    radius = np.sqrt(-2.0 * np.log(uniform[:, 0::2]))
    angle = 2.0 * np.pi * uniform[:, 1::2]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _mixed(bits: np.ndarray) -> np.ndarray:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
