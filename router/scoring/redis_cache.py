"""The score cache that several replicas share, in Redis or Valkey."""

import asyncio
import random
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Any
from uuid import uuid4
from zlib import crc32

from redis.asyncio.cluster import RedisCluster

from router.domain import Score
from router.errors import CacheError
from router.redis.calls import AWAY_SECONDS, RedisCalls
from router.redis.client import AnyRedis

PREFIX, EPOCH = b"budget_router:score:", "budget_router:epoch"
JITTER = 0.1
CHECKSUM = 4
PER_RUNG = 5
"""Numbers a rung takes in an entry: quality, then mean, p50, p90 and p99 thinking tokens."""


def encode(score: Score) -> bytes:
    """A score as little-endian doubles, rung by rung, and their checksum; NaN where there is no token forecast."""
    numbers = [nan if number is None else number for rung in score.rungs for number in rung]
    data = struct.pack(f"<{len(numbers)}d", *numbers)
    return data + crc32(data).to_bytes(CHECKSUM, "little")


def decode(entry: bytes) -> Score | None:
    """The inverse of `encode`; None where the entry is damaged or was written by something else."""
    # The checksum guards against other programs' keys and other versions' entries, which may have any length.
    data, checksum = entry[:-CHECKSUM], entry[-CHECKSUM:]
    if not data or len(data) % (8 * PER_RUNG) or checksum != crc32(data).to_bytes(CHECKSUM, "little"):
        return None
    quality, *tokens = zip(*struct.iter_unpack(f"<{PER_RUNG}d", data), strict=True)
    return Score(quality, *(tuple(None if isnan(n) else n for n in column) for column in tokens))


class RedisCache:
    """Scores in Redis; every call ends within `timeout` seconds, whatever state the server is in.

    Lookups of one turn of the event loop share one call. The keys carry an epoch, and a flush begins another one: that
    takes one write, however many entries there are, and old entries expire. Other processes see the new epoch when
    they next ask for it, as TieredCache.watch does.
    """

    def __init__(self, redis: AnyRedis, ttl: int, timeout: float, away_seconds: float = AWAY_SECONDS) -> None:
        self._redis = redis
        self._ttl = ttl
        self._bounded = RedisCalls(timeout, CacheError, away_seconds)
        self.breaker = self._bounded.breaker
        self._epoch: bytes | None = None
        self._lookup: _Lookup | None = None
        # A cluster has no MGET across its nodes; the client sends one to each node instead.
        self._mget: Callable[[list[bytes]], Awaitable[list[Any]]]
        self._mget = redis.mget_nonatomic if isinstance(redis, RedisCluster) else redis.mget

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
            pipeline.set(prefix + key, encode(score), px=int(self._ttl * 1000 * random.uniform(1 - JITTER, 1)))
        await self._bounded(pipeline.execute())

    async def flush(self) -> None:
        """Drop all scores, and nothing else in this Redis. Raises CacheError."""
        # Random, not a counter: two flushes at once, or one after Redis lost its memory, must not repeat an epoch.
        epoch = uuid4().hex.encode()
        await self._bounded(self._redis.set(EPOCH, epoch))
        self._epoch = epoch

    async def epoch(self) -> bytes:
        """The current epoch, which changes with every flush by any process. Raises CacheError."""
        found: Any = await self._bounded(self._redis.get(EPOCH))
        self._epoch = epoch = found or b"0"
        return epoch

    async def _look_up(self, lookup: "_Lookup") -> "dict[bytes, Score | None] | CacheError":
        await asyncio.sleep(0)  # lookups of other tasks in this turn of the loop join
        self._lookup = None
        keys = list(lookup.keys)
        try:
            prefix = await self._prefix()
            values = await self._bounded(self._mget([prefix + key for key in keys]))
        except CacheError as error:
            return error
        return {key: None if value is None else decode(value) for key, value in zip(keys, values, strict=True)}

    async def _prefix(self) -> bytes:
        epoch = await self.epoch() if self._epoch is None else self._epoch
        return PREFIX + epoch + b":"


@dataclass
class _Lookup:
    """Keys that are looked up together, in the order of their arrival."""

    keys: dict[bytes, None] = field(default_factory=dict)
    task: "asyncio.Task[dict[bytes, Score | None] | CacheError] | None" = None
