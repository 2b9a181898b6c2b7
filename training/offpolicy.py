"""What another policy would have been worth on logged traffic, from what was logged and how likely it was.

A logged answer says more than its own rung: a thought that ended by itself after L tokens is the same under every cap
of at least L, so it reveals those rungs too. Given L, the chance that a rung b with cap >= L is revealed is the
probability of all rungs that reveal it; that of a rung with cap < L is b's own. All estimators weigh by these chances:

IPS     mean of w u
SNIPS   sum of w u / sum of w (Swaminathan & Joachims 2015)
DR      mean of q + w (u - q) (Dudik et al. 2011)
SWITCH  DR where w is at most SWITCH_AT, q alone beyond (Wang et al. 2017)

with u the utility of the rung that the policy wants, w = 1{revealed} / chance, and q a model of u that was fitted on
other prompts. Where a rung had no chance, nothing corrects q: `resting_on_model` is the share of such rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics import DRAWS, resampled

SWITCH_AT = 20.0
LEVEL = 0.025
"""The truth lies below `low` with this probability, and above `high`."""

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Rungs = NDArray[np.intp]


@dataclass(frozen=True)
class Logged:
    """Logged answers [n], one rung each.

    Attributes:
        rung: the one that was run.
        propensities: chance of every rung when it was drawn [n, rungs].
        correct: 0..1.
        length: tokens of the thought where it ended by itself; NaN where it was cut.
        groups: what is not independent of each other.
        caps: most thinking tokens of each rung [rungs].
    """

    rung: Rungs
    propensities: Matrix
    correct: Vector
    length: Vector
    groups: Sequence[str]
    caps: Vector

    def chances(self, wanted: Rungs) -> Vector:
        """Probability [n] that what is known of a row would be revealed about the rung wanted."""
        rows = np.arange(len(self.rung))
        same = self.caps[wanted] >= self.length  # false for NaN
        reveals = self.caps[None, :] >= np.nan_to_num(self.length, nan=np.inf)[:, None]
        reveals[rows, wanted] = True
        together = (self.propensities * reveals).sum(axis=1)
        return np.where(same, together, self.propensities[rows, wanted])

    def revealed(self, wanted: Rungs) -> NDArray[np.bool_]:
        """Rows [n] that say how the rung wanted would have done."""
        both = (self.caps[wanted] >= self.length) & (self.caps[self.rung] >= self.length)
        return np.asarray((self.rung == wanted) | both)

    def tokens(self, wanted: Rungs) -> Vector:
        """Thinking tokens [n] that the rung wanted would have used, where revealed."""
        return np.minimum(np.nan_to_num(self.length, nan=np.inf), self.caps[wanted])


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval, by bootstrap over groups."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """What one policy is worth more than another.

    Attributes:
        effective: sample size that equal weights would have, the smaller of the two policies'.
        resting_on_model: share of rows whose wanted rung had no chance to be seen.
    """

    ips: Estimate
    snips: Estimate
    dr: Estimate
    switch: Estimate
    effective: float
    resting_on_model: float


def gain(logged: Logged, model: Matrix, price: float, new: Rungs, old: Rungs) -> Gain:
    """Utility gain of the rungs `new` over `old` [n].

    Args:
        model: predicted utility [n, rungs], from prompts other than these.
        price: P(correct) that a thinking token must buy; utility = correct - price * tokens.
    """
    columns, effective, resting = [], [], []
    for wanted in (new, old):
        terms, weights, alone = _terms(logged, model, price, wanted)
        columns.append(terms)
        effective.append(weights.sum() ** 2 / max((weights**2).sum(), 1e-12))
        resting.append(alone)
    (a, b) = columns
    values = np.column_stack([a, b])
    draws = resampled(logged.groups, values, DRAWS)
    means = values.mean(axis=0)[None, :]
    estimates = [_estimate(means[:, i] - means[:, i + 5], draws[:, i] - draws[:, i + 5]) for i in (0, 2, 3)]
    snips = _estimate(_ratio(means), _ratio(draws))
    unseen = float(np.mean(resting[0] | resting[1]))
    return Gain(estimates[0], snips, estimates[1], estimates[2], float(min(effective)), unseen)


def _terms(logged: Logged, model: Matrix, price: float, wanted: Rungs) -> tuple[Matrix, Vector, NDArray[np.bool_]]:
    """Columns w u, w, DR, SWITCH and q, then w, and where the model stands alone."""
    rows = np.arange(len(wanted))
    chances, seen = logged.chances(wanted), logged.revealed(wanted)
    weights = np.where(seen, 1 / np.maximum(chances, 1e-12), 0.0)
    utility = np.where(seen, logged.correct - price * logged.tokens(wanted), 0.0)
    q = model[rows, wanted]
    corrected = q + weights * (utility - q)
    switched = np.where(weights <= SWITCH_AT, corrected, q)
    return np.column_stack([weights * utility, weights, corrected, switched, q]), weights, chances == 0


def _ratio(means: Matrix) -> Vector:
    return np.asarray(means[:, 0] / np.maximum(means[:, 1], 1e-12) - means[:, 5] / np.maximum(means[:, 6], 1e-12))


def _estimate(value: Vector, draws: Vector) -> Estimate:
    low, high = np.quantile(draws, [LEVEL, 1 - LEVEL])
    return Estimate(float(value[0]), float(low), float(high))
