"""`budget-train learn --follow`: looks again and again, at the lowest priority, while evidence comes in."""

import time
from collections.abc import Callable, Iterator
from functools import partial

from router.errors import RouterError
from router.learning import store
from router.learning.status import Status
from training.learning.alone import POLL_SECONDS, rest
from training.learning.look import Learning
from training.progress import say

REST, LONGEST_REST = 20, 300.0
"""A look may take one of so many seconds: it waits until the last one has rested so long, a few minutes at most, since
fits are rare. So may a watch. Seconds are of CPU: where the service is busy, the lowest priority has to wait for it."""

Stamp = tuple[tuple[int, int], ...]


def follow(
    learning: Learning, going: Callable[[], bool], sleep: Callable[[float], None] | None = None
) -> Iterator[Status]:
    """A status after each look, while it goes on. What fails is said, and tried again when there is more evidence.

    While looks rest, what serves is watched. Where it is refuted, the next look comes at once.

    Args:
        going: asked before each look and each pause.
        sleep: waits for so many seconds; None = `rest` does.
    """
    pause = sleep or partial(rest, going)
    seen: Stamp | None = None
    due, left = True, 0.0
    while going():
        stamp, began, looked = _stamp_of(learning), time.process_time(), False
        try:
            if stamp != seen:
                seen, due = stamp, True
                if left > 0 and learning.watch():
                    left = 0.0
            if due and left <= 0:
                due, looked = False, True
                yield learning.look()
        except (RouterError, OSError) as error:  # such as a full disk, or a folder that is just reset
            say(f"learn: {error}")
        wanted = min(LONGEST_REST, REST * (time.process_time() - began))
        seconds = POLL_SECONDS if looked else max(POLL_SECONDS, wanted)
        left = (wanted if looked else left) - seconds
        pause(seconds)


def _stamp_of(learning: Learning) -> Stamp:
    """Changes whenever evidence, a report or an audit is written."""
    files = [learning.folder / f"{store.FILE}{suffix}" for suffix in ("", "-wal")]
    audit = [] if learning.audit is None else [learning.audit]
    stats = (path.stat() for path in [*files, *audit] if path.exists())
    # Readers leave an empty one.
    return tuple((one.st_mtime_ns, one.st_size) for one in stats if one.st_size)
