"""Records that are written in batches a moment later, so that no caller waits for the log.

A failed write keeps its batch and tries again, in order. Memory is bounded: beyond `most` records the oldest are lost,
and counted.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from router.errors import OutcomeLogError
from router.events import Degraded
from router.ports import Observer

T = TypeVar("T")
GATHER_SECONDS = 0.1
"""How long the first record of a batch waits for others: a batch costs little more than a single record."""

AGAIN_SECONDS = 1.0
"""Pause before a batch that could not be written is tried again."""


class WriteBehind(Generic[T]):
    """Buffers records for `write`, which raises OutcomeLogError when it fails.

    Args:
        most: records that may wait; more are dropped, and observed.

    Attributes:
        failing: the last batch could not be written; it is tried again.
    """

    def __init__(
        self,
        write: Callable[[list[T]], Awaitable[None]],
        observer: Observer,
        most: int,
        gather_seconds: float = GATHER_SECONDS,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self._write = write
        self._observer = observer
        self._most = most
        self._gather_seconds = gather_seconds
        self._again_seconds = again_seconds
        self._waiting: list[T] = []
        self._writing: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()
        self._closing = asyncio.Event()
        self.failing = False

    def add(self, record: T) -> None:
        """Write a record a moment later; never waits."""
        if len(self._waiting) >= self._most:
            self._observer(Degraded("outcomes", "the buffer is full: one record dropped"))
            return
        self._waiting.append(record)
        # No task runs while nothing waits, so an idle service wakes up for nothing.
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon())

    async def flush(self) -> None:
        """Write all waiting records now. Raises OutcomeLogError where they cannot be written."""
        # Shielded: a caller that leaves must not cancel a write that others wait for.
        await asyncio.shield(self._write_once())
        if self.failing:
            raise OutcomeLogError("the outcome log cannot be written at the moment")

    async def close(self) -> None:
        """Write all waiting records; those that cannot be written now are lost, and observed."""
        self._closing.set()  # ends the pause of the writing task, which then writes and stops
        if self._writing is not None:
            await self._writing
        await self._write_once()
        if self._waiting:
            self._observer(Degraded("outcomes", f"{len(self._waiting)} records lost at the end"))

    async def _write_soon(self) -> None:
        while self._waiting and not await self._closes_within(self._pause()):
            await self._write_once()

    def _pause(self) -> float:
        return self._again_seconds if self.failing else self._gather_seconds

    async def _closes_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._closing.wait()
        return False

    async def _write_once(self) -> None:
        async with self._one:  # a flush waits for the batch under way, too
            batch, self._waiting = self._waiting, []
            if not batch:
                return
            try:
                await self._write(batch)
                self.failing = False
            except OutcomeLogError as error:
                self.failing = True
                # Back in front of the records that arrived meanwhile; the oldest are lost first.
                self._waiting = batch + self._waiting
                lost = max(len(self._waiting) - self._most, 0)
                del self._waiting[:lost]
                self._observer(Degraded("outcomes", f"{lost} records lost, {len(self._waiting)} wait: {error}"))
