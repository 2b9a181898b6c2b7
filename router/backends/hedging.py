"""A second request beside the first one when that stays silent (The Tail at Scale, Dean & Barroso 2013)."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Started(Generic[T]):
    """A stream whose first event has been asked for."""

    def __init__(self, events: AsyncGenerator[T]) -> None:
        self.events = events
        self.first = asyncio.ensure_future(anext(events))

    async def close(self) -> None:
        """Stop the stream, whether or not its first event has come."""
        self.first.cancel()
        await asyncio.gather(self.first, return_exceptions=True)
        await self.events.aclose()


async def hedged(
    first: AsyncGenerator[T], again: Callable[[], AsyncGenerator[T] | None], after: float
) -> AsyncGenerator[T]:
    """The events of `first`, or of `again()` if `first` is silent for `after` seconds and `again()` speaks sooner.

    The slower stream is closed. `again` returns None where there is nothing else to try. An error counts as speaking
    only when both streams have failed.
    """
    running = [_Started(first)]
    try:
        await asyncio.wait([running[0].first], timeout=after)
        if not running[0].first.done() and (second := again()) is not None:
            running.append(_Started(second))
        winner = await _winner(running)
        for loser in running:  # before the first event goes out: a slow caller must not keep two engines busy
            if loser is not winner:
                await loser.close()
        yield winner.first.result()
        async for event in winner.events:
            yield event
    finally:
        for one in running:
            await one.close()


async def _winner(running: list[_Started[T]]) -> _Started[T]:
    pending = {one.first: one for one in running}
    while True:
        done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for first in done:
            one = pending.pop(first)
            if not pending or first.exception() is None:
                return one
