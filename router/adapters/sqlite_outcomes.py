"""The outcome log in an SQLite file: the embedded default."""

import asyncio
import secrets
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from router.adapters import outcome_record
from router.adapters.outcome_record import PromptNames, Row
from router.domain import Completion, Decision, Degraded, Outcome, Prompt, RouteRequest
from router.errors import OutcomeLogError
from router.ports import Observer

COLUMNS = {
    "decided_at": "TEXT NOT NULL", "tenant": "TEXT NOT NULL", "prompt_id": "TEXT", "prompt": "TEXT", "messages": "TEXT",
    "model": "TEXT", "backend": "TEXT", "model_version": "TEXT NOT NULL", "ladder": "TEXT", "rung": "TEXT NOT NULL",
    "rung_order": "INTEGER", "budget_tokens": "INTEGER", "target": "TEXT", "source": "TEXT NOT NULL",
    "reason": "TEXT NOT NULL", "meets_target": "INTEGER", "certificate": "TEXT", "propensity": "REAL NOT NULL",
    "propensities": "TEXT", "score": "TEXT",
    "completed_at": "TEXT", "finish": "TEXT", "enforcement": "TEXT", "served_rung": "TEXT", "attempts": "INTEGER",
    "prompt_tokens": "INTEGER", "thinking_tokens": "INTEGER", "answer_tokens": "INTEGER",
    "correct": "REAL", "label_source": "TEXT", "reported_at": "TEXT",
}  # fmt: skip
"""What a decision is remembered by; a file of an earlier version gets the columns that it lacks."""

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
        self._observer = observer
        self._waiting: list[Statement] = []
        self._buffer = buffer
        self._flush: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outcomes")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, timeout=5)
            self._db.execute("PRAGMA journal_mode = WAL")
            _prepare(self._db)
            self._names = PromptNames(secret or _secret(self._db), texts)
            self._db.commit()
        except (sqlite3.Error, OSError) as error:
            raise OutcomeLogError(f"{path}: {error}") from error

    def record(self, request: RouteRequest, decision: Decision, completion: Completion | None) -> None:
        """Remember a decision, and how its generation ended, soon; never waits."""
        if len(self._waiting) >= self._buffer:
            self._observer(Degraded("outcomes", "the buffer is full: one record dropped"))
            return
        if completion is None:
            self._waiting.append(_insert(outcome_record.decided(request, decision, self._names)))
        else:
            self._waiting.append(_update(outcome_record.completed(completion), decision.id))
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._flush_soon())

    async def report(self, outcome: Outcome) -> bool:
        """Attach an outcome; durable on return. False when the decision is unknown. Raises OutcomeLogError."""
        await asyncio.shield(self._flush_once())  # the decision itself may still be waiting
        return await self._write([_update(outcome_record.reported(outcome), outcome.decision_id)]) > 0

    async def find(self, decision_id: str) -> tuple[str, Decision, Prompt | None] | None:
        """Tenant, decision, and the prompt where it was kept; None where it is unknown. Raises OutcomeLogError."""
        await asyncio.shield(self._flush_once())
        try:
            row = await asyncio.get_running_loop().run_in_executor(self._thread, self._row, decision_id)
            return None if row is None else outcome_record.restored(row)
        except (sqlite3.Error, ValueError) as error:
            raise OutcomeLogError(f"SQLite: {error}") from error

    async def close(self) -> None:
        """Write what waits, then close the file."""
        if self._flush is not None:
            await self._flush
        await self._flush_once()
        self._thread.shutdown()
        self._db.close()

    async def _flush_soon(self) -> None:
        while self._waiting:
            await self._flush_once()

    async def _flush_once(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            await self._write(batch)
        except OutcomeLogError as error:
            self._observer(Degraded("outcomes", f"{len(batch)} records dropped: {error}"))

    async def _write(self, statements: list[Statement]) -> int:
        """Run statements in one transaction, after all written before; the number of rows the last one changed."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._transaction, statements)
        except sqlite3.Error as error:
            raise OutcomeLogError(f"SQLite: {error}") from error

    def _row(self, decision_id: str) -> Row | None:
        found = self._db.execute("SELECT * FROM decisions WHERE decision_id = ?", (decision_id,))
        names = [column[0] for column in found.description]
        values = found.fetchone()
        return None if values is None else dict(zip(names, values, strict=True))

    def _transaction(self, statements: list[Statement]) -> int:
        with self._db:
            changed = [self._db.execute(sql, values).rowcount for sql, values in statements]
        return changed[-1] if changed else 0


def rows(path: Path) -> Iterator[Row]:
    """Everything in a log, in the order of the decisions; the service may go on writing. Raises OutcomeLogError."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT * FROM decisions ORDER BY decided_at")
            names = [column[0] for column in found.description]
            for values in found:
                yield dict(zip(names, values, strict=True))
    except sqlite3.Error as error:
        raise OutcomeLogError(f"{path}: {error}") from error


def _prepare(db: sqlite3.Connection) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    db.execute(f"CREATE TABLE IF NOT EXISTS decisions (decision_id TEXT PRIMARY KEY, {columns}) WITHOUT ROWID")
    present = {row[1] for row in db.execute("PRAGMA table_info(decisions)")}
    for name, kind in COLUMNS.items():
        if name not in present:
            db.execute(f"ALTER TABLE decisions ADD COLUMN {name} {kind}")
    db.execute("CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL)")


def _secret(db: sqlite3.Connection) -> bytes:
    db.execute("INSERT INTO secrets VALUES ('prompts', ?) ON CONFLICT DO NOTHING", (secrets.token_bytes(32),))
    value: bytes = db.execute("SELECT value FROM secrets WHERE name = 'prompts'").fetchone()[0]
    return value


def _insert(row: Row) -> Statement:
    marks = ", ".join("?" * len(row))
    return f"INSERT INTO decisions ({', '.join(row)}) VALUES ({marks}) ON CONFLICT DO NOTHING", tuple(row.values())


def _update(row: Row, decision_id: str) -> Statement:
    sets = ", ".join(f"{name} = ?" for name in row)
    return f"UPDATE decisions SET {sets} WHERE decision_id = ?", (*row.values(), decision_id)
