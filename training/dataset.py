"""Outcome records: the one schema for logs, collection and training, and the three splits."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from router.domain import BudgetLadder, ReasoningBudget

SCHEMA = pa.schema(
    [
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("task", pa.string()),
        pa.field("backend", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("rung", pa.string(), nullable=False),
        pa.field("rung_order", pa.int32(), nullable=False),
        pa.field("budget_tokens", pa.int64()),
        pa.field("trace_id", pa.string()),
        pa.field("sample_id", pa.int32(), nullable=False),
        pa.field("correct", pa.float64(), nullable=False),
        pa.field("label_source", pa.string(), nullable=False),
        pa.field("thinking_tokens", pa.int64()),
        pa.field("total_tokens", pa.int64()),
        pa.field("finish", pa.string(), nullable=False),
        pa.field("propensity", pa.float64()),
        pa.field("decision_id", pa.string()),
        pa.field("observed_at", pa.timestamp("us", tz="UTC")),
    ]
)

SPLITS = {"fit": 0.6, "certify": 0.2, "test": 0.2}
"""Shares of the groups, by hash; a prompt's split never changes when data is added."""


class DatasetError(ValueError):
    """An outcome file that can not be trained on; the message says where and why."""


@dataclass(frozen=True)
class Outcomes:
    """Outcomes by prompt and rung.

    Attributes:
        model: fingerprint of what answered.
        correct: mean correctness [prompts, rungs], 0..1.
        thinking_tokens: mean thinking tokens really used [prompts, rungs].
    """

    model: str
    ladder: BudgetLadder
    prompts: list[str]
    tasks: list[str]
    groups: list[str]
    correct: NDArray[np.float64]
    thinking_tokens: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.prompts)

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
        )


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


def read(path: Path) -> Outcomes:
    """Read an outcome file with every rung of every prompt. Raises DatasetError."""
    try:
        table = pq.read_table(path)
        table = table.select(SCHEMA.names).cast(SCHEMA)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise DatasetError(f"{path}: {str(error).splitlines()[0]}") from error
    return from_table(table)


def from_table(table: pa.Table) -> Outcomes:
    """Outcomes by prompt and rung; repeats are averaged. Raises DatasetError."""
    correct = table["correct"].to_numpy()
    bad = np.flatnonzero(~((correct >= 0) & (correct <= 1)))
    if bad.size:
        raise DatasetError(f"row {bad[0]}: correct: {correct[bad[0]]} does not lie in 0..1")
    if table["thinking_tokens"].null_count:
        missing = int(np.argmax(table["thinking_tokens"].is_null().to_numpy()))
        raise DatasetError(f"row {missing}: thinking_tokens: is missing")
    ids, row = np.unique(table["prompt_id"].to_numpy(zero_copy_only=False), return_inverse=True)
    rung = table["rung_order"].to_numpy()
    ladder = _ladder(table)
    shape = (len(ids), len(ladder))
    counts, right, tokens = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    np.add.at(counts, (row, rung), 1)
    if not counts.all():
        prompt, absent = np.argwhere(counts == 0)[0]
        raise DatasetError(f"prompt {ids[prompt]}: rung {ladder.rungs[absent].name} is missing")
    np.add.at(right, (row, rung), correct)
    np.add.at(tokens, (row, rung), table["thinking_tokens"].to_numpy())
    first = np.unique(row, return_index=True)[1]
    texts, tasks, groups = (table[name].take(pa.array(first)).to_pylist() for name in ("prompt", "task", "group"))
    return Outcomes(_model(table), ladder, texts, [t or "" for t in tasks], groups, right / counts, tokens / counts)


def splits(outcomes: Outcomes) -> dict[str, Outcomes]:
    """Fit, certify and test, disjoint by group. Raises DatasetError where one would be empty."""
    names = np.array([split_of(group) for group in outcomes.groups])
    parts = {name: outcomes.take(np.flatnonzero(names == name)) for name in SPLITS}
    for name, part in parts.items():
        if len(part) == 0:
            raise DatasetError(f"no prompt falls into the {name} split: {len(outcomes)} prompts are too few")
    return parts


def _model(table: pa.Table) -> str:
    names = table["model"].unique().to_pylist()
    if len(names) != 1:
        raise DatasetError(f"model: outcomes of {len(names)} models in one file; a bundle is for one")
    return str(names[0])


def _ladder(table: pa.Table) -> BudgetLadder:
    rungs = table.select(["rung_order", "rung", "budget_tokens"]).group_by(["rung_order", "rung", "budget_tokens"])
    rows = sorted(rungs.aggregate([]).to_pylist(), key=lambda r: r["rung_order"])
    if [r["rung_order"] for r in rows] != list(range(len(rows))):
        raise DatasetError("rung_order: positions must run from 0 without gaps, each with one rung and one budget")
    return BudgetLadder(tuple(ReasoningBudget(r["rung"], r["budget_tokens"]) for r in rows))
