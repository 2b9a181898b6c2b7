"""Micro-batches for a classifier that takes milliseconds: a text encoder, on a CPU or a GPU.

Whoever comes while nothing runs is scored at once. What comes meanwhile waits for the run to end, then goes together:
the oldest, and those most like it in length, as all are padded to the longest. So nobody waits for others that may
never come, and batches grow with the load by themselves, as far as they stay short: whoever comes next waits for all of
it. Lengths are in characters, which stand in for tokens before a text is read.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router.bundle.features import MAX_CHARACTERS
from router.domain import Prompt, Score
from router.errors import ClassifierError

BATCH_PROMPTS, BATCH_CHARACTERS = 64, 65_536
"""The most that runs at once; characters as padded."""

BATCH_SECONDS = 0.25
"""What a batch may take, by the pace of those before it."""

Run = Callable[[Sequence[Prompt]], list[Score]]


@dataclass(eq=False, slots=True)
class _Waiting:
    prompt: Prompt
    length: int
    score: "asyncio.Future[Score]"


class Batching:
    """A classifier that has `run` score in a thread, one batch at a time; `run` raises ClassifierError."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None
        self._seconds, self._characters = 0.0, 0.0
        """What batches took of late, and how many characters they had as padded."""

    async def score(self, prompts: Sequence[Prompt]) -> list[Score]:
        """One score per prompt, in order; whoever leaves is not scored for. Raises ClassifierError."""
        loop = asyncio.get_running_loop()
        lengths = [min(max(len(prompt.text), 1), MAX_CHARACTERS) for prompt in prompts]
        mine = [_Waiting(prompt, n, loop.create_future()) for prompt, n in zip(prompts, lengths, strict=True)]
        self._waiting += mine
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._drain())
        return list(await asyncio.gather(*(one.score for one in mine)))

    async def _drain(self) -> None:
        while batch := self._next():
            began = time.monotonic()
            try:
                scores = await asyncio.to_thread(self._run, [one.prompt for one in batch])
            except ClassifierError as error:
                for one in batch:
                    if not one.score.done():
                        one.score.set_exception(ClassifierError(str(error)))
                continue
            self._seconds = self._seconds / 2 + time.monotonic() - began
            self._characters = self._characters / 2 + len(batch) * max(one.length for one in batch)
            for one, score in zip(batch, scores, strict=True):
                if not one.score.done():
                    one.score.set_result(score)

    def _next(self) -> list[_Waiting]:
        """The oldest that is still wanted, and others by likeness of length, as many as fit."""
        self._waiting = [one for one in self._waiting if not one.score.done()]
        if not self._waiting:
            return []
        oldest = self._waiting[0]
        batch: list[_Waiting] = []
        longest, most = oldest.length, self._most()
        for one in sorted(self._waiting, key=lambda one: abs(one.length - oldest.length)):
            longest = max(longest, one.length)
            if batch and (len(batch) == BATCH_PROMPTS or longest * (len(batch) + 1) > most):
                break
            batch.append(one)
        taken = set(map(id, batch))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return batch

    def _most(self) -> float:
        """Characters as padded that a batch may have."""
        if not self._seconds:
            return BATCH_CHARACTERS
        return min(BATCH_CHARACTERS, BATCH_SECONDS * self._characters / self._seconds)
