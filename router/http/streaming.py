"""Server-sent events, to readers that may be slow."""

import asyncio
from collections.abc import Mapping

from aiohttp import web

SERVER = {"Server": "budget-router"}
"""In place of the names and versions of Python and its libraries."""

HEADERS = {
    **SERVER,
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}

READ_SECONDS = 60.0
"""How long a reader may take for what waits for it: a call that nobody reads must not hold its place for ever."""

WAITING_BYTES = 16 << 10
"""Bytes that may wait for a reader; beyond, a limit of time is set, which costs more than the writing."""


class EventStream(web.StreamResponse):
    """A response of events.

    Attributes:
        ended: how the call ended, as gRPC calls it.
    """

    def __init__(self, request: web.BaseRequest, headers: Mapping[str, str]) -> None:
        super().__init__(headers={**HEADERS, **headers})
        self._asked = request
        self.ended = "OK"

    async def begin(self) -> None:
        """Send the headers."""
        await self.prepare(self._asked)

    async def send(self, events: bytes) -> None:
        """Send events. Raises ConnectionError where the reader has left, or reads too slowly."""
        transport = self._asked.transport
        if transport is None:
            raise ConnectionResetError("the reader has left")
        if transport.get_write_buffer_size() + len(events) <= WAITING_BYTES:
            await self.write(events)
            return
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self.write(events)
        except TimeoutError:
            transport.abort()
            raise ConnectionResetError(f"nothing was read for {READ_SECONDS:g} s") from None
