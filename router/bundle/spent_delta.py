"""A registry's record of what certificates have spent of delta on each set of labels.

Labels that certify again and again wear out: of twenty challengers that are tested on the same ones, the best has been
chosen by chance. So every test counts, whether its bundle is promoted or not, and the tests of one set share delta
(`training.certification.delta`).

spent.json   one entry a test: a sketch of its groups of prompts, and the delta that it spent
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated
from uuid import uuid4

from pydantic import Field, TypeAdapter, ValidationError

from router.bundle.files import locked, naming, read, replace
from router.errors import ArtifactError

SPENT = "spent.json"
LARGEST = 16 << 20
"""Most bytes of SPENT."""

SKETCH = 128
"""Hashes in a sketch. Of two sets that share a twentieth of their groups, about six are in both sketches."""

MOST_USES = 4_000
"""Uses that are kept, the newest ones."""

Hash = Annotated[str, Field(pattern="^[0-9a-f]{12}$")]


@dataclass(frozen=True)
class LabelUse:
    """One test of policies on the labels of a certify split.

    Attributes:
        run: a name that no other test has.
        groups: the least hashes of the split's groups (a bottom-k sketch, Cohen & Kaplan 2007), by which sets are
            recognised that share some.
        delta: what it spent, for each of its targets.
    """

    run: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    groups: Annotated[tuple[Hash, ...], Field(max_length=SKETCH)]
    delta: Annotated[float, Field(gt=0, lt=1)]


_USES = TypeAdapter(tuple[LabelUse, ...])


def use_of(groups: Iterable[str], delta: float) -> LabelUse:
    """A new use of the labels of some groups."""
    hashes = {sha256(f"certified:{group}".encode()).hexdigest()[:12] for group in groups}
    return LabelUse(uuid4().hex, tuple(sorted(hashes)[:SKETCH]), delta)


def earlier(registry: Path, groups: Iterable[str]) -> list[LabelUse]:
    """The uses of labels of any of these groups, oldest first. Raises ArtifactError if the record is damaged."""
    return _shared(_read(registry), use_of(groups, 0.5))


def spend(registry: Path, groups: Iterable[str], delta: Callable[[int], float]) -> LabelUse:
    """Record a further use of the labels of some groups, before they are looked at.

    Args:
        delta: what the n-th use may spend, from 1 on.

    Raises:
        ArtifactError: the record is damaged, or cannot be written.
    """
    with naming(registry):
        registry.mkdir(parents=True, exist_ok=True)
        with locked(registry):
            uses, use = _read(registry), use_of(groups, 0.5)
            use = LabelUse(use.run, use.groups, delta(1 + len(_shared(uses, use))))
            _write(registry, [*uses, use])
    return use


def note(registry: Path, use: LabelUse) -> None:
    """Record the use that made a bundle, if it is not there yet; the caller holds the registry's lock."""
    uses = _read(registry)
    if use.run not in {one.run for one in uses}:
        _write(registry, [*uses, use])


def _shared(uses: Iterable[LabelUse], use: LabelUse) -> list[LabelUse]:
    return [one for one in uses if not set(one.groups).isdisjoint(use.groups)]


def _read(registry: Path) -> list[LabelUse]:
    path = registry / SPENT
    if not path.exists():
        return []
    try:
        return list(_USES.validate_json(read(path, LARGEST)))
    except (ValidationError, RecursionError) as error:
        raise ArtifactError(f"{path}: not a record of labels that were used") from error


def _write(registry: Path, uses: Sequence[LabelUse]) -> None:
    replace(registry / SPENT, json.dumps([asdict(one) for one in uses[-MOST_USES:]]))
