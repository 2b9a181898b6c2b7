"""`budget-train learn --follow`: looks again and again, at the lowest priority, while evidence comes in."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from router.errors import RouterError
from router.learning import store
from router.learning.status import Status
from training.learning.alone import POLL_SECONDS, rest
from training.learning.look import Learning
from training.progress import say

REST = 20
"""A look may take one of so many seconds; after a fit the next look waits the longer."""

Stamp = tuple[tuple[int, int], ...]


def follow(
    learning: Learning, going: Callable[[], bool], sleep: Callable[[float], None] | None = None
) -> Iterator[Status]:
    """A status after each look, while it goes on. What fails is said, and tried again when there is more evidence.

    Args:
        going: asked before each look and each pause.
        sleep: waits for so many seconds; None = `rest` does.
    """
    pause = sleep or partial(rest, going)
    seen: Stamp | None = None
    while going():
        stamp, began = stamp_of(learning.folder), time.monotonic()
        if stamp != seen:
            try:
                yield learning.look()
            except (RouterError, OSError) as error:  # such as a full disk, or a folder that is just reset
                say(f"learn: {error}")
            seen = stamp
        pause(max(POLL_SECONDS, REST * (time.monotonic() - began)))


def stamp_of(folder: Path) -> Stamp:
    """Changes whenever evidence or a report is written."""
    files = (folder / f"{store.FILE}{suffix}" for suffix in ("", "-wal"))
    stats = (path.stat() for path in files if path.exists())
    # Readers leave an empty one.
    return tuple((one.st_mtime_ns, one.st_size) for one in stats if one.st_size)
