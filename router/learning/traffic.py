"""What was served since learning began, in a file of sums. Several processes may share it."""

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from router.errors import OutcomeFileError
from router.events import Decided, Generated, Record, Taught
from router.files import make_private
from router.learning.store import BUSY_SECONDS
from router.learning.tally import NAMES, Tally, ended, values

FILE = "traffic.sqlite"
"""Name of the file in the learning folder. It holds sums alone."""

WRITE_SECONDS = 2.0
"""Between writes; what a process that is killed has not written is not counted."""


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


_TABLES = (
    f"CREATE TABLE IF NOT EXISTS traffic (version TEXT PRIMARY KEY, {', '.join(f'{n} NOT NULL' for n in NAMES)})",
    "CREATE TABLE IF NOT EXISTS lessons (outcome TEXT PRIMARY KEY, requests NOT NULL)",
    "CREATE TABLE IF NOT EXISTS service (id INTEGER PRIMARY KEY CHECK (id = 1), mode TEXT NOT NULL)",
)
_ADD = f"""
    INSERT INTO traffic VALUES (?{", ?" * len(NAMES)})
    ON CONFLICT (version) DO UPDATE SET {", ".join(f"{n} = {n} + excluded.{n}" for n in NAMES)}"""

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
            db.executemany(_ADD, [(version, *values(tally)) for version, tally in batch.items()])
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
            rows = db.execute(f"SELECT version, {', '.join(NAMES)} FROM traffic").fetchall()
            found = db.execute("SELECT outcome, requests FROM lessons ORDER BY requests DESC").fetchall()
    except sqlite3.Error as error:
        raise OutcomeFileError(f"{path}: {error}") from error
    sums, lessons = {version: Tally(*sums) for version, *sums in rows}, tuple(LessonCount(*one) for one in found)
    return Served("" if mode is None else str(mode[0]), sums, lessons)
