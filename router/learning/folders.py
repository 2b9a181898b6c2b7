"""The learning folder as a whole: moved aside to begin anew, and its evidence as rows for other programs."""

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from router.files import replaced, sync_folder
from router.learning import store
from router.learning.evidence import Evidence

LOCK = ".trainer"
"""Name of the file in the learning folder whose lock a trainer holds."""

STAYS = ("registry", store.SECRET, LOCK)
"""What a reset leaves in place: bundles, where no other registry is named, which services follow; the key of the
hashes, which they hold; and the lock of a trainer that goes on."""


def reset(folder: Path) -> Path:
    """Move all but the bundles aside, in one step for those who write; returns where it went.

    Raises:
        OSError: it cannot be moved, as where a file system is mounted there.
    """
    folder = folder.resolve()
    aside = folder.with_name(f"{folder.name}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    # The whole folder, since SQLite keeps several files that belong together, and a service may be writing.
    folder.rename(aside)
    folder.mkdir(mode=0o700)
    for name in STAYS:
        if (aside / name).exists():
            (aside / name).rename(folder / name)
    sync_folder(folder.parent)
    return aside


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The evidence in plain types, oldest first. Raises OutcomeFileError."""
    for number, one in store.read(folder):
        yield {"number": number, **_row(one)}


def write_lines(folder: Path, out: Path) -> int:
    """Write the evidence as JSON Lines, for their owner alone; returns how many there are.

    Raises:
        OutcomeFileError: the evidence cannot be read.
        OSError: it cannot be written; a file that exists stays as it is.
    """
    count = 0
    with replaced(out) as aside, aside.open("w", encoding="utf-8") as file:
        for row in rows(folder):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _row(one: Evidence) -> dict[str, Any]:
    values = {field.name: getattr(one, field.name) for field in fields(one)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    ladder = [asdict(rung) for rung in one.ladder.rungs]
    return plain | {"ladder": ladder, "inputs": one.inputs.tolist(), "losses": list(one.losses())}
