"""Files of operators, read without waiting; locks; and files with secrets or prompts, which are their owner's alone."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 16 << 20
"""Largest file of settings, such as tenants and certificates."""

OWNER_ONLY = 0o700
"""The permissions that a private file may have."""

LOCK_SECONDS, POLL_SECONDS = 5.0, 0.05
"""Longest wait for a lock: a process that is stopped while it holds one must not stop the others."""

KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read(path: Path, most: int = MOST_BYTES, *, follow_links: bool = True) -> bytes:
    """The contents of a regular file of at most `most` bytes. Never waits for a writer.

    Raises:
        OSError: the file cannot be read, is a FIFO, a device or a folder, is a link that is not followed, or is larger.
    """
    with opened(path, most, follow_links=follow_links) as file:
        data = file.read(most + 1)
    if len(data) > most:  # it grows
        raise _too_large(path, most)
    return data


@contextmanager
def opened(path: Path, most: int = MOST_BYTES, *, follow_links: bool = True) -> Iterator[BinaryIO]:
    """As `read`, for a reader in pieces; the file may grow meanwhile."""
    # Without O_NONBLOCK, opening a FIFO waits for a writer; opening a device can act on it, so none is opened.
    _require_regular(path, path.stat(follow_symlinks=follow_links), most)
    follow = 0 if follow_links else os.O_NOFOLLOW
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | follow), "rb") as file:
        # Again, of the opened file: another one may have taken its name meanwhile.
        _require_regular(path, os.fstat(file.fileno()), most)
        yield file


def make_private(path: Path) -> None:
    """Create an empty file that its owner alone can read, whatever the umask; tighten one that exists.

    Raises:
        OSError: the file cannot be created, is another user's, or is no regular file.
    """
    path = Path(os.path.realpath(path))
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        status = path.stat()
        _require_regular(path, status)
        # By its name: closing a descriptor of an SQLite file would drop the locks that this process holds on it.
        if status.st_mode & ~OWNER_ONLY & 0o777:
            path.chmod(status.st_mode & OWNER_ONLY)


def write_private(path: Path, text: str) -> None:
    """Write a text file that its owner alone can read. Raises OSError, as `make_private` does."""
    make_private(path)
    path.write_text(text, encoding="utf-8")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield the name of a private file that takes the place of `path` in one step, in the end.

    Where anything fails, what was at `path` stays. Its folder is made. Raises OSError, as `make_private` does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename replaces a file in one step only within a file system.
    aside = path.with_name(f".{path.name}.tmp")
    make_private(aside)
    yield aside
    aside.replace(path)


@contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS, *, make: bool = False) -> Iterator[None]:
    """Hold the lock of a folder; with `make`, of a file, which is made where it is not there.

    Raises:
        OSError: it cannot be opened, or another process holds its lock for `seconds`.
    """
    how = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW if make else os.O_DIRECTORY
    # The kernel releases the lock when the process ends, so a process that is killed locks nobody out.
    descriptor = os.open(path, os.O_NONBLOCK | os.O_CLOEXEC | how, 0o644)
    try:
        deadline = time.monotonic() + seconds
        while not take_lock(descriptor):
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, f"another process has held its lock for {seconds:g} s", str(path))
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def take_lock(descriptor: int) -> bool:
    """Lock an open file; False where another process holds its lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync_folder(directory: Path) -> None:
    """Put the names in a folder on disk, as renames need. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def kind(mode: int) -> str:
    """The kind of a file in words, such as "a FIFO"."""
    return KINDS.get(stat.S_IFMT(mode), "a file")


def _require_regular(path: Path, status: os.stat_result, most: int | None = None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"{kind(status.st_mode)}, not a regular file", str(path))
    if most is not None and status.st_size > most:
        raise _too_large(path, most)


def _too_large(path: Path, most: int) -> OSError:
    return OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
