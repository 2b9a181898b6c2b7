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
"""How long a worker may take until it answers calls; its classifier may be large, its backends far away."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that answers calls; start it with `started`."""

    process: asyncio.subprocess.Process
    control: asyncio.StreamWriter

    @classmethod
    async def started(cls, *command: str, environment: Mapping[str, str]) -> "Worker":
        """Run `budget-router COMMAND --control FD` until it is ready. Raises WorkerError where it never is."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "router", *command, "--control", str(theirs.fileno())),
                    env=os.environ | environment,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is the supervisor's
                )
            except OSError as error:
                writer.close()
                raise WorkerError(f"a worker can not be started: {error}") from error
        worker = cls(process, writer)
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = await reader.readline()
        except TimeoutError as error:
            await worker.stop(0)
            raise WorkerError(f"a worker did not come up within {START_SECONDS:g} s") from error
        except asyncio.CancelledError:
            await worker.stop(0)
            raise
        if not ready:
            raise WorkerError(f"a worker did not come up: exit code {await worker.ended()}")
        return worker

    async def ended(self) -> int:
        """The exit code, once there is one."""
        code = await self.process.wait()
        self.control.close()
        return code

    async def stop(self, seconds: float) -> None:
        """Let it drain; what is not gone after so many seconds is killed."""
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(seconds):
                await self.ended()
        except TimeoutError:
            self.process.kill()
            await self.ended()


def exit_with_supervisor(control: socket.socket) -> Callable[[], None]:
    """In the worker, in its event loop: end with the supervisor. Call what is returned once calls are answered.

    A worker that answers calls drains; one that does not yet ends at once.
    """
    loop = asyncio.get_running_loop()
    number = signal.SIGKILL

    def ready() -> None:
        nonlocal number
        number = signal.SIGTERM
        with suppress(OSError):  # it is gone, which `alone` is told of
            control.sendall(b"ready\n")

    def alone() -> None:
        loop.remove_reader(control)
        os.kill(os.getpid(), number)

    loop.add_reader(control, alone)
    return ready
