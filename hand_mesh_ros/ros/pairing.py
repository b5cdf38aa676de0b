"""Two streams of messages, one of each with the same stamp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

A = TypeVar('A')
B = TypeVar('B')

#: Seconds and nanoseconds of a header.
Stamp = tuple[int, int]


class StampPairing(Generic[A, B]):
    """Calls ``paired`` for every A and B of equal stamps, whichever comes first.

    At most ``capacity`` of each kind wait for their other half; of more, the one that came first is
    given up, an A to ``unpaired``. Stamps may jump back, as those of a bag that starts again do.
    """

    def __init__(self, capacity: int, paired: Callable[[A, B], None], unpaired: Callable[[A], None]) -> None:
        self._capacity = capacity
        self._paired = paired
        self._unpaired = unpaired
        self._waiting_a: dict[Stamp, A] = {}
        self._waiting_b: dict[Stamp, B] = {}

    def add_first(self, stamp: Stamp, a: A) -> None:
        """An A came."""
        b = self._waiting_b.pop(stamp, None)
        if b is not None:
            self._paired(a, b)
            return
        replaced = self._waiting_a.pop(stamp, None)
        self._waiting_a[stamp] = a
        if replaced is None and len(self._waiting_a) > self._capacity:
            replaced = self._waiting_a.pop(next(iter(self._waiting_a)))
        if replaced is not None:
            self._unpaired(replaced)

    def add_second(self, stamp: Stamp, b: B) -> None:
        """A B came."""
        a = self._waiting_a.pop(stamp, None)
        if a is not None:
            self._paired(a, b)
            return
        self._waiting_b.pop(stamp, None)
        self._waiting_b[stamp] = b
        if len(self._waiting_b) > self._capacity:
            self._waiting_b.pop(next(iter(self._waiting_b)))
