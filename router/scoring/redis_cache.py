"""The score cache that several replicas share, in Redis or Valkey."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError, ResponseError

from router.domain import Score
from router.errors import CacheError
from router.events import Degraded
from router.ports import Observer
from router.redis.calls import AWAY_SECONDS, FAILURES, RedisCalls
from router.redis.client import AnyRedis
from router.scoring.seal import MOST_BYTES, Seal

PREFIX, EPOCH = b"budget_router:score:3:", "budget_router:epoch"
"""The number is that of the entries' format: those of another one are not looked at."""

JITTER = 0.1
LONGEST_EPOCH = 64
FOREIGN = "cache entries"
"""The dependency in Degraded, for entries that no replica with this secret wrote."""


class RedisCache:
    """Scores in Redis; every call ends within `timeout` seconds, whatever state the server is in.

    Lookups of one turn of the event loop share one call. The keys carry an epoch, and a flush begins another one: that
    takes one write, however many entries there are, and old entries expire. Other processes see the new epoch when
    they next ask for it, as TieredCache.watch does.

    Args:
        seal: tells entries of the replicas from others, which are misses, and observed.
    """

    def __init__(
        self,
        redis: AnyRedis,
        seal: Seal,
        observer: Observer,
        ttl: int,
        timeout: float,
        away_seconds: float = AWAY_SECONDS,
    ) -> None:
        self._redis = redis
        self._seal = seal
        self._observer = observer
        self._ttl = ttl
        self._bounded = RedisCalls(timeout, CacheError, away_seconds)
        self.breaker = self._bounded.breaker
        self._epoch: bytes | None = None
        self.flushes = 0
        self._lookup: _Lookup | None = None

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def get_many(self, keys: Sequence[bytes]) -> list[Score | None]:
        """One entry per key, in order; None = miss. Raises CacheError."""
        self._bounded.check()  # while Redis is left out, not even a task is started
        if self._lookup is None:
            self._lookup = _Lookup()
            self._lookup.task = asyncio.create_task(self._look_up(self._lookup))
        lookup = self._lookup
        lookup.keys.update(dict.fromkeys(keys))
        assert lookup.task is not None
        # Shielded: a caller that leaves must not cancel the lookup of the others. An error is a result of the task, and
        # each caller raises its own: asyncio would log an exception that no caller is left to fetch.
        found = await asyncio.shield(lookup.task)
        if isinstance(found, CacheError):
            raise CacheError(str(found)) from found
        return [found[key] for key in keys]

    async def put_many(self, scores: Mapping[bytes, Score]) -> None:
        """Keep scores for about `ttl` seconds, jittered so that they do not all expire at once. Raises CacheError."""
        prefix = await self._prefix()
        pipeline = self._redis.pipeline(transaction=False)
        for key, score in scores.items():
            pipeline.set(
                prefix + key, self._seal.encode(key, score), px=int(self._ttl * 1000 * random.uniform(1 - JITTER, 1))
            )
        await self._bounded(pipeline.execute())

    async def flush(self) -> None:
        """Drop all scores, and nothing else in this Redis. Raises CacheError."""
        # Random, not a counter: two flushes at once, or one after Redis lost its memory, must not repeat an epoch.
        epoch = uuid4().hex.encode()
        await self._bounded(self._redis.set(EPOCH, epoch))
        self._epoch = epoch
        self.flushes += 1

    async def epoch(self) -> bytes:
        """The current epoch, which changes with every flush by any process. Raises CacheError."""
        found: Any = await self._bounded(self._redis.getrange(EPOCH, 0, LONGEST_EPOCH - 1))
        self._epoch = epoch = found or b"0"
        return epoch

    async def _look_up(self, lookup: "_Lookup") -> "dict[bytes, Score | None] | CacheError":
        await asyncio.sleep(0)  # lookups of other tasks in this turn of the loop join
        self._lookup = None
        keys = list(lookup.keys)
        try:
            prefix = await self._prefix()
            values = await self._bounded(self._fetched([prefix + key for key in keys]))
        except CacheError as error:
            return error
        found = {key: self._seal.decode(key, entry) for key, entry in zip(keys, values, strict=True) if entry}
        if foreign := sum(score is None for score in found.values()):
            self._observer(Degraded(FOREIGN, f"{foreign} of {len(found)} entries have no valid seal: they are misses"))
        return {key: found.get(key) for key in keys}

    async def _fetched(self, keys: list[bytes]) -> list[bytes]:
        """Entries by key, empty where there are none, and one byte longer than any where they are too long."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            # Not GET: anyone who can write to the cache could put 500 MB there.
            pipeline.getrange(key, 0, MOST_BYTES)
        answers = await pipeline.execute(raise_on_error=False)
        return [_entry(answer) for answer in answers]

    async def _prefix(self) -> bytes:
        epoch = await self.epoch() if self._epoch is None else self._epoch
        return PREFIX + epoch + b":"


def _entry(answer: bytes | Exception) -> bytes:
    """The entry in an answer; of another type than a string it is none of ours. Raises RedisError."""
    if isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
        return b"\0"
    if isinstance(answer, Exception):
        raise answer if isinstance(answer, FAILURES) else RedisError(str(answer))
    return answer


@dataclass
class _Lookup:
    """Keys that are looked up together, in the order of their arrival."""

    keys: dict[bytes, None] = field(default_factory=dict)
    task: "asyncio.Task[dict[bytes, Score | None] | CacheError] | None" = None
