"""A caller that takes a fifth of a gRPC client's CPU: it writes HTTP/2 frames, and keeps what comes back unread.

Workers and their caller share the cores in `make curves`, where a gRPC client would take a third as much as a
worker.
"""

import asyncio
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast

from tests.support import http2
from tests.support.http2 import ACK, DATA, HEADERS, PING, SETTINGS, WINDOW, frame, message

HEAD = 9
"""Bytes before a frame's payload."""

ROOM = (1 << 31) - 1
"""Bytes of replies that are taken unasked: all of them."""

BEGIN = http2.PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", http2.INITIAL_WINDOW, ROOM))
BEGIN += frame(WINDOW, 0, 0, struct.pack(">I", ROOM - 65_535))
AGAIN = b"\x83\x86\xc1\xc0\xbf\xbe"
"""The headers of a connection's further calls: POST, http, and the four that `_first` puts into the server's table."""


async def closed(server: str, method: str, bodies: Sequence[bytes], at_once: int, connections: int) -> list[bytes]:
    """Replies to the bodies, by `at_once` callers that each ask again once they are answered.

    Raises:
        ConnectionError: the server hangs up before all are answered.
    """
    host, _, port = server.rpartition(":")
    replies, waiting = [b""] * len(bodies), iter(enumerate(bodies))
    loop = asyncio.get_running_loop()
    connections = min(connections, at_once)  # each has one caller at least
    made = partial(_Caller, method, waiting, at_once // connections, replies)
    callers = [(await loop.create_connection(made, host, int(port)))[1] for _ in range(connections)]
    await asyncio.gather(*(caller.done for caller in callers))
    return replies


class _Caller(asyncio.Protocol):
    """One connection, with `at_once` calls under way while any are waiting."""

    def __init__(self, method: str, waiting: Iterator[tuple[int, bytes]], at_once: int, replies: list[bytes]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._headers = _first(method)
        self._waiting, self._at_once, self._replies = waiting, at_once, replies
        self._asked: dict[int, int] = {}  # number of the body, by stream
        self._stream = -1
        self._read = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(BEGIN)
        for _ in range(self._at_once):
            self._ask()

    def data_received(self, data: bytes) -> None:
        self._read += data
        while len(self._read) >= HEAD:
            end = HEAD + int.from_bytes(self._read[:3])
            if len(self._read) < end:
                return
            seen, self._read = self._read[:end], self._read[end:]
            self._frame(seen[3], seen[4], int.from_bytes(seen[5:HEAD]), bytes(seen[HEAD:]))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server has hung up"))

    def _ask(self) -> None:
        """Begin the next call, or end the connection where none waits and none is under way."""
        number, data = next(self._waiting, (-1, b""))
        if number < 0:
            if not self._asked and not self.done.done():
                self.done.set_result(None)
                self._transport.close()
            return
        self._stream += 2
        self._asked[self._stream] = number
        begin = frame(HEADERS, http2.END_HEADERS, self._stream, self._headers)
        self._transport.write(begin + http2.body(self._stream, message(data)))
        self._headers = AGAIN

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (SETTINGS, PING) and not flags & ACK:
            self._transport.write(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == DATA:
            self._replies[self._asked[stream]] += payload
        elif kind == HEADERS and flags & http2.END_STREAM:
            number = self._asked.pop(stream)
            self._replies[number] = self._replies[number][len(message(b"")) :]
            self._ask()


def _first(method: str) -> bytes:
    """The headers of a connection's first call, which the server's table keeps: path, authority, content type, te."""

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    kept = b"\x44" + text(method) + b"\x41" + text("bench") + b"\x5f" + text("application/grpc")
    return b"\x83\x86" + kept + b"\x40" + text("te") + text("trailers")
