"""Folders that are filled aside and renamed when they are whole, so that no reader sees half of one.

A folder is locked while its process lives. The next process that stages something beside it removes what others left.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

from router import files
from router.bundle.files import naming

PREFIX, LOCK, CONTENT = ".staged-", "lock", "content"


class Staging:
    """An empty folder in `parent`, to be filled, then renamed within `parent` or closed.

    Attributes:
        folder: what is to be filled.

    Raises:
        ArtifactError: `parent` cannot be written, or another process holds its lock.
    """

    def __init__(self, parent: Path) -> None:
        # One at a time, or the sweep of another process could take a folder before it is locked.
        with naming(parent), files.locked(parent):
            sweep(parent)
            self.home = Path(tempfile.mkdtemp(dir=parent, prefix=PREFIX))
            self._lock = (self.home / LOCK).open("w")
            files.take_lock(self._lock.fileno())
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


def _in_use(home: Path) -> bool:
    try:
        descriptor = os.open(home / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # never locked, or half removed
    try:
        return not files.take_lock(descriptor)
    finally:
        os.close(descriptor)
