"""Files of a bundle: only regular files are read, and none beyond a size. A bundle may come from anywhere."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from router import files
from router.errors import ArtifactError

LOCK = ".lock"
"""File of a registry that its writers lock."""

CHUNK = 1 << 20
"""Bytes that a copy holds in memory."""


def read(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises ArtifactError, which names the file."""
    with naming(path):
        return files.read(path, most, follow_links=False)  # a link leads out of the folder


def copy(source: Path, target: Path, most: int) -> None:
    """Copy a regular file of at most `most` bytes, and check the copy, which is on disk at the end.

    Raises:
        ArtifactError: the file is of another kind, larger, or changed meanwhile; the message names it.
    """
    seen = sha256()
    with naming(source), files.opened(source, most, follow_links=False) as file, target.open("xb") as out:
        status = os.fstat(file.fileno())
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


def replace(path: Path, text: str) -> None:
    """Replace a file in one step, which a crash does not halve. Raises OSError."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.unlink(missing_ok=True)  # whatever has its name: a FIFO would wait for a reader
    with aside.open("x") as file:
        file.write(text)
        file.flush()
        # Synced before the rename: after a crash the name must not point to an empty file.
        os.fsync(file.fileno())
    aside.replace(path)
    files.sync_folder(path.parent)


def listed(directory: Path, most: int) -> list[str]:
    """Names of the entries of a folder that is no link, in order. Raises ArtifactError; also beyond `most` entries."""
    with naming(directory):
        mode = directory.lstat().st_mode
        if not stat.S_ISDIR(mode):
            raise ArtifactError(f"{directory}: {files.kind(mode)}, not a folder")
        names = []
        with os.scandir(directory) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) > most:
                    raise ArtifactError(f"{directory}: more than {most} files")
    return sorted(names)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn errors of the file system into ArtifactErrors that name the file, or else `path`."""
    try:
        yield
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        named = error.filename if isinstance(error, OSError) and error.filename else path
        raise ArtifactError(f"{named}: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def locked(registry: Path) -> Iterator[None]:
    """Hold a registry's lock. Raises ArtifactError where the file system refuses anything within."""
    with naming(registry), files.locked(registry / LOCK, make=True):
        yield
