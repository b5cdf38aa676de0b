"""Two streams of messages, one of each with the same stamp."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

A = TypeVar('A')
B = TypeVar('B')
T = TypeVar('T')

#: Seconds and nanoseconds of a header.
Stamp = tuple[int, int]


class Waiting(Generic[T]):
    """Messages of one stream that wait for their other half.

    They wait until the stream has come ``max_wait_s`` further by its own stamps (or jumped back as far,
    as that of a bag does which starts again), and only while all together are no larger than
    ``capacity``. The newest always waits.
    """

    def __init__(self, max_wait_s: float, capacity: int, size_of: Callable[[T], int]) -> None:
        self._max_wait_ns = round(max_wait_s * 1e9)
        self._capacity = capacity
        self._size_of = size_of
        self._messages: dict[Stamp, T] = {}
        self._size = 0
        self._newest: Stamp | None = None

    def items(self) -> list[tuple[Stamp, T]]:
        """Those that wait, in the order in which they came."""
        return list(self._messages.items())

    def take(self, stamp: Stamp) -> T | None:
        """The message of this stamp, which waits no longer; None if there is none."""
        message = self._messages.pop(stamp, None)
        if message is not None:
            self._size -= self._size_of(message)
        return message

    def add(self, stamp: Stamp, message: T) -> list[T]:
        """Let a message wait; those that are given up for it."""
        replaced = self.take(stamp)
        given_up = [] if replaced is None else [replaced]
        self._size += self._size_of(message)
        for other in list(self._messages):
            is_old = abs(_nanoseconds(stamp) - _nanoseconds(other)) > self._max_wait_ns
            if is_old or self._size > self._capacity:
                old = self.take(other)
                assert old is not None
                given_up.append(old)
        self._messages[stamp] = message
        return given_up

    def came(self, stamp: Stamp) -> None:
        """A message of this stamp came, whether it waits or not."""
        self._newest = stamp

    def has_passed(self, stamp: Stamp) -> bool:
        """Whether the stream is beyond this stamp, but not so far that it rather is another run of a bag."""
        if self._newest is None:
            return False
        return 0 < _nanoseconds(self._newest) - _nanoseconds(stamp) <= self._max_wait_ns


class StampPairing(Generic[A, B]):
    """Calls ``paired`` for every A and B of equal stamps, whichever comes first.

    An A that has waited in vain is given to ``unpaired``.
    """

    def __init__(
        self,
        waiting_a: Waiting[A],
        waiting_b: Waiting[B],
        paired: Callable[[A, B], None],
        unpaired: Callable[[A], None],
    ) -> None:
        self._waiting_a = waiting_a
        self._waiting_b = waiting_b
        self._paired = paired
        self._unpaired = unpaired

    def add_first(self, stamp: Stamp, a: A) -> None:
        """An A came."""
        b = self._waiting_b.take(stamp)
        if b is not None:
            self._paired(a, b)
            return
        for old in self._waiting_a.add(stamp, a):
            self._unpaired(old)

    def add_second(self, stamp: Stamp, b: B) -> None:
        """A B came."""
        a = self._waiting_a.take(stamp)
        if a is not None:
            self._paired(a, b)
            return
        self._waiting_b.add(stamp, b)


class HastyPairing(Generic[A, B]):
    """Gives every A on as it comes: with the B of its stamp where that comes soon, else with None.

    An A is not kept longer than ``patience_s``, and no longer than until a B of a later stamp has come, as
    its own then does not come any more. Somebody has to call :meth:`expire` from time to time.
    """

    def __init__(
        self,
        waiting_a: Waiting[tuple[float, A]],
        waiting_b: Waiting[B],
        patience_s: float,
        give_on: Callable[[A, B | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``waiting_a`` holds each A with the time of ``clock`` at which patience with it ends."""
        self._waiting_a = waiting_a
        self._waiting_b = waiting_b
        self._patience_s = patience_s
        self._give_on = give_on
        self._clock = clock

    def add_first(self, stamp: Stamp, a: A) -> None:
        """An A came."""
        b = self._waiting_b.take(stamp)
        if b is not None or self._waiting_b.has_passed(stamp):
            self._give_on(a, b)
            return
        for _, old in self._waiting_a.add(stamp, (self._clock() + self._patience_s, a)):
            self._give_on(old, None)

    def add_second(self, stamp: Stamp, b: B) -> None:
        """A B came."""
        self._waiting_b.came(stamp)
        self._give_up(lambda waiting, _: self._waiting_b.has_passed(waiting))
        a = self._waiting_a.take(stamp)
        if a is None:
            self._waiting_b.add(stamp, b)
        else:
            self._give_on(a[1], b)

    def expire(self) -> None:
        """Give on what has waited for long enough."""
        now = self._clock()
        self._give_up(lambda _, deadline: deadline <= now)

    def _give_up(self, is_hopeless: Callable[[Stamp, float], bool]) -> None:
        for stamp, (deadline, a) in self._waiting_a.items():
            if is_hopeless(stamp, deadline):
                self._waiting_a.take(stamp)
                self._give_on(a, None)


def _nanoseconds(stamp: Stamp) -> int:
    seconds, nanoseconds = stamp
    return seconds * 10**9 + nanoseconds
