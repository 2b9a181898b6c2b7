"""The bytes of a stream as they arrive, in a burst some at a time."""

import asyncio

from aiohttp import StreamReader

TURNS = 4
"""Turns of the event loop for which a burst is gathered."""


async def arrived(content: StreamReader) -> bytes:
    """The bytes that have arrived, at least one; none at the end.

    What has to be waited for is returned at once. Where something was there already, the engine is faster than its
    events are passed on, and each message costs more than the events in it: then what comes within the next turns of
    the loop, which belong to others, goes along. A turn that brings nothing ends it.
    """
    if not (data := content.read_nowait()):
        return await content.readany()
    for _ in range(TURNS):
        await asyncio.sleep(0)
        if content.exception() is not None or not (more := content.read_nowait()):
            break  # the next read raises the failure, behind what came before it
        data += more
    return data
