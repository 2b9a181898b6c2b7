"""glibc's allocator: what a flood or the start took for a moment goes back to the machine, and does not stay."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_ARENA_MAX = -1, -8
"""Parameters of mallopt(3)."""

ARENAS = 2
"""Heaps that threads share. By default each of gRPC's reading threads has one of its own, and keeps what was freed."""

TRIM_BYTES = 1 << 20
"""Free memory at the end of a heap, beyond which it is given back."""


def give_memory_back() -> None:
    """Bound what glibc keeps; called before other threads start. Other C libraries have no such function."""
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, ARENAS)
        mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


def trim() -> None:
    """Give back what is free within the heaps, too; takes milliseconds, so it is for the end of the start."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
