"""The schema of outcome files, which logs, collection and training share.

Polars scans files in a stream, so a file may be larger than memory.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from router.files import replaced
from training.data.errors import DatasetError as DatasetError

SCHEMA = pl.Schema(
    {
        "prompt": pl.String(),
        "messages": pl.String(),
        "prompt_id": pl.String(),
        "group": pl.String(),
        "task": pl.String(),
        "kind": pl.String(),
        "backend": pl.String(),
        "model": pl.String(),
        "rung": pl.String(),
        "rung_order": pl.Int32(),
        "budget_tokens": pl.Int64(),
        "trace_id": pl.String(),
        "sample_id": pl.Int32(),
        "correct": pl.Float64(),
        "label_source": pl.String(),
        "thinking_tokens": pl.Int64(),
        "total_tokens": pl.Int64(),
        "finish": pl.String(),
        "attempts": pl.Int32(),
        "answer": pl.String(),
        "thinking_ended": pl.String(),
        "probe_answer": pl.String(),
        "probe_tokens": pl.Int64(),
        "probe_logprob": pl.Float64(),
        "probe_min_logprob": pl.Float64(),
        "end_logprob": pl.Float64(),
        "propensity": pl.Float64(),
        "decision_id": pl.String(),
        "observed_at": pl.Datetime("us", "UTC"),
    }
)

OPTIONAL = frozenset(
    (
        "messages", "task", "kind", "budget_tokens", "trace_id", "thinking_tokens", "total_tokens", "attempts",
        "answer", "thinking_ended", "probe_answer", "probe_tokens", "probe_logprob", "probe_min_logprob",
        "end_logprob", "propensity", "decision_id", "observed_at",
    )
)  # fmt: skip
"""Columns that may be absent or null."""

JUDGE = "judge"
"""The scorer, its label source, and the entry of a file's metadata that holds its model and its prompt."""

LABEL_SOURCES = ("verifier", "judge", "user", "agreement")
FINISHES = (
    "natural", "forced", "converged", "truncated", "filtered", "refused", "aborted", "no_answer", "unparsable", "error",
    "unknown",
)  # fmt: skip
"""How a generation ended. "error" is a failure of the engine: such rows carry no label and are left out. "unknown" is
a decision without a generation."""

THOUGHT_ENDINGS = ("natural", "cut")
"""How a thought ended: by itself, or at the row's budget."""


COMPRESSION = 9
"""Level of zstd: beyond it a file of conversations takes minutes, and gets a quarter smaller."""

ANSWER_KIND = "answer_kind"
"""The entry of a file's metadata that says how answers were compared: a name in `router.answer_keys.KINDS`."""


def write(rows: pl.LazyFrame | pl.DataFrame, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write outcomes as Parquet, with further metadata of the file.

    A crash leaves no half-written target: the file is written aside, then moved.
    """
    with replaced(path) as aside:  # private, as outcomes hold prompts
        conformed(rows.lazy()).sink_parquet(aside, compression_level=COMPRESSION, metadata=dict(metadata or {}))


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Errors raised inside become DatasetErrors that name the file."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DatasetError(f"{path}: {str(error).strip().splitlines()[0]}") from error
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error


def conformed(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows with all columns of the schema, in its types; absent columns are null."""
    present = rows.collect_schema()
    return rows.select(
        pl.col(name).cast(dtype) if name in present else pl.lit(None, dtype).alias(name)
        for name, dtype in SCHEMA.items()
    )
