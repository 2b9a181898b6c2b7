"""Ends a process that was asked to end and does not, and says what hangs."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGE = str(Path(__file__).parents[1])
SHOWN = 6
"""Threads and tasks that are named at most."""

STDERR = 2
GRACE = 5.0
"""Seconds that the thread has to say what hangs, on a machine with much else to do, before the kernel ends all."""


class Watchdog:
    """Ends the process with exit code 1 so many seconds after its start, unless the process has ended by then."""

    def __init__(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self._seconds = seconds
        self._loop = loop
        self._started = False

    def start(self) -> None:
        """Begin to wait; does nothing the second time."""
        if self._started:
            return
        self._started = True
        # The kernel's own alarm comes where the thread cannot: a call may hold Python's lock, a write to standard error
        # may hang, and there may be no room for one more thread. Its default action ends the process.
        signal.setitimer(signal.ITIMER_REAL, self._seconds + GRACE)
        with suppress(RuntimeError):  # no room
            threading.Thread(target=self._end, name="watchdog", daemon=True).start()

    def _end(self) -> None:
        time.sleep(self._seconds)
        hanging = "; ".join([*_threads(), *_tasks(self._loop)][:SHOWN])
        line = f"budget-router: not ended {self._seconds:g} s after the signal to stop, so ended by force: {hanging}\n"
        os.write(STDERR, line.encode(errors="replace"))
        os._exit(1)  # sys.exit would wait for the threads that hang


def _threads() -> Iterator[str]:
    """What each thread is doing that the process would wait for."""
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if not thread.daemon and thread.ident in frames:
            yield f"thread {thread.name} in {_place(frames[thread.ident])}"


def _place(frame: FrameType) -> str:
    """The innermost function of this package that runs there, else the innermost of all."""
    found: FrameType | None = frame
    while found is not None and not found.f_code.co_filename.startswith(PACKAGE):
        found = found.f_back
    return _named((found or frame).f_code)


def _tasks(loop: asyncio.AbstractEventLoop) -> Iterator[str]:
    """What each task of the event loop awaits."""
    for task in asyncio.all_tasks(loop):
        coroutine: Any = task.get_coro()
        while hasattr(awaited := getattr(coroutine, "cr_await", None), "cr_code"):
            coroutine = awaited
        if hasattr(coroutine, "cr_code"):  # gRPC's own tasks are compiled, and have none
            yield f"task {task.get_name()} in {_named(coroutine.cr_code)}"


def _named(code: CodeType) -> str:
    return f"{code.co_qualname} ({Path(code.co_filename).name})"
