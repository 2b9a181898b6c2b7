"""The collection stage: answers to every question at every rung go into a journal, then into one outcome file."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from router.digits import counted
from training.collect.agreement import AGREEMENT, kind_of
from training.collect.journal import Journal
from training.collect.judge import JUDGE
from training.collect.questions import Question, digest
from training.collect.units import Collector, Pocket, Recipe, Unit, UnitResult
from training.data.faults import faults
from training.data.schema import ANSWER_KIND, DatasetError, write
from training.progress import Tenths, say

SAMPLED = ("temperature", "max_answer_tokens", "seed")
"""What a run sets of its sampling; the rest of it is the engine's own."""

Executor = Callable[[Iterable[Unit], Recipe], Iterator[list[UnitResult]]]
"""Runs units by a recipe, in this process or elsewhere; yields results as they are finished."""


@dataclass(frozen=True)
class Collected:
    """What a run has collected.

    Attributes:
        rungs: as `tally`.
        drawn: tokens that the engine drew.
        independent: tokens that it would have drawn with a request for each rung and sample: the same where thoughts
            are greedy, and as many on average where they are sampled.
    """

    rungs: list[dict[str, Any]]
    drawn: int
    independent: int

    @property
    def saved(self) -> float:
        """Share of the tokens that were not drawn."""
        return 1 - self.drawn / self.independent if self.independent else 0.0


def metadata(questions: Sequence[Question], recipe: Recipe) -> dict[str, str]:
    """What a file says beside its rows: who judged, and how answers were compared, if all were compared alike."""
    said = {} if recipe.judge is None else {JUDGE: json.dumps(recipe.judge.identity)}
    kinds = {kind_of(question.scorer) for question in questions}
    return said | {ANSWER_KIND: kinds.pop() if len(kinds) == 1 else ""}


def collect(questions: Sequence[Question], recipe: Recipe, out: Path, executor: Executor) -> Collected:
    """Run the units that are not done yet, and write `out`.

    A journal beside `out` keeps finished units through a kill, and the same call continues from there. The journal is
    removed once the file is written.

    Raises:
        DatasetError: the journal belongs to another run, or the outcomes break the schema.
        BackendUnavailable: the backend does not answer any more; the same call continues later.
    """
    todo = units(questions, recipe)
    with Journal(out.with_name(f"{out.name}.journal"), settings(questions, recipe)) as journal:
        left = [unit for unit in todo if unit.key not in journal.done]
        _run(left, len(todo), recipe, journal, executor)
        # A bug in a collector must show here, not weeks later in `fit`; the journal survives, so nothing is lost.
        for fault in faults(journal.rows()):
            raise DatasetError(fault)
        # In this order: a crash between the two leaves both files, and the next run only writes the outcomes again.
        write(journal.rows(), out, metadata(questions, recipe))
        drawn = journal.drawn()
        journal.remove()
    rows = pl.scan_parquet(out)
    return Collected(tally(rows), drawn, int(rows.select(pl.col("total_tokens").sum()).collect().item()))


def _run(left: Sequence[Unit], total: int, recipe: Recipe, journal: Journal, executor: Executor) -> None:
    unit, done, cause = "trace" if recipe.nested else "answer", total - len(left), ""
    before = f", {done:,} are done already" if done else ""
    say(f"collect: {counted(total, unit)} at {len(recipe.ladder)} rungs, {recipe.concurrency} at a time{before}")
    tenths = Tenths(f"collect, {unit}s", total, done)
    with tqdm(total=total, initial=done, unit=unit, desc="collect", disable=None) as bar:
        for results in executor(left, recipe) if left else ():
            journal.append(results)
            bar.update(len(results))
            tenths.add(len(results))
            # The first is enough: an engine that refuses a rung refuses it thousands of times.
            if not cause and (cause := next((one.cause for one in results if one.cause), "")):
                bar.clear()
                say(f"collect: the first answer that failed, at {cause}")


def unanswered(tally: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the rungs at which no prompt has an answer; no prompt of the file can then be trained on."""
    return [row["rung"] for row in tally if row["error"] == row["answers"]]


def local(units: Iterable[Unit], recipe: Recipe) -> Iterator[list[UnitResult]]:
    """Run units in this process. Raises ArtifactError, BackendUnavailable."""
    with closing(collector(recipe)) as opened:
        yield from opened.run(units)


def collector(recipe: Recipe) -> Collector:
    """The collector that a recipe needs. Raises ArtifactError."""
    if recipe.nested and isinstance(recipe.source, Pocket):
        from training.collect.traces import TraceCollector

        return TraceCollector.load(recipe)
    if recipe.nested:
        from training.collect.nested import NestedCollector

        return NestedCollector(recipe)
    from training.collect.samples import SampleCollector

    return SampleCollector(recipe)


def units(questions: Sequence[Question], recipe: Recipe) -> list[Unit]:
    """All units of a run; the units of a question follow each other."""
    if recipe.nested:
        return [Unit(question, None, sample) for question in questions for sample in range(recipe.samples)]
    rungs, samples = range(len(recipe.ladder)), range(recipe.samples)
    return [
        Unit(question, rung, sample)
        for question in questions
        # Agreement needs the top rung's answer beside each other one.
        for rung in ((None,) if question.scorer in AGREEMENT else rungs)
        for sample in samples
    ]


def settings(questions: Sequence[Question], recipe: Recipe) -> dict[str, Any]:
    """The settings, in JSON types, that two runs must share for one to continue the other's work."""
    return {
        # Concurrency, retries and the executor are absent: they change how fast answers come, not what they are.
        "questions": digest(questions),
        "model": recipe.fingerprint,
        "nested": recipe.nested,
        "ladder": [asdict(rung) for rung in recipe.ladder.rungs],
        "samples": recipe.samples,
        "sampling": {name: getattr(recipe.sampling, name) for name in SAMPLED},
        # Absent without a judge: journals of earlier versions have none.
        **({} if recipe.judge is None else {JUDGE: recipe.judge.identity}),
    }


def tally(rows: pl.LazyFrame) -> list[dict[str, Any]]:
    """Counts by rung: right and wrong answers, and apart from these truncated, unparsable and failed ones."""
    ended = pl.col("finish")
    comparable = ended.is_in(["natural", "forced"])
    counts = {name: (ended == name).sum().alias(name) for name in ("truncated", "unparsable", "error")}
    by_rung = rows.group_by("rung_order", "rung").agg(
        pl.len().alias("answers"),
        (comparable & (pl.col("correct") >= 0.5)).sum().alias("right"),
        (comparable & (pl.col("correct") < 0.5)).sum().alias("wrong"),
        *counts.values(),
        pl.col("thinking_tokens").mean(),
    )
    return by_rung.sort("rung_order").drop("rung_order").collect(engine="streaming").to_dicts()
