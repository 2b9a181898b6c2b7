"""The in-process score cache: the first level, and the only one by default."""

from collections.abc import Mapping, Sequence

from cachetools import LRUCache

from router.domain import Score


class MemoryCache:
    """The most recently used scores, at most `entries` of them."""

    def __init__(self, entries: int) -> None:
        self._scores: LRUCache[bytes, Score] = LRUCache(entries)

    async def get_many(self, keys: Sequence[bytes]) -> list[Score | None]:
        """One entry per key, in order; None = miss."""
        return [self._scores.get(key) for key in keys]

    async def put_many(self, scores: Mapping[bytes, Score]) -> None:
        """Remember scores."""
        self._scores.update(scores)

    async def flush(self) -> None:
        """Forget everything."""
        self._scores.clear()
