"""The stage: every question at every rung, journalled as it is done, then one outcome file."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from training.collect.journal import Journal
from training.collect.questions import Question, digest
from training.collect.units import Collector, Recipe, Unit, UnitResult
from training.data.schema import DatasetError, faults, write

Executor = Callable[[Iterable[Unit], Recipe], Iterator[list[UnitResult]]]
"""Runs units by a recipe, on this machine or elsewhere."""


def collect(questions: Sequence[Question], recipe: Recipe, out: Path, engine: Executor) -> list[dict[str, Any]]:
    """Run what is not done yet, write `out`, and return what came of it, by rung.

    A journal beside `out` keeps finished work through a kill; the same call goes on from there. It is removed once
    the file is written.

    Raises:
        DatasetError: the journal is of another run, or the outcomes break the schema.
        BackendUnavailable: the backend is gone; the same call goes on.
    """
    todo = units(questions, recipe)
    with Journal(out.with_name(f"{out.name}.journal"), settings(questions, recipe)) as journal:
        left = [unit for unit in todo if unit.key not in journal.done]
        done = len(todo) - len(left)
        with tqdm(
            total=len(todo), initial=done, unit="trace" if recipe.nested else "answer", desc="collect", disable=None
        ) as bar:
            for finished in engine(left, recipe) if left else ():
                journal.append(finished)
                bar.update(len(finished))
        for fault in faults(journal.rows()):
            raise DatasetError(fault)
        write(journal.rows(), out)
        journal.remove()
    return tally(pl.scan_parquet(out))


def local(units: Iterable[Unit], recipe: Recipe) -> Iterator[list[UnitResult]]:
    """Run units in this process."""
    with closing(worker(recipe)) as opened:
        yield from opened.run(units)


def worker(recipe: Recipe) -> Collector:
    """What makes answers by a recipe. Raises ArtifactError."""
    if recipe.nested:
        from training.collect.traces import TraceCollector

        return TraceCollector.load(recipe)
    from training.collect.samples import SampleCollector

    return SampleCollector(recipe)


def units(questions: Sequence[Question], recipe: Recipe) -> list[Unit]:
    """All units of a run, those of one question together."""
    if recipe.nested:
        return [Unit(question, None, 0) for question in questions]
    rungs, samples = range(len(recipe.ladder)), range(recipe.samples)
    return [Unit(question, rung, sample) for question in questions for rung in rungs for sample in samples]


def settings(questions: Sequence[Question], recipe: Recipe) -> dict[str, Any]:
    """What two runs must have in common for one to go on with the other's work."""
    return {
        "questions": digest(questions),
        "model": recipe.fingerprint,
        "ladder": [asdict(rung) for rung in recipe.ladder.rungs],
        "samples": recipe.samples,
        "sampling": asdict(recipe.sampling),
    }


def tally(rows: pl.LazyFrame) -> list[dict[str, Any]]:
    """Answers by rung: right, wrong, and apart from these what was truncated, unparsable or the engine's error."""
    ended = pl.col("finish")
    judged = ended.is_in(["natural", "forced"])
    counts = {name: (ended == name).sum().alias(name) for name in ("truncated", "unparsable", "error")}
    found = rows.group_by("rung_order", "rung").agg(
        pl.len().alias("answers"),
        (judged & (pl.col("correct") >= 0.5)).sum().alias("right"),
        (judged & (pl.col("correct") < 0.5)).sum().alias("wrong"),
        *counts.values(),
        pl.col("thinking_tokens").mean(),
    )
    return found.sort("rung_order").drop("rung_order").collect(engine="streaming").to_dicts()
