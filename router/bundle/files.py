"""Files of a bundle: only regular files are read, and none beyond a size. A bundle may come from anywhere."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from router.errors import ArtifactError

CHUNK = 1 << 20
"""Bytes that a copy holds in memory."""

KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises ArtifactError, which names the file."""
    with _opened(path, most) as (file, status):
        data = file.read(status.st_size + 1)  # one more, to notice a file that grows
    if len(data) != status.st_size:
        raise ArtifactError(f"{path}: it changed while it was read")
    return data


def copy(source: Path, target: Path, most: int) -> None:
    """Copy a regular file of at most `most` bytes, and check the copy, which is on disk at the end.

    Raises:
        ArtifactError: the file is of another kind, larger, or changed meanwhile; the message names it.
    """
    seen = sha256()
    with _opened(source, most) as (file, status), target.open("xb") as out:
        left = status.st_size
        while chunk := file.read(min(CHUNK, left + 1)):
            seen.update(chunk)
            left -= len(chunk)
            if left < 0:
                break
            out.write(chunk)
        os.fchmod(out.fileno(), stat.S_IMODE(status.st_mode) & 0o755 | stat.S_IRUSR | stat.S_IWUSR)
        out.flush()
        os.fsync(out.fileno())
    # The copy is read again: what was written counts, not what was read.
    if left or sha256(read(target, most)).digest() != seen.digest():
        raise ArtifactError(f"{source}: it changed while it was copied")


def listed(directory: Path, most: int) -> list[str]:
    """Names of the entries of a folder that is no link, in order. Raises ArtifactError; also beyond `most` entries."""
    with _naming(directory):
        mode = directory.lstat().st_mode
        if not stat.S_ISDIR(mode):
            raise ArtifactError(f"{directory}: {_kind(mode)}, not a folder")
        names = []
        with os.scandir(directory) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) > most:
                    raise ArtifactError(f"{directory}: more than {most} files")
    return sorted(names)


def sync_folder(directory: Path) -> None:
    """Put the names in a folder on disk, as renames need."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: Path, most: int) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """A regular file and its status."""
    with _naming(path):
        # Looked at first: opening a device can act on it.
        _require_regular(path, path.lstat(), most)
        # Not followed: a link leads out of the folder. Not blocking: opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            # Again, of the opened file: another one may have taken its name meanwhile.
            status = os.fstat(descriptor)
            _require_regular(path, status, most)
            yield file, status


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn errors of the file system into ArtifactErrors that name the file."""
    try:
        yield
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        named = error.filename if isinstance(error, OSError) and error.filename else path
        raise ArtifactError(f"{named}: {getattr(error, 'strerror', None) or error}") from error


def _require_regular(path: Path, status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(f"{path}: {_kind(status.st_mode)}, not a regular file")
    if status.st_size > most:
        raise ArtifactError(f"{path}: {status.st_size:,} bytes, at most {most:,} are read")


def _kind(mode: int) -> str:
    return KINDS.get(stat.S_IFMT(mode), "a file")
