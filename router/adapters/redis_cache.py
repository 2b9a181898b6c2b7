"""The score cache that several replicas share, in Redis or Valkey."""

import asyncio
import struct
from collections.abc import Awaitable, Mapping, Sequence
from math import isnan, nan
from typing import Any, TypeVar
from zlib import crc32

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from router.domain import Score, TokenForecast
from router.errors import CacheError, SettingsError

T = TypeVar("T")

PREFIX = b"budget_router:score:"
CHECKSUM = 4
PER_RUNG = 5
"""Numbers a rung takes in an entry: quality, then mean, p50, p90 and p99 thinking tokens."""

UNKNOWN = (nan,) * (PER_RUNG - 1)


def encode(score: Score) -> bytes:
    """A score as little-endian doubles, rung by rung, and their checksum; NaN where no tokens are forecast."""
    forecasts = [UNKNOWN if t is None else (t.mean, t.p50, t.p90, t.p99) for t in score.tokens]
    numbers = [n for quality, forecast in zip(score.quality, forecasts, strict=True) for n in (quality, *forecast)]
    data = struct.pack(f"<{len(numbers)}d", *numbers)
    return data + crc32(data).to_bytes(CHECKSUM, "little")


def decode(entry: bytes) -> Score | None:
    """The inverse of `encode`; None where the entry is not one of ours, or not whole."""
    data, checksum = entry[:-CHECKSUM], entry[-CHECKSUM:]
    if not data or len(data) % (8 * PER_RUNG) or checksum != crc32(data).to_bytes(CHECKSUM, "little"):
        return None
    rows = list(struct.iter_unpack(f"<{PER_RUNG}d", data))
    forecasts = (None if isnan(row[1]) else TokenForecast(*row[1:]) for row in rows)
    return Score(tuple(row[0] for row in rows), tuple(forecasts))


class RedisCache:
    """Scores in Redis; every call to the server is over within `timeout` seconds, whatever state the server is in."""

    def __init__(self, redis: Redis, ttl: int, timeout: float) -> None:
        self._redis = redis
        self._ttl = ttl
        self._timeout = timeout

    @classmethod
    def connect(cls, url: str, ttl: int, timeout: float) -> "RedisCache":
        """A cache on the server at `url`, connected when first used. Raises SettingsError."""
        try:
            redis = Redis.from_url(
                url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
            )
            return cls(redis, ttl, timeout)
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
        cursor = -1
        while cursor != 0:
            cursor, keys = await self._bounded(self._redis.scan(max(cursor, 0), match=PREFIX + b"*", count=1000))
            if keys:
                await self._bounded(self._redis.unlink(*keys))

    async def _bounded(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await call
        except TimeoutError as error:
            raise CacheError(f"Redis took longer than {self._timeout * 1000:g} ms") from error
        except (RedisError, OSError) as error:
            raise CacheError(f"Redis: {error}") from error
