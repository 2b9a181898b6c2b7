"""HTTP requests, fuzzed from the first byte of their head: whatever they hold, the answer is no crash and no 500.

The first byte picks the endpoint, and whether the body comes apart from the head. An empty line ends the headers of the
input, one a line; the rest is the body.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from router.admission.identity import TenantGuard
from router.admission.permits import Places
from router.admission.tenants import Tenants
from router.http.boundary import Boundary
from router.http.connection import Connection
from router.http.endpoints import Endpoints
from router.http.reading import CONTINUE, BodyReader
from router.requests.limits import MAX_LARGE_BYTES, MAX_MESSAGE_BYTES
from router.telemetry.tracing import passed_on
from tests.support.fakes import LIMITS, RecordingObserver, router_of

PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/budget_router/outcomes")
APART = b"\x80"
FORGET = 1_000
"""Requests after which the fakes are made anew, which keep everything."""

SECONDS = 30.0

_loop = asyncio.new_event_loop()
_state: dict[str, Any] = {"left": 0}


class Wire(asyncio.Transport):
    """A connection whose other end takes whatever is written.

    Attributes:
        said: all of it.
        closed: set once the connection is closed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said = b""
        self.closed = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.said += bytes(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


def http(data: bytes) -> str:
    """A request to the endpoint that the first byte picks; the status that it is answered with."""
    path = PATHS[data[0] % len(PATHS)] if data else PATHS[0]
    head, separator, body = data[1:].partition(b"\n\n")
    if not separator:
        head, body = b"", data[1:]
    lines = [f"POST {path} HTTP/1.1".encode(), b"Host: x", b"Connection: close", *head.split(b"\n")]
    lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    top = b"\r\n".join([*filter(None, lines), b"", b""])
    pieces = [top, body] if data[:1] >= APART else [top + body]
    status = _loop.run_until_complete(_answered(pieces))
    assert status not in (b"500", b""), (status, pieces)
    return "OK" if status == b"200" else status.decode()


async def _answered(pieces: Iterable[bytes]) -> bytes:
    """The status that a request is answered with."""
    protocol, wire = Connection(_server()), Wire()
    protocol.connection_made(wire)
    for piece in pieces:
        protocol.data_received(piece)
        await asyncio.sleep(0)
    async with asyncio.timeout(SECONDS):
        await wire.closed.wait()
    protocol.connection_lost(None)
    await asyncio.sleep(0)
    return wire.said.removeprefix(CONTINUE)[9:12]


def _server() -> web.Server:
    if not _state["left"]:
        router = router_of()
        places, reader = Places(1_000, MAX_LARGE_BYTES), BodyReader(MAX_MESSAGE_BYTES, 1_000)
        routes = Endpoints(router, LIMITS, router.health).routes
        boundary = Boundary(routes, TenantGuard(Tenants({})), places, reader, RecordingObserver(), passed_on)
        _state.update(left=FORGET, server=web.Server(boundary, loop=_loop))
    _state["left"] -= 1
    made: web.Server = _state["server"]
    return made
