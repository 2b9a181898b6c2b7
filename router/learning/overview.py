"""How far learning has come, in one value: what the trainer says, what was served, and what it has saved."""

from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from router.learning import status, store, traffic
from router.learning.status import Status, Target
from router.learning.tally import Saved, Tally
from router.learning.traffic import LessonCount

Mode = Literal["unspecified", "off", "observe", "act"]
"""What a service does with what it learns; unspecified: none has written into the folder."""


@dataclass(frozen=True, slots=True)
class Overview:
    """How far learning has come.

    Attributes:
        requests: decisions since learning began.
        evidence: pieces in the file, also those that the trainer has not looked at.
        learning: what the trainer says; None before it has run.
        saved: by all bundles that were learned here; None where that is not known.
        suspended: why the one that serves no longer decides; "" where it does, or nobody knows.
        lessons: what became of the requests that were drawn to learn from.
    """

    mode: Mode = "off"
    requests: int = 0
    evidence: int = 0
    learning: Status | None = None
    saved: Saved | None = None
    suspended: str = ""
    lessons: tuple[LessonCount, ...] = ()

    def requests_until(self, target: Target) -> int | None:
        """Requests until a certificate for a target, at the rate at which requests have become evidence so far.

        0 where it is certified; None where it is not in sight.
        """
        if not target.wanted or self.learning is None:
            return target.wanted
        taught = self.learning.evidence.pieces
        return round(target.wanted * max(1.0, self.requests / taught)) if taught else None

    def hours_until(self, target: Target) -> float | None:
        """The same in hours."""
        if not target.wanted or self.learning is None:
            return target.wanted
        pace = self.learning.pieces_an_hour
        return target.wanted / pace if pace > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)

    @classmethod
    def of(cls, found: object) -> "Overview":
        """The overview that `to_json` is of. Raises ValueError."""
        return _OVERVIEW.validate_python(found)


_OVERVIEW = TypeAdapter(Overview)


def read(folder: Path) -> Overview:
    """How far learning has come in a folder. Raises ArtifactError, OutcomeFileError."""
    served = traffic.read(folder)
    learning = status.read(folder)
    promoted = () if learning is None else learning.promoted
    learned = reduce(add, (served.sums.get(version, Tally()) for version in promoted), Tally())
    requests = reduce(add, served.sums.values(), Tally()).requests
    known: Any = served.mode or "unspecified"
    return Overview(known, requests, store.count(folder), learning, learned.saved, lessons=served.lessons)
