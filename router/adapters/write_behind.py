"""Records that are written soon, in batches, by nobody who waits for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from router.errors import OutcomeLogError
from router.ports import Observer
from router.records import Degraded

T = TypeVar("T")


class WriteBehind(Generic[T]):
    """At most `most` records wait; more are dropped, and so is a batch that `write` refuses with OutcomeLogError."""

    def __init__(self, write: Callable[[list[T]], Awaitable[None]], observer: Observer, most: int) -> None:
        self._write = write
        self._observer = observer
        self._most = most
        self._waiting: list[T] = []
        self._writing: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()

    def add(self, record: T) -> None:
        """Write a record soon; never waits."""
        if len(self._waiting) >= self._most:
            self._observer(Degraded("outcomes", "the buffer is full: one record dropped"))
            return
        self._waiting.append(record)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon())

    async def flush(self) -> None:
        """Write what waits now; goes on where the caller leaves."""
        await asyncio.shield(self._write_once())

    async def close(self) -> None:
        """Write everything."""
        if self._writing is not None:
            await self._writing
        await self._write_once()

    async def _write_soon(self) -> None:
        while self._waiting:
            await self._write_once()

    async def _write_once(self) -> None:
        async with self._one:  # who flushes waits for the batch under way, too
            batch, self._waiting = self._waiting, []
            if not batch:
                return
            try:
                await self._write(batch)
            except OutcomeLogError as error:
                self._observer(Degraded("outcomes", f"{len(batch)} records dropped: {error}"))
