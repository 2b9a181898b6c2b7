"""A registry: a directory of model bundles of which one is current. Plain files, so that replicas may share it.

versions/DIGEST/   complete bundles, never changed
current.json       digests in the order of their promotion, of which the last is served; replaced atomically
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.bundle import manifest
from router.errors import ArtifactError

CURRENT, VERSIONS = "current.json", "versions"


def locate(path: Path) -> Path:
    """The bundle that `path` names: itself, or the current one of a registry. Raises ArtifactError."""
    if not (path / CURRENT).exists():
        return path
    return path / VERSIONS / history(path)[-1]


def history(registry: Path) -> list[str]:
    """Digests of the promoted bundles that were not rolled back, oldest first. Raises ArtifactError."""
    try:
        promoted = json.loads((registry / CURRENT).read_text())["promoted"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{registry / CURRENT}: not a registry of bundles") from error
    # A digest names a folder: one like "../.." would lead out of the registry.
    if not promoted or not all(isinstance(one, str) and one.isalnum() for one in promoted):
        raise ArtifactError(f"{registry / CURRENT}: names no version")
    return list(promoted)


def promote(registry: Path, directory: Path) -> str:
    """Verify the bundle in `directory`, keep a copy, make it current; returns its digest. Raises ArtifactError."""
    version = manifest.load(directory).version
    if (registry / manifest.MANIFEST).exists():
        raise ArtifactError(f"{registry}: a bundle, not a registry of bundles")
    with _locked(registry):
        kept = registry / VERSIONS / version
        if not kept.exists():
            # Copied aside and renamed, so that no reader ever sees half a bundle under its digest.
            aside = Path(tempfile.mkdtemp(dir=kept.parent, prefix="."))
            shutil.copytree(directory, aside, dirs_exist_ok=True)
            aside.chmod(0o755)  # mkdtemp makes it private, and replicas may run as other users
            aside.rename(kept)
        if manifest.load(kept).version != version:
            raise ArtifactError(f"{directory}: it changed while it was copied")
        before = history(registry) if (registry / CURRENT).exists() else []
        _write(registry, [*before, version])
    return version


def rollback(registry: Path) -> str:
    """Make the bundle before the current one current again; returns its digest. Raises ArtifactError."""
    # Asked before `_locked`, which would make the folders of a registry in any directory.
    if not (registry / CURRENT).exists():
        raise ArtifactError(f"{registry}: not a registry of bundles; nothing was promoted there")
    with _locked(registry):
        *before, _ = history(registry)
        if not before:
            raise ArtifactError(f"{registry}: nothing was promoted before the current bundle")
        _write(registry, before)
    return before[-1]


@contextmanager
def _locked(registry: Path) -> Iterator[None]:
    """Hold the registry's lock. Raises ArtifactError where the file system refuses anything within."""
    try:
        (registry / VERSIONS).mkdir(parents=True, exist_ok=True)
        with (registry / ".lock").open("w") as lock:
            # The kernel releases it when the process ends, so a killed promotion does not lock others out.
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ArtifactError(f"{registry}: {error}") from error


def _write(registry: Path, promoted: list[str]) -> None:
    aside = registry / f".{CURRENT}.tmp"
    with aside.open("w") as file:
        json.dump({"promoted": promoted}, file)
        file.flush()
        # Synced before the rename: after a crash the name must not point to an empty file.
        os.fsync(file.fileno())
    aside.replace(registry / CURRENT)
