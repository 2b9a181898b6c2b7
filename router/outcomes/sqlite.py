"""The outcome log in an SQLite file: the embedded default."""

import asyncio
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from router.domain import Completion, Decision, Outcome, Prompt, RouteRequest
from router.errors import OutcomeLogError
from router.outcomes import rows
from router.outcomes.rows import FIELDS, LogEntry, PromptHasher, Row
from router.outcomes.write_behind import WriteBehind
from router.ports import Observer

INTEGERS = (
    "rung_order", "budget_tokens", "meets_target", "attempts", "prompt_tokens", "thinking_tokens", "answer_tokens",
)  # fmt: skip
REALS = ("propensity", "correct", "relaxed")

A = TypeVar("A")
T = TypeVar("T")
Statement = tuple[str, tuple[object, ...]]


class SqliteOutcomes:
    """Writes in batches, from a thread of its own.

    Args:
        texts: keep the prompts, not only their keyed hashes.
        secret: key of these hashes; empty = a random one that the file keeps.
        buffer: entries that may wait to be written; more are dropped, and observed.

    Raises:
        OutcomeLogError: the file cannot be opened.
    """

    def __init__(
        self, path: Path, observer: Observer, *, texts: bool = False, secret: bytes = b"", buffer: int = 10_000
    ) -> None:
        self._behind = WriteBehind(self._write_events, observer, buffer)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outcomes")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, timeout=5)
            # WAL: readers, such as `read_rows` of another process, do not block the writer.
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            _prepare(self._db)
            self._names = PromptHasher(secret or _secret(self._db), texts)
            self._db.commit()
        except (sqlite3.Error, OSError) as error:
            raise OutcomeLogError(f"{path}: {error}") from error

    def record(self, request: RouteRequest, decision: Decision, completion: Completion | None) -> None:
        """Write a decision, or the end of its generation, a moment later; never waits."""
        self._behind.add(LogEntry.now(request, decision, completion))

    @property
    def failing(self) -> bool:
        """True while nothing can be written."""
        return self._behind.failing

    async def report(self, outcome: Outcome) -> bool:
        """Write an outcome; it is durable on return. False if the decision is unknown. Raises OutcomeLogError."""
        await self._behind.flush()  # the decision itself may still be waiting
        statement = _update(rows.reported(outcome), outcome.decision_id, outcome.tenant)
        return await self._in_thread(self._durable, [statement]) > 0

    async def find(self, decision_id: str) -> tuple[str, Decision, Prompt | None] | None:
        """A decision with its tenant, and its prompt if the log keeps it; None if unknown. Raises OutcomeLogError."""
        await self._behind.flush()
        row = await self._in_thread(self._row, decision_id)
        return None if row is None else rows.restored(row)

    async def close(self) -> None:
        """Write all waiting entries, then close the file."""
        await self._behind.close()
        self._thread.shutdown()
        self._db.close()

    async def _write_events(self, events: list[LogEntry]) -> None:
        await self._in_thread(self._events, events)

    async def _in_thread(self, work: Callable[[A], T], argument: A) -> T:
        """Run `work` in the log's thread, after all work before it. Raises OutcomeLogError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, argument)
        except sqlite3.Error as error:
            raise OutcomeLogError(f"SQLite: {error}") from error

    def _events(self, events: list[LogEntry]) -> None:
        self._transaction([_statement(event, self._names) for event in events])

    def _row(self, decision_id: str) -> Row | None:
        found = self._db.execute("SELECT * FROM decisions WHERE decision_id = ?", (decision_id,))
        names = [column[0] for column in found.description]
        values = found.fetchone()
        return None if values is None else dict(zip(names, values, strict=True))

    def _durable(self, statements: list[Statement]) -> int:
        """As `_transaction`, and synced to the disk together with all before it.

        Batches need no sync: a crash of the machine may cost a few decisions, but never an acknowledged outcome.
        """
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            return self._transaction(statements)
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")

    def _transaction(self, statements: list[Statement]) -> int:
        with self._db:
            # Runs of equal statements share one executemany, which costs a fraction of as many single calls.
            alike = groupby(statements, itemgetter(0))
            return sum(self._db.executemany(sql, map(itemgetter(1), group)).rowcount for sql, group in alike)


def read_rows(path: Path) -> Iterator[Row]:
    """All rows of a log, in the order of the decisions; the service may write meanwhile. Raises OutcomeLogError."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT * FROM decisions ORDER BY decided_at")
            names = [column[0] for column in found.description]
            for values in found:
                yield dict(zip(names, values, strict=True))
    except sqlite3.Error as error:
        raise OutcomeLogError(f"{path}: {error}") from error


def _kind(name: str) -> str:
    return "INTEGER" if name in INTEGERS else "REAL" if name in REALS else "TEXT"


def _prepare(db: sqlite3.Connection) -> None:
    """Create the tables; a file of an earlier version gets the columns that it lacks."""
    columns = ", ".join(f"{name} {_kind(name)}" for name in FIELDS if name != "decision_id")
    db.execute(f"CREATE TABLE IF NOT EXISTS decisions (decision_id TEXT PRIMARY KEY, {columns})")
    present = {row[1] for row in db.execute("PRAGMA table_info(decisions)")}
    for name in FIELDS:
        if name not in present:
            db.execute(f"ALTER TABLE decisions ADD COLUMN {name} {_kind(name)}")
    db.execute("CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL)")


def _secret(db: sqlite3.Connection) -> bytes:
    # Several workers may start at once on one file: the first one's secret stays.
    db.execute("INSERT INTO secrets VALUES ('prompts', ?) ON CONFLICT DO NOTHING", (secrets.token_bytes(32),))
    (value,) = db.execute("SELECT value FROM secrets WHERE name = 'prompts'").fetchone()
    return bytes(value)


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
