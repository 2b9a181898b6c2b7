"""Connections of callers: each has so many places for calls, and one that misuses them is closed."""

import asyncio
import ctypes
import os
import socket
import stat
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

MAX_CONNECTION_STREAMS = 100
"""Calls under way on one connection. A client that makes more waits, or opens another connection."""

PLACES = 4 * MAX_CONNECTION_STREAMS
"""Calls of one connection that are under way, or that its client has cancelled within `CANCELLED_SECONDS`."""

CLOSED = 2 * PLACES
"""Places that a closed connection takes."""

CANCELLED_SECONDS, CLOSED_SECONDS = 1.0, 10.0
"""How long a cancelled call keeps its place, and how long calls of a closed connection are looked for."""

NOBODY = bytes(16)
"""The address of no family (AF_UNSPEC). A socket that connects to it forgets its peer, and all that has arrived."""

_C = ctypes.CDLL(None)


class Connections:
    """The connections that have calls, by the names that gRPC gives their clients, such as ipv4:127.0.0.1:50051.

    gRPC itself bounds calls under way, but not those that a client begins and cancels at once (CVE-2023-44487).
    """

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    def take(self, connection: str) -> bool:
        """Take a place for a call that begins. False where none is left: then the connection is closed."""
        taken = self._taken[connection]
        if taken < PLACES:
            self._taken[connection] = taken + 1
        elif taken < CLOSED:
            self.close(connection)
        return taken < PLACES

    def free(self, connection: str, places: int = 1) -> None:
        """Give places back."""
        self._taken[connection] -= places
        if self._taken[connection] <= 0:
            del self._taken[connection]

    def cancelled(self, connection: str) -> None:
        """Keep one more place for a while: the client has cancelled a call."""
        self._keep(connection, 1, CANCELLED_SECONDS)

    def close(self, connection: str) -> None:
        """Close a connection, and take its places from the calls that are still on their way."""
        self._keep(connection, CLOSED, CLOSED_SECONDS)
        asyncio.get_running_loop().run_in_executor(None, _hang_up, connection)

    def _keep(self, connection: str, places: int, seconds: float) -> None:
        self._taken[connection] += places
        asyncio.get_running_loop().call_later(seconds, self.free, connection, places)


def _hang_up(connection: str) -> None:
    """Disconnect the socket of a connection, for which gRPC has no function; it sees that the client is gone."""
    address = unquote(connection).partition(":")[2]
    for descriptor in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        with suppress(OSError), _duplicate(descriptor) as held:
            if _address(held.getpeername()) == address:
                _C.connect(held.fileno(), NOBODY, len(NOBODY))


def _duplicate(descriptor: int) -> socket.socket:
    """A second one: gRPC may close its own meanwhile, and another connection get the number. Raises OSError."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):  # of anything else `fromfd` leaves its duplicate open
        raise OSError("not a socket")
    return socket.fromfd(descriptor, socket.AF_INET6, socket.SOCK_STREAM)


def _address(peer: object) -> str:
    """HOST:PORT of a socket's other end; "" where it is not of the Internet."""
    if not isinstance(peer, tuple):
        return ""
    host, port = peer[0].removeprefix("::ffff:"), peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
