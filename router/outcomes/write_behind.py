"""Records that are written in batches a moment later, so that no caller waits for the log.

A failed write keeps its batch and tries again, in order. A record that can never be written costs itself alone. Memory
is bounded, fairly between owners: where more waits beside the batch than may wait, an owner above its share loses its
oldest records, which are counted.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from typing import Generic, TypeVar

from router.digits import counted, verb
from router.errors import DrainError, OutcomeLogError
from router.events import Degraded, RecordsLost
from router.outcomes.fair_buffer import FairBuffer
from router.ports import Observer

T = TypeVar("T")
GATHER_SECONDS = 0.1
"""How long the first record of a batch waits for others: a batch costs little more than a single record."""

AGAIN_SECONDS = 1.0
"""Pause before a batch that could not be written is tried again."""

CLOSE_SECONDS = 5.0
"""Seconds that the last records have at the end: the log may hang."""


class WriteBehind(Generic[T]):
    """Buffers records for `write`.

    Args:
        write: writes a batch whole or not at all. Raises OutcomeLogError where a later try may succeed, and anything
            else where one of the records can never be written.
        most: weight of the records that may wait beside the batch under way; more are dropped, and observed.
        owner: the owner of a record.
        weigh: the weight of a record, which is asked for once; 1 by default.
        dependency: what is written to, where a failure is observed; `what` says it in errors.

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
        owner: Callable[[T], Hashable] = lambda record: None,
        weigh: Callable[[T], int] = lambda record: 1,
        dependency: str = "outcomes",
        what: str = "the outcome log",
    ) -> None:
        self._write = write
        self._observer = observer
        self._gather_seconds = gather_seconds
        self._again_seconds = again_seconds
        self._dependency, self._what = dependency, what
        self._waiting = FairBuffer(most, owner, weigh)
        self._batch: list[T] = []  # what is being written: by the task below, or by a flush
        self._writing: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()
        self._closing = asyncio.Event()
        self.failing = False

    def __len__(self) -> int:
        """Records that are not written yet."""
        return len(self._batch) + len(self._waiting)

    def add(self, record: T) -> None:
        """Write a record a moment later; never waits."""
        if lost := self._waiting.add(record):
            self._observer(RecordsLost("full", lost, "the buffer is full"))
        # No task runs while nothing waits, so an idle service wakes up for nothing.
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon())

    async def flush(self) -> None:
        """Write all waiting records now. Raises OutcomeLogError where they cannot be written."""
        # Shielded: a caller that leaves must not cancel a write that others wait for.
        await asyncio.shield(self._write_once())
        if self.failing:
            raise OutcomeLogError(f"{self._what} cannot be written at the moment")

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write all waiting records, for at most so many seconds.

        Raises:
            DrainError: some could not be written; they are lost, and observed.
        """
        self._closing.set()  # ends the pause of the writing task, which then writes and stops
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if self._writing is not None:
                    await self._writing
                await self._write_once()
        if lost := len(self):
            self._observer(RecordsLost("exit", lost, "they could not be written before the end"))
            raise DrainError(f"{self._what} could not be written at the end; records lost: {lost}")

    async def _write_soon(self) -> None:
        while len(self) and not await self._closes_within(self._pause()):
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
            try:
                await self._isolated()  # what could not be written before
                self._batch = self._waiting.take()
                await self._isolated()
                self.failing = False
            except OutcomeLogError as error:
                self.failing = True
                waiting = f"{counted(len(self), 'record')} {verb(len(self), 'waits', 'wait')}"
                self._observer(Degraded(self._dependency, f"{waiting}: {error}"))

    async def _isolated(self) -> None:
        """Write the batch, which records leave as they are written. One that can never be written is lost alone."""
        batch = self._batch
        size = len(batch)
        while batch:
            size = min(size, len(batch))
            try:
                await self._write(batch[:size])
            except OutcomeLogError:
                raise
            except Exception as error:
                if size > 1:  # halved until the one at fault stands alone
                    size //= 2
                    continue
                self._observer(RecordsLost("unwritable", 1, f"{type(error).__name__}: {error}"))
            del batch[:size]
            size *= 2
