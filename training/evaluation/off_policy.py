"""The value of another policy on logged traffic, from the logged answers and their propensities.

A logged answer reveals more than its own rung: a thought that ended by itself after L tokens is the same under every
cap of at least L, so it reveals the outcomes of those rungs too. Given L, a rung b with cap >= L is revealed with the
summed probability of all rungs whose cap is at least L; a rung b with cap < L only with its own. All estimators weigh
by these chances:

IPS     mean of w u
SNIPS   sum of w u / sum of w (Swaminathan & Joachims 2015)
DR      mean of q + w (u - q) (Dudik et al. 2011)
SWITCH  DR where w is at most SWITCH_AT, q alone beyond (Wang et al. 2017)

Here u is the utility of the rung that the policy wants, w = 1{revealed} / chance, and q a model of u that was fitted on
other prompts. Where a rung had no chance, nothing corrects q: `resting_on_model` is the share of such rows.

A thought that a rule could stop reveals no rung, as the thought itself chose where to end. Only a known share of such
decisions was explored, without the rule. Each of these stands for 1 / share decisions, and given that no rule was left
to stop it, its chances sum to 1. Means are weighted accordingly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.arrays import Mask, Matrix, Rungs, Vector

SWITCH_AT = 20.0
"""Largest weight that SWITCH lets correct the model."""

Z = 1.96
"""Standard errors on either side of a 95 % interval."""


@dataclass(frozen=True)
class LoggedAnswers:
    """Logged answers [n], one rung each.

    Attributes:
        rung: the rung that was run.
        propensities: chance of every rung when the rung was drawn [n, rungs]. What they lack of 1 is the chance that a
            rule was left to stop the thought, and its answer not logged here.
        correct: 0..1.
        length: tokens of the thought where it ended by itself; NaN where it was cut.
        groups: rows of one group are not independent of each other.
        caps: most thinking tokens of each rung [rungs]; infinite for a rung without a cap.
    """

    rung: Rungs
    propensities: Matrix
    correct: Vector
    length: Vector
    groups: Sequence[str]
    caps: Vector

    @property
    def weights(self) -> Vector:
        """How many decisions each one stands for [n], 1 on average."""
        stands_for = 1 / self.propensities.sum(axis=1)
        return np.asarray(stands_for / stands_for.mean())

    def chances(self, wanted: Rungs) -> Vector:
        """Probability [n], given the length of the thought, that the log reveals the rungs `wanted` [n].

        No rule was left to stop the thought.
        """
        rows = np.arange(len(self.rung))
        propensities = self.propensities / self.propensities.sum(axis=1, keepdims=True)
        same = self.caps[wanted] >= self.length  # false for NaN: a thought that was cut reveals its own rung only
        reveals = self.caps[None, :] >= np.nan_to_num(self.length, nan=np.inf)[:, None]
        reveals[rows, wanted] = True
        together = (propensities * reveals).sum(axis=1)
        return np.asarray(np.where(same, together, propensities[rows, wanted]))

    def revealed(self, wanted: Rungs) -> Mask:
        """Rows [n] whose answer is the answer that the rung wanted would have given."""
        both = (self.caps[wanted] >= self.length) & (self.caps[self.rung] >= self.length)
        return np.asarray((self.rung == wanted) | both)

    def tokens(self, wanted: Rungs) -> Vector:
        """Thinking tokens [n] that the rung wanted would have used, valid where it is revealed."""
        return np.minimum(np.nan_to_num(self.length, nan=np.inf), self.caps[wanted])


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval over groups."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """The utility of one policy minus that of another, per request.

    Attributes:
        effective: Kish's effective sample size (sum w)^2 / sum w^2, the smaller one of the two policies.
        resting_on_model: share of rows where one policy wants a rung that had no chance to be logged.
    """

    ips: Estimate
    snips: Estimate
    dr: Estimate
    switch: Estimate
    effective: float
    resting_on_model: float


def gain(logged: LoggedAnswers, model: Matrix, price: float, new: Rungs, old: Rungs) -> Gain:
    """Utility gain of the rungs `new` over the rungs `old` [n].

    Args:
        model: predicted utility [n, rungs], fitted on other prompts.
        price: P(correct) that a thinking token must buy; utility = correct - price * tokens.
    """
    # Both policies are estimated on the same rows, so errors common to both cancel in the difference.
    columns, effective, resting, stands_for = [], [], [], logged.weights
    for wanted in (new, old):
        terms, alone = _terms(logged, model, price, wanted)
        columns.append(terms)
        weights = terms[:, 1] * stands_for
        effective.append(weights.sum() ** 2 / max((weights**2).sum(), 1e-12))
        resting.append(alone)
    (a, b), (_, group) = columns, np.unique(np.asarray(logged.groups), return_inverse=True)
    ips, dr, switch = (_estimate(_weighted(a[:, i] - b[:, i], stands_for), group) for i in (0, 2, 3))
    snips = _estimate(_ratio(a * stands_for[:, None]) - _ratio(b * stands_for[:, None]), group)
    on_model = float(np.average(resting[0] | resting[1], weights=stands_for))
    return Gain(ips, snips, dr, switch, float(min(effective)), on_model)


def _terms(logged: LoggedAnswers, model: Matrix, price: float, wanted: Rungs) -> tuple[Matrix, Mask]:
    """Columns w u, w, DR and SWITCH [n, 4], and the rows that rest on the model alone."""
    rows = np.arange(len(wanted))
    # Chances of zero occur only where nothing is revealed; the floor merely keeps the division quiet.
    chances, seen = logged.chances(wanted), logged.revealed(wanted)
    weights = np.where(seen, 1 / np.maximum(chances, 1e-12), 0.0)
    utility = np.where(seen, logged.correct - price * logged.tokens(wanted), 0.0)
    q = model[rows, wanted]
    corrected = q + weights * (utility - q)
    switched = np.where(weights <= SWITCH_AT, corrected, q)
    return np.column_stack([weights * utility, weights, corrected, switched]), chances == 0


def _weighted(values: Vector, weights: Vector) -> Vector:
    """Values [n] whose mean is the weighted mean, and whose spread is that of it, by linearisation.

    Args:
        weights: 1 on average.
    """
    mean = float((values * weights).mean())
    return np.asarray(mean + (values - mean) * weights)


def _ratio(terms: Matrix) -> Vector:
    """Values [n] whose mean is sum w u / sum w and whose spread is that of the ratio, by linearisation."""
    mean = max(float(terms[:, 1].mean()), 1e-12)
    ratio = float(terms[:, 0].mean()) / mean
    return np.asarray(ratio + (terms[:, 0] - ratio * terms[:, 1]) / mean)


def _estimate(values: Vector, group: Rungs) -> Estimate:
    """Mean and 95 % interval over groups, corrected for skewness (Hall 1983).

    Rare rungs have large weights, so the values are skewed, and a symmetric interval would cover too little on one
    side.
    """
    sums = np.bincount(group, values) * (group.max() + 1) / len(values)
    n, mean, spread = len(sums), float(values.mean()), float(sums.std())
    if spread == 0:
        return Estimate(mean, mean, mean)
    skewness = float((((sums - sums.mean()) / spread) ** 3).mean())
    half, shift = Z * spread / np.sqrt(n), skewness * (2 * Z**2 + 1) / (6 * n) * spread
    return Estimate(mean, mean - half + shift, mean + half + shift)
