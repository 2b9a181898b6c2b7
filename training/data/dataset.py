"""Outcome files become tables by prompt and rung, and these fall into three splits."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from router import chat_form
from router.digits import counted, verb
from router.domain import BudgetLadder, Prompt, ReasoningBudget
from training.arrays import Matrix, Rows
from training.data import answers
from training.data.faults import faults, is_logged
from training.data.outcomes import Outcomes
from training.data.schema import DatasetError, conformed, naming_file
from training.data.splits import SPLITS, split_of

FEWEST = 10
"""Prompts that a split must have: fewer say nothing about a policy."""


def read(path: Path, soft: bool = False, unlabelled: bool = False) -> Outcomes:
    """Read an outcome file that has every rung of every prompt.

    Args:
        soft: budgets are hints, which thoughts may exceed.
        unlabelled: labels may be missing; see `from_frame`.

    Raises:
        DatasetError: the file cannot be trained on; the message names the first fault.
    """
    with naming_file(path):
        return from_frame(pl.scan_parquet(path), soft, unlabelled)


def read_splits(path: Path, soft: bool = False) -> tuple[Outcomes, dict[str, Outcomes]]:
    """`read` a file, and its `splits`. Raises DatasetError, which names the file."""
    with naming_file(path):
        outcomes = from_frame(pl.scan_parquet(path), soft)
        return outcomes, splits(outcomes)


def validate(path: Path, soft: bool = False) -> list[str]:
    """All faults of a file with their row and column; none for served traffic, or a file that can be trained on."""
    try:
        with naming_file(path):
            rows = pl.scan_parquet(path)
            problems = list(faults(rows, soft))
            if not (problems or is_logged(rows)):
                splits(from_frame(rows, soft))
            return problems
    except DatasetError as error:
        return [str(error)]


def from_frame(rows: pl.LazyFrame | pl.DataFrame, soft: bool = False, unlabelled: bool = False) -> Outcomes:
    """Outcomes by prompt and rung.

    Repeated answers are averaged. A prompt without an answer at some rung is left out, alone.

    Args:
        soft: budgets are hints, which thoughts may exceed.
        unlabelled: labels may be missing. `correct` is then NaN where no label of the same answer is known.

    Raises:
        DatasetError: the rows cannot be trained on; the message names the first fault.
    """
    rows = rows.lazy()
    for fault in faults(rows, soft, unlabelled):
        raise DatasetError(fault)
    rows = conformed(rows)
    if is_logged(rows):
        raise DatasetError("served traffic has one rung a prompt: `budget-train retrain` learns from its log")
    ladder = _ladder(rows)
    rows = rows.filter(pl.col("finish") != "error")
    if unlabelled:
        rows = answers.with_known_labels(answers.identified(rows))
    prompts = _prompts(rows)
    if len(prompts) == 0:
        raise DatasetError("column finish: every row is an engine's error")
    # Polars aggregates while it scans, so the rows of the file are never held in memory.
    cells = _cells(rows, unlabelled).join(prompts.select("prompt_id").with_row_index("place"), on="prompt_id")
    shape = (len(prompts), len(ladder))
    place, rung = cells["place"].to_numpy(), cells["rung_order"].to_numpy()

    def table(column: str, empty: float) -> Matrix:
        values = np.full(shape, empty)
        values[place, rung] = cells[column].cast(pl.Float64).fill_null(empty).to_numpy()
        return values

    samples = table("samples", 0).astype(np.int64)
    complete = _complete(samples, ladder)
    return Outcomes(
        _model(rows),
        ladder,
        prompts_of(prompts),
        prompts["task"].fill_null("").to_list(),
        prompts["group"].to_list(),
        table("correct", np.nan),
        table("thinking_tokens", np.nan),
        samples,
        np.stack([table("even", np.nan), table("odd", np.nan)]),
        _label_sources(rows),
        table("total_tokens", np.nan),
        table("same", 0) == 1 if unlabelled else None,
        prompts["kind"].fill_null("").to_list() if prompts["kind"].count() else None,
    ).take(complete)


def prompts_of(rows: pl.DataFrame) -> list[Prompt]:
    """What each row asks: its messages, or its prompt as a user's only message. Raises ChatFormError."""
    return [
        Prompt.of(text) if messages is None else chat_form.from_json(messages)
        for text, messages in rows.select("prompt", "messages").iter_rows()
    ]


def splits(outcomes: Outcomes) -> dict[str, Outcomes]:
    """The splits "fit", "certify" and "test", which share no group.

    Raises:
        DatasetError: a split has fewer than FEWEST prompts, or every answer has the same correctness.
    """
    # Splits depend on a group's hash alone, so their sizes are random: a small file may leave one of them too small.
    names = np.array([split_of(group) for group in outcomes.groups])
    parts = {name: outcomes.take(np.flatnonzero(names == name)) for name in SPLITS}
    for name, part in parts.items():
        if len(part) < FEWEST:
            raise DatasetError(
                f"{counted(len(outcomes), 'prompt')} {verb(len(outcomes), 'is', 'are')} too few: {len(part)} "
                f"{verb(len(part), 'falls', 'fall')} into the {name} split, {FEWEST} are needed"
            )
    if outcomes.correct.max() == outcomes.correct.min():
        raise DatasetError(f"column correct: a single class: every answer is {outcomes.correct.max():g}")
    return parts


def _model(rows: pl.LazyFrame) -> str:
    """The model of the longest rung, and behind it the rungs that another one answered: "m, rung 0: instruct"."""
    by_rung = rows.group_by("rung_order").agg(pl.col("rung", "model").first()).sort("rung_order")
    *shorter, (_, model) = by_rung.select("rung", "model").collect(engine="streaming").iter_rows()
    return ", ".join([model, *(f"rung {rung}: {other}" for rung, other in shorter if other != model)])


def _ladder(rows: pl.LazyFrame) -> BudgetLadder:
    rungs = rows.select("rung_order", "rung", "budget_tokens").unique().sort("rung_order").collect(engine="streaming")
    if rungs["rung_order"].to_list() != list(range(len(rungs))):
        raise DatasetError("column rung_order: positions must run from 0 without gaps")
    return BudgetLadder(tuple(ReasoningBudget(name, cap) for _, name, cap in rungs.iter_rows()))


def _prompts(rows: pl.LazyFrame) -> pl.DataFrame:
    """One row per prompt, in the order of prompt_id."""
    # The order of a group-by is random, and folds and bootstrap draws depend on the order: equal files, equal bundles.
    firsts = pl.col("prompt", "messages", "group", "task", "kind").first()
    return rows.group_by("prompt_id").agg(firsts).sort("prompt_id").collect(engine="streaming")


def _label_sources(rows: pl.LazyFrame) -> tuple[str, ...]:
    sources = rows.select(pl.col("label_source").drop_nulls().unique().sort())
    return tuple(sources.collect(engine="streaming")["label_source"])


def _cells(rows: pl.LazyFrame, unlabelled: bool) -> pl.DataFrame:
    """One row per prompt and rung; where labels may be missing, one that is not known makes the mean unknown."""
    # The halves let the probability oracle choose on one half of the answers and score on the other.
    even = pl.col("sample_id") % 2 == 0
    cells = (
        rows.group_by("prompt_id", "rung_order")
        .agg(
            pl.len().alias("samples"),
            pl.when(pl.col("correct").is_not_null().all()).then(pl.col("correct").mean()),
            pl.col("thinking_tokens").mean(),
            pl.col("total_tokens").mean(),
            pl.col("correct").filter(even).mean().alias("even"),
            pl.col("correct").filter(~even).mean().alias("odd"),
            *([answers.of_cell().alias("answers")] if unlabelled else []),
        )
        .collect(engine="streaming")
    )
    return answers.compared(cells) if unlabelled else cells


def _complete(samples: NDArray[np.int64], ladder: BudgetLadder) -> Rows:
    """Prompts that have every rung, from answers [prompts, rungs]. Raises DatasetError where none has."""
    complete = np.flatnonzero((samples > 0).all(axis=1))
    if len(complete) == 0:
        rarest = int((samples > 0).sum(axis=0).argmin())
        have = int((samples[:, rarest] > 0).sum())
        raise DatasetError(
            f"no prompt has every rung: of {counted(len(samples), 'prompt')}, {have} {verb(have, 'has', 'have')} rung "
            f"{ladder.rungs[rarest].name}"
        )
    return complete
