"""Times of stages, and what is told of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: Stages of all of a network by itself.
ONE_HAND, TWO_HANDS = 'network, one hand', 'network, two hands'


@dataclass(frozen=True)
class Row:
    """How long a stage takes, in milliseconds."""

    backend: str
    method: str
    stage: str
    median_ms: float
    p95_ms: float


class Times:
    """Milliseconds by stage, in the order in which stages came."""

    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = {}

    def add(self, stages_ms: Mapping[str, float]) -> None:
        """What one frame took."""
        for stage, spent in stages_ms.items():
            self.ms.setdefault(stage, []).append(spent)

    def median(self, stage: str) -> float:
        """Of a stage; NaN where there was none."""
        return float(np.median(self.ms[stage])) if self.ms.get(stage) else float('nan')

    def rows(self, backend: str, method: str) -> list[Row]:
        """One a stage."""
        return [
            Row(backend, method, stage, *(float(number) for number in np.percentile(spent, [50, 95])))
            for stage, spent in self.ms.items()
        ]


def alternately(work: Mapping[str, Callable[[], object]], warm_up: int, repeats: int) -> Times:
    """Each stage ``repeats`` times, taking turns, so that what else the machine does hurts all alike."""
    times = Times()
    for number in range(warm_up + repeats):
        for stage, run in work.items():
            start = time.perf_counter()
            run()
            if number >= warm_up:
                times.add({stage: 1e3 * (time.perf_counter() - start)})
    return times


def ratio(above: float, below: float) -> float | None:
    """None where one of them is not known."""
    quotient = above / below if below else float('nan')
    return None if np.isnan(quotient) else float(quotient)


def median_of_sum(times: Times, stages: Sequence[str]) -> float | None:
    """Median, over frames, of what some stages take together; None where one is missing."""
    if not all(times.ms.get(stage) for stage in stages):
        return None
    return float(np.median(np.sum([times.ms[stage] for stage in stages], axis=0)))
