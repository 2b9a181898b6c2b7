"""The outcome log in an SQLite file: the embedded default."""

import asyncio
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from router.domain import Completion, Decision, Degraded, Outcome
from router.errors import OutcomeLogError
from router.ports import Observer

SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
    decision_id TEXT PRIMARY KEY, decided_at TEXT NOT NULL, tenant TEXT NOT NULL, rung TEXT NOT NULL,
    source TEXT NOT NULL, reason TEXT NOT NULL, model_version TEXT NOT NULL, propensity REAL NOT NULL, score TEXT,
    finish TEXT, thinking_tokens INTEGER, answer_tokens INTEGER,
    correct REAL, label_source TEXT, reported_at TEXT
) WITHOUT ROWID
"""
DECIDED = """
INSERT INTO decisions (decision_id, decided_at, tenant, rung, source, reason, model_version, propensity, score)
VALUES (?, ?, ?, ?, ?, ?, ?, 1.0, ?) ON CONFLICT DO NOTHING
"""
COMPLETED = "UPDATE decisions SET finish = ?, thinking_tokens = ?, answer_tokens = ? WHERE decision_id = ?"
REPORTED = "UPDATE decisions SET correct = ?, label_source = ?, reported_at = ? WHERE decision_id = ?"

Statement = tuple[str, tuple[object, ...]]


class SqliteOutcomes:
    """Writes from a thread of its own, in batches; `buffer` statements may wait, more are dropped and observed.

    Raises:
        OutcomeLogError: the file can not be opened.
    """

    def __init__(self, path: Path, observer: Observer, buffer: int = 10_000) -> None:
        self._observer = observer
        self._waiting: list[Statement] = []
        self._buffer = buffer
        self._flush: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outcomes")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, timeout=5)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(SCHEMA)
            self._db.commit()
        except (sqlite3.Error, OSError) as error:
            raise OutcomeLogError(f"{path}: {error}") from error

    def record(self, tenant: str, decision: Decision, completion: Completion | None) -> None:
        """Remember a decision, and how its generation ended, soon; never waits."""
        if len(self._waiting) >= self._buffer:
            self._observer(Degraded("outcomes", "the buffer is full: one record dropped"))
            return
        self._waiting.append(_decided(tenant, decision) if completion is None else _completed(decision, completion))
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._flush_soon())

    async def report(self, outcome: Outcome) -> bool:
        """Attach an outcome; durable on return. False when the decision is unknown. Raises OutcomeLogError."""
        now = datetime.now(UTC).isoformat()
        values = (outcome.correct, outcome.label_source.value, now, outcome.decision_id)
        await asyncio.shield(self._flush_once())  # the decision itself may still be waiting
        return await self._write([(REPORTED, values)]) > 0

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

    def _transaction(self, statements: list[Statement]) -> int:
        with self._db:
            changed = [self._db.execute(sql, values).rowcount for sql, values in statements]
        return changed[-1] if changed else 0


def _decided(tenant: str, decision: Decision) -> Statement:
    score = None if decision.score is None else json.dumps(asdict(decision.score))
    now = datetime.now(UTC).isoformat()
    choice = (decision.rung.name, decision.source.value, decision.choice.reason)
    return DECIDED, (decision.id, now, tenant, *choice, decision.model_version, score)


def _completed(decision: Decision, completion: Completion) -> Statement:
    used = (completion.finish.value, completion.thinking_tokens, completion.answer_tokens)
    return COMPLETED, (*used, decision.id)
