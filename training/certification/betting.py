"""Tests of a mean by betting, and the order in which policies and groups come to them."""

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from training.arrays import Mask, Rows, Vector

DELTA = 0.1
"""Probability over the calibration data that a certificate is wrong. It holds for one target, not for all at once."""

MOST = 50_000
"""Largest number of calibration prompts that is looked at."""

UNKNOWN = 0.25
"""Variance of x in 0..1 from which bets start where nothing is known: the largest there is."""

Policy = TypeVar("Policy")

BOLDEST = 0.75
"""Share of the capital that the largest bet may lose."""

WEIGHT = 20
"""Values that a variance known from other data counts for."""


def betting_p_value(values: Vector, alpha: float, delta: float = DELTA, variance: float | None = None) -> float:
    """p-value of the hypothesis "E[D] > alpha" by betting (Waudby-Smith & Ramdas 2024, section 4).

    A gambler bets on x = (D + 1) / 2, in 0..1, that its mean is below the bound. Each bet depends on earlier values
    only, so under the hypothesis the capital is a supermartingale that starts at 1. By Ville's inequality it ever
    reaches c with probability at most 1 / c, so 1 / (largest capital) is a p-value.

    One order is bet on. The mean over many orders of the capital at the end is a p-value, too, and does not depend on
    the order, but it proves less: of 1,000 groups that lose .01 on average it proves .02 in 31 % of draws, the largest
    capital of one order in 46 %.

    A value that is not known ends the bets, as a gambler may leave at any time: what follows it is not read.

    Args:
        values: D in -1..1, in an order that does not depend on them; NaN where it is not known.
        alpha: the largest mean loss allowed.
        delta: level at which the bets aim; any value keeps the p-value valid.
        variance: that of D on other data, from which bets start; any value keeps the p-value valid. It helps where
            there are few values: 200 groups prove .02 in 42 % of draws instead of 32 %.
    """
    if len(values) == 0:
        return 1.0
    capital = log_capital(values, alpha, delta, variance)
    return float(np.exp(-np.fmax(np.fmax.reduce(capital, initial=0.0), 0.0)))


def log_capital(values: Vector, alpha: float, delta: float, variance: float | None) -> Vector:
    """Logarithm of the capital after each bet; NaN from the first unknown value on. Arguments as `betting_p_value`."""
    # Bets follow the variance so far, from a prior of mean 1/2: a small variance allows bold bets.
    x, bound = (values + 1) / 2, (alpha + 1) / 2
    prior, weight = (UNKNOWN, 1.0) if variance is None else (variance / 4 + 1e-3, float(WEIGHT))
    n = np.arange(1, len(x) + 1)
    mean = (0.5 * weight + np.cumsum(x)) / (n + weight)
    spread = (prior * weight + np.cumsum((x - mean) ** 2)) / (n + weight)
    past = np.concatenate(([prior], spread[:-1]))
    # Capital must stay positive whatever comes: a bet below 1 / (1 - bound) does not lose everything on x = 1.
    bets = np.minimum(np.sqrt(2 * np.log(1 / delta) / (len(x) * past)), BOLDEST / (1 - bound))
    return np.asarray(np.cumsum(np.log1p(bets * (bound - x))))


def least_p_value(values: Vector, alpha: float) -> float:
    """A bound: no losses that are nowhere below `values`, all at most 0, have a smaller `betting_p_value`."""
    bound = (alpha + 1) / 2
    return float(np.exp(-np.log1p(BOLDEST / (1 - bound) * (bound - (values + 1) / 2)).sum()))


def without_loss(alpha: float, delta: float) -> int:
    """Groups of prompts that prove a loss of at most `alpha` (above 0) at a level where none of them loses anything."""
    return 1 + bisect_left(range(1, MOST), True, key=lambda n: betting_p_value(np.zeros(n), alpha, delta) <= delta)


def fixed_sequence_test(
    p_values: Iterator[float], policies: Sequence[Policy], delta: float = DELTA
) -> tuple[Policy | None, str]:
    """The last policy before the first whose p-value exceeds delta, or None with the reason.

    The order is fixed before labels are read, and testing stops at the first failure. So a policy is falsely certified
    only if the first policy that truly loses too much passes, which has probability at most delta: many policies need
    no correction for many tests (Angelopoulos et al. 2021, "fixed sequence testing").

    Args:
        p_values: in the order of `policies`; none is computed after the first failure.
    """
    last = None
    for p_value, policy in zip(p_values, policies, strict=False):
        if p_value > delta:
            return last, f"p = {p_value:.2f} for the most careful policy (at most {delta:g} would do)"
        last = policy
    return last, "no policy to test"


class Groups:
    """Averages over groups, in the order of hashes of their names, which is the same for every policy.

    Betting is sequential, and in file order similar prompts would follow each other. The hashes know nothing of the
    outcomes, and leave no seed to choose among certificates by.

    Attributes:
        names: of the groups, in that order.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        names, self._of = np.unique(np.asarray(groups), return_inverse=True)
        self._sizes = np.bincount(self._of)
        hashes = [hashlib.sha256(f"order:{name}".encode()).digest() for name in names]
        self._order = np.array(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=int)
        self.names: list[str] = names[self._order].tolist()

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def places(self) -> Rows:
        """The place of each prompt's group in the order [prompts]."""
        return np.asarray(np.argsort(self._order)[self._of])

    def means(self, values: Vector, among: Mask | None = None) -> Vector:
        """Group means of `values` [prompts]; `among` restricts them to some prompts and to groups that have one."""
        of, values = (self._of, values) if among is None else (self._of[among], values[among])
        counts = np.bincount(of, minlength=len(self))
        sums = np.bincount(of, values, minlength=len(self))
        order = self._order[counts[self._order] > 0]
        return np.asarray(sums[order] / counts[order])
