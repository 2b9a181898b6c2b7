"""N workers that share one port: started, watched, and replaced one by one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import structlog

from router.errors import DrainError, WorkerError
from router.serving.backoff import Backoff
from router.serving.worker import Worker

STOP_SECONDS = 10.0
"""Seconds that a worker has to end, beyond those that its streams have to drain."""


class Workers:
    """`count` workers, each in its place.

    Args:
        start: starts the worker of a place, which must not let callers in without credentials where its second
            argument is true. Raises WorkerError.
        closed: callers needed credentials before the first worker started.
        drain_seconds: seconds that streams have to end.
        backoff: makes the pauses of one place, before a worker that ended by itself is replaced.

    Attributes:
        replaced: workers that had ended by themselves, or had hung.
        failures: how often the supervisor itself failed at its work.
    """

    def __init__(
        self,
        count: int,
        start: Callable[[int, bool], Awaitable[Worker]],
        drain_seconds: float,
        backoff: Callable[[], Backoff] = Backoff,
        closed: bool = False,
    ) -> None:
        self._places = range(count)
        self._start = start
        self._seconds = drain_seconds + STOP_SECONDS
        self._working: dict[int, Worker] = {}
        self._leaving: set[Worker] = set()
        self._backoffs = {place: backoff() for place in self._places}
        self._tasks: set[asyncio.Task[None]] = set()
        self._restarting = False
        self._closed = closed
        self._lost: list[int] = []  # exit codes of workers that did not end well when they were asked to
        self._starts = asyncio.Lock()  # a rolling restart and a replacement must not both fill a place
        self.replaced = self.failures = 0

    @property
    def working(self) -> dict[int, int]:
        """Process id by place, of the workers that answer."""
        # A copy: the thread of the metrics endpoint reads this while the event loop changes it.
        return {place: worker.process.pid for place, worker in list(self._working.items())}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start all workers and keep them running.

        Raises:
            WorkerError: one does not come up at first.
            DrainError: one lost something when it ended, or had to be killed.
        """
        try:
            async with self._starts:
                for place in self._places:  # one by one: the first makes the files that the others share
                    await self._put(place)
            yield
        finally:
            # Before any worker stops, or its watcher would replace it.
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*map(self._let_go, [*self._working.values(), *self._leaving]))
            if self._lost:  # also where not all had started, or one could not: what is lost counts more
                raise DrainError(f"a worker ended with exit code {self._lost[0]} instead of 0")

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
                async with self._starts:
                    predecessor = self._working.get(place)
                    await self._put(place)
                if predecessor is not None:
                    await self._let_go(predecessor)
            structlog.get_logger().info("renewed", workers=len(self._places))
        except Exception as error:  # the others keep the old code and bundle: the new ones may be what fails
            self._failed("not renewed", place, error)
        finally:
            self._restarting = False

    async def _let_go(self, worker: Worker) -> None:
        """Drain a worker. When this is cancelled, the worker stays in `_leaving` for `running` to drain."""
        self._leaving.add(worker)
        if code := await worker.stop(self._seconds):
            structlog.get_logger().error("worker did not end well", pid=worker.process.pid, exit_code=code)
            self._lost.append(code)
        self._leaving.discard(worker)

    async def _put(self, place: int) -> None:
        """Start and watch a worker in a place. Raises WorkerError."""
        worker = self._working[place] = await self._start(place, self._closed)
        self._do(self._watch(place, worker))

    async def _watch(self, place: int, worker: Worker) -> None:
        """Replace the worker when it ends by itself, or hangs."""
        began = time.monotonic()
        hanging = self._do(self._kill_hanging(place, worker))
        code = await worker.ended()
        hanging.cancel()
        if self._working.get(place) is not worker:  # a successor has its place
            return
        del self._working[place]
        self.replaced += 1
        structlog.get_logger().error("worker ended", worker=place, exit_code=code)
        self._backoffs[place].worked(time.monotonic() - began)
        # A start that fails is tried again, until it works or a rolling restart has filled the place.
        while place not in self._working:
            await self._try_again(place)

    async def _kill_hanging(self, place: int, worker: Worker) -> None:
        """Kill the worker when it hangs, which its watcher notices."""
        await worker.hangs(self._close)
        if self._working.get(place) is worker:
            structlog.get_logger().error("worker hangs", worker=place, pid=worker.process.pid)
            worker.process.kill()

    def _close(self) -> None:
        """A worker requires credentials. No successor may open what it has closed, whatever has become of the file."""
        self._closed = True

    async def _try_again(self, place: int) -> None:
        await asyncio.sleep(self._backoffs[place].pause())
        async with self._starts:
            if place in self._working:  # a rolling restart was faster
                return
            try:
                await self._put(place)
            except Exception as error:  # whatever it is, the place must not stay empty
                self._failed("worker not replaced", place, error)

    def _failed(self, event: str, place: int, error: Exception) -> None:
        self.failures += 1
        unexpected = None if isinstance(error, WorkerError) else error
        structlog.get_logger().error(event, worker=place, error=str(error), exc_info=unexpected)

    def _do(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
