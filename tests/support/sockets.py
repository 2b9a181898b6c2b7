"""A server that sends bytes as they are, for answers that no HTTP library would write."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Raw:
    """A listening server.

    Attributes:
        requests: the heads of the requests so far.
        open: connections that are open now.
        sent: bytes sent so far.
    """

    def __init__(self, *answers: bytes, endless: bytes = b"", pause: float = 0.0, hold: bool = False) -> None:
        """Answers each request with the `answers`, then with `endless` again and again, `pause` seconds between them.

        `hold` leaves the connection open behind them.
        """
        self._answers = answers
        self._endless = endless
        self._pause = pause
        self._hold = hold
        self.requests: list[bytes] = []
        self.open = 0
        self.sent = 0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def write(self, data: bytes) -> None:
        """Send something more on every open connection."""
        for writer in self._writers:
            writer.write(data)

    def hang_up(self) -> None:
        """Close every open connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        self.open += 1
        self._writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                for answer in self._answers:
                    await self._send(writer, answer)
                while self._endless:
                    await self._send(writer, self._endless)
                while self._hold and await reader.read(1 << 16):
                    pass
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        self.sent += len(data)
        await writer.drain()
        await asyncio.sleep(self._pause)


@asynccontextmanager
async def listening(raw: Raw) -> AsyncIterator[Raw]:
    """The server on a loopback port of its own."""
    server = await asyncio.start_server(raw.client, "127.0.0.1", 0)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        raw.hang_up()
        while raw.open:  # noqa: ASYNC110  each connection ends as soon as it notices
            await asyncio.sleep(0)
