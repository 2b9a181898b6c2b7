"""Calls that must end within a limit, on a machine that may be busy."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

TIMES = 8
"""How often its limit a call may take: a law about seconds is broken by a call that hangs, not by a slow machine."""


async def in_time(call: Awaitable[T], limit: float) -> T:
    """Await a call that gives up by itself after `limit` seconds; fails where it takes a few times as long.

    The limits are waited for one after another on the loop that the call runs on. A pause of the whole machine
    therefore uses up one of them, however long it is.
    """
    task = asyncio.ensure_future(call)
    for _ in range(TIMES):
        await asyncio.wait([task], timeout=limit)
        if task.done():
            return await task
    task.cancel()
    raise AssertionError(f"still under way after {TIMES} times its limit of {limit:g} s")
