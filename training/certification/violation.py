"""Test of the guarantee: certificates on random re-splits of held-out prompts, against the true loss on the pool."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from tqdm import tqdm

from training.arrays import Rows
from training.certification.betting import DELTA
from training.certification.sequences import (
    CandidatePolicy,
    PolicySequence,
    Sample,
    cheapest,
    fixed_rungs,
    learned_prices,
    predicted_losses,
)
from training.data.splits import SPLITS

RESPLITS = 500
CERTIFY = 1_000
"""Groups that a re-split certifies on; half of the pool if that is less."""


@dataclass(frozen=True)
class Violation:
    """One target over all re-splits.

    Attributes:
        certify: groups that each re-split draws to certify on.
        violated: share of re-splits whose certified policy loses more than alpha on the pool.
        violated_unseen: the same share where one half of the pool certifies and the other half, which was never drawn,
            stands for the truth; its mean is noisy itself.
        unseen_error: standard error of that mean; None where nothing is certified.
        uncertified: share of re-splits in which nothing could be proved.
        utilisation: mean saving of the certified policy / saving of the best policy in hindsight; None if none saves.
    """

    alpha: float
    delta: float
    resplits: int
    certify: int
    violated: float
    violated_unseen: float
    unseen_error: float | None
    uncertified: float
    utilisation: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def resplit(
    pool: Sample, alpha: float, resplits: int = RESPLITS, per_prompt: bool = False, fitted: Sample | None = None
) -> Violation:
    """Certify on random groups of a pool again and again, in two experiments.

    In one, groups are drawn with replacement, and the pool's mean loss stands for the true one. In the other, groups
    that no draw can take stand for the truth.

    Args:
        pool: prompts that were not fitted on.
        alpha: the largest mean loss allowed.
        per_prompt: of the policies that keep the target by each prompt's own forecast.
        fitted: the fit split, from whose losses bets on learned prices start.
    """
    return resplit_sequences(_sequences(pool, alpha, per_prompt, fitted), alpha, resplits)


def resplit_sequences(sequences: Sequence[PolicySequence], alpha: float, resplits: int = RESPLITS) -> Violation:
    """The same for any sequences whose policies have the losses of the same groups."""
    policies = [policy for sequence in sequences for policy in sequence.policies]
    groups = len(policies[0].values)
    size = min(CERTIFY, groups // 2)
    # Fixed rungs are tested on the labels of the fit split, too.
    sizes = [round(size * sequence.labels / SPLITS["certify"]) for sequence in sequences]
    random, tested = np.random.default_rng(0), [_shortened(one) for one in sequences]

    def certified(drawn: list[Rows]) -> CandidatePolicy | None:
        best = cheapest([replace(one, drawn=mine) for one, mine in zip(tested, drawn, strict=True)], alpha)
        return None if isinstance(best, str) else best

    seen, unseen, errors = [], [], []
    for _ in tqdm(range(resplits), desc=f"re-splits, loss {alpha:g}", leave=False, disable=None):
        seen.append(certified([random.integers(groups, size=one) for one in sizes]))
        half, rest = np.split(random.permutation(groups), [groups // 2])
        other = certified([half[:one] for one in sizes])
        unseen.append(other is not None and other.values[rest].mean() > alpha)
        errors += [] if other is None else [other.values[rest].std() / len(rest) ** 0.5]
    return Violation(
        alpha,
        DELTA,
        resplits,
        size,
        float(np.mean([one is not None and one.values.mean() > alpha for one in seen])),
        float(np.mean(unseen)),
        float(np.mean(errors)) if errors else None,
        float(np.mean([one is None for one in seen])),
        _utilisation(seen, [one for one in policies if one.values.mean() <= alpha]),
    )


def _sequences(pool: Sample, alpha: float, per_prompt: bool, fitted: Sample | None) -> tuple[PolicySequence, ...]:
    """The sequences of a certificate, on the labels of the pool alone."""
    if per_prompt:
        return (predicted_losses(alpha, pool, fitted),)
    return fixed_rungs(pool), learned_prices(pool, fitted)


def _shortened(sequence: PolicySequence) -> PolicySequence:
    """The same tests; of policies in a row with the same losses, whose tests end alike, the last one alone is left."""
    every = sequence.policies
    kept = [one for one, after in pairwise(every) if not _alike(one, after)]
    return replace(sequence, policies=[*kept, *every[-1:]])


def _alike(one: CandidatePolicy, other: CandidatePolicy) -> bool:
    return one.variance == other.variance and np.array_equal(one.values, other.values)


def _utilisation(certified: Sequence[CandidatePolicy | None], allowed: Sequence[CandidatePolicy]) -> float | None:
    most = max((one.saved for one in allowed), default=0.0)
    mean = float(np.mean([0.0 if one is None else one.saved for one in certified]))
    return mean / most if most > 0 else None
