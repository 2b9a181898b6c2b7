"""`serve --workers N`: the process that holds the ports, starts the workers, and serves their metrics as one."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog

from router.serving.listening import bindable, refusal
from router.serving.signals import stopped_by_signals
from router.serving.trainer import training
from router.serving.worker import Worker
from router.serving.workers import STOP_SECONDS, Workers
from router.settings import PREFIX, Settings, requires_credentials
from router.telemetry import metrics_server, multiprocess

EXIT_SECONDS = 5.0
"""Seconds beyond the end of its workers until a supervisor that was asked to end is ended by force."""


@dataclass(frozen=True)
class Addresses:
    """Addresses that accept calls, HOST:PORT each; `admin` and `http` are empty where there is no such service."""

    api: str
    admin: str
    http: str

    @property
    def options(self) -> list[str]:
        """Options that make a worker listen there."""
        admin = ["--admin-listen", self.admin] if self.admin else []
        return ["--listen", self.api, *admin, *(["--http-listen", self.http] if self.http else [])]


async def supervise(settings: Settings, announce: Callable[[str, str, str], None]) -> None:
    """Run until SIGTERM or SIGINT, then drain; SIGHUP replaces all workers, one by one.

    Args:
        announce: called with the addresses of the API, of the admin service and of the HTTP API ("" where there is no
            such service) once calls are accepted.

    Raises:
        SettingsError: an address is not free, or not of this machine.
        WorkerError: a worker does not come up.
        DrainError: a worker lost something when it ended.
    """
    seconds = settings.drain_seconds + STOP_SECONDS + EXIT_SECONDS
    with (
        # SIGHUP is heeded in the event loop, which has its first turn once there are workers.
        stopped_by_signals(lambda: workers.rolling_restart(), seconds) as signalled,
        _reserved(settings) as addresses,
        TemporaryDirectory(prefix="budget-router-") as folder,
    ):
        workers = _workers(settings, addresses, folder)
        async with _metrics(settings.metrics_listen, workers, folder), workers.running(), training(settings):
            announce(addresses.api, addresses.admin, addresses.http)
            await signalled()
            structlog.get_logger().info("draining", seconds=settings.drain_seconds)


@contextmanager
def _reserved(settings: Settings) -> Iterator[Addresses]:
    """The addresses of the settings, their ports held for the workers. Raises SettingsError."""
    with ExitStack() as stack:
        api, admin, http = stack.enter_context(reserved(settings.listen)), "", ""
        if settings.admin_token.get_secret_value():
            admin = stack.enter_context(reserved(settings.admin_listen))
        if settings.http_listen:
            http = stack.enter_context(reserved(settings.http_listen))
        if settings.health_listen:
            stack.enter_context(reserved(settings.health_listen))
        yield Addresses(api, admin, http)


def _workers(settings: Settings, addresses: Addresses, folder: str) -> Workers:
    """The workers of the settings; their metrics go into `folder`."""

    async def start(place: int, closed: bool) -> Worker:
        # A worker reads all else from the environment, which it inherits; these may come from the command line.
        options = *addresses.options, "--workers", str(settings.workers)
        environment = {
            multiprocess.FOLDER: folder,
            PREFIX + "REQUIRE_KEYS": str(closed).lower(),
            PREFIX + "LEARN": settings.learn,
            PREFIX + "LEARN_FOLDER": str(settings.learn_folder),
        }
        return await Worker.started("work", str(place), *options, environment=environment)

    closed = settings.require_keys or requires_credentials(settings)
    return Workers(settings.workers, start, settings.drain_seconds, closed=closed)


@asynccontextmanager
async def _metrics(listen: str, workers: Workers, folder: str) -> AsyncIterator[None]:
    """Serve the metrics of all workers as one. Raises SettingsError."""
    figures = multiprocess.registry(
        Path(folder), lambda: workers.working, lambda: workers.replaced, lambda: workers.failures
    )
    close = metrics_server.serve(listen, figures)
    try:
        yield
    finally:
        await asyncio.to_thread(close)


@contextmanager
def reserved(listen: str) -> Iterator[str]:
    """HOST:PORT, the port held for processes that share it. Raises SettingsError where it is not free.

    A port that a single process has just left can be shared by a second service until the workers of the first listen.
    """
    # SO_REUSEPORT would share the port with any program of the same user, so first it is bound alone as a check.
    family, address = bindable(listen)
    with socket.socket(family) as held:
        # Bound, but never listening: the kernel gives connections to the workers alone.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            _bind(held, address)
        except OSError as error:
            raise refusal(listen) from error
        yield f"{listen.rpartition(':')[0]}:{held.getsockname()[1]}"


def _bind(held: socket.socket, address: tuple[Any, ...]) -> None:
    """Bind to a free address. Raises OSError."""
    try:
        held.bind(address)
    except OSError:  # connections of a single process linger in TIME_WAIT, which share no port
        # Not at first: until the workers listen, a second service could then bind the port, too.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
