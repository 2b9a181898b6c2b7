"""Moments in which the engine answers nobody: learning asks it then, and begins again later where a caller comes.

It does not wait for them for long. An engine that is never idle has so many requests in its batch that one more is
hardly felt.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.01
"""How often callers are looked for."""

PATIENCE_SECONDS = 2.0
"""After so long the engine is asked even while it answers callers."""


class Quietly(Protocol):
    """Asks the engine when it suits its callers."""

    async def __call__(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `ask` returns or raises; of several calls of it, all but the last are cancelled."""
        ...


class QuietMoments:
    """Implements `Quietly`.

    Args:
        load: tokens of callers that are under way or wait.
        patience: seconds.
    """

    def __init__(self, load: Callable[[], float], patience: float = PATIENCE_SECONDS) -> None:
        self._load = load
        self._patience = patience

    async def __call__(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask in a quiet moment; again in the next one where a caller comes, until the patience is over."""
        until = time.monotonic() + self._patience
        while time.monotonic() < until:
            if self._load():
                await asyncio.sleep(LOOK_SECONDS)
                continue
            asking = asyncio.create_task(ask())
            try:
                if await self._undisturbed(asking, until):
                    return asking.result()
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
        return await ask()

    async def _undisturbed(self, asking: asyncio.Task[T], until: float) -> bool:
        """True once it has ended; False where a caller comes before."""
        while not asking.done():
            await asyncio.wait([asking], timeout=LOOK_SECONDS)
            if self._load() and time.monotonic() < until:
                return asking.done()
        return True
