"""How long the stages of a piece of work take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class StageClock:
    """Adds up the time of stages that may come again."""

    def __init__(self, *stages: str) -> None:
        """Begin, with no time spent in each of ``stages``."""
        self.ms: dict[str, float] = dict.fromkeys(stages, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """What is done under it counts for ``stage``, whether it succeeds or not."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.ms[stage] = self.ms.get(stage, 0.0) + 1e3 * (time.perf_counter() - start)

    def add(self, ms: Mapping[str, float]) -> None:
        """What others measured of stages counts too."""
        for stage, more in ms.items():
            self.ms[stage] = self.ms.get(stage, 0.0) + more
