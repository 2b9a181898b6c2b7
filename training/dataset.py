"""Outcome records: the one schema for logs, collection and training, and the three splits.

Files are scanned, checked and averaged by Polars in a stream, so a file may be larger than memory; what is kept is
one text per prompt and a few numbers per prompt and rung.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import binomtest

from router.domain import BudgetLadder, ReasoningBudget

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
FINISHES = ("natural", "forced", "truncated", "unparsable", "error")
"""How a generation ended. "error" is the engine's fault: such rows carry no label and are left out."""

SPLITS = {"fit": 0.6, "certify": 0.2, "test": 0.2}
"""Shares of the groups, by hash; a prompt's split never changes when data is added."""

FEWEST = 10
"""Prompts that a split must have for anything to be said of it."""

Matrix = NDArray[np.float64]


class DatasetError(ValueError):
    """An outcome file that can not be trained on; the message says where and why."""


@dataclass(frozen=True)
class Outcomes:
    """Outcomes by prompt and rung.

    Attributes:
        model: fingerprint of what answered.
        correct: mean correctness [prompts, rungs], 0..1.
        thinking_tokens: mean thinking tokens really used [prompts, rungs]; NaN where no row says.
        samples: answers averaged [prompts, rungs].
        halves: correctness of the even and of the odd samples [2, prompts, rungs]; NaN where there are none.
    """

    model: str
    ladder: BudgetLadder
    prompts: list[str]
    tasks: list[str]
    groups: list[str]
    correct: Matrix
    thinking_tokens: Matrix
    samples: NDArray[np.int64]
    halves: Matrix

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def known_tokens(self) -> NDArray[np.bool_]:
        """Rungs whose token counts are recorded for every prompt [rungs]."""
        return np.asarray(np.isfinite(self.thinking_tokens).all(axis=0))

    def take(self, rows: NDArray[np.intp]) -> "Outcomes":
        """The outcomes of some prompts."""
        return Outcomes(
            self.model,
            self.ladder,
            [self.prompts[i] for i in rows],
            [self.tasks[i] for i in rows],
            [self.groups[i] for i in rows],
            self.correct[rows],
            self.thinking_tokens[rows],
            self.samples[rows],
            self.halves[:, rows],
        )


@dataclass(frozen=True)
class Overview:
    """What a file holds, and what could leak from one split into another.

    Attributes:
        errors: rows left out because the engine failed.
        duplicates: prompts whose text, but for case and spacing, also stands under another prompt_id.
        leaks: those of them that lie in another split than their twin.
        unknown_tokens: rungs without token counts for every prompt.
        not_rising: neighbouring rungs of which the dearer one is significantly worse (McNemar, 5 %).
    """

    rows: int
    prompts: int
    groups: int
    samples: float
    errors: int
    duplicates: int
    leaks: int
    unknown_tokens: list[str]
    splits: dict[str, int]
    not_rising: list[str]


def prompt_id(prompt: str) -> str:
    """The stable id of a prompt text."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def split_of(group: str) -> str:
    """The split a group belongs to: "fit", "certify" or "test"."""
    place = int.from_bytes(hashlib.sha256(b"split:" + group.encode()).digest()[:4], "big") / 2**32
    for name, share in SPLITS.items():
        if place < share:
            return name
        place -= share
    return name


def write(frame: pl.DataFrame, path: Path) -> None:
    """Write outcomes as Parquet, beside the target and then moved: nothing half-written is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    frame.cast(SCHEMA).select(list(SCHEMA)).write_parquet(aside, compression_level=19)
    aside.replace(path)


def read(path: Path) -> Outcomes:
    """Read an outcome file with every rung of every prompt. Raises DatasetError naming the first fault."""
    with _naming(path):
        return from_frame(pl.scan_parquet(path))


def overview(path: Path) -> Overview:
    """What a file holds. Raises DatasetError where it can not be trained on."""
    with _naming(path):
        rows = pl.scan_parquet(path)
        outcomes = from_frame(rows)
        counts = rows.select(pl.len(), (pl.col("finish") == "error").sum().alias("errors")).collect(engine="streaming")
        return _overview(outcomes, *counts.row(0))


def validate(path: Path) -> list[str]:
    """Everything that is wrong with a file, row and column named; empty for a file that can be trained on."""
    try:
        with _naming(path):
            rows = pl.scan_parquet(path)
            faults = list(_faults(rows))
            if not faults:
                splits(from_frame(rows))
            return faults
    except DatasetError as error:
        return [str(error)]


def from_frame(rows: pl.LazyFrame | pl.DataFrame) -> Outcomes:
    """Outcomes by prompt and rung; repeats are averaged. Raises DatasetError."""
    rows = rows.lazy()
    for fault in _faults(rows):
        raise DatasetError(fault)
    rows = _typed(rows).filter(pl.col("finish") != "error")
    ladder = _ladder(rows)
    prompts = _prompts(rows)
    cells = _cells(rows).join(prompts.select("prompt_id").with_row_index("place"), on="prompt_id")
    shape = (len(prompts), len(ladder))
    place, rung = cells["place"].to_numpy(), cells["rung_order"].to_numpy()

    def table(column: str, empty: float) -> Matrix:
        values = np.full(shape, empty)
        values[place, rung] = cells[column].cast(pl.Float64).fill_null(empty).to_numpy()
        return values

    samples = table("samples", 0).astype(np.int64)
    _complete(samples, prompts, ladder)
    return Outcomes(
        rows.select(pl.col("model").first()).collect().item(),
        ladder,
        prompts["prompt"].to_list(),
        prompts["task"].fill_null("").to_list(),
        prompts["group"].to_list(),
        table("correct", np.nan),
        table("thinking_tokens", np.nan),
        samples,
        np.stack([table("even", np.nan), table("odd", np.nan)]),
    )


def splits(outcomes: Outcomes) -> dict[str, Outcomes]:
    """Fit, certify and test, disjoint by group. Raises DatasetError where one would be too small to say anything."""
    names = np.array([split_of(group) for group in outcomes.groups])
    parts = {name: outcomes.take(np.flatnonzero(names == name)) for name in SPLITS}
    for name, part in parts.items():
        if len(part) < FEWEST:
            raise DatasetError(
                f"{len(outcomes)} prompts are too few: {len(part)} fall into the {name} split, {FEWEST} are needed"
            )
    if outcomes.correct.max() == outcomes.correct.min():
        raise DatasetError(f"column correct: a single class: every answer is {outcomes.correct.max():g}")
    return parts


def joined(one: Outcomes, other: Outcomes) -> Outcomes:
    """The prompts of both, of the same model and ladder."""
    return Outcomes(
        one.model,
        one.ladder,
        one.prompts + other.prompts,
        one.tasks + other.tasks,
        one.groups + other.groups,
        np.concatenate([one.correct, other.correct]),
        np.concatenate([one.thinking_tokens, other.thinking_tokens]),
        np.concatenate([one.samples, other.samples]),
        np.concatenate([one.halves, other.halves], axis=1),
    )


def text_key(prompt: str) -> str:
    """Equal for prompts that differ in case and spacing alone."""
    return " ".join(prompt.casefold().split())


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Faults found inside name the file."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DatasetError(f"{path}: {str(error).strip().splitlines()[0]}") from error
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error


def _typed(rows: pl.LazyFrame) -> pl.LazyFrame:
    present = rows.collect_schema()
    return rows.select(
        pl.col(name).cast(dtype) if name in present else pl.lit(None, dtype).alias(name)
        for name, dtype in SCHEMA.items()
    )


def _faults(rows: pl.LazyFrame) -> Iterator[str]:
    """Wrong columns first; then, per rule, the first row that breaks it; then what the file lacks as a whole."""
    wrong = list(_wrong_columns(rows.collect_schema()))
    yield from wrong
    if wrong:
        return
    rows = _typed(rows).with_row_index("row")
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
    """Rows that contradict an earlier one: a rung with two meanings, a prompt with two groups, a second model."""
    ladder = pl.struct("rung", "budget_tokens")
    for key, value, wanted in (
        ("rung_order", ladder, "the position had another rung or budget before"),
        ("rung", pl.col("rung_order"), "the rung had another position before"),
        ("prompt_id", pl.col("group"), "the prompt had another group before, so it would lie on both sides of a split"),
        ("prompt_id", pl.col("prompt"), "the prompt had another text before"),
        (None, pl.col("model"), "another model than before; a bundle is for one"),
    ):
        first = rows.group_by(key or pl.lit(0)).agg(
            value.sort_by("row").first().alias("first"), value.n_unique().alias("kinds")
        )
        clashes = first.filter(pl.col("kinds") > 1).collect(engine="streaming")
        if len(clashes) == 0:
            continue
        name = value.meta.root_names()[0] if key else "model"
        clash = clashes.row(0, named=True)
        same = pl.lit(True) if key is None else pl.col(key) == clash[key]
        literal = pl.lit(clash["first"], allow_object=False) if not isinstance(clash["first"], dict) else None
        differs = (
            value.ne_missing(literal)
            if literal is not None
            else ladder.ne_missing(
                pl.struct(
                    rung=pl.lit(clash["first"]["rung"]), budget_tokens=pl.lit(clash["first"]["budget_tokens"], pl.Int64)
                )
            )
        )
        row = rows.filter(same & differs).select("row").first().collect().item()
        yield f"row {row}, column {name}: {wanted}"


def _ladder(rows: pl.LazyFrame) -> BudgetLadder:
    found = rows.select("rung_order", "rung", "budget_tokens").unique().sort("rung_order").collect(engine="streaming")
    if found["rung_order"].to_list() != list(range(len(found))):
        raise DatasetError("column rung_order: positions must run from 0 without gaps")
    return BudgetLadder(tuple(ReasoningBudget(name, cap) for _, name, cap in found.iter_rows()))


def _prompts(rows: pl.LazyFrame) -> pl.DataFrame:
    """One row per prompt, in the order of prompt_id."""
    firsts = pl.col("prompt", "group", "task").first()
    return rows.group_by("prompt_id").agg(firsts).sort("prompt_id").collect(engine="streaming")


def _cells(rows: pl.LazyFrame) -> pl.DataFrame:
    """One row per prompt and rung."""
    even = pl.col("sample_id") % 2 == 0
    return (
        rows.group_by("prompt_id", "rung_order")
        .agg(
            pl.len().alias("samples"),
            pl.col("correct").mean(),
            pl.col("thinking_tokens").mean(),
            pl.col("correct").filter(even).mean().alias("even"),
            pl.col("correct").filter(~even).mean().alias("odd"),
        )
        .collect(engine="streaming")
    )


def _complete(samples: NDArray[np.int64], prompts: pl.DataFrame, ladder: BudgetLadder) -> None:
    lacking = np.argwhere(samples == 0)
    if len(lacking):
        prompt, rung = lacking[0]
        raise DatasetError(
            f"prompt {prompts['prompt_id'][int(prompt)]}: rung {ladder.rungs[rung].name} is missing "
            f"({len(np.unique(lacking[:, 0]))} of {len(prompts)} prompts lack a rung)"
        )


def _overview(outcomes: Outcomes, rows: int, errors: int) -> Overview:
    sides = [split_of(group) for group in outcomes.groups]
    first: dict[str, str] = {}
    twins = [(first.setdefault(text_key(text), side), side) for text, side in zip(outcomes.prompts, sides, strict=True)]
    names = [rung.name for rung in outcomes.ladder.rungs]
    return Overview(
        rows,
        len(outcomes),
        len(set(outcomes.groups)),
        float(outcomes.samples.mean()),
        errors,
        len(outcomes) - len(first),
        sum(one != other for one, other in twins),
        [name for name, known in zip(names, outcomes.known_tokens, strict=True) if not known],
        {name: sides.count(name) for name in SPLITS},
        [f"{names[i]} > {names[i + 1]}" for i in range(len(names) - 1) if _declines(outcomes.correct[:, i : i + 2])],
    )


def _declines(pair: Matrix) -> bool:
    """Exact one-sided McNemar test at 5 %: the dearer of two rungs loses more prompts than it wins."""
    lost, won = int((pair[:, 1] < pair[:, 0]).sum()), int((pair[:, 1] > pair[:, 0]).sum())
    return lost > won and float(binomtest(lost, lost + won, 0.5, "greater").pvalue) < 0.05
