"""The schema of outcome files, which logs, collection and training share, and the faults of a file.

Polars scans and checks files in a stream, so a file may be larger than memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from router.errors import RouterError
from router.files import make_private

SCHEMA = pl.Schema(
    {
        "prompt": pl.String(),
        "prompt_id": pl.String(),
        "group": pl.String(),
        "task": pl.String(),
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
        "propensity": pl.Float64(),
        "decision_id": pl.String(),
        "observed_at": pl.Datetime("us", "UTC"),
    }
)

OPTIONAL = frozenset(
    ("task", "budget_tokens", "trace_id", "thinking_tokens", "total_tokens", "propensity", "decision_id", "observed_at")
)
"""Columns that may be absent or null."""

LABEL_SOURCES = ("verifier", "judge", "user", "agreement")
FINISHES = (
    "natural", "forced", "truncated", "filtered", "refused", "aborted", "no_answer", "unparsable", "error", "unknown",
)  # fmt: skip
"""How a generation ended. "error" is a failure of the engine: such rows carry no label and are left out. "unknown" is
a decision without a generation."""


class DatasetError(RouterError):
    """Outcomes that cannot be trained on; the message says where and why."""


def write(rows: pl.LazyFrame | pl.DataFrame, path: Path) -> None:
    """Write outcomes as Parquet. A crash leaves no half-written target: the file is written aside, then moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename replaces a file in one step only within a file system.
    aside = path.with_name(f".{path.name}.tmp")
    make_private(aside)  # outcomes hold prompts
    rows.lazy().cast(SCHEMA).select(list(SCHEMA)).sink_parquet(aside, compression_level=19)
    aside.replace(path)


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


def faults(rows: pl.LazyFrame) -> Iterator[str]:
    """Faults in words: wrong columns; else the first row that breaks each rule; else rows that contradict others."""
    wrong = list(_wrong_columns(rows.collect_schema()))
    yield from wrong
    if wrong:
        return
    rows = conformed(rows).with_row_index("row")
    if rows.select(pl.len()).collect(engine="streaming").item() == 0:
        yield "no rows"
        return
    # One pass over the file finds the first offender of every rule; only offenders are then read again.
    offenders = rows.select(
        pl.col("row").filter(broken).first().alias(str(i)) for i, (_, broken, _) in enumerate(_RULES)
    ).collect(engine="streaming")
    broken_rules = [(row, *_RULES[int(i)]) for i, row in offenders.row(0, named=True).items() if row is not None]
    for row, column, _, wanted in sorted(broken_rules, key=lambda rule: rule[0]):
        value = rows.filter(pl.col("row") == row).select(column).collect(engine="streaming").item()
        yield f"row {row}, column {column}: {value!r}: {wanted}"
    if not broken_rules:
        yield from _contradictions(rows)


def _wrong_columns(present: pl.Schema) -> Iterator[str]:
    for name, wanted in SCHEMA.items():
        if name not in present:
            if name not in OPTIONAL:
                yield f"column {name}: is missing"
        elif not _convertible(present[name], wanted):
            yield f"column {name}: holds {present[name]}, not {wanted}"


def _convertible(given: pl.DataType, wanted: pl.DataType) -> bool:
    if given == pl.Null() or given == wanted:
        return True
    # Integers must not come from floats, which would be cut silently; other numbers convert without loss of meaning.
    if wanted.is_integer():
        return given.is_integer()
    if wanted.is_float():
        return given.is_numeric() or given == pl.Boolean()
    return type(given) in ((pl.Datetime,) if isinstance(wanted, pl.Datetime) else (pl.Categorical, pl.Enum))


def _among(column: str, allowed: tuple[str, ...]) -> tuple[str, pl.Expr, str]:
    return column, ~pl.col(column).is_in(allowed), f"is none of {', '.join(allowed)}"


_RULES: tuple[tuple[str, pl.Expr, str], ...] = (
    *((name, pl.col(name).is_null(), "is missing") for name in SCHEMA if name not in OPTIONAL),
    *((name, pl.col(name) == "", "is empty") for name in ("prompt", "prompt_id", "group", "rung")),
    ("correct", ~pl.col("correct").is_between(0, 1) | pl.col("correct").is_nan(), "does not lie in 0..1"),
    *((name, pl.col(name) < 0, "is negative") for name in ("rung_order", "budget_tokens", "thinking_tokens")),
    ("propensity", ~pl.col("propensity").is_between(0, 1, closed="right"), "does not lie in 0..1"),
    _among("label_source", LABEL_SOURCES),
    _among("finish", FINISHES),
)
"""A column, the condition that a broken row meets, and the fault in words."""


def _contradictions(rows: pl.LazyFrame) -> Iterator[str]:
    """Rows that disagree with the first row of the same key, by `_SAME`."""
    rows = rows.with_columns(file=pl.lit(0))
    for key, columns, wanted in _SAME:
        kind = rows.select("row", key, *columns)
        first = kind.group_by(key).agg(pl.col(columns).sort_by("row").first().name.prefix("first "))
        differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"first {name}")) for name in columns)
        row = kind.join(first, on=key).filter(differs).select(pl.col("row").min()).collect(engine="streaming").item()
        if row is not None:
            yield f"row {row}, column {columns[0]}: {wanted}"


_SAME: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("rung_order", ("rung", "budget_tokens"), "the position had another rung or budget before"),
    ("rung", ("rung_order",), "the rung had another position before"),
    ("prompt_id", ("group",), "the prompt had another group before, so it would lie on both sides of a split"),
    ("prompt_id", ("prompt",), "the prompt had another text before"),
    ("file", ("model",), "another model than before; a bundle serves a single model"),
)
"""A key, columns in which rows of equal key must agree, and the fault in words."""
