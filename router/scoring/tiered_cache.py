"""Two levels of score cache: a fast one in front of a shared one."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from router.domain import Score
from router.errors import CacheError
from router.events import Degraded
from router.ports import Observer
from router.scoring.memory_cache import MemoryCache
from router.scoring.redis_cache import RedisCache

EPOCH_SECONDS = 1.0
"""Interval at which a process looks for flushes by others."""

MAX_WRITES = 64
"""Writes to the shared level at a time; more are dropped, since a lost write only costs a later miss."""


class TieredCache:
    """Looks in `near`, then in `far`; writes to `far` never delay a reply."""

    def __init__(self, near: MemoryCache, far: RedisCache, observer: Observer) -> None:
        self._near = near
        self._far = far
        self._observer = observer
        self.breaker = far.breaker
        self._writes: set[asyncio.Task[None]] = set()

    @property
    def flushes(self) -> int:
        """How often the scores of this process were dropped."""
        return self._near.flushes

    async def get_many(self, keys: Sequence[bytes]) -> list[Score | None]:
        """One entry per key, in order; None = miss. A failure of the far level is a miss, and observed."""
        found = await self._near.get_many(keys)
        missing = [key for key, score in zip(keys, found, strict=True) if score is None]
        if not missing:
            return found
        try:
            fetched = zip(missing, await self._far.get_many(missing), strict=True)
        except CacheError as error:
            self._observer(Degraded("cache", str(error)))
            return found
        far = {key: score for key, score in fetched if score is not None}
        await self._near.put_many(far)  # the next lookup of these keys needs no round trip
        return [far.get(key) if score is None else score for key, score in zip(keys, found, strict=True)]

    async def put_many(self, scores: Mapping[bytes, Score]) -> None:
        """Put scores into the near level at once, and into the far level in the background."""
        await self._near.put_many(scores)
        if len(self._writes) >= MAX_WRITES:
            self._observer(Degraded("cache", f"{MAX_WRITES} writes under way: one dropped"))
            return
        task = asyncio.create_task(self._write(dict(scores)))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def flush(self) -> None:
        """Drop all scores in both levels. Raises CacheError."""
        await self._near.flush()
        await self.drain()  # a write under way must not arrive after the flush
        await self._far.flush()

    async def watch(self) -> None:
        """Drop the near level whenever another process flushes the far one. Runs until cancelled."""
        seen = None
        while True:
            with suppress(CacheError):
                epoch = await self._far.epoch()
                # The first epoch is not a flush: the near level began empty, or filled up in this epoch.
                if seen not in (None, epoch):
                    await self._near.flush()
                seen = epoch
            await asyncio.sleep(EPOCH_SECONDS)

    async def drain(self) -> None:
        """Wait until the writes under way have ended."""
        await asyncio.gather(*self._writes)

    async def _write(self, scores: Mapping[bytes, Score]) -> None:
        try:
            await self._far.put_many(scores)
        except CacheError as error:
            self._observer(Degraded("cache", str(error)))
