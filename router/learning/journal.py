"""Evidence and reports that are written a moment later, in a thread: no caller waits for the disk."""

import asyncio
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from router.learning.evidence import Evidence
from router.learning.store import EvidenceFile
from router.outcomes.write_behind import WriteBehind
from router.ports import Observer

MOST_ROWS = 50_000
"""Pieces of evidence that the file holds, about 100 MB; the oldest go first."""

WAITING = 10_000
"""Records that may wait to be written."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the caller says of a served answer, 0..1."""

    decision_id: str
    quality: float


def _weight(record: Evidence | Report) -> int:
    return 1 if isinstance(record, Report) else 1 + len(record.kept) // 4_096


class Journal:
    """Writes to the file of evidence in a folder. Several processes may share it.

    Raises:
        OutcomeFileError: the file cannot be opened.
    """

    def __init__(self, folder: Path, observer: Observer, most: int = MOST_ROWS) -> None:
        self._folder, self._most = folder, most
        EvidenceFile(folder).close()  # an error at the start, and not with the first evidence
        self._behind = WriteBehind(
            self._write, observer, WAITING, weigh=_weight, dependency="learning", what="the evidence"
        )

    def add(self, record: Evidence | Report) -> None:
        """Write it a moment later; never waits."""
        self._behind.add(record)

    async def flush(self) -> None:
        """Write what waits now. Raises OutcomeLogError."""
        await self._behind.flush()

    async def close(self) -> None:
        """Write what waits. Raises DrainError where that cannot be done."""
        await self._behind.close()

    async def _write(self, records: list[Evidence | Report]) -> None:
        await asyncio.to_thread(self._written, records)

    def _written(self, records: Iterable[Evidence | Report]) -> None:
        # Opened for each batch: `learn reset` may have taken the file away meanwhile.
        with closing(EvidenceFile(self._folder)) as file:
            file.add([one for one in records if isinstance(one, Evidence)])
            for one in records:
                if isinstance(one, Report):
                    file.report(one.decision_id, one.quality)
            file.prune(self._most)
