"""The in-process score cache: the first level, and the only one by default."""

from collections.abc import Mapping, Sequence

from router.domain import Score
from router.fair_lru import FairLru
from router.scoring.cache_key import TENANT_BYTES
from router.scoring.packed import packed, unpacked

ENTRY_BYTES = 200
"""Memory of an entry beside its packed score (140 to 210 measured with tracemalloc, CPython 3.11)."""


class MemoryCache:
    """The most recently used scores: at most `entries` of them, in about `size` bytes, fairly between tenants."""

    def __init__(self, entries: int, size: int) -> None:
        # One bound instead of two: an entry weighs what it takes, and never less than its share of the size.
        self._least = size // entries
        self._scores: FairLru[bytes, bytes] = FairLru(size, _tenant, self._weight)
        self.flushes = 0

    breaker = None
    """None: nothing here can fail."""

    async def get_many(self, keys: Sequence[bytes]) -> list[Score | None]:
        """One entry per key, in order; None = miss."""
        return [None if found is None else unpacked(found) for found in map(self._scores.get, keys)]

    async def put_many(self, scores: Mapping[bytes, Score]) -> None:
        """Keep scores; one that is larger than the whole cache is dropped."""
        for key, score in scores.items():
            self._scores[key] = packed(score)

    async def flush(self) -> None:
        """Drop all scores."""
        self._scores.clear()
        self.flushes += 1

    def _weight(self, score: bytes) -> int:
        return max(ENTRY_BYTES + len(score), self._least)


def _tenant(key: bytes) -> bytes:
    return key[:TENANT_BYTES]
