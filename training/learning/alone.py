"""One trainer at a time works on a folder. It ends with the service that started it."""

import ctypes
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from router import files
from router.learning.folders import LOCK
from training.progress import say

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""

BUSY_SECONDS = 1.0
"""Wait for another trainer of the same folder to end."""

POLL_SECONDS = 5.0
"""Between two looks at whether it still goes on."""


@contextmanager
def alone(folder: Path, going: Callable[[], bool] | None = None) -> Iterator[None]:
    """Keep other trainers out of a folder while inside.

    Args:
        going: while another trainer is there, wait as long as it goes on; None = for a second.

    Raises:
        OSError: another trainer is there, or the folder cannot be written.
    """
    with ExitStack() as stack:
        for attempt in count():
            try:
                stack.enter_context(files.locked(folder / LOCK, BUSY_SECONDS, make=True))
                break
            except OSError as error:
                if error.errno != errno.EBUSY or going is None or not going():
                    raise
            if not attempt:
                say(f"learn: another trainer works on {folder}: this one waits until it ends")
            rest(going, POLL_SECONDS)
        yield


def rest(going: Callable[[], bool], seconds: float) -> None:
    """Wait for so many seconds, while it goes on: a trainer must not outlive its service, and keep out the next one."""
    end = time.monotonic() + seconds
    while going() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, POLL_SECONDS))


def killed_with(parent: int) -> None:
    """Have Linux kill this process with its parent: on a busy machine it may be minutes until it looks itself."""
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def with_parent(parent: int) -> Callable[[], bool]:
    """True while the process that started this one lives; always where `parent` is 0."""
    return lambda: parent in (0, os.getppid())
