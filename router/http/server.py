"""The HTTP server: binding, connections, drain."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web

from router.addresses import HELD
from router.errors import SettingsError
from router.http.connection import Connection

HANDSHAKE_SECONDS = 10.0
CONNECTIONS_A_CALL = 2
"""Connections that may be open for each call that may be under way; idle ones are kept alive."""

BACKLOG = 1_024
CLOSE_SECONDS = 1.0

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class HttpServer:
    """Serves requests on one port.

    Args:
        handler: answers every request.
        listen: HOST:PORT; port 0 takes a free one.
        tls: None = plaintext.
        max_calls: calls under way at once.
        shared: other processes may listen on the same port.

    Attributes:
        port: where it listens.

    Raises:
        SettingsError: the address is in use, or not of this machine.
    """

    def __init__(
        self, handler: Handler, listen: str, tls: ssl.SSLContext | None, max_calls: int, shared: bool = False
    ) -> None:
        self._handler = handler
        self._tls = tls
        self._max_connections = CONNECTIONS_A_CALL * max_calls
        self._socket = _bound(listen, shared)
        self.port: int = self._socket.getsockname()[1]
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._connections: web.Server | None = None
        self._listening: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept requests."""
        # A caller that leaves ends its generation.
        self._connections = web.Server(self._counted, handler_cancellation=True)
        self._listening = await asyncio.get_running_loop().create_server(
            self._protocol,
            sock=self._socket,
            ssl=self._tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=None if self._tls is None else HANDSHAKE_SECONDS,
        )

    async def drain(self, grace: float) -> None:
        """Accept no more connections, and let the calls under way end within `grace` seconds."""
        if self._listening is None or self._connections is None:
            self._socket.close()
            return
        self._listening.close()
        self._connections.pre_shutdown()  # those that are idle are closed at once, the others behind their call
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        await self._connections.shutdown(CLOSE_SECONDS)

    async def _counted(self, request: web.BaseRequest) -> web.StreamResponse:
        self._under_way += 1
        self._idle.clear()
        try:
            return await self._handler(request)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def _protocol(self) -> asyncio.Protocol:
        assert self._connections is not None
        full = len(self._connections.connections) >= self._max_connections
        return _Closed() if full else Connection(self._connections)


class _Closed(asyncio.Protocol):
    """Closes a connection that is too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _bound(listen: str, shared: bool) -> socket.socket:
    """A socket bound to HOST:PORT. Raises SettingsError."""
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, *_, address in found[:1]:
            bound = socket.socket(family)
            try:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
                bound.bind(address)
            except OSError:
                bound.close()
                raise
            return bound
    except (OSError, OverflowError) as error:
        raise _refusal(listen) from error
    raise _refusal(listen)


def _refusal(listen: str) -> SettingsError:
    seen = "port in use, or not an address of this machine"
    return SettingsError(f"cannot listen on {listen}: {seen}; {HELD}")
