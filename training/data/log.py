"""Reading the outcome log of a service."""

from collections.abc import Iterable
from pathlib import Path

from router.outcomes.rows import Row


def read(log: str) -> Iterable[Row]:
    """Rows of an outcome log, which is a file or the URL of a Redis. Raises OutcomeLogError, SettingsError."""
    # Each import takes a while, and a log is one or the other.
    if "://" in log:
        from router.outcomes import redis

        return redis.read_rows(log)
    from router.outcomes import sqlite

    return sqlite.read_rows(Path(log))
