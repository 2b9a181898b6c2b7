"""The score cache that several replicas share, in Redis or Valkey."""

import asyncio
import math
import struct
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from router.domain import Score, TokenForecast
from router.errors import CacheError, SettingsError

T = TypeVar("T")

PREFIX = b"budget_router:score:"
PER_RUNG = 5
"""Numbers a rung takes in an entry: quality, then mean, p50, p90 and p99 thinking tokens."""


def encode(score: Score) -> bytes:
    """A score as little-endian doubles, rung by rung."""
    numbers = [n for q, t in zip(score.quality, score.tokens, strict=True) for n in (q, t.mean, t.p50, t.p90, t.p99)]
    return struct.pack(f"<{len(numbers)}d", *numbers)


def decode(data: bytes) -> Score | None:
    """The inverse of `encode`; None where the entry is not one of ours."""
    if not data or len(data) % (8 * PER_RUNG):
        return None
    rows = list(struct.iter_unpack(f"<{PER_RUNG}d", data))
    if not all(math.isfinite(number) for row in rows for number in row):
        return None
    return Score(tuple(row[0] for row in rows), tuple(TokenForecast(*row[1:]) for row in rows))


class RedisCache:
    """Scores in Redis; every lookup and write is over within `timeout` seconds, whatever state the server is in."""

    def __init__(self, redis: Redis, ttl: int, timeout: float) -> None:
        self._redis = redis
        self._ttl = ttl
        self._timeout = timeout

    @classmethod
    def connect(cls, url: str, ttl: int, timeout: float) -> "RedisCache":
        """A cache on the server at `url`, connected when first used. Raises SettingsError."""
        try:
            return cls(Redis.from_url(url), ttl, timeout)
        except ValueError as error:
            raise SettingsError(f"Redis URL: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def get_many(self, keys: Sequence[bytes]) -> list[Score | None]:
        """One entry per key, in order; None = miss. Raises CacheError."""
        values: list[Any] = await self._bounded(self._redis.mget([PREFIX + key for key in keys]))
        return [None if value is None else decode(value) for value in values]

    async def put_many(self, scores: Mapping[bytes, Score]) -> None:
        """Remember scores for the time to live. Raises CacheError."""
        pipeline = self._redis.pipeline(transaction=False)
        for key, score in scores.items():
            pipeline.set(PREFIX + key, encode(score), ex=self._ttl)
        await self._bounded(pipeline.execute())

    async def flush(self) -> None:
        """Forget every score, and only scores. Raises CacheError."""
        try:
            async for key in self._redis.scan_iter(match=PREFIX + b"*", count=1000):
                await self._redis.unlink(key)
        except (RedisError, OSError) as error:
            raise CacheError(f"Redis: {error}") from error

    async def _bounded(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await call
        except TimeoutError as error:
            raise CacheError(f"Redis took longer than {self._timeout * 1000:g} ms") from error
        except (RedisError, OSError) as error:
            raise CacheError(f"Redis: {error}") from error
