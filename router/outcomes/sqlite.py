"""The outcome log in an SQLite file: the embedded default."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from router.domain import Completion, Decision, LoggedDecision, Outcome, RouteRequest
from router.errors import OutcomeFileError, OutcomeLogError, OutcomeLogHangs
from router.outcomes import rows
from router.outcomes.rows import LogEntry, PromptHasher, Row
from router.outcomes.sqlite_file import LogFile
from router.outcomes.write_behind import WriteBehind
from router.ports import Observer

REPORT_SECONDS = 5.0
"""Seconds that an outcome has to reach the disk; its reporter waits for it."""

CLOSE_SECONDS = 1.0

ROW_AT_FAULT = (sqlite3.DataError, sqlite3.IntegrityError)
"""Errors of SQLite about a row; all others are about the file, and may pass."""

A = TypeVar("A")
T = TypeVar("T")
Statement = tuple[str, tuple[object, ...]]


class SqliteOutcomes:
    """Writes in batches, from a thread of its own.

    Args:
        texts: keep the prompts, not only their keyed hashes.
        secret: key of these hashes; empty = a random one that the file keeps.
        buffer: entries that may wait to be written; more are dropped, and observed.
        report_seconds: how long a reporter waits for the disk at most.

    Raises:
        OutcomeLogError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        observer: Observer,
        *,
        texts: bool = False,
        secret: bytes = b"",
        buffer: int = 10_000,
        report_seconds: float = REPORT_SECONDS,
    ) -> None:
        self._behind = WriteBehind(self._write_events, observer, buffer, owner=LogEntry.owner, weigh=LogEntry.weight)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outcomes")
        self._secret, self._texts = secret, texts
        self._report_seconds = report_seconds
        try:
            self._file = LogFile(path)
        except (sqlite3.Error, OSError) as error:
            raise OutcomeFileError(f"{path}: {error}") from error

    def record(self, request: RouteRequest, decision: Decision, completion: Completion | None) -> None:
        """Write a decision, or the end of its generation, a moment later; never waits."""
        self._behind.add(LogEntry.now(request, decision, completion))

    @property
    def failing(self) -> bool:
        """True while nothing can be written."""
        return self._behind.failing

    async def report(self, outcome: Outcome) -> bool:
        """Write an outcome; it is durable on return. False if the decision is unknown. Raises OutcomeLogError."""
        statement = _update(rows.reported(outcome), outcome.decision_id, outcome.tenant)
        async with self._in_time():
            await self._behind.flush()  # the decision itself may still be waiting
            return await self._in_thread(self._durable, [statement]) > 0

    async def find(self, decision_id: str) -> LoggedDecision | None:
        """A decision with its tenant, and its prompt if the log keeps it; None if unknown. Raises OutcomeLogError."""
        async with self._in_time():
            await self._behind.flush()
            row = await self._in_thread(self._row, decision_id)
        return None if row is None else rows.restored(row)

    def identity(self) -> object:
        """Changes when the file is deleted or replaced, and when it is back."""
        return self._file.identity()

    async def check(self) -> None:
        """Open the file anew if it was deleted or replaced. Raises OutcomeLogError, once, where that was so."""
        async with self._in_time():
            await self._in_thread(lambda _: self._file.connection(), None)

    async def close(self) -> None:
        """Write all waiting entries, then close the file. Raises DrainError where some could not be written."""
        try:
            await self._behind.close()
        finally:
            with suppress(TimeoutError, OutcomeLogError):  # the thread may hang in a call
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._in_thread(lambda _: self._file.close(), None)
            self._thread.shutdown(wait=False)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Nobody waits longer for the file, whichever process holds it. Raises OutcomeLogHangs."""
        try:
            async with asyncio.timeout(self._report_seconds):
                yield
        except TimeoutError as error:
            raise OutcomeLogHangs(f"SQLite: locked, or its disk hangs, for {self._report_seconds:g} s") from error

    async def _write_events(self, events: list[LogEntry]) -> None:
        await self._in_thread(self._events, events)

    async def _in_thread(self, work: Callable[[A], T], argument: A) -> T:
        """Run `work` in the log's thread, after all before it. Raises OutcomeLogError, ValueError, ROW_AT_FAULT."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, argument)
        except ROW_AT_FAULT:
            raise
        except (sqlite3.Error, OSError) as error:
            raise OutcomeLogError(f"SQLite: {error}") from error

    def _events(self, events: list[LogEntry]) -> None:
        # The key is the file's own where none is set, and so another one in a new file.
        names = PromptHasher(self._secret or self._file.secret, self._texts)
        self._transaction([_statement(event, names) for event in events])

    def _row(self, decision_id: str) -> Row | None:
        found = self._file.connection().execute("SELECT * FROM decisions WHERE decision_id = ?", (decision_id,))
        names = [column[0] for column in found.description]
        values = found.fetchone()
        return None if values is None else dict(zip(names, values, strict=True))

    def _durable(self, statements: list[Statement]) -> int:
        """As `_transaction`, and synced to the disk together with all before it.

        Batches need no sync: a crash of the machine may cost a few decisions, but never an acknowledged outcome.
        """
        db = self._file.connection()
        db.execute("PRAGMA synchronous = FULL")
        try:
            return self._transaction(statements)
        finally:
            with suppress(sqlite3.ProgrammingError):  # closed: the file was deleted meanwhile
                db.execute("PRAGMA synchronous = NORMAL")

    def _transaction(self, statements: list[Statement]) -> int:
        with self._file.connection() as db:
            # Runs of equal statements share one executemany, which costs a fraction of as many single calls.
            alike = groupby(statements, itemgetter(0))
            count = sum(db.executemany(sql, map(itemgetter(1), group)).rowcount for sql, group in alike)
        self._file.connection()  # raises if the file was deleted meanwhile: nothing there may be acknowledged
        return count


def read_rows(path: Path) -> Iterator[Row]:
    """All rows of a log, in the order of the decisions; the service may write meanwhile. Raises OutcomeFileError."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT * FROM decisions ORDER BY decided_at")
            names = [column[0] for column in found.description]
            for values in found:
                yield dict(zip(names, values, strict=True))
    except sqlite3.Error as error:
        raise OutcomeFileError(f"{path}: {error}") from error


def _statement(event: LogEntry, names: PromptHasher) -> Statement:
    row = event.row(names)
    return _insert(row) if event.completion is None else _update(row, event.decision.id)


def _insert(row: Row) -> Statement:
    return _insertion(tuple(row)), tuple(row.values())


@lru_cache(16)
def _insertion(columns: tuple[str, ...]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO decisions ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING"


def _update(row: Row, decision_id: str, tenant: str | None = None) -> Statement:
    """Set columns of a decision; if a tenant is named, only of its own."""
    # A NULL tenant stands for any: then the comparison is with the row's own tenant.
    sets = ", ".join(f"{name} = ?" for name in row)
    sql = f"UPDATE decisions SET {sets} WHERE decision_id = ? AND tenant = COALESCE(?, tenant)"
    return sql, (*row.values(), decision_id, tenant)
