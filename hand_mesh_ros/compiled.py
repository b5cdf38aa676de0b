"""Compiled loops: what NumPy would be slow at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with Numba at the first call, without the GIL, and keep the machine code on disk if possible.

    Numba caches beside the source file, else in NUMBA_CACHE_DIR or the user's cache folder, and refuses to
    decorate where it may write to none of them (a read-only container): then each process compiles anew.
    """
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)
