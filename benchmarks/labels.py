"""Labels to the first certified saving: `python -m benchmarks.labels` draws prompts of the pocket reasoner.

Ordinary files label every prompt. With free zeros, some prompts are labelled to fit on; of a thousand further ones only
those answers are labelled that the tests ask for. Savings are those certified at a loss of at most .02, in thinking
tokens against always-top, by one rung for everybody or by a learned price, whichever saves more.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

import numpy as np
import polars as pl
from tqdm import tqdm

from benchmarks.harness import OUTCOMES
from training.arrays import Rows
from training.certification import free_zeros
from training.certification.certify import TARGET
from training.certification.free_zeros import Missing
from training.certification.sequences import PolicySequence, Sample, cheapest, policy_sequences
from training.certification.violation import Violation, resplit
from training.data import dataset
from training.data.outcomes import Outcomes
from training.model import embedding
from training.model.fit import CachedInputs, Fitted, families_named, fit, inputs
from training.prediction import Prediction

FITTED = (200, 300)
"""Labels that are fitted on, where zeros are free."""

HELD_OUT = 1_000
"""Prompts whose answers are collected and mostly not labelled."""

BATCH = 25
"""Labels between two runs of `budget-train certify`."""

MOST = 200
"""Labels that are asked for, at most."""

ORDINARY = (500, 1_250)


Model = Callable[[Outcomes], Fitted]


@dataclass(frozen=True)
class Row:
    """What a number of labels certifies.

    Attributes:
        fitted: labels that were fitted on.
        labels: all labels that were allowed.
        used: mean of those that were needed.
        certified: share of draws in which something is certified that saves tokens.
        learned: share of draws in which that is a learned price.
        saved: mean saving over all draws.
    """

    path: str
    fitted: int
    labels: int
    used: float
    certified: float
    learned: float
    saved: float


Found = tuple[int, float, bool]
"""Labels given, the certified saving, and whether it is that of a learned price."""


def pool() -> Outcomes:
    """The pocket reasoner's prompts with all labels, and which answers are the same."""
    return dataset.from_frame(pl.scan_parquet(OUTCOMES), unlabelled=True)


def unlabelled(outcomes: Outcomes) -> Outcomes:
    """The same answers without a label."""
    return replace(outcomes, correct=np.full_like(outcomes.correct, np.nan))


def saving(sequences: Sequence[PolicySequence]) -> tuple[float, bool]:
    """The saving that is certified now, and whether it is that of a learned price."""
    best = cheapest(sequences, TARGET)
    if isinstance(best, str):
        return 0.0, False
    return best.saved / (best.saved + best.tokens), best.rung is None


def relative(samples: Sequence[Sample]) -> list[Sample]:
    """Samples with the losses that need no label."""
    return [(free_zeros.relative(outcomes), prediction) for outcomes, prediction in samples]


def give(held_out: Outcomes, truth: Outcomes, one: Missing, rows: Rows) -> None:
    """Label the answers at the chosen and at the top rung."""
    for row in rows:
        for rung in (one.policy.chosen[0][row], -1):
            held_out.correct[row, rung] = truth.correct[row, rung]


def targeted(truth: Outcomes, prediction: Prediction, fitted: Sample) -> Iterator[Found]:
    """Label what the tests ask for, at most BATCH at a time, until nothing more is asked for."""
    held_out, given = unlabelled(truth), 0
    while True:
        samples = relative([(held_out, prediction), fitted])
        sequences = policy_sequences(samples[0], samples[1])
        yield given, *saving(sequences)
        found = free_zeros.missing(sequences, samples, TARGET)
        if not found:
            return
        rows = found[0].rows[: min(found[0].least, BATCH)]
        give(held_out, truth, found[0], rows)
        given += len(rows)


def draws(every: Outcomes, times: int) -> Iterator[Rows]:
    """Orders of all prompts."""
    for seed in tqdm(range(times), desc="draws", disable=None):
        yield np.random.default_rng(seed).permutation(len(every))


def free(every: Outcomes, model: Model, order: Rows, count: int) -> list[Found]:
    """The path of free zeros, with `count` labels to fit on: what each number of further labels certifies."""
    part, truth = every.take(order[:count]), every.take(order[count : count + HELD_OUT])
    fitted = model(part).with_novelty(truth.prompts)
    path = targeted(truth, fitted.predict(truth.prompts), (part, fitted.predict(part.prompts)))
    return list(takewhile(lambda found: found[0] <= MOST, path))


def ordinary(every: Outcomes, model: Model, order: Rows, labels: int) -> Found:
    """A file in which every prompt has a label: three to fit on for each one to certify."""
    count = labels * 3 // 4
    parts = [replace(every.take(rows), same=None) for rows in (order[count:labels], order[:count])]
    fitted = model(parts[1]).with_novelty(parts[0].prompts)
    held_out, fit_on = ((part, fitted.predict(part.prompts)) for part in parts)
    return labels, *saving(policy_sequences(held_out, fit_on))


def row(path: str, fitted: int, labels: int, found: Sequence[Found]) -> Row:
    """The row of all draws."""
    used, saved, learned = (np.array(column, float) for column in zip(*found, strict=True))
    shares = (saved > 0).mean(), (learned * (saved > 0)).mean(), saved.mean()
    return Row(path, fitted, labels, float(used.mean()), *map(float, shares))


def violations(every: Outcomes, model: Model, alphas: Sequence[float]) -> list[Violation]:
    """How often a certificate of free zeros is wrong, in re-splits with replacement."""
    order = np.random.default_rng(0).permutation(len(every))
    part, rest = every.take(order[:250]), free_zeros.relative(every.take(order[250:]))
    prediction = model(part).with_novelty(rest.prompts).predict(rest.prompts)
    return [resplit((rest, prediction), alpha) for alpha in alphas]


def measure(times: int) -> list[Row]:
    every = pool()
    static = embedding.static()
    cached = CachedInputs(partial(inputs, static), every.prompts)
    model = partial(fit, embedding=static, extract=cached, candidates=families_named(["pooled logit"]))
    rows = []
    for fitted in FITTED:
        paths = [free(every, model, order, fitted) for order in draws(every, times)]
        for more in range(0, MOST + 1, BATCH):
            reached = [next(found for found in reversed(path) if found[0] <= more) for path in paths]
            rows.append(row("free zeros", fitted, fitted + more, [(fitted + one[0], *one[1:]) for one in reached]))
            print(rows[-1], flush=True)
    for labels in ORDINARY:
        rows.append(
            row(
                "every label",
                labels * 3 // 4,
                labels,
                [ordinary(every, model, order, labels) for order in draws(every, times)],
            )
        )
        print(rows[-1], flush=True)
    for one in violations(every, model, (0.01, 0.02, 0.05)):
        print(one, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=50)
    measure(parser.parse_args().draws)


if __name__ == "__main__":
    main()
