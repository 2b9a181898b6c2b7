"""Counts of an outcome file, and the prompts that could leak from one split into another."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
from scipy.stats import binomtest

from training.arrays import Matrix
from training.data.dataset import from_frame
from training.data.faults import is_logged
from training.data.outcomes import Outcomes
from training.data.schema import JUDGE, conformed, naming_file
from training.data.splits import SPLITS, split_of, text_key


@dataclass(frozen=True)
class Overview:
    """Counts of an outcome file.

    Attributes:
        samples: answers per prompt and rung, mean.
        errors: rows left out because the engine failed.
        lost: prompts left out because some rung has no answer, or has errors alone.
        duplicates: prompts that differ only in case and spacing from one with another prompt_id.
        leaks: duplicates that lie in another split than their twin.
        unknown_tokens: rungs that lack the token count of some prompt.
        splits: prompts per split.
        judge: model whose verdicts the labels are; "" where none is named.
        not_rising: neighbouring rungs of which the more expensive one is significantly worse (McNemar, 5 %).
    """

    rows: int
    prompts: int
    groups: int
    samples: float
    errors: int
    lost: int
    duplicates: int
    leaks: int
    unknown_tokens: list[str]
    splits: dict[str, int]
    not_rising: list[str]
    judge: str = ""


@dataclass(frozen=True)
class Traffic:
    """Counts of served traffic, as `outcomes export` writes it.

    Attributes:
        models: decisions by fingerprint of the engine.
        rungs: decisions by rung.
        correct: mean.
    """

    decisions: int
    prompts: int
    models: dict[str, int]
    rungs: dict[str, int]
    label_sources: dict[str, int]
    correct: float


def overview(path: Path, soft: bool = False) -> Overview | Traffic:
    """Count a file. Raises DatasetError if it is neither served traffic nor can be trained on.

    Args:
        soft: budgets are hints, which thoughts may exceed.
    """
    with naming_file(path):
        rows = pl.scan_parquet(path)
        if is_logged(rows):
            return _traffic(conformed(rows).collect(engine="streaming"))
        outcomes = from_frame(rows, soft)
        errors = pl.col("finish") == "error"
        counts = rows.select(pl.len(), errors.sum().alias("errors"), pl.col("prompt_id").n_unique().alias("prompts"))
        found = _overview(outcomes, *counts.collect(engine="streaming").row(0))
        return replace(found, judge=_judge_of(path))


def _judge_of(path: Path) -> str:
    """The model of the judge that an outcome file names in its metadata; "" where it names none."""
    try:
        return str(json.loads(pl.read_parquet_metadata(path)[JUDGE])["model"])
    except (KeyError, TypeError, ValueError):  # another program may have written the file
        return ""


def _traffic(rows: pl.DataFrame) -> Traffic:
    def counts(column: str) -> dict[str, int]:
        return dict(rows[column].value_counts().sort(column).iter_rows())

    correct = rows.select(pl.col("correct").mean()).item()
    models, rungs, sources = counts("model"), counts("rung"), counts("label_source")
    return Traffic(len(rows), rows["prompt_id"].n_unique(), models, rungs, sources, correct)


def _overview(outcomes: Outcomes, rows: int, errors: int, prompts: int) -> Overview:
    sides = [split_of(group) for group in outcomes.groups]
    # The first prompt of a text fixes the split that its twins should lie in.
    first: dict[str, str] = {}
    twins = [(first.setdefault(text_key(text), side), side) for text, side in zip(outcomes.prompts, sides, strict=True)]
    names = [rung.name for rung in outcomes.ladder.rungs]
    return Overview(
        rows,
        len(outcomes),
        len(set(outcomes.groups)),
        float(outcomes.samples.mean()),
        errors,
        prompts - len(outcomes),
        len(outcomes) - len(first),
        sum(one != other for one, other in twins),
        [name for name, known in zip(names, outcomes.known_tokens, strict=True) if not known],
        {name: sides.count(name) for name in SPLITS},
        [f"{names[i]} > {names[i + 1]}" for i in range(len(names) - 1) if _declines(outcomes.correct[:, i : i + 2])],
    )


def _declines(pair: Matrix) -> bool:
    """Exact one-sided McNemar test at 5 %: the more expensive of two rungs loses more prompts than it wins."""
    # Prompts equal at both rungs say nothing; of the others, half should win if the rungs are equally good.
    lost, won = int((pair[:, 1] < pair[:, 0]).sum()), int((pair[:, 1] > pair[:, 0]).sum())
    return lost > won and float(binomtest(lost, lost + won, 0.5, "greater").pvalue) < 0.05
