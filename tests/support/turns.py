"""An event loop that knows how long its turns take, in steps, which do not depend on what else the machine does."""

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TypeVarTuple

Ts = TypeVarTuple("Ts")

ROUNDS, STEPS_OF_ROUNDS = 100_000, 1_100
"""Rounds of an empty loop, and what they count for: a step is about a microsecond."""


def steps_of(work: Callable[[], object], tries: int = 3) -> float:
    """The steps that some work takes in this thread, at best."""
    return min(_seconds_of(work) for _ in range(tries)) / _step()


def _seconds_of(work: Callable[[], object]) -> float:
    """CPU time: what other threads and processes take meanwhile does not count."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _step() -> float:
    """Seconds of a step on this machine at this moment."""
    return min(_seconds_of(_rounds) for _ in range(3)) / STEPS_OF_ROUNDS


def _rounds() -> None:
    for _ in range(ROUNDS):
        pass


class MeasuredLoop(asyncio.SelectorEventLoop):
    """Measures its callbacks, between which other tasks run."""

    _longest = 0.0

    def begin(self) -> None:
        """Forget what was measured."""
        self._longest = 0.0

    def longest(self) -> float:
        """Steps of the longest callback since `begin`; called within a callback."""
        return self._longest / _step()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return super().call_soon(partial(self._measured, callback, *args), context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return super().call_soon_threadsafe(partial(self._measured, callback, *args), context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return super().call_at(when, partial(self._measured, callback, *args), context=context)

    def _measured(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        took = _seconds_of(partial(callback, *args))
        self._longest = max(self._longest, took)
