"""Files of operators, read without waiting, and files with secrets or prompts, which their owner alone can read."""

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 16 << 20
"""Largest file of settings, such as tenants and certificates."""

OWNER_ONLY = 0o700
"""The permissions that a private file may have."""


def read(path: Path, most: int = MOST_BYTES) -> bytes:
    """The contents of a regular file of at most `most` bytes. Never waits for a writer.

    Raises:
        OSError: the file cannot be read, is a FIFO, a device or a directory, or is larger.
    """
    # Without O_NONBLOCK, opening a FIFO waits for a writer; reading a device may never end, so none is opened.
    _require_regular(path, path.stat())
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        _require_regular(path, os.fstat(file.fileno()))
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return data


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


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
