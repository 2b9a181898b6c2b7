"""One of several processes that serve together, as their supervisor sees it.

A socket joins the two: a worker says there that it is ready, and ends once the supervisor's end is closed.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from router.errors import WorkerError

START_SECONDS = 120.0
"""Seconds until a worker must answer calls: its classifier may be large and its backends far away."""

BEAT_SECONDS = 1.0
OPEN, CLOSED = b"o", b"c"
"""A beat, from the event loop of a worker: it works, and its callers need no credentials, or do need them."""

SILENT_SECONDS, SILENCES = 3.0, 5
"""A worker hangs once it has been silent so long, so many times in a row: after one silence alone, the supervisor
itself may have been the one that had to wait for a processor."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that answers calls; `started` makes one."""

    process: asyncio.subprocess.Process
    control: asyncio.StreamWriter
    beats: asyncio.StreamReader

    @classmethod
    async def started(cls, *command: str, environment: Mapping[str, str], seconds: float = START_SECONDS) -> "Worker":
        """Run `budget-router COMMAND --control FD` until it is ready.

        Raises:
            WorkerError: it ends before that, or is not ready within `seconds`.
        """
        worker = await cls._spawned(command, environment)
        try:
            async with asyncio.timeout(seconds):
                ready = await worker.beats.readexactly(1)
        except asyncio.IncompleteReadError as error:
            code = await worker.ended()
            raise WorkerError(f"a worker did not come up: exit code {code}", code) from error
        except TimeoutError as error:
            await worker.stop(0)
            raise WorkerError(f"a worker did not come up within {seconds:g} s") from error
        except asyncio.CancelledError:  # the supervisor stops meanwhile, and knows no worker that is not ready
            await worker.stop(0)
            raise
        worker.beats.feed_data(ready)
        return worker

    @classmethod
    async def _spawned(cls, command: tuple[str, ...], environment: Mapping[str, str]) -> "Worker":
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:  # no more descriptors
            raise WorkerError(f"a worker cannot be started: {error}") from error
        reader, writer = await asyncio.open_connection(sock=ours)
        # Our copy of the worker's end is closed, or the end of the worker would not end what we read.
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    # -P: otherwise a folder named `router` in the current directory would be run.
                    *(sys.executable, "-P", "-m", "router", *command, "--control", str(theirs.fileno())),
                    env=os.environ | environment,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C reaches the supervisor only, which drains the workers
                )
            except OSError as error:
                writer.close()
                raise WorkerError(f"a worker cannot be started: {error}") from error
        return cls(process, writer, reader)

    async def hangs(
        self, closed: Callable[[], None], seconds: float = SILENT_SECONDS, silences: int = SILENCES
    ) -> None:
        """Return once the worker's event loop has been silent for `seconds`, `silences` times in a row.

        Args:
            closed: called whenever the worker says that its callers need credentials.
        """
        silent = 0
        while silent < silences:
            beats = b""
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    beats = await self.beats.read(64)
            silent = 0 if beats else silent + 1
            if CLOSED in beats:
                closed()
            if self.beats.at_eof():  # it ends, or hangs while it ends
                await asyncio.sleep(seconds)

    async def ended(self) -> int:
        """Wait for the end of the process; returns its exit code."""
        code = await self.process.wait()
        self.control.close()
        return code

    async def stop(self, seconds: float) -> int:
        """Let the worker drain, and kill it after `seconds`; returns its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(seconds):
                return await self.ended()
        except TimeoutError:
            self.process.kill()
            return await self.ended()


def exit_with_supervisor(control: socket.socket) -> Callable[[Callable[[], bool]], None]:
    """End this process, a worker, when its supervisor ends. Must be called in the worker's event loop.

    Returns:
        A function to call once calls are answered; from then on it reports to the supervisor, again and again, that
        the event loop works, and whether callers need credentials, as its argument says.
    """
    loop = asyncio.get_running_loop()
    control.setblocking(False)

    def beat(closed: Callable[[], bool]) -> None:
        with suppress(OSError):  # the supervisor is gone, which `alone` notices, or hangs and reads nothing
            control.send(CLOSED if closed() else OPEN)
        loop.call_later(BEAT_SECONDS, beat, closed)

    def alone() -> None:
        loop.remove_reader(control)  # the end of the stream stays readable, and would call this again and again
        os.kill(os.getpid(), signal.SIGTERM)  # a worker that answers calls drains, one that is still starting ends

    # The kernel closes the supervisor's end however the supervisor ends, also by SIGKILL.
    loop.add_reader(control, alone)
    return beat
