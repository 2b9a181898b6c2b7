"""What was served since learning began, and what the top rung would have taken in its place.

Some requests get the top rung by chance alone, and their chances are known. Weighted by these, they say what the top
rung would have taken for all. What was saved is therefore measured, and not forecast.
"""

import asyncio
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from operator import add, attrgetter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from router.domain import CHOSEN, Decision
from router.errors import OutcomeFileError
from router.events import Decided, Generated, Record, Taught
from router.files import make_private
from router.learning.store import BUSY_SECONDS

FILE = "traffic.sqlite"
"""Name of the file in the learning folder. It holds sums alone."""

WRITE_SECONDS = 2.0
"""Between writes; what a process that is killed has not written is not counted."""

FEWEST = 20
"""Requests at the top rung by chance, below which nothing is said about what was saved."""

Z = 1.96


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over what one bundle decided.

    Attributes:
        requests: decisions.
        ended: generations whose top rung had a chance, and whose thinking tokens are known.
        tokens: thinking tokens of these.
        drawn: those at the top rung whose chance was less than 1.
        weights: sum of 1 / chance over all at the top rung.
        weighted: sum of tokens / chance.
        spread, spread_tokens, spread_squares: sums of w (w - 1), times 1, tokens and squared tokens, of w = 1 / chance.
    """

    requests: int = 0
    ended: int = 0
    tokens: float = 0.0
    drawn: int = 0
    weights: float = 0.0
    weighted: float = 0.0
    spread: float = 0.0
    spread_tokens: float = 0.0
    spread_squares: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*map(add, _values(self), _values(other)))

    @property
    def saved(self) -> "Saved | None":
        """What was saved against the top rung; None where too few were at the top rung by chance."""
        if self.drawn < FEWEST:
            return None
        mean = self.weighted / self.weights
        top = self.ended * mean
        variance = self.spread_squares - 2 * mean * self.spread_tokens + mean * mean * self.spread
        error = Z * self.ended * math.sqrt(max(0.0, variance)) / self.weights
        saved = top - self.tokens
        return Saved(saved, saved - error, saved + error, top, self.ended, self.drawn)


@dataclass(frozen=True, slots=True)
class Saved:
    """Thinking tokens that were saved, with a 95 % interval.

    Attributes:
        top: what the top rung would have taken.
        requests: that are counted.
        drawn: requests among them that got the top rung by chance, which say what it takes.
    """

    tokens: float
    low: float
    high: float
    top: float
    requests: int
    drawn: int


class Traffic:
    """Counts records, and writes the sums a moment later. Several processes may share the file.

    Args:
        mode: what the service does with what it learns, kept beside the sums.
    """

    def __init__(self, folder: Path, mode: str) -> None:
        self._folder, self._mode = folder, mode
        self._waiting: defaultdict[str, Tally] = defaultdict(Tally)
        self._lessons = Counter[str]()
        self._written = False

    def __call__(self, record: Record) -> None:
        match record:
            case Decided(decision=decision):
                self._waiting[decision.model_version] += Tally(requests=1)
            case Generated(decision=decision, completion=end) if end.thinking_tokens is not None:
                self._waiting[decision.model_version] += ended(decision, end.thinking_tokens)
            case Taught(outcome=outcome):
                self._lessons[outcome] += 1

    async def keep(self) -> None:
        """Write again and again. Runs until cancelled. Raises OutcomeFileError."""
        while True:
            await self.write()
            await asyncio.sleep(WRITE_SECONDS)

    async def close(self) -> None:
        """Write what waits, if that can be done."""
        with suppress(OutcomeFileError):
            await self.write()

    async def write(self) -> None:
        """Write what waits, and the mode where the file lacks ours. Raises OutcomeFileError; it still waits then."""
        if self._written and not (self._waiting or self._lessons) and (self._folder / FILE).exists():
            return
        batch, self._waiting = self._waiting, defaultdict(Tally)
        lessons, self._lessons = self._lessons, Counter()
        try:
            await asyncio.to_thread(_write, self._folder, self._mode, batch, lessons)
        except OutcomeFileError:
            self._lessons += lessons
            for version, tally in batch.items():
                self._waiting[version] += tally
            raise
        self._written = True


def ended(decision: Decision, tokens: int) -> Tally:
    """What a generation adds."""
    chance = decision.propensities[-1] if decision.source in CHOSEN else 0.0
    if chance <= 0:
        return Tally()
    if decision.choice.index < len(decision.ladder) - 1 or decision.choice.stopping is not None:
        return Tally(ended=1, tokens=tokens)
    weight = 1 / min(chance, 1.0)
    spread = weight * (weight - 1)
    return Tally(
        0, 1, tokens, int(spread > 0), weight, weight * tokens, spread, spread * tokens, spread * tokens * tokens
    )


_NAMES = tuple(field.name for field in fields(Tally))
_values = attrgetter(*_NAMES)  # `astuple` copies deeply, which takes ten times as long
_TABLES = (
    f"CREATE TABLE IF NOT EXISTS traffic (version TEXT PRIMARY KEY, {', '.join(f'{n} NOT NULL' for n in _NAMES)})",
    "CREATE TABLE IF NOT EXISTS lessons (outcome TEXT PRIMARY KEY, requests NOT NULL)",
    "CREATE TABLE IF NOT EXISTS service (id INTEGER PRIMARY KEY CHECK (id = 1), mode TEXT NOT NULL)",
)
_ADD = f"""
    INSERT INTO traffic VALUES (?{", ?" * len(_NAMES)})
    ON CONFLICT (version) DO UPDATE SET {", ".join(f"{n} = {n} + excluded.{n}" for n in _NAMES)}"""

_ADD_LESSONS = """
    INSERT INTO lessons VALUES (?, ?)
    ON CONFLICT (outcome) DO UPDATE SET requests = requests + excluded.requests"""


def _write(folder: Path, mode: str, batch: Mapping[str, Tally], lessons: Mapping[str, int]) -> None:
    path = folder / FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(path)
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as db, db:
            db.execute("BEGIN IMMEDIATE")  # a reader sees all tables or none
            for table in _TABLES:
                db.execute(table)
            db.execute("INSERT INTO service VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET mode = excluded.mode", (mode,))
            db.executemany(_ADD, [(version, *_values(tally)) for version, tally in batch.items()])
            db.executemany(_ADD_LESSONS, list(lessons.items()))
    except (sqlite3.Error, OSError) as error:
        raise OutcomeFileError(f"{path}: {error}") from error


@dataclass(frozen=True, slots=True)
class LessonCount:
    """Requests that were drawn to learn from, and what became of them, as `Taught` says it."""

    outcome: str
    requests: int


class Served(NamedTuple):
    """What is in the file.

    Attributes:
        mode: of the service that wrote last; "" where none did.
        sums: by the bundle's version.
        lessons: the most frequent first.
    """

    mode: str = ""
    sums: Mapping[str, Tally] = {}
    lessons: tuple[LessonCount, ...] = ()


def read(folder: Path) -> Served:
    """What was served since learning began.

    Raises:
        OutcomeFileError: the file cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return Served()
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'lessons'").fetchone():
                return Served()  # the file has just been made
            mode = db.execute("SELECT mode FROM service").fetchone()
            rows = db.execute(f"SELECT version, {', '.join(_NAMES)} FROM traffic").fetchall()
            found = db.execute("SELECT outcome, requests FROM lessons ORDER BY requests DESC").fetchall()
    except sqlite3.Error as error:
        raise OutcomeFileError(f"{path}: {error}") from error
    sums, lessons = {version: Tally(*sums) for version, *sums in rows}, tuple(LessonCount(*one) for one in found)
    return Served("" if mode is None else str(mode[0]), sums, lessons)
