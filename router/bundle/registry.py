"""A registry: a directory of model bundles of which one is current. Plain files, so that replicas may share it.

versions/DIGEST/   complete bundles, never changed
current.json       digests in the order of their promotion, of which the last is served; replaced atomically
spent.json         how often labels were used to certify; see `spent_delta`
refuted.json       digests of bundles whose certificates no longer count; see `refuted`
"""

import json
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Self

from router.bundle import manifest, spent_delta, staging
from router.bundle.files import copy, listed, locked, naming, read, replace
from router.bundle.manifest import Bundle
from router.bundle.spent_delta import LabelUse
from router.bundle.staging import Staging
from router.errors import ArtifactError

CURRENT, VERSIONS = "current.json", "versions"
LARGEST = 1 << 20
"""Most bytes of CURRENT."""

MOST_FILES, LARGEST_REPORT = 32, 64 << 20
"""Files of a bundle, and most bytes of those that no service reads."""


def locate(path: Path) -> Path:
    """The bundle that `path` names: itself, or the current one of a registry. Raises ArtifactError."""
    if not (path / CURRENT).exists():
        return path
    return path / VERSIONS / history(path)[-1]


def is_empty(path: Path) -> bool:
    """True where there is neither a bundle nor a registry with one."""
    return not any(os.path.lexists(path / name) for name in (CURRENT, manifest.MANIFEST))


def history(registry: Path) -> list[str]:
    """Digests of the promoted bundles that were not rolled back, oldest first. Raises ArtifactError."""
    if (registry / manifest.MANIFEST).exists():
        raise ArtifactError(f"{registry}: a bundle, not a registry of bundles")
    if not (registry / CURRENT).exists():
        makes = f"`budget-train promote BUNDLE --registry {registry}` makes it one"
        raise ArtifactError(f"{registry}: not a registry of bundles; {makes}")
    try:
        promoted = json.loads(read(registry / CURRENT, LARGEST))["promoted"]
    except (ArtifactError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{registry / CURRENT}: not a registry of bundles") from error
    # A digest names a folder: one like "../.." would lead out of the registry.
    if not (isinstance(promoted, list) and promoted) or not all(
        isinstance(one, str) and one.isalnum() for one in promoted
    ):
        raise ArtifactError(f"{registry / CURRENT}: names no version")
    return promoted


class Promotion:
    """The way of a bundle into a registry: a private copy, which is verified, and then made current in one step.

    Its methods may run in different threads: each waits for the end of the others.

    Args:
        source: the bundle's directory.

    Attributes:
        directory: the copy, once it is made. It is no part of the registry until `publish`, and `close` removes it.
    """

    directory: Path
    _version: str
    _use: LabelUse | None
    _staging: Staging

    def __init__(self, registry: Path, source: Path) -> None:
        self._registry, self._source = registry, source
        self._alone = threading.Lock()
        self._held = ExitStack()
        self._closed = False

    def copy(self) -> Bundle:
        """Copy the bundle and verify the copy.

        Raises:
            ArtifactError: the source is no bundle, has other than regular files, or changes meanwhile; the registry is
                none, or cannot be written; the promotion was closed.
        """
        with self._alone:
            if self._closed:  # a call that was cancelled left this one behind
                raise ArtifactError(f"{self._source}: its promotion was cancelled")
            # Read in place first: its errors then name the operator's files.
            source = manifest.load(self._source)
            self._version, self._use = source.version, source.manifest.label_use
            self._staging = self._held.enter_context(self._stage())
            self.directory = self._staging.folder
            with naming(self._source):
                for name in listed(self._source, MOST_FILES):
                    largest = manifest.LARGEST.get(name, LARGEST_REPORT)
                    copy(self._source / name, self.directory / name, largest)
        copied = _verified(self.directory)
        if copied.version != self._version:
            raise ArtifactError(f"{self._source}: it changed while it was copied")
        return copied

    def _stage(self) -> Staging:
        if (self._registry / manifest.MANIFEST).exists():
            raise ArtifactError(f"{self._registry}: a bundle, not a registry of bundles")
        with naming(self._registry):
            (self._registry / VERSIONS).mkdir(parents=True, exist_ok=True)
        return Staging(self._registry / VERSIONS)

    def publish(self) -> str:
        """Make the copy the current bundle; returns its digest. Raises ArtifactError."""
        kept = self._registry / VERSIONS / self._version
        with self._alone, locked(self._registry):
            if not _is_whole(kept, self._version):
                # A folder that was spoilt later must not bar its digest for ever.
                if os.path.lexists(kept):
                    kept.rename(self._staging.home / "spoilt")
                self._staging.rename(kept)
            if self._use is not None:
                spent_delta.note(self._registry, self._use)
            before = history(self._registry) if (self._registry / CURRENT).exists() else []
            _write(self._registry, [*before, self._version])
        return self._version

    def close(self) -> None:
        """Remove the copy where it was not published."""
        # Removing goes by open folders: it would follow a copy that is just renamed into place, and empty it.
        with self._alone:
            self._closed = True
            self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def promote(registry: Path, directory: Path, trial: Callable[[Path, Bundle], object] | None = None) -> str:
    """Verify the bundle in `directory`, keep a copy, make it current; returns its digest.

    Args:
        trial: called with the copy before it becomes current. Raises ArtifactError to refuse it.

    Raises:
        ArtifactError: it is refused.
    """
    with Promotion(registry, directory) as promotion:
        bundle = promotion.copy()
        if trial is not None:
            trial(promotion.directory, bundle)
        return promotion.publish()


def rollback(registry: Path) -> str:
    """Make the bundle before the current one current again; returns its digest. Raises ArtifactError."""
    # Asked before `locked`, which would make a file in any directory.
    previous(registry)
    with locked(registry):
        version = previous(registry).name
        _write(registry, history(registry)[:-1])
    return version


def previous(registry: Path) -> Path:
    """The bundle that `rollback` makes current. Raises ArtifactError."""
    *before, _ = history(registry)
    if not before:
        raise ArtifactError(f"{registry}: nothing was promoted before the current bundle")
    return registry / VERSIONS / before[-1]


def sweep(registry: Path) -> None:
    """Remove what killed promotions left in a registry; nothing happens where `registry` is none."""
    # Earlier versions left folders with other names, which begin with a dot, too.
    staging.sweep(registry / VERSIONS, ".")


def _verified(directory: Path) -> Bundle:
    """The bundle in `directory`, of which every file that the manifest names was compared. Raises ArtifactError."""
    bundle = manifest.load(directory)
    for name, digest in bundle.manifest.files.items():
        data = read(directory / name, manifest.LARGEST.get(name, LARGEST_REPORT))
        if sha256(data).hexdigest() != digest:
            raise ArtifactError(f"{name}: its SHA-256 is not the one in {manifest.MANIFEST}")
    return bundle


def _is_whole(kept: Path, version: str) -> bool:
    try:
        listed(kept, MOST_FILES)
        return _verified(kept).version == version
    except ArtifactError:
        return False


def _write(registry: Path, promoted: list[str]) -> None:
    replace(registry / CURRENT, json.dumps({"promoted": promoted}))
