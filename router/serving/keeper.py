"""Keeps the background tasks of the service running."""

import asyncio
import time
from collections.abc import Callable, Coroutine

from router.events import TaskFailed
from router.ports import Observer
from router.serving.backoff import Backoff

Work = Callable[[], Coroutine[None, None, None]]
"""Starts a task that is meant to run until it is cancelled."""


class Keeper:
    """Runs background tasks, and restarts those that end.

    Every end of a task is reported to `observer` as TaskFailed, and the task starts again after a pause.

    Args:
        backoff: makes the pauses of one task.
    """

    def __init__(self, observer: Observer, backoff: Callable[[], Backoff] = Backoff) -> None:
        self._observer = observer
        self._backoff = backoff
        self._tasks: list[asyncio.Task[None]] = []

    def keep(self, name: str, work: Work) -> None:
        """Run `work` in the background until the keeper is closed; `name` is its label in logs and metrics."""
        self._tasks.append(asyncio.create_task(self._kept(name, work), name=name))

    async def close(self) -> None:
        """Cancel all tasks, and wait for their end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _kept(self, name: str, work: Work) -> None:
        backoff, task = self._backoff(), asyncio.current_task()
        assert task is not None
        while True:
            began = time.monotonic()
            error: Exception | None = None
            try:
                await work()
            except Exception as raised:
                error = raised
            except asyncio.CancelledError as raised:
                if task.cancelling():  # by `close`
                    raise
                error = RuntimeError("something that it awaited was cancelled")
                error.__cause__ = raised
            backoff.worked(time.monotonic() - began)
            # asyncio itself reports nothing, and the service would run on without the task.
            self._observer(TaskFailed(name, error))
            await asyncio.sleep(backoff.pause())
