"""Outcome records: the one schema for logs, collection and training, and what is wrong with a file.

Files are scanned and checked by Polars in a stream, so that a file may be larger than memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from router.errors import RouterError

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
FINISHES = ("natural", "forced", "truncated", "unparsable", "error", "unknown")
"""How a generation ended. "error" is the engine's fault: such rows carry no label and are left out. "unknown": only
a decision was asked for."""


class DatasetError(RouterError):
    """An outcome file that can not be trained on; the message says where and why."""


def write(rows: pl.LazyFrame | pl.DataFrame, path: Path) -> None:
    """Write outcomes as Parquet, beside the target and then moved: nothing half-written is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    rows.lazy().cast(SCHEMA).select(list(SCHEMA)).sink_parquet(aside, compression_level=19)
    aside.replace(path)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Faults found inside name the file."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DatasetError(f"{path}: {str(error).strip().splitlines()[0]}") from error
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error


def conformed(rows: pl.LazyFrame) -> pl.LazyFrame:
    """All columns of the schema, in its types; null where a column is absent."""
    present = rows.collect_schema()
    return rows.select(
        pl.col(name).cast(dtype) if name in present else pl.lit(None, dtype).alias(name)
        for name, dtype in SCHEMA.items()
    )


def faults(rows: pl.LazyFrame) -> Iterator[str]:
    """What is wrong: columns first; then, per rule, the first row that breaks it; then rows that contradict others."""
    wrong = list(_wrong_columns(rows.collect_schema()))
    yield from wrong
    if wrong:
        return
    rows = conformed(rows).with_row_index("row")
    if rows.select(pl.len()).collect(engine="streaming").item() == 0:
        yield "no rows"
        return
    found = rows.select(
        pl.col("row").filter(broken).first().alias(str(i)) for i, (_, broken, _) in enumerate(_RULES)
    ).collect(engine="streaming")
    broken_rules = [(row, *_RULES[int(i)]) for i, row in found.row(0, named=True).items() if row is not None]
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
"""Column, what is true of a broken row, and what is wrong with it."""


def _contradictions(rows: pl.LazyFrame) -> Iterator[str]:
    """Rows that contradict the first one of their kind."""
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
    ("file", ("model",), "another model than before; a bundle is for one"),
)
"""Rows that agree in the first column must agree in the others."""
