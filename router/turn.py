"""Turns on the event loop: long work ends its turn now and then, so that others get theirs."""

import asyncio

STEPS = 4_000
"""Steps of a turn. A step is work of about a microsecond: they are counted, so that a busy machine changes nothing."""


class Turn:
    """The steps that work on the event loop may still take before others run."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = STEPS

    async def spend(self, steps: int) -> None:
        """Count the steps that were just taken. Others run where the turn is over, and a new one begins."""
        self._left -= steps
        if self._left <= 0:
            await asyncio.sleep(0)
            self._left = STEPS
