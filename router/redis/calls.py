"""Calls to Redis that end in time, whatever state the server is in."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import TypeVar

from redis.exceptions import RedisClusterException, RedisError

from router.circuit_breaker import Breaker
from router.errors import DependencyError

T = TypeVar("T")
LEFT_OUT = "Redis failed a moment ago and is left out"
AWAY_SECONDS, LONGEST_AWAY = 1.0, 30.0

FAILURES = (RedisError, RedisClusterException, OSError)
"""What calls raise. A cluster without a node that can be reached raises one that is no RedisError."""


class RedisCalls:
    """Awaits calls for at most `timeout` seconds; after a few failures in a row the server is left out for a while.

    Args:
        error: the class of error that every failure raises.
        away_seconds: how long the server is left out at first; each further failure doubles it, up to LONGEST_AWAY.
    """

    def __init__(self, timeout: float, error: type[DependencyError], away_seconds: float = AWAY_SECONDS) -> None:
        self._timeout = timeout
        self._error = error
        self.breaker = Breaker(away_seconds, max(away_seconds, LONGEST_AWAY))

    def check(self) -> None:
        """Raises the error while the server is left out."""
        if not self.breaker.allows():
            raise self._error(LEFT_OUT)

    async def __call__(self, call: Awaitable[T]) -> T:
        """The answer to a call. Raises the error."""
        try:
            self.check()
        except self._error:
            if isinstance(call, Coroutine):  # one that is never awaited would warn
                call.close()
            raise
        self.breaker.started()  # during a trial, further calls are refused from here on
        try:
            async with asyncio.timeout(self._timeout):
                answer = await call
        except TimeoutError as error:
            self.breaker.failed()
            raise self._error(f"Redis took longer than {self._timeout * 1000:g} ms") from error
        except FAILURES as error:
            self.breaker.failed()
            raise self._error(f"Redis: {error}") from error
        self.breaker.succeeded()
        return answer
