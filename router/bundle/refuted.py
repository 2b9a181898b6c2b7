"""A registry's record of the bundles whose certificates no longer count, for all services that follow it.

refuted.json   digests of bundles that evidence has refuted which came after them
"""

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from router.bundle.files import locked, read, replace
from router.errors import ArtifactError

FILE = "refuted.json"
LARGEST = 1 << 20
"""Most bytes of FILE."""

_DIGESTS = TypeAdapter(list[str])


def digests(registry: Path) -> list[str]:
    """Digests of the refuted bundles, oldest first; none where `registry` is a bundle. Raises ArtifactError."""
    path = registry / FILE
    if not path.exists():
        return []
    try:
        return _DIGESTS.validate_json(read(path, LARGEST))
    except (ValidationError, RecursionError) as error:
        raise ArtifactError(f"{path}: not a record of refuted bundles") from error


def add(registry: Path, version: str) -> None:
    """Stop all services from believing the certificates of a bundle. Raises ArtifactError."""
    with locked(registry):
        if version not in (before := digests(registry)):
            replace(registry / FILE, json.dumps([*before, version]))
