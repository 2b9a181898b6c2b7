"""Test of the guarantee: certificates on random re-splits of held-out prompts, against the true loss on the pool."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
    policy_sequences,
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
        violated_unseen: the same share on groups that the re-split did not draw, whose mean is noisy itself.
        uncertified: share of re-splits in which nothing could be proved.
        utilisation: mean saving of the certified policy / saving of the best policy in hindsight; None if none saves.
    """

    alpha: float
    delta: float
    resplits: int
    certify: int
    violated: float
    violated_unseen: float
    uncertified: float
    utilisation: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def resplit(pool: Sample, alpha: float, resplits: int = RESPLITS, per_prompt: bool = False) -> Violation:
    """Certify on random groups of a pool, drawn with replacement, again and again.

    Args:
        pool: prompts that were not fitted on; its mean loss stands for the true one.
        alpha: the largest mean loss allowed.
        per_prompt: of the policies that keep the target by each prompt's own forecast.
    """
    sequences = (predicted_losses(alpha, pool),) if per_prompt else policy_sequences(pool)
    policies = {_key(policy): policy for sequence in sequences for policy in sequence.policies}
    groups = len(sequences[0].policies[0].values)
    size = min(CERTIFY, groups // 2)
    # Fixed rungs are tested on the labels of the fit split, too.
    sizes = [round(size * sequence.labels / SPLITS["certify"]) for sequence in sequences]
    random = np.random.default_rng(0)
    certified: list[CandidatePolicy | None] = []
    unseen = []
    for _ in tqdm(range(resplits), desc=f"re-splits, loss {alpha:g}", leave=False, disable=None):
        drawn = [random.integers(groups, size=one) for one in sizes]
        best = cheapest([_of(sequence, mine) for sequence, mine in zip(sequences, drawn, strict=True)], alpha)
        certified.append(None if isinstance(best, str) else policies[_key(best)])
        unseen.append(np.setdiff1d(np.arange(groups), np.concatenate(drawn)))
    lost = [0.0 if one is None else one.values.mean() for one in certified]
    lost_unseen = [
        0.0 if one is None or not len(rest) else one.values[rest].mean()
        for one, rest in zip(certified, unseen, strict=True)
    ]
    return Violation(
        alpha,
        DELTA,
        resplits,
        size,
        float(np.mean(np.array(lost) > alpha)),
        float(np.mean(np.array(lost_unseen) > alpha)),
        float(np.mean([one is None for one in certified])),
        _utilisation(certified, [one for one in policies.values() if one.values.mean() <= alpha]),
    )


def _key(policy: CandidatePolicy) -> tuple[int | None, float]:
    return policy.rung, policy.threshold


def _of(sequence: PolicySequence, mine: Rows) -> PolicySequence:
    """The same policies with the losses of some groups."""
    return replace(sequence, policies=[replace(one, values=one.values[mine]) for one in sequence.policies])


def _utilisation(certified: Sequence[CandidatePolicy | None], allowed: Sequence[CandidatePolicy]) -> float | None:
    most = max((one.saved for one in allowed), default=0.0)
    mean = float(np.mean([0.0 if one is None else one.saved for one in certified]))
    return mean / most if most > 0 else None
