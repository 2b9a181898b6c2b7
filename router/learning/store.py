"""The evidence in an SQLite file: one process of the service writes, and the trainer reads meanwhile."""

import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from router.domain import BudgetLadder, ReasoningBudget
from router.errors import OutcomeFileError
from router.files import locked, make_private
from router.learning.evidence import PEOPLE, Evidence

FILE = "evidence.sqlite"
"""Name of the file in the learning folder."""

SECRET = "secret"
"""Name of the file beside it that holds the key of the hashes."""

BUSY_SECONDS = 5.0
"""Seconds that SQLite waits for another process's lock."""

COLUMNS = (
    "decision_id", "at", "engine", "ladder", "prompt", "group_name", "inputs", "thinking_tokens", "same", "judged",
    "judge", "spent_tokens", "reported", "kept", "features", "tenant",
)  # fmt: skip
_TABLE = f"""
    CREATE TABLE IF NOT EXISTS evidence (
        id INTEGER PRIMARY KEY AUTOINCREMENT, decision_id TEXT UNIQUE NOT NULL, {", ".join(COLUMNS[1:])}
    )"""
_EARLY = "CREATE TABLE IF NOT EXISTS early (decision_id TEXT PRIMARY KEY, quality REAL NOT NULL)"
"""Reports that came before their evidence, as where another process is still cutting the thought."""

_REPORT = "UPDATE evidence SET reported = ? WHERE decision_id = ?"
_KEPT = ("decision_id", "at", "reported")
"""Columns that stay as they are where better evidence replaces some that was counted as lost."""

_INSERT = f"""
    INSERT INTO evidence ({", ".join(COLUMNS)}) VALUES ({", ".join("?" * len(COLUMNS))}) ON CONFLICT DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in _KEPT)}"""


def secret(folder: Path) -> bytes:
    """The folder's own key of the hashes of prompts, made at the first call. Raises OutcomeFileError."""
    path = folder / SECRET
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(folder):  # several workers may start at once
            make_private(path)
            if not path.stat().st_size:
                path.write_bytes(secrets.token_bytes(32))
            return path.read_bytes()
    except OSError as error:
        raise OutcomeFileError(f"{path}: {error}") from error


class EvidenceFile:
    """An open file of evidence. One thread at a time may use it; what `add` and `report` return from is on the disk.

    Raises:
        OutcomeFileError: the file cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_private(self.path)
            self._db = sqlite3.connect(self.path, check_same_thread=False, timeout=BUSY_SECONDS)
            with ExitStack() as failed:
                failed.callback(self._db.close)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute(_TABLE)
                self._db.execute(_EARLY)
                _add_columns(self._db)
                self._db.commit()
                failed.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise OutcomeFileError(f"{self.path}: {error}") from error

    def add(self, evidence: Sequence[Evidence]) -> None:
        """Append evidence; of a decision that is there already it takes the place. Raises OutcomeFileError."""
        with self._transaction() as db:
            db.executemany(_INSERT, [_row(one) for one in evidence])
            early = db.execute("SELECT quality, decision_id FROM early JOIN evidence USING (decision_id)").fetchall()
            db.executemany(_REPORT, early)
            db.executemany("DELETE FROM early WHERE decision_id = ?", [(name,) for _, name in early])

    def report(self, decision_id: str, quality: float) -> None:
        """Keep what a caller says of the served answer, 0..1, also where its evidence may still come.

        Raises:
            OutcomeFileError: it cannot be written.
        """
        with self._transaction() as db:
            if db.execute(_REPORT, (quality, decision_id)).rowcount == 0:
                db.execute("INSERT OR REPLACE INTO early VALUES (?, ?)", (decision_id, quality))

    def prune(self, most: int) -> int:
        """Delete the oldest evidence beyond so many rows; returns how many went. Raises OutcomeFileError."""
        with self._transaction() as db:
            db.execute("DELETE FROM early WHERE rowid <= (SELECT MAX(rowid) FROM early) - ?", (most,))
            sql = "DELETE FROM evidence WHERE id <= (SELECT MAX(id) FROM evidence) - ?"
            return db.execute(sql, (most,)).rowcount

    def judge(self, decision_id: str, right: Mapping[int, float]) -> None:
        """Keep what people say of other answers than the served one, which counts as right.

        What a verifier or a model has judged stays as it is: one piece of evidence has one judge.

        Args:
            right: how right they are, 0..1 by position of the rung.
        """
        places, values = ", ?, ?" * len(right), [part for i, share in right.items() for part in (f"$[{i}]", share)]
        with self._transaction() as db:
            last = "'$[' || (json_array_length(judged) - 1) || ']'"
            sql = f"""
                UPDATE evidence SET judge = ?, judged = json_set(judged, {last}, 1.0{places})
                WHERE decision_id = ? AND judge IN ('', ?)"""
            db.execute(sql, (PEOPLE, *values, decision_id, PEOPLE))

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Raises OutcomeFileError."""
        try:
            with self._db:
                yield self._db
        except sqlite3.Error as error:
            raise OutcomeFileError(f"{self.path}: {error}") from error


def count(folder: Path) -> int:
    """Pieces of evidence in a learning folder; 0 where there is no file. Raises OutcomeFileError."""
    path = folder / FILE
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            if not _made(db):
                return 0
            return int(db.execute("SELECT COUNT(*) FROM evidence").fetchone()[0])
    except sqlite3.Error as error:
        raise OutcomeFileError(f"{path}: {error}") from error


def read(folder: Path, *, texts: bool = True) -> Iterator[tuple[int, Evidence]]:
    """Evidence with its number, in the order in which it was written; numbers grow and are never used again.

    Args:
        texts: with what was kept of prompts and answers; without them, `kept` is "".

    Raises:
        OutcomeFileError: there is no file, or it cannot be read.
    """
    path = folder / FILE
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            if not _made(db):
                return
            columns = [name if texts or name != "kept" else "''" for name in COLUMNS]
            for number, *values in db.execute(f"SELECT id, {', '.join(columns)} FROM evidence ORDER BY id"):
                yield number, _evidence(dict(zip(COLUMNS, values, strict=True)))
    except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
        raise OutcomeFileError(f"{path}: {error}") from error


def _made(db: sqlite3.Connection) -> bool:
    """False while another process is making the file, which has no table yet."""
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'evidence'").fetchone() is not None


def _add_columns(db: sqlite3.Connection) -> None:
    """Give a file of an earlier version the columns that it lacks."""
    found = {name for _, name, *_ in db.execute("PRAGMA table_info(evidence)")}
    for name in COLUMNS:
        if name not in found:
            db.execute(f"ALTER TABLE evidence ADD COLUMN {name} DEFAULT ''")


def _row(one: Evidence) -> tuple[object, ...]:
    rungs = [asdict(rung) for rung in one.ladder.rungs]
    return (
        one.decision_id, one.at, one.engine, json.dumps(rungs), one.prompt, one.group,
        one.inputs.astype("<f4").tobytes(), json.dumps(one.thinking_tokens), json.dumps(one.same),
        json.dumps(one.judged), one.judge, one.spent_tokens, one.reported, one.kept, one.features,
        one.tenant,
    )  # fmt: skip


def _evidence(row: dict[str, Any]) -> Evidence:
    found = {name: json.loads(str(row[name])) for name in ("ladder", "thinking_tokens", "same", "judged")}
    return Evidence(
        decision_id=str(row["decision_id"]),
        at=float(row["at"]),
        engine=str(row["engine"]),
        ladder=BudgetLadder(tuple(ReasoningBudget(**rung) for rung in found["ladder"])),
        prompt=str(row["prompt"]),
        group=str(row["group_name"]),
        inputs=np.frombuffer(bytes(row["inputs"]), "<f4"),
        thinking_tokens=tuple(found["thinking_tokens"]),
        same=tuple(found["same"]),
        judged=tuple(found["judged"]),
        judge=str(row["judge"]),
        spent_tokens=int(row["spent_tokens"]),
        reported=row["reported"],
        kept=str(row["kept"]),
        features=str(row["features"]),
        tenant=str(row["tenant"]),
    )
