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
from router.outcomes.rows import FIELDS, Event, PromptHasher, Row
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
    """Writes from a thread of its own, in batches; `buffer` statements may wait, more are dropped and observed.

    Args:
        texts: keep the prompts, not only their keyed hashes.
        secret: key of these hashes; empty = a random one that the file keeps.

    Raises:
        OutcomeLogError: the file can not be opened.
    """

    def __init__(
        self, path: Path, observer: Observer, *, texts: bool = False, secret: bytes = b"", buffer: int = 10_000
    ) -> None:
        self._behind = WriteBehind(self._write_events, observer, buffer)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outcomes")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, timeout=5)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            _prepare(self._db)
            self._names = PromptHasher(secret or _secret(self._db), texts)
            self._db.commit()
        except (sqlite3.Error, OSError) as error:
            raise OutcomeLogError(f"{path}: {error}") from error

    def record(self, request: RouteRequest, decision: Decision, completion: Completion | None) -> None:
        """Remember a decision, and how its generation ended, soon; never waits."""
        self._behind.add(Event.now(request, decision, completion))

    @property
    def failing(self) -> bool:
        """Nothing can be written at the moment."""
        return self._behind.failing

    async def report(self, outcome: Outcome) -> bool:
        """Attach an outcome; durable on return. False when the decision is unknown. Raises OutcomeLogError."""
        await self._behind.flush()  # the decision itself may still be waiting
        statement = _update(rows.reported(outcome), outcome.decision_id, outcome.tenant)
        return await self._in_thread(self._durable, [statement]) > 0

    async def find(self, decision_id: str) -> tuple[str, Decision, Prompt | None] | None:
        """Tenant, decision, and the prompt where it was kept; None where it is unknown. Raises OutcomeLogError."""
        await self._behind.flush()
        row = await self._in_thread(self._row, decision_id)
        return None if row is None else rows.restored(row)

    async def close(self) -> None:
        """Write what waits, then close the file."""
        await self._behind.close()
        self._thread.shutdown()
        self._db.close()

    async def _write_events(self, events: list[Event]) -> None:
        await self._in_thread(self._events, events)

    async def _in_thread(self, work: Callable[[A], T], argument: A) -> T:
        """After all that was asked of the thread before. Raises OutcomeLogError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, argument)
        except sqlite3.Error as error:
            raise OutcomeLogError(f"SQLite: {error}") from error

    def _events(self, events: list[Event]) -> None:
        self._transaction([_statement(event, self._names) for event in events])

    def _row(self, decision_id: str) -> Row | None:
        found = self._db.execute("SELECT * FROM decisions WHERE decision_id = ?", (decision_id,))
        names = [column[0] for column in found.description]
        values = found.fetchone()
        return None if values is None else dict(zip(names, values, strict=True))

    def _durable(self, statements: list[Statement]) -> int:
        """As `_transaction`, and with all before it on the disk: what is acknowledged outlives the machine's power."""
        self._db.execute("PRAGMA synchronous = FULL")
        try:
            return self._transaction(statements)
        finally:
            self._db.execute("PRAGMA synchronous = NORMAL")

    def _transaction(self, statements: list[Statement]) -> int:
        with self._db:
            alike = groupby(statements, itemgetter(0))
            return sum(self._db.executemany(sql, map(itemgetter(1), group)).rowcount for sql, group in alike)


def read_rows(path: Path) -> Iterator[Row]:
    """Everything in a log, in the order of the decisions; the service may go on writing. Raises OutcomeLogError."""
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
    """A file of an earlier version gets the columns that it lacks."""
    columns = ", ".join(f"{name} {_kind(name)}" for name in FIELDS if name != "decision_id")
    db.execute(f"CREATE TABLE IF NOT EXISTS decisions (decision_id TEXT PRIMARY KEY, {columns})")
    present = {row[1] for row in db.execute("PRAGMA table_info(decisions)")}
    for name in FIELDS:
        if name not in present:
            db.execute(f"ALTER TABLE decisions ADD COLUMN {name} {_kind(name)}")
    db.execute("CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL)")


def _secret(db: sqlite3.Connection) -> bytes:
    db.execute("INSERT INTO secrets VALUES ('prompts', ?) ON CONFLICT DO NOTHING", (secrets.token_bytes(32),))
    (value,) = db.execute("SELECT value FROM secrets WHERE name = 'prompts'").fetchone()
    return bytes(value)


def _statement(event: Event, names: PromptHasher) -> Statement:
    row = event.row(names)
    return _insert(row) if event.completion is None else _update(row, event.decision.id)


def _insert(row: Row) -> Statement:
    return _insertion(tuple(row)), tuple(row.values())


@lru_cache(16)
def _insertion(columns: tuple[str, ...]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO decisions ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING"


def _update(row: Row, decision_id: str, tenant: str | None = None) -> Statement:
    """Where a tenant is named, only if the decision is its own."""
    sets = ", ".join(f"{name} = ?" for name in row)
    sql = f"UPDATE decisions SET {sets} WHERE decision_id = ? AND tenant = COALESCE(?, tenant)"
    return sql, (*row.values(), decision_id, tenant)
