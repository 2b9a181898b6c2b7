"""The in-process score cache: the first level, and the only one by default."""

from collections.abc import Mapping, Sequence

from cachetools import LRUCache

from router.domain import Score

ENTRY_BYTES, RUNG_BYTES = 500, 250
"""Memory of an entry, and of each of its rungs (measured with tracemalloc, CPython 3.11)."""


class MemoryCache:
    """The most recently used scores: at most `entries` of them, in about `size` bytes."""

    def __init__(self, entries: int, size: int) -> None:
        self._entries = entries
        self._scores: LRUCache[bytes, Score] = LRUCache(size, getsizeof=_bytes)

    breaker = None
    """None: nothing here can fail."""

    async def get_many(self, keys: Sequence[bytes]) -> list[Score | None]:
        """One entry per key, in order; None = miss."""
        return [self._scores.get(key) for key in keys]

    async def put_many(self, scores: Mapping[bytes, Score]) -> None:
        """Keep scores; one that is larger than the whole cache is dropped."""
        for key, score in scores.items():
            if _bytes(score) <= self._scores.maxsize:
                self._scores[key] = score
        # LRUCache bounds the bytes; the number of entries is bounded here.
        while len(self._scores) > self._entries:
            self._scores.popitem()

    async def flush(self) -> None:
        """Drop all scores."""
        self._scores.clear()


def _bytes(score: Score) -> int:
    return ENTRY_BYTES + RUNG_BYTES * len(score.quality)
