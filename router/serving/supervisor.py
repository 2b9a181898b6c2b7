"""`serve --workers N`: N processes that share one port, started, watched, and replaced one by one."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from router.errors import SettingsError, WorkerError
from router.serving.worker import Worker
from router.settings import Settings
from router.telemetry import metrics_server, multiprocess

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a worker that ended by itself is replaced; doubled until one has worked for the longer time."""

STOP_SECONDS = 10.0
"""How much longer than it drains a worker may take to end."""


class Workers:
    """`count` workers, each in its place.

    Args:
        start: starts the worker of a place. Raises WorkerError.
        drain_seconds: time that streams have to end.

    Attributes:
        replaced: workers that had ended by themselves.
    """

    def __init__(self, count: int, start: Callable[[int], Awaitable[Worker]], drain_seconds: float) -> None:
        self._places = range(count)
        self._start = start
        self._seconds = drain_seconds + STOP_SECONDS
        self._working: dict[int, Worker] = {}
        self._leaving: set[Worker] = set()
        self._pauses = dict.fromkeys(self._places, FIRST_PAUSE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._restarting = False
        self._one = asyncio.Lock()
        self.replaced = 0

    @property
    def working(self) -> dict[int, int]:
        """Process of each place that answers."""
        return {place: worker.process.pid for place, worker in list(self._working.items())}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """All of them, kept running. Raises WorkerError where one does not come up at first."""
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
        """Defer, replace them all, one by one, unless that goes on: successors answer before predecessors drain."""
        if not self._restarting:
            self._restarting = True
            self._do(self._rolling_restart())

    async def _rolling_restart(self) -> None:
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
        """Drain it. Whoever is cancelled meanwhile leaves it to `running`."""
        self._leaving.add(worker)
        await worker.stop(self._seconds)
        self._leaving.discard(worker)

    async def _put(self, place: int) -> None:
        """Start a worker there, and see to it. Raises WorkerError."""
        worker = self._working[place] = await self._start(place)
        self._do(self._watch(place, worker))

    async def _watch(self, place: int, worker: Worker) -> None:
        """Replace it, should it end by itself."""
        began = time.monotonic()
        code = await worker.ended()
        if self._working.get(place) is not worker:  # it was renewed
            return
        del self._working[place]
        self.replaced += 1
        structlog.get_logger().error("worker ended", worker=place, exit_code=code)
        if time.monotonic() - began > LONGEST_PAUSE:
            self._pauses[place] = FIRST_PAUSE
        while place not in self._working:
            await self._try_again(place)

    async def _try_again(self, place: int) -> None:
        pause = self._pauses[place]
        self._pauses[place] = min(2 * pause, LONGEST_PAUSE)
        await asyncio.sleep(pause)
        async with self._one:
            if place in self._working:  # a renewal was sooner
                return
            try:
                await self._put(place)
            except WorkerError as error:
                structlog.get_logger().error("worker not replaced", worker=place, error=str(error))

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def supervise(settings: Settings, announce: Callable[[str, str], None]) -> None:
    """Run until SIGTERM or SIGINT, then drain; SIGHUP renews.

    Args:
        announce: told where calls are accepted: of the API, and of the admin service, "" where that is closed.

    Raises:
        SettingsError: an address can not be bound.
        WorkerError: a worker does not come up.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with ExitStack() as stack:
        listen = stack.enter_context(reserved(settings.listen))
        told, admin = ["--listen", listen, "--workers", str(settings.workers)], ""
        if settings.admin_token.get_secret_value():
            admin = stack.enter_context(reserved(settings.admin_listen))
            told += ["--admin-listen", admin]
        folder = stack.enter_context(TemporaryDirectory(prefix="budget-router-"))

        async def start(place: int) -> Worker:
            return await Worker.started("work", str(place), *told, environment={multiprocess.FOLDER: folder})

        workers = Workers(settings.workers, start, settings.drain_seconds)
        figures = multiprocess.registry(Path(folder), lambda: workers.working, lambda: workers.replaced)
        close = metrics_server.serve(settings.metrics_listen, figures)
        loop.add_signal_handler(signal.SIGHUP, workers.rolling_restart)
        try:
            async with workers.running():
                announce(listen, admin)
                await stop.wait()
                structlog.get_logger().info("draining", seconds=settings.drain_seconds)
        finally:
            await asyncio.to_thread(close)


@contextmanager
def reserved(listen: str) -> Iterator[str]:
    """HOST:PORT, the port held for processes that share it. Raises SettingsError where somebody else listens there."""
    host, _, port = listen.rpartition(":")
    with ExitStack() as stack:
        try:
            told = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, *_, address = told[0]
            with socket.socket(family) as alone:  # a port that is shared is shared with strangers, too
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(address)
            held = stack.enter_context(socket.socket(family))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(address)
        except (OSError, OverflowError) as error:
            raise SettingsError(f"can not listen on {listen or 'nothing'}: {error}") from error
        yield f"{host}:{held.getsockname()[1]}"
