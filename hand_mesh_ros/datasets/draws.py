"""Random numbers for many samples at once, drawn one kind after another."""

from __future__ import annotations

import numpy as np

from hand_mesh_ros.datasets.counter_random import normals, uniforms

#: Seeds, purposes and calls are told apart by their place in the bits of one number.
_PURPOSE_BIT, _CALL_BIT = 56, 40


class Draws:
    """Numbers for the samples ``indices`` (N,). A sample's numbers depend on the seed, the purpose, its index
    and on how many calls came before, not on the other samples."""

    def __init__(self, seed: int, purpose: int, indices: np.ndarray) -> None:
        """``seed`` is 0 .. 2**40 - 1, ``purpose`` 1 .. 255: draws of different ones are unrelated."""
        self._seed = seed + (purpose << _PURPOSE_BIT)
        self._indices = indices
        self._calls = 0

    def uniform(self, *shape: int) -> np.ndarray:
        """Numbers (N,*shape) float64, uniform in (0, 1)."""
        numbers = uniforms(self._seed + (self._calls << _CALL_BIT), self._indices, int(np.prod(shape)))
        self._calls += 1
        return numbers.reshape(len(numbers), *shape)

    def between(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Numbers (N,*shape) float64, uniform in (low, high)."""
        return low + (high - low) * self.uniform(*shape)

    def normal(self, *shape: int) -> np.ndarray:
        """Numbers (N,*shape) float32, standard normal."""
        count = int(np.prod(shape))
        # Noise needs no more than single precision, which is had in half the time.
        numbers = normals(self.uniform(count + count % 2).astype(np.float32))[:, :count]
        return numbers.reshape(len(numbers), *shape)
