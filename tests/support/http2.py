"""A small client of raw HTTP/2 frames, for callers that no gRPC library would let misbehave.

Headers are literals that are never indexed, which every server reads, so that no table has to be kept.
"""

import asyncio
import re
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
LONGEST_FRAME = 16_384
REFUSED, CANCEL = 7, 8
INITIAL_WINDOW = 4
"""The setting of how many bytes of a stream the client takes before it says more."""

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Frame:
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def ends(self) -> bool:
        """True for the last frame of a stream from the server."""
        return self.kind == RESET or (self.kind in (DATA, HEADERS) and bool(self.flags & END_STREAM))


def grpc_status(seen: Frame) -> int | None:
    """The status with which a call ended; None for other frames. Read from the first call of a connection alone: later
    ones may repeat it in a shorter form."""
    found = re.search(rb"grpc-status[\x01\x02](\d+)", seen.payload) if seen.kind == HEADERS else None
    return int(found[1]) if found else None


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def call(stream: int, path: str, metadata: Headers = (), flags: int = END_HEADERS) -> bytes:
    """The frame that begins a gRPC call."""
    return frame(HEADERS, flags, stream, header_block(path, metadata))


def header_block(path: str, metadata: Headers = ()) -> bytes:
    """The headers of a gRPC call, a byte for each character; `metadata` comes last."""
    fixed = (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "attack")
    grpc = ("content-type", "application/grpc"), ("te", "trailers")
    return b"".join(literal(name, value) for name, value in (*fixed, *grpc, *metadata))


def literal(name: str, value: str) -> bytes:
    """A header that no table keeps."""
    return b"\x10" + _string(name) + _string(value)


def _string(text: str) -> bytes:
    return _integer(len(text), 7) + text.encode("latin-1")


def _integer(value: int, bits: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    encoded, value = [most], value - most
    while value >= 128:
        encoded.append(value % 128 + 128)
        value //= 128
    return bytes([*encoded, value])


def message(data: bytes, compressed: bool = False, length: int | None = None) -> bytes:
    """A gRPC message behind its prefix, which may claim another length."""
    return struct.pack(">BI", compressed, len(data) if length is None else length) + data


def body(stream: int, data: bytes, end: bool = True) -> bytes:
    """DATA frames; flow control is left to the caller."""
    pieces = [data[at : at + LONGEST_FRAME] for at in range(0, len(data), LONGEST_FRAME)] or [b""]
    flags = [0] * (len(pieces) - 1) + [END_STREAM if end else 0]
    return b"".join(frame(DATA, flag, stream, piece) for flag, piece in zip(flags, pieces, strict=True))


def reset(stream: int) -> bytes:
    """The frame that cancels a call."""
    return frame(RESET, 0, stream, struct.pack(">I", CANCEL))


class Connection:
    """A connection, on which the caller may write what it likes.

    Attributes:
        closed: the server has hung up.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.closed = False

    async def send(self, data: bytes) -> None:
        """Write bytes as they are; what a server that hung up does not take is lost."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            self.closed = True

    async def receive(self) -> Frame | None:
        """The next frame; None where the server has hung up. Answers neither pings nor settings."""
        try:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3]))
        except (OSError, asyncio.IncompleteReadError):
            self.closed = True
            return None
        return Frame(head[3], head[4], int.from_bytes(head[5:9]) & 0x7FFFFFFF, payload)

    async def answers(self) -> AsyncIterator[Frame]:
        """The frames until the server hangs up; pings, settings and data are acknowledged meanwhile."""
        while (seen := await self.receive()) is not None:
            if seen.kind == DATA and seen.payload:
                await self.send(frame(WINDOW, 0, 0, struct.pack(">I", len(seen.payload))))
            if seen.kind in (SETTINGS, PING) and not seen.flags & ACK:
                await self.send(frame(seen.kind, ACK, 0, seen.payload if seen.kind == PING else b""))
            yield seen

    async def begun(self) -> None:
        """Acknowledge the server's settings, which bind it and the caller from then on."""
        if await self.receive() is not None:  # the first frame of a server
            await self.send(frame(SETTINGS, ACK, 0))

    async def status(self) -> int | None:
        """The gRPC status of the first call of this connection; None where the server hangs up before it ends."""
        async for seen in self.answers():
            if (status := grpc_status(seen)) is not None:
                return status
        return None

    async def ended(self, streams: int) -> int:
        """Read until so many streams have ended, or the server hangs up; how many of them have ended."""
        ended = 0
        async for seen in self.answers():
            ended += seen.ends
            if ended >= streams:
                break
        return ended

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def connected(address: str, window: int = 65_535) -> AsyncIterator[Connection]:
    """A connection to HOST:PORT on which HTTP/2 has begun; `window` bytes of each stream are taken unasked."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = Connection(reader, writer)
    try:
        await connection.send(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, window)))
        yield connection
    finally:
        await connection.close()
