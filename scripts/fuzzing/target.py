"""What is fuzzed: how an input is made from chance, what reads it, how it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any


class Unexpected(Exception):
    """Something was read without complaint, and is not what its reader promises."""


@dataclass(frozen=True)
class Reader:
    """A target, set up in the process that runs it.

    ``read`` returns what came out, and raises an error of the package's own where the input is refused.
    """

    make: Callable[[Random], Any]  #: an input; the same for the same state of the generator
    read: Callable[[Any], object]
    as_bytes: Callable[[Any], bytes] = bytes  #: of an input, to keep it


@dataclass(frozen=True)
class Target:
    """One kind of input and its reader."""

    name: str
    kind: str  #: message or file
    cases: int  #: of a whole run
    setup: Callable[[Path], Reader]  #: is given a folder for files, which is empty
    batch: int = 10_000  #: cases in one process


def expect(holds: bool, what: str) -> None:
    """:raises Unexpected: with ``what`` where it does not hold."""
    if not holds:
        raise Unexpected(what)
