"""SIGTERM and SIGINT, from the first moment of the process to its drain."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog


@contextmanager
def stopped_by_signals() -> Iterator[Callable[[], Awaitable[None]]]:
    """Let SIGTERM and SIGINT end the block; a signal during the start ends it at once, and quietly.

    A start may wait for its engine for minutes. The kernel does not deliver a signal without a handler to PID 1 of a
    container, so leaving the start to the default action would make Kubernetes kill the pod.

    Yields:
        A function to await once the start is over: it returns when a signal comes, and the block can drain.
    """
    task, stop = asyncio.current_task(), asyncio.Event()
    assert task is not None
    starting = True

    async def signalled() -> None:
        nonlocal starting
        starting = False
        _handle(stop.set)
        await stop.wait()

    _handle(task.cancel)
    try:
        yield signalled
    except asyncio.CancelledError:
        if not starting:
            raise
        task.uncancel()
        structlog.get_logger().info("stopped while starting")


def _handle(action: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, action)
