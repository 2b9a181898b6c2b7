"""Losses that are zero whatever is right, and so need no label.

Nothing is lost where the chosen rung's answer is the top rung's. Only other losses need labels, and of these only the
ones that the test reads: it reads groups in the order of bets, and ends once the capital proves the target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.arrays import Mask, Rows, Vector
from training.certification.betting import Groups, log_capital
from training.certification.rules import losses
from training.certification.sequences import CandidatePolicy, PolicySequence, Sample
from training.data.outcomes import Outcomes


def relative(outcomes: Outcomes) -> Outcomes:
    """The same prompts with correctness minus that of the top rung: 0 where answers are the same, NaN if unknown.

    Losses are differences, so policies lose on these outcomes what they lose on the given ones.
    """
    gained = outcomes.correct - outcomes.correct[:, -1:]
    return replace(outcomes, correct=np.where(np.isnan(gained) & _same(outcomes), 0.0, gained))


def by_agreement(outcomes: Outcomes) -> Outcomes:
    """The same prompts, in which an answer is right if it is the top rung's: no loss is larger than what differs."""
    return replace(outcomes, correct=_same(outcomes).astype(float), label_sources=("agreement",))


def _same(outcomes: Outcomes) -> Mask:
    return np.zeros_like(outcomes.correct, bool) if outcomes.same is None else outcomes.same


@dataclass(frozen=True)
class Missing:
    """The labels that the next test of a sequence lacks.

    Attributes:
        sequence: name of the sequence.
        rows: prompts without them, in the order of bets; those of a second split follow in number those of the first.
        least: how many of `rows`, from the first on, prove the target if nothing is lost at them.
    """

    sequence: str
    policy: CandidatePolicy
    rows: Rows
    least: int


def missing(sequences: Sequence[PolicySequence], samples: Sequence[Sample], alpha: float) -> list[Missing]:
    """The labels that each sequence lacks, the sequence that lacks fewest first.

    Args:
        samples: splits whose policies `sequences` hold, as `relative` gives them; a policy may be tested on the first
            ones alone.
    """
    waiting = [(one, policy) for one in sequences if (policy := one.pending(alpha)) is not None]
    found = [_missing(one, policy, samples[: len(policy.chosen)], alpha) for one, policy in waiting]
    return sorted(found, key=lambda one: one.least)


def ahead(sequences: Sequence[PolicySequence], samples: Sequence[Sample], alpha: float) -> Iterator[Missing]:
    """What `missing` gives, then what the tests after these would lack if they pass. Arguments as `missing`."""
    every = missing(sequences, samples, alpha)
    yield from every
    by_name = {one.name: one for one in sequences}
    for first in every:
        sequence = by_name[first.sequence]
        for policy in sequence.policies[sequence.policies.index(first.policy) + 1 :]:
            yield _missing(sequence, policy, samples[: len(policy.chosen)], alpha)


def _missing(sequence: PolicySequence, policy: CandidatePolicy, samples: Sequence[Sample], alpha: float) -> Missing:
    parts = [part for part, _ in samples]
    unknown = np.isnan(
        np.concatenate([losses(part.correct, chosen) for part, chosen in zip(parts, policy.chosen, strict=True)])
    )
    places = Groups([group for part in parts for group in part.groups]).places
    rows = np.flatnonzero(unknown)
    rows = rows[np.argsort(places[rows], kind="stable")]
    end = _end(np.nan_to_num(policy.values), alpha, sequence.delta, policy.variance)
    return Missing(sequence.name, policy, rows, int((places[rows] <= end).sum()))


def _end(values: Vector, alpha: float, delta: float, variance: float | None) -> int:
    """The place at which the bets prove a target; behind the last one if they do not."""
    reached = log_capital(values, alpha, delta, variance) >= -np.log(delta)
    return int(reached.argmax()) if reached.any() else len(values)
