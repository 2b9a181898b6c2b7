"""Signals, from the first moment of the process to its end. They are heard even while the event loop hangs."""

import asyncio
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import structlog

from router.serving.watchdog import Watchdog

STOPPING = (signal.SIGTERM, signal.SIGINT)
Action = Callable[[], object]


@contextmanager
def stopped_by_signals(hangup: Action, seconds: float) -> Iterator[Callable[[], Awaitable[None]]]:
    """Let SIGTERM and SIGINT end the block; a signal during the start ends it at once, and quietly.

    A start may wait for its engine for minutes. The kernel does not deliver a signal without a handler to PID 1 of a
    container, so leaving the start to the default action would make Kubernetes kill the pod.

    Args:
        hangup: called in the event loop on SIGHUP.
        seconds: how long the process may live after SIGTERM or SIGINT; then a watchdog ends it.

    Yields:
        A function to await once the start is over: it returns when a signal comes, and the block can drain.
    """
    stopping = _Stopping(seconds)
    actions: dict[int, Action] = {
        **dict.fromkeys(STOPPING, stopping.terminated),
        signal.SIGHUP: lambda: stopping.in_loop(hangup),
    }
    with heard(actions, ending=stopping.begun):
        try:
            yield stopping.signalled
        except asyncio.CancelledError:
            if not stopping.ended_start:
                raise
            stopping.task.uncancel()
            structlog.get_logger().info("stopped while starting")


class _Stopping:
    """The way of the current task from its start to its end; `seconds` as in `stopped_by_signals`."""

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self._stop, self._loop, self._starting = asyncio.Event(), asyncio.get_running_loop(), True
        self._watchdog = Watchdog(seconds, self._loop)

    def begun(self) -> bool:
        """A signal has asked for the end."""
        return self._stop.is_set()

    @property
    def ended_start(self) -> bool:
        """A signal came before the start was over."""
        return self._starting and self.begun()

    async def signalled(self) -> None:
        """Wait for a signal; the start is over."""
        self._starting = False
        await self._stop.wait()

    def terminated(self) -> None:
        """Act on a signal to stop, in the thread that hears it."""
        try:
            self._watchdog.start()  # here, and not in the loop, which may hang
        finally:
            self.in_loop(self._end)

    def in_loop(self, action: Action) -> None:
        """Call an action in the event loop, from any thread."""
        with suppress(RuntimeError):  # the loop is closed, and the process about to end
            self._loop.call_soon_threadsafe(action)

    def _end(self) -> None:
        self._stop.set()
        if self._starting:
            self.task.cancel()


@contextmanager
def heard(actions: Mapping[int, Action], ending: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Call the action of a signal whenever it comes, in a thread of its own. Must be entered in the main thread.

    Afterwards the signals do what they did before. Where the process is `ending`, they do nothing, so that a
    second SIGTERM makes no failure of an orderly end.
    """
    # Handlers of the event loop run in the loop, and those of Python in the main thread: both may hang in a call. The
    # number of a signal is written to this socket by the kernel's handler, whatever the threads are doing.
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = {number: signal.signal(number, _nothing) for number in actions}
    loops_own = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_hear, args=(ours, actions), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(loops_own)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ending() else handler)
        theirs.close()
        thread.join()
        ours.close()


def _hear(signals: socket.socket, actions: Mapping[int, Action]) -> None:
    while numbers := signals.recv(16):
        for number in numbers:
            if number in actions:
                try:
                    actions[number]()
                except Exception as error:  # signals to come must still be heard
                    structlog.get_logger().error("unexpected", exc_info=error)


def _nothing(*_: object) -> None:
    """Stands where Python wants a handler: without one the default action would end the process."""
