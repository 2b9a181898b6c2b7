"""`serve --workers N`: N processes that share one port, started, watched, and replaced one by one."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from router.errors import SettingsError, WorkerError
from router.serving.backoff import Backoff
from router.serving.worker import Worker
from router.settings import Settings
from router.telemetry import metrics_server, multiprocess

STOP_SECONDS = 10.0
"""Time that a worker has to end, beyond the time that its streams have to drain."""


class Workers:
    """`count` workers, each in its place.

    Args:
        start: starts the worker of a place. Raises WorkerError.
        drain_seconds: time that streams have to end.
        backoff: makes the pauses of one place, before a worker that ended by itself is replaced.

    Attributes:
        replaced: workers that had ended by themselves.
    """

    def __init__(
        self,
        count: int,
        start: Callable[[int], Awaitable[Worker]],
        drain_seconds: float,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._places = range(count)
        self._start = start
        self._seconds = drain_seconds + STOP_SECONDS
        self._working: dict[int, Worker] = {}
        self._leaving: set[Worker] = set()
        self._backoffs = {place: backoff() for place in self._places}
        self._tasks: set[asyncio.Task[None]] = set()
        self._restarting = False
        self._one = asyncio.Lock()
        self.replaced = 0

    @property
    def working(self) -> dict[int, int]:
        """Process id by place, of the workers that answer."""
        return {place: worker.process.pid for place, worker in list(self._working.items())}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start all workers and keep them running. Raises WorkerError where one does not come up at first."""
        try:
            async with self._one:
                for place in self._places:  # one by one: the first makes the files that the others share
                    await self._put(place)
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*map(self._let_go, [*self._working.values(), *self._leaving]))

    def rolling_restart(self) -> None:
        """Replace all workers in the background, one by one: a successor answers before its predecessor drains.

        Does nothing while another rolling restart is under way.
        """
        if not self._restarting:
            self._restarting = True
            self._do(self._replace_all())

    async def _replace_all(self) -> None:
        try:
            for place in self._places:
                async with self._one:
                    predecessor = self._working.get(place)
                    await self._put(place)
                if predecessor is not None:
                    await self._let_go(predecessor)
            structlog.get_logger().info("renewed", workers=len(self._places))
        except WorkerError as error:
            structlog.get_logger().error("not renewed", worker=place, error=str(error))
        finally:
            self._restarting = False

    async def _let_go(self, worker: Worker) -> None:
        """Drain a worker. When this is cancelled, the worker stays in `_leaving` for `running` to drain."""
        self._leaving.add(worker)
        await worker.stop(self._seconds)
        self._leaving.discard(worker)

    async def _put(self, place: int) -> None:
        """Start and watch a worker in a place. Raises WorkerError."""
        worker = self._working[place] = await self._start(place)
        self._do(self._watch(place, worker))

    async def _watch(self, place: int, worker: Worker) -> None:
        """Replace the worker when it ends by itself."""
        began = time.monotonic()
        code = await worker.ended()
        if self._working.get(place) is not worker:  # a successor has its place
            return
        del self._working[place]
        self.replaced += 1
        structlog.get_logger().error("worker ended", worker=place, exit_code=code)
        self._backoffs[place].worked(time.monotonic() - began)
        while place not in self._working:
            await self._try_again(place)

    async def _try_again(self, place: int) -> None:
        await asyncio.sleep(self._backoffs[place].pause())
        async with self._one:
            if place in self._working:  # a rolling restart was faster
                return
            try:
                await self._put(place)
            except WorkerError as error:
                structlog.get_logger().error("worker not replaced", worker=place, error=str(error))

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True)
class Addresses:
    """Where calls are accepted, HOST:PORT each; `admin` is empty where that service is closed."""

    api: str
    admin: str

    @property
    def options(self) -> list[str]:
        """Options that make a worker listen there."""
        return ["--listen", self.api, *(["--admin-listen", self.admin] if self.admin else [])]


async def supervise(settings: Settings, announce: Callable[[str, str], None]) -> None:
    """Run until SIGTERM or SIGINT, then drain; SIGHUP replaces all workers, one by one.

    Args:
        announce: called with the addresses of the API and of the admin service ("" where that is closed) once calls
            are accepted.

    Raises:
        SettingsError: an address is not free, or not of this machine.
        WorkerError: a worker does not come up.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with _reserved(settings) as addresses, TemporaryDirectory(prefix="budget-router-") as folder:
        workers = _workers(settings, addresses, folder)
        loop.add_signal_handler(signal.SIGHUP, workers.rolling_restart)
        async with _metrics(settings.metrics_listen, workers, folder), workers.running():
            announce(addresses.api, addresses.admin)
            await stop.wait()
            structlog.get_logger().info("draining", seconds=settings.drain_seconds)


@contextmanager
def _reserved(settings: Settings) -> Iterator[Addresses]:
    """The addresses of the settings, their ports held for the workers. Raises SettingsError."""
    with ExitStack() as stack:
        api, admin = stack.enter_context(reserved(settings.listen)), ""
        if settings.admin_token.get_secret_value():
            admin = stack.enter_context(reserved(settings.admin_listen))
        yield Addresses(api, admin)


def _workers(settings: Settings, addresses: Addresses, folder: str) -> Workers:
    """The workers of the settings; their metrics go into `folder`."""

    async def start(place: int) -> Worker:
        options = *addresses.options, "--workers", str(settings.workers)
        return await Worker.started("work", str(place), *options, environment={multiprocess.FOLDER: folder})

    return Workers(settings.workers, start, settings.drain_seconds)


@asynccontextmanager
async def _metrics(listen: str, workers: Workers, folder: str) -> AsyncIterator[None]:
    """Serve the metrics of all workers as one. Raises SettingsError."""
    figures = multiprocess.registry(Path(folder), lambda: workers.working, lambda: workers.replaced)
    close = metrics_server.serve(listen, figures)
    try:
        yield
    finally:
        await asyncio.to_thread(close)


@contextmanager
def reserved(listen: str) -> Iterator[str]:
    """HOST:PORT, the port held for processes that share it. Raises SettingsError where it is not free."""
    host, _, port = listen.rpartition(":")
    with ExitStack() as stack:
        try:
            found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, *_, address = found[0]
            # SO_REUSEPORT would share the port with any program of the same user, so first bind it alone as a check.
            with socket.socket(family) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(address)
            held = stack.enter_context(socket.socket(family))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(address)
        except (OSError, OverflowError) as error:
            raise SettingsError(f"cannot listen on {listen or 'nothing'}: {error}") from error
        yield f"{host}:{held.getsockname()[1]}"
