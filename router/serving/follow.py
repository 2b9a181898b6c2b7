"""Files that another process may replace while the service runs: tenants, certificates, bundles, the audit's ledger."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from router.errors import RouterError
from router.events import Degraded
from router.ports import Observer

FOLLOW_SECONDS = 1.0
RETRY_SECONDS = 30.0

FileStamp = tuple[int, int, int]


@dataclass(frozen=True)
class Followed:
    """A file, or several that are read together, and how to read them.

    Attributes:
        name: the dependency in Degraded, when reading fails.
        stamp: changes with the file; cheap, as it is polled.
        read: takes over what the file says, or raises and changes nothing.
        again: read a file that failed again after a while, though it has not changed: the cause may lie outside it.
    """

    name: str
    stamp: Callable[[], object]
    read: Callable[[], Awaitable[object]]
    again: bool = True


def file_stamp(path: Path) -> FileStamp:
    """Modification time in ns, inode and size of a file; zeros if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0
    # The time alone is not enough: two writes within a tick of the file system's clock share it.
    return status.st_mtime_ns, status.st_ino, status.st_size


async def follow_file(
    followed: Followed, observer: Observer, seconds: float = FOLLOW_SECONDS, retry_seconds: float = RETRY_SECONDS
) -> None:
    """Read a file whenever its stamp changes. Runs until cancelled.

    A reader may raise anything; that is observed as Degraded, and what was read before stays in force. Reading is tried
    again when the stamp changes, and after `retry_seconds`.
    """
    # Unlike any stamp, so the first poll reads: the file may have changed since the service read it at its start.
    seen: object = None
    retry_at = float("inf")
    clock = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(seconds)
        if (stamp := followed.stamp()) == seen and clock() < retry_at:
            continue
        # Taken before the file is read: a change in the middle of reading gives another stamp at the next poll.
        seen, retry_at = stamp, float("inf")
        try:
            await followed.read()
        except Exception as error:
            # The cause may lie outside the file, and an operator must see in the metrics that the file is still bad.
            retry_at = clock() + retry_seconds if followed.again else float("inf")
            observer(Degraded(followed.name, _described(error)))


def _described(error: Exception) -> str:
    """The message of an error of this package; others do not name the file, so their class is shown too."""
    return str(error) if isinstance(error, RouterError) else f"{type(error).__name__}: {error}"
