"""Traces: one thought a row, with the answer that each cut would have given.

A rule that stops within the thought can be replayed wherever the answer behind every cut is known. That is so for one
trace cut at every rung, and nearly so for separate greedy runs, one for each rung.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from router.domain import BudgetLadder, Prompt, ReasoningBudget
from training.arrays import Mask, Matrix, Rows
from training.data.dataset import prompts_of
from training.data.outcomes import Outcomes
from training.data.schema import ANSWER_KIND, SCHEMA, DatasetError, naming_file
from training.data.splits import prompt_id

ASSUMED_PROBE_TOKENS = 20
"""Tokens that a probe is charged where its own are not recorded."""

NO_ANSWER = -1
"""Code of a cut without an answer."""

NUMBERS = ("correct", "thinking_tokens", "total_tokens", "probe_tokens", "probe_logprob", "probe_min_logprob",
           "end_logprob")  # fmt: skip

LISTS = ("prompts", "groups", "tasks")


@dataclass(frozen=True)
class Traces:
    """Thoughts with what was seen at every cut; tables are [traces, rungs], NaN where nothing was recorded.

    Attributes:
        answers: codes of answer keys: equal codes are equal answers, NO_ANSWER is none.
        ended: the thought had ended by itself at or before this cut.
        correct: how right the answer behind the cut is, 0..1.
        thinking_tokens: tokens thought up to the cut.
        total_tokens: those and the tokens of the answer behind it.
        probe_tokens: tokens of the short answer that was probed there.
        probe_logprob, probe_min_logprob: mean and least log-probability of the probe's tokens.
        end_logprob: log-probability of the end marker at the cut.
    """

    model: str
    ladder: BudgetLadder
    prompts: list[Prompt]
    groups: list[str]
    tasks: list[str]
    answers: NDArray[np.int64]
    ended: Mask
    correct: Matrix
    thinking_tokens: Matrix
    total_tokens: Matrix
    probe_tokens: Matrix
    probe_logprob: Matrix
    probe_min_logprob: Matrix
    end_logprob: Matrix

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def has_answers(self) -> bool:
        """True where some cut below the top has an answer."""
        return bool((self.answers[:, :-1] != NO_ANSWER).any())

    @property
    def has_logprobs(self) -> bool:
        """True where some probe has a log-probability."""
        return bool(np.isfinite(self.probe_logprob[:, :-1]).any())

    def outcomes(self) -> Outcomes:
        """The same as outcomes by prompt and rung, each trace a prompt of its own."""
        ones, unknown = np.ones(self.correct.shape, np.int64), np.full((2, *self.correct.shape), np.nan)
        lists = self.prompts, self.tasks, self.groups
        return Outcomes(self.model, self.ladder, *lists, self.correct, self.thinking_tokens, ones, unknown)

    def joined(self, other: "Traces") -> "Traces":
        """The traces of both, of one model and ladder and with codes that mean the same."""
        taken: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in LISTS}
        taken |= {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in self._tables()}
        return replace(self, **taken)

    def take(self, rows: Rows) -> "Traces":
        """The traces at `rows`, in that order."""
        taken: dict[str, Any] = {name: [getattr(self, name)[i] for i in rows] for name in LISTS}
        return replace(self, **taken, **{name: getattr(self, name)[rows] for name in self._tables()})

    def _tables(self) -> list[str]:
        return [field.name for field in fields(self) if field.name not in (*LISTS, "model", "ladder")]


@dataclass(frozen=True)
class Steps:
    """Traces of thoughts that a service could stop.

    Attributes:
        kind: how a service must compare their answers.
        nested: the rungs are cut from one thought. Else each was run by itself, once, and is taken for such a cut:
            greedy runs repeat the same thought, nearly.
    """

    traces: Traces
    kind: str
    nested: bool


def read(path: Path, probe_tokens: int = ASSUMED_PROBE_TOKENS) -> Traces:
    """Traces of an outcome file, or of any file with prompt, budget_tokens, answer, correct and thinking_tokens.

    What other columns of the schema would say is derived from these.

    Args:
        probe_tokens: charged for a probe whose own tokens are not recorded.

    Raises:
        DatasetError: a column that is needed is missing, or no prompt has every rung.
    """
    with naming_file(path):
        return from_frame(pl.read_parquet(path), probe_tokens)


def from_frame(rows: pl.DataFrame, probe_tokens: int = ASSUMED_PROBE_TOKENS) -> Traces:
    """Traces of the rows; prompts without an answer at some rung are left out. Raises DatasetError."""
    rows = _completed(rows)
    ladder = _ladder(rows)
    keys = ("prompt_id", "sample_id")
    whole = rows.filter(pl.len().over(keys) == len(ladder)).sort(*keys, "rung_order")
    if whole.is_empty():
        raise DatasetError("no prompt has an answer at every rung")
    shape = (-1, len(ladder))
    first = whole.filter(pl.col("rung_order") == 0)
    codes = whole["key"].rank("dense").cast(pl.Int64).fill_null(NO_ANSWER).to_numpy().reshape(shape)
    tables = {name: whole[name].cast(pl.Float64).fill_null(np.nan).to_numpy().reshape(shape) for name in NUMBERS}
    tables["probe_tokens"] = np.nan_to_num(tables["probe_tokens"], nan=probe_tokens)
    if np.isnan(tables["correct"]).any():
        raise DatasetError("column correct: a rule can be judged only where every answer of a thought has a label")
    if np.isnan(tables["thinking_tokens"]).any():
        raise DatasetError("column thinking_tokens: is needed to say what stopping saves")
    return Traces(
        whole["model"][-1],  # rung 0 may be another model
        ladder,
        prompts_of(first),
        first["group"].to_list(),
        first["task"].to_list(),
        codes,
        np.logical_or.accumulate(whole["ended"].to_numpy().reshape(shape), axis=1),
        **tables,
    )


def read_steps(path: Path, kind: str | None = None) -> Steps | str:
    """Traces of an outcome file whose thoughts could have been stopped, or why they could not.

    Args:
        kind: how its answers were compared; None = as its metadata says, else as texts.
    """
    with naming_file(path):
        columns = set(pl.read_parquet_schema(path))
        if not {"answer", "probe_answer"} & columns:
            return "the file has no column `answer`"
        kind = pl.read_parquet_metadata(path).get(ANSWER_KIND, "text") if kind is None else kind
        if not kind:
            return "its answers were compared in several ways, and a service compares them in one"
        rows = pl.read_parquet(path)
        nested = rows.filter(pl.col("trace_id").is_not_null()) if "trace_id" in columns else rows.clear()
        if nested.is_empty() and _repeated(rows):
            return (
                "its rungs are not cut from one thought (column `trace_id`), and drawn answers agree for other reasons"
            )
        try:
            traces = from_frame(rows if nested.is_empty() else nested)
        except DatasetError as error:
            return str(error)
    if any(rung.tokens is None for rung in traces.ladder.rungs[:-1]):
        return "a rung below the top has no cap, so no thought can be cut there"
    return Steps(traces, kind, not nested.is_empty()) if traces.has_answers else "no answer was recorded"


def _repeated(rows: pl.DataFrame) -> bool:
    """Whether a prompt has several answers at a rung, which only answers that are drawn have."""
    rung = "rung_order" if "rung_order" in rows.columns else "budget_tokens"
    asked = pl.coalesce("messages", "prompt") if "messages" in rows.columns else pl.col("prompt")
    return bool(rows.select(pl.struct(asked, rung).is_duplicated().any()).item())


NEEDED = ("prompt", "budget_tokens", "correct", "thinking_tokens")


def _completed(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the columns that can be derived from others where a file lacks them, without an engine's errors."""
    for name in NEEDED:
        if name not in rows.columns:
            raise DatasetError(f"column {name}: is missing")
    if not {"answer", "probe_answer"} & set(rows.columns):
        raise DatasetError("column answer: is missing; `budget-train collect` records it")
    keyed = "probe_answer" in rows.columns
    absent = [pl.lit(None, dtype).alias(name) for name, dtype in SCHEMA.items() if name not in rows.columns]
    rows = rows.with_columns(absent)
    asked = pl.coalesce("messages", "prompt")
    ids = {text: prompt_id(text) for text in rows.select(asked).to_series().unique()}
    cut = pl.col("budget_tokens").is_null() | (pl.col("thinking_tokens") >= pl.col("budget_tokens"))
    return rows.filter(pl.col("finish").ne_missing("error")).with_columns(
        pl.col("prompt_id").fill_null(asked.replace_strict(ids, return_dtype=pl.String)),
        pl.col("group").fill_null(asked),
        pl.coalesce("task", pl.lit("")),
        pl.col("model").fill_null(""),
        pl.col("sample_id").fill_null(0),
        pl.col("rung_order").fill_null(pl.col("budget_tokens").rank("dense").cast(pl.Int32) - 1),
        key=_key(keyed),
        ended=pl.when(pl.col("thinking_ended").is_null())
        .then((pl.col("finish") == "natural") & ~cut)
        .otherwise(pl.col("thinking_ended") == "natural")
        .fill_null(value=False),
    )


def _key(keyed: bool) -> pl.Expr:
    """What a rule compares at a cut: the probe where there is one, which may hold no answer; else the answer.

    Where the cut gave no answer at all, the row holds that of a second attempt, which no rule sees there.

    Args:
        keyed: the file has the keys of probes.
    """
    probed = pl.when(pl.lit(keyed) & pl.col("probe_tokens").is_not_null()).then("probe_answer")
    first = probed.otherwise(pl.coalesce("probe_answer", "answer"))
    return pl.when(pl.col("attempts").fill_null(1) == 1).then(first)


def _ladder(rows: pl.DataFrame) -> BudgetLadder:
    rungs = rows.group_by("rung_order").agg(pl.col("rung", "budget_tokens").first()).sort("rung_order")
    return BudgetLadder(tuple(ReasoningBudget(name or str(cap), cap) for _, name, cap in rungs.iter_rows()))
