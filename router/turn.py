"""Turns on the event loop: long work ends its turn now and then, so that others get theirs."""

import asyncio
from weakref import WeakKeyDictionary

STEPS = 4_000
"""Steps of a turn. A step is work of about a microsecond: they are counted, so that a busy machine changes nothing."""

_lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def others_first() -> None:
    """Let others run. Of all the work that waits here, one goes on in a round of the event loop, in its order.

    A short call takes several rounds, and would wait in each of them for a turn of every long call.
    """
    async with _lanes.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        await asyncio.sleep(0)


class Turn:
    """The steps that work on the event loop may still take before others run."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = STEPS

    async def spend(self, steps: int) -> None:
        """Count the steps that were just taken. Others run where the turn is over, and a new one begins."""
        self._left -= steps
        if self._left <= 0:
            await others_first()
            self._left = STEPS
