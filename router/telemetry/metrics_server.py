"""The endpoint that Prometheus scrapes."""

import socket
from collections.abc import Callable
from contextlib import suppress

from prometheus_client import CollectorRegistry, start_http_server

from router.errors import SettingsError


def serve(listen: str, registry: CollectorRegistry) -> Callable[[], None]:
    """Serve a registry at HOST:PORT from a thread; an empty `listen` serves nothing.

    Returns:
        A function that stops the server; it blocks until the thread has ended.

    Raises:
        SettingsError: the address is malformed, in use, or not of this machine.
    """
    if not listen:
        return lambda: None
    host, _, port = listen.rpartition(":")
    try:
        # Without a host the library would listen on all addresses, and the endpoint asks for no credentials.
        server, thread = start_http_server(int(port), host or "127.0.0.1", registry)
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(f"BUDGET_ROUTER_METRICS_LISTEN: cannot listen there: {error}") from error

    def stop() -> None:
        # Nothing more can connect, which also wakes the thread: by itself it looks up twice a second.
        with suppress(OSError):  # not every system can
            server.socket.shutdown(socket.SHUT_RDWR)
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
