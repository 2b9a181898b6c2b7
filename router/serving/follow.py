"""Files that another process may replace while the service runs: tenants, certificates, bundles, the audit's ledger."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from router.errors import RouterError
from router.events import Degraded, TaskFailed
from router.ports import Observer

FOLLOW_SECONDS = 1.0
RETRY_SECONDS = 30.0

FileStamp = tuple[int, int, int]


@dataclass(frozen=True)
class Followed:
    """A file, or several that are read together, and how to read them.

    Attributes:
        name: the dependency in Degraded, when reading fails.
        stamp: changes with the file; cheap, as it is polled, in a thread.
        read: takes over what the file says, or raises and changes nothing.
        again: read a file that failed again after a while, though it has not changed: the cause may lie outside it.
    """

    name: str
    stamp: Callable[[], object]
    read: Callable[[], Awaitable[object]]
    again: bool = True


class Reload:
    """Asks all followers to read their files now, whether these have changed or not. Made in the event loop.

    Attributes:
        times: how often it has asked.
    """

    def __init__(self) -> None:
        self.times = 0
        self._asked = asyncio.Event()

    def __call__(self) -> None:
        """Ask."""
        self.times += 1
        self._asked.set()
        self._asked = asyncio.Event()

    async def wait(self, seconds: float, seen: int) -> None:
        """Wait for the next time after the `seen` ones, at most so long."""
        if self.times == seen:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._asked.wait()


def file_stamp(path: Path) -> FileStamp:
    """Modification time in ns, inode and size of a file; zeros if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0
    # The time alone is not enough: two writes within a tick of the file system's clock share it.
    return status.st_mtime_ns, status.st_ino, status.st_size


async def follow_file(
    followed: Followed,
    observer: Observer,
    seconds: float = FOLLOW_SECONDS,
    retry_seconds: float = RETRY_SECONDS,
    reload: Reload | None = None,
) -> None:
    """Read a file whenever its stamp changes, or `reload` asks. Runs until cancelled.

    A reader may raise anything; that is observed as Degraded, and what was read before stays in force. Reading is tried
    again when the stamp changes, and after `retry_seconds`.
    """
    # Unlike any stamp, so the first poll reads: the file may have changed since the service read it at its start.
    seen: object = None
    retry_at = float("inf")
    clock = asyncio.get_running_loop().time
    reload = reload or Reload()
    times = reload.times
    while True:
        await reload.wait(seconds, times)
        stamp = await _stamp(followed)
        if stamp == seen and clock() < retry_at and times == reload.times:
            continue
        # Taken before the file is read: a change in the middle of reading gives another stamp at the next poll.
        seen, retry_at, times = stamp, float("inf"), reload.times
        try:
            await followed.read()
        except Exception as error:
            # The cause may lie outside the file, and an operator must see in the metrics that the file is still bad.
            retry_at = clock() + retry_seconds if followed.again else float("inf")
            observer(Degraded(followed.name, _described(error)))
            if not isinstance(error, RouterError):  # the reader itself is at fault, not the file alone
                observer(TaskFailed(f"follow {followed.name}", error))


async def _stamp(followed: Followed) -> object:
    """The stamp; where it cannot be taken, the reason, which the reader will meet as well."""
    try:
        # In a thread: a file system that hangs must not stop the event loop.
        return await asyncio.to_thread(followed.stamp)
    except Exception as error:
        return _described(error)


def _described(error: Exception) -> str:
    """The message of an error of this package; others do not name the file, so their class is shown too."""
    return str(error) if isinstance(error, RouterError) else f"{type(error).__name__}: {error}"
