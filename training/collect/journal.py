"""Finished units on disk, one a line, so that a run that was killed continues where it stopped.

The first line holds the settings of the run; a run with other settings is refused. Lines are on disk when `append`
returns. A kill may tear the last line. It is then dropped, and its unit is run again.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import polars as pl

from router.files import make_private
from training.collect.units import UnitResult
from training.data.schema import SCHEMA, DatasetError

# Polars reads JSON lines in a stream, which needs the type of a row; timestamps are text in JSON.
ROW = pl.Struct({name: pl.String() if isinstance(dtype, pl.Datetime) else dtype for name, dtype in SCHEMA.items()})


class Journal:
    """An open journal, locked against other processes.

    Attributes:
        done: keys of the units that are finished.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open the journal, or begin one.

        Args:
            settings: JSON types; a journal of other settings belongs to another run.

        Raises:
            DatasetError: the settings differ, a line is damaged, or another process holds the journal.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        make_private(path)  # it holds prompts and answers
        self._file = path.open("a+b")
        try:
            self._lock()
            _drop_torn_line(self._file)
            self._begin(settings)
            self.done = {entry["unit"] for entry in self._entries() if "unit" in entry}
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, results: Sequence[UnitResult]) -> None:
        """Add finished units. They are on disk when this returns."""
        self._write([{"unit": one.key, "rows": one.rows, "drawn": one.drawn} for one in results])
        self.done |= {result.key for result in results}

    def rows(self) -> pl.LazyFrame:
        """All outcomes in the outcome schema, sorted by prompt, rung and sample."""
        entries = pl.scan_ndjson(self._path, schema={"unit": pl.String(), "rows": pl.List(ROW)})
        rows = entries.filter(pl.col("unit").is_not_null()).explode("rows").select(pl.col("rows").struct.unnest())
        at = pl.col("observed_at").str.to_datetime(time_unit="us", time_zone="UTC")
        return rows.with_columns(at).sort("prompt_id", "rung_order", "sample_id")

    def drawn(self) -> int:
        """Tokens that the engine drew for all finished units."""
        entries = pl.scan_ndjson(self._path, schema={"drawn": pl.Int64()})
        return int(entries.sum().collect().item() or 0)

    def remove(self) -> None:
        """Delete the journal's file."""
        self._path.unlink()

    def _lock(self) -> None:
        # Two runs on one journal would repeat each other's units. The kernel drops the lock when its process dies.
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(f"{self._path}: another process is writing it") from None

    def _begin(self, settings: Mapping[str, Any]) -> None:
        header = next(self._entries(), None)
        if header is None:
            self._write([{"settings": settings}])
        elif header["settings"] != settings:
            begun = header["settings"]
            changed = ", ".join(sorted(k for k in {*begun, *settings} if begun.get(k) != settings.get(k)))
            raise DatasetError(f"{self._path}: begun with other settings ({changed}); delete it to start again")

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The header, then one unit a line. Raises DatasetError, which names a damaged line."""
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            wanted = ("settings",) if number == 1 else ("unit", "rows")
            try:
                entry = json.loads(line)
                yield {name: entry[name] for name in wanted}
            except (ValueError, KeyError, TypeError):
                raise DatasetError(f"{self._path}: line {number} is damaged; delete the file to start again") from None

    def _write(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._file.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
        # Without fsync the line could be lost to a power failure, and an hour of GPU time with it.
        self._file.flush()
        os.fsync(self._file.fileno())


def _drop_torn_line(file: BinaryIO) -> None:
    """Truncate the file after its last line break."""
    file.seek(0)
    file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
