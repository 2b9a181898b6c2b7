"""The evidence of a learning folder as Parquet, for other programs."""

from pathlib import Path

import polars as pl

from router.files import replaced
from router.learning import folders
from training.data.schema import COMPRESSION

_RUNG = pl.Struct({"name": pl.String(), "tokens": pl.Int64()})
SCHEMA = {
    "number": pl.Int64(), "decision_id": pl.String(), "at": pl.Float64(), "engine": pl.String(),
    "ladder": pl.List(_RUNG), "prompt": pl.String(), "group": pl.String(), "inputs": pl.List(pl.Float32()),
    "thinking_tokens": pl.List(pl.Int64()), "same": pl.List(pl.Boolean()), "judged": pl.List(pl.Float64()),
    "judge": pl.String(), "spent_tokens": pl.Int64(), "reported": pl.Float64(), "kept": pl.String(),
    "features": pl.String(), "tenant": pl.String(), "losses": pl.List(pl.Float64()),
}  # fmt: skip
"""Columns and their types, also where there is no evidence yet."""


def write(folder: Path, out: Path) -> int:
    """Write the evidence, for its owner alone; returns how many pieces there are.

    Raises:
        OutcomeFileError: the evidence cannot be read.
        OSError: it cannot be written; a file that exists stays as it is.
    """
    frame = pl.DataFrame(list(folders.rows(folder)), SCHEMA)
    with replaced(out) as aside:
        frame.write_parquet(aside, compression_level=COMPRESSION)
    return len(frame)
