"""The SQLite file of the outcome log: private, and opened anew when it was deleted or replaced under the service."""

import secrets
import sqlite3
from contextlib import suppress
from pathlib import Path

from router.errors import OutcomeLogError
from router.files import locked, make_private
from router.outcomes.rows import FIELDS

INTEGERS = (
    "rung_order", "budget_tokens", "meets_target", "attempts", "prompt_tokens", "thinking_tokens", "answer_tokens",
    "probe_tokens", "truncated_characters",
)  # fmt: skip
REALS = ("propensity", "correct", "relaxed")

BUSY_SECONDS = 5.0
"""Seconds that SQLite waits for another process's lock."""

LEFTOVERS = ("-wal", "-shm")
"""Files that SQLite keeps beside its own, by the ends of their names."""

Identity = tuple[int, int] | None


class LogFile:
    """An open file with the log's tables. One thread at a time may use it.

    Attributes:
        secret: the file's own key of the hashes of prompts.

    Raises:
        OSError, sqlite3.Error: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left: set[Identity] = set()
        self._is_open = False
        self._db = self._opened()

    def connection(self) -> sqlite3.Connection:
        """The connection.

        Raises:
            OutcomeLogError: the file was deleted, replaced or emptied since the last call. It has been opened anew, so
                another try may succeed; what was written since, and was not synced under its name, may be lost.
            OSError, sqlite3.Error: the new file cannot be opened; the next call tries again.
        """
        if not self._is_open or self.identity() != self._identity:
            self._discard_emptied()
            # Closed first: SQLite shares the locks and the index of an inode among the connections of a process.
            self.close()
            self._db = self._opened()
            raise OutcomeLogError(f"{self.path}: was deleted or replaced; the log goes on in a new file")
        return self._db

    def identity(self) -> Identity:
        """Device and inode of the file that has the log's name now; None where there is none, or an empty one."""
        return _identity(self.path)

    def close(self) -> None:
        """Close the file."""
        self._is_open = False
        self._db.close()

    def _opened(self) -> sqlite3.Connection:
        """Open the file and prepare its tables; remove what a deleted predecessor has left beside it."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Several workers may notice at once that the file is gone, and one must make the new one.
        with locked(self.path.parent):
            for name in self._beside():
                # Frames of a deleted file would be taken for those of its successor.
                if _identity(name) in self._left:
                    name.unlink()
            make_private(self.path)
            db = sqlite3.connect(self.path, check_same_thread=False, timeout=BUSY_SECONDS)
            try:
                # WAL: readers, such as `read_rows` of another process, do not block the writer.
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                _prepare(db)
                self.secret = _secret(db)
                db.commit()
                for name in self._beside():
                    if name.exists():  # SQLite gives them the permissions of the file; an earlier version had others
                        make_private(name)
            except BaseException:
                db.close()
                raise
            self._identity, self._is_open = self.identity(), True
            self._left = {_identity(name) for name in self._beside()} - {None}
        return db

    def _discard_emptied(self) -> None:
        """Delete a file that was emptied in place: closing it would write a part of what it held into it again."""
        with suppress(OSError), locked(self.path.parent):
            if _inode(self.path) == self._identity and self.identity() is None:
                self.path.unlink()

    def _beside(self) -> list[Path]:
        return [self.path.with_name(self.path.name + end) for end in LEFTOVERS]


def _identity(path: Path) -> Identity:
    with suppress(OSError):
        if path.stat().st_size:  # one that was emptied in place is no longer the file that was opened
            return _inode(path)
    return None


def _inode(path: Path) -> Identity:
    """Raises OSError."""
    status = path.stat()
    return status.st_dev, status.st_ino


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
