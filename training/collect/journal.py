"""UnitResult work on disk, a line a unit, so that a run which was killed goes on where it was.

The first line tells the settings of the run; a run of other settings is refused. Lines are on disk when `append`
returns. A kill may tear the last one: it is dropped, its unit counts as not done.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import polars as pl

from training.collect.units import UnitResult
from training.data.schema import SCHEMA, DatasetError

ROW = pl.Struct({name: pl.String() if isinstance(dtype, pl.Datetime) else dtype for name, dtype in SCHEMA.items()})


class Journal:
    """An open journal, locked against other processes.

    Attributes:
        done: keys of the finished units.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open or begin. Raises DatasetError: other settings, a damaged line, or in use."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
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

    def append(self, finished: Sequence[UnitResult]) -> None:
        """Add units; they are on disk on return."""
        self._write([{"unit": one.key, "rows": one.rows} for one in finished])
        self.done |= {one.key for one in finished}

    def rows(self) -> pl.LazyFrame:
        """All outcomes in the schema, by prompt, rung and sample."""
        entries = pl.scan_ndjson(self._path, schema={"unit": pl.String(), "rows": pl.List(ROW)})
        rows = entries.filter(pl.col("unit").is_not_null()).explode("rows").select(pl.col("rows").struct.unnest())
        at = pl.col("observed_at").str.to_datetime(time_unit="us", time_zone="UTC")
        return rows.with_columns(at).sort("prompt_id", "rung_order", "sample_id")

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink()

    def _lock(self) -> None:
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
            raise DatasetError(f"{self._path}: begun with other settings ({changed}); delete it to begin anew")

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The header, then a unit a line. Raises DatasetError naming a damaged line."""
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            wanted = ("settings",) if number == 1 else ("unit", "rows")
            try:
                entry = json.loads(line)
                yield {name: entry[name] for name in wanted}
            except (ValueError, KeyError, TypeError):
                raise DatasetError(f"{self._path}: line {number} is damaged; delete the file to begin anew") from None

    def _write(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._file.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
        self._file.flush()
        os.fsync(self._file.fileno())


def _drop_torn_line(file: BinaryIO) -> None:
    """Cut what stands behind the last line break."""
    file.seek(0)
    file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
