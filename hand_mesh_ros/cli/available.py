"""Which methods there is all for that they need."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from hand_mesh_ros.errors import ConfigurationError

_T = TypeVar('_T')


def available(
    names: Iterable[str], make: Callable[[str], _T], asked: Sequence[str] | None = None
) -> dict[str, _T]:
    """What ``make`` makes of the names ``asked`` for; where none are, of those of ``names`` that it can make.

    What it cannot, and why, is then printed.

    :raises ConfigurationError: from ``make``, of a name asked for.
    """
    if asked:
        return {name: make(name) for name in dict.fromkeys(asked)}
    made = {}
    for name in names:
        try:
            made[name] = make(name)
        except ConfigurationError as error:
            print(f'hand-mesh: without {name}: {error}', file=sys.stderr)
    return made
