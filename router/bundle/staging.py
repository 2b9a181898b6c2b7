"""Folders that are filled aside and renamed when they are whole, so that no reader sees half of one.

A folder is locked while its process lives. The next process that stages something beside it removes what others left.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from router.bundle import files
from router.errors import ArtifactError

PREFIX, LOCK, CONTENT = ".staged-", "lock", "content"
LOCK_SECONDS, POLL_SECONDS = 10.0, 0.05
"""Longest wait for a lock: a process that is stopped while it holds one must not stop the others."""


class Staging:
    """An empty folder in `parent`, to be filled, then renamed within `parent` or closed.

    Attributes:
        folder: what is to be filled.

    Raises:
        ArtifactError: `parent` cannot be written, or another process holds its lock.
    """

    def __init__(self, parent: Path) -> None:
        # One at a time, or the sweep of another process could take a folder before it is locked.
        with locked(parent):
            sweep(parent)
            self.home = Path(tempfile.mkdtemp(dir=parent, prefix=PREFIX))
            self._lock = (self.home / LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.folder = self.home / CONTENT
            self.folder.mkdir()

    def rename(self, target: Path) -> None:
        """Move the folder into place; it is on disk then. `target` must not exist. Raises OSError."""
        files.sync_folder(self.folder)
        self.folder.chmod(0o755)  # other users' services may read it, whatever the mask of this process
        self.folder.rename(target)
        files.sync_folder(target.parent)

    def close(self) -> None:
        """Remove what was not renamed."""
        shutil.rmtree(self.home, ignore_errors=True)
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep(parent: Path, prefix: str = PREFIX) -> None:
    """Remove staged folders whose processes have ended; what cannot be removed stays."""
    with suppress(OSError):
        for home in list(parent.iterdir()):
            if home.name.startswith(prefix) and not _in_use(home):
                shutil.rmtree(home, ignore_errors=True)


@contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock of a folder, or of a file that is made. Raises ArtifactError: it cannot be had within `seconds`."""
    try:
        make = 0 if path.is_dir() else os.O_CREAT | os.O_RDWR
        # The kernel releases it when the process ends, so a process that is killed locks nobody out.
        descriptor = os.open(path, os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | make, 0o644)
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}") from error
    try:
        deadline = time.monotonic() + seconds
        while not _taken(descriptor):
            if time.monotonic() > deadline:
                raise ArtifactError(f"{path}: another process has held its lock for {seconds:g} s")
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _in_use(home: Path) -> bool:
    try:
        descriptor = os.open(home / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # never locked, or half removed
    try:
        return not _taken(descriptor)
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
