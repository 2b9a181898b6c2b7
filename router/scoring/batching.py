"""Micro-batches for a classifier that takes milliseconds: a text encoder, on a CPU or a GPU.

A prompt that arrives while nothing runs is scored at once. Prompts that arrive during a run wait for its end and then
go together: the oldest, and those closest to it in length, since all are padded to the longest. Tenants take turns to
have their oldest go, so that a flood delays its own tenant. No prompt waits for others that may never come, and batches
grow with the load by themselves. They stay short enough for the prompts that arrive next, which wait for all of it.
Lengths are in characters of what is scored, which stand in for tokens before a text is tokenized.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router.bundle.scored import view
from router.domain import Prompt, Score
from router.errors import ClassifierError

BATCH_PROMPTS, BATCH_CHARACTERS = 64, 65_536
"""Largest batch, in prompts and in characters after padding."""

BATCH_SECONDS = 0.25
"""Longest run of a batch, estimated from the pace of those before it."""

Run = Callable[[Sequence[Prompt]], list[Score]]


@dataclass(eq=False, slots=True)
class _Waiting:
    prompt: Prompt
    length: int
    score: "asyncio.Future[Score]"
    owner: bytes = b""


class Batching:
    """A classifier that calls `run` in a thread, one batch at a time; `run` raises ClassifierError.

    Args:
        most_characters: of a batch, after padding.
        seconds: longest run of a batch.
    """

    def __init__(self, run: Run, most_characters: int = BATCH_CHARACTERS, seconds: float = BATCH_SECONDS) -> None:
        self._run = run
        self._most_characters = most_characters
        self._longest = seconds
        self._waiting: list[_Waiting] = []
        self._turns: dict[bytes, int] = {}
        """The batch that each owner of a waiting prompt began last; 0 where there is none."""
        self._batches = 0
        self._running: asyncio.Task[None] | None = None
        self._seconds, self._characters = 0.0, 0.0
        """Sums over recent batches, each half the weight of the next: seconds they took, characters after padding."""

    async def score(self, prompts: Sequence[Prompt], owner: bytes = b"") -> list[Score]:
        """One score per prompt, in order; prompts of callers that left are not scored. Raises ClassifierError.

        Args:
            owner: the tenant, by any name: tenants take turns.
        """
        loop = asyncio.get_running_loop()
        lengths = [max(len(view(prompt).text), 1) for prompt in prompts]
        mine = [_Waiting(prompt, n, loop.create_future(), owner) for prompt, n in zip(prompts, lengths, strict=True)]
        self._waiting += mine
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._drain())
        return list(await asyncio.gather(*(one.score for one in mine)))

    async def _drain(self) -> None:
        while batch := self._next():
            began = time.monotonic()
            try:
                scores = await asyncio.to_thread(self._run, [one.prompt for one in batch])
            except Exception as error:  # whatever it is: nobody may wait for a batch that will not come
                reason = str(error) if isinstance(error, ClassifierError) else f"unexpected {type(error).__name__}"
                for one in batch:  # an exception each: a shared one would collect the tracebacks of all callers
                    if not one.score.done():
                        one.score.set_exception(ClassifierError(reason))
                continue
            # Halving forgets the pace of a machine that was busy for a moment within a few batches.
            self._seconds = self._seconds / 2 + time.monotonic() - began
            self._characters = self._characters / 2 + len(batch) * max(one.length for one in batch)
            for one, score in zip(batch, scores, strict=True):
                if not one.score.done():
                    one.score.set_result(score)

    def _next(self) -> list[_Waiting]:
        """Take the next batch: the oldest prompt of the owner whose turn it is, and as many of its length as fit."""
        self._waiting = [one for one in self._waiting if not one.score.done()]
        if not self._waiting:
            return []
        # The oldest is always part of the batch, so no prompt waits for ever because of an unusual length.
        oldest = min(self._waiting, key=lambda one: self._turns.get(one.owner, 0))
        self._batches += 1
        self._turns = {one.owner: self._turns.get(one.owner, 0) for one in self._waiting} | {
            oldest.owner: self._batches
        }
        batch: list[_Waiting] = []
        longest, most = oldest.length, self._most()
        for one in sorted(self._waiting, key=lambda one: (one is not oldest, abs(one.length - oldest.length))):
            longest = max(longest, one.length)
            # One prompt alone always goes, however long. Sorted by distance, so the first that does not fit ends it.
            if batch and (len(batch) == BATCH_PROMPTS or longest * (len(batch) + 1) > most):
                break
            batch.append(one)
        taken = set(map(id, batch))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return batch

    def _most(self) -> float:
        """Characters after padding that the next batch may have."""
        if not self._seconds:
            return self._most_characters
        return min(self._most_characters, self._longest * self._characters / self._seconds)
