"""Tests by betting that may be looked at at any time, of losses whose bounds still fall."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from training.arrays import Matrix, Vector
from training.certification.betting import MOST, fixed_sequence_test

BETS = (0.25, 0.5, 0.75, 0.95)
"""Shares of the largest possible bet, a quarter of the capital on each. The largest wins soonest where nothing is lost:
232 groups at a loss of .02 and a level of .03; the smallest where nearly as much is lost as is allowed."""

LOG_BETS = float(np.log(len(BETS)))


@dataclass(frozen=True)
class Tested:
    """How far the policies of a sequence have come for one target.

    Attributes:
        passed: policies that are proved to keep the target, from the first on.
        wealth: largest capital so far of the policy after them, or of the last one where all have passed.
        groups: that have tested them.
    """

    passed: int
    wealth: float
    groups: int


def proved(losses: Matrix, alpha: float, delta: float, most: float = 1.0) -> Tested:
    """Test policies in their order, from the most careful one on, until one has not passed so far.

    Whatever is tested, and however often, a policy that loses more than `alpha` passes with probability at most `delta`
    (Ville, and fixed sequence testing).

    Args:
        losses: bounds of the losses, at most `most` [groups, policies], in the order in which groups arrived.
        alpha: the largest mean loss allowed.
        delta: the level.
        most: the largest loss there is.
    """
    largest = log_wealth(losses, alpha, most).max(axis=0, initial=0.0)
    last, _ = fixed_sequence_test(iter(np.exp(-largest)), range(len(largest)), delta)
    passed = 0 if last is None else last + 1
    return Tested(passed, float(np.exp(min(largest[min(passed, len(largest) - 1)], 99.0))), len(losses))


def log_wealth(losses: Matrix, alpha: float, most: float = 1.0) -> Matrix:
    """Logarithm of the capital after each group [groups, policies]. Arguments as `proved`.

    A gambler bets against "the mean loss is above alpha". Under it no bet gains on average, so the capital, which
    begins at 1, ever reaches c with probability at most 1 / c. The bets are constant: the capital is then a falling
    function of every loss, and stays valid when bounds fall later, as reports come in. Bets that follow the losses so
    far win sooner on labels that stay, but a bound that falls could lower their capital.
    """
    bets = _bets(alpha, most)[:, None, None]
    capital = np.cumsum(np.log1p(bets * (alpha - losses)), axis=1)
    return np.asarray(np.logaddexp.reduce(capital, axis=0) - LOG_BETS)


def groups_wanted(losses: Vector, alpha: float, delta: float, most: float = 1.0) -> int | None:
    """Groups that would prove the target from the start, if losses stay as they are [groups]; None = MOST are too few.

    Arguments as `proved`.
    """
    gains = np.log1p(_bets(alpha, most)[:, None] * (alpha - losses)).mean(axis=1)
    needed = LOG_BETS - np.log(delta)
    wanted = bisect_left(range(MOST), True, key=lambda n: bool(np.logaddexp.reduce(n * gains) >= needed))
    return wanted if wanted < MOST else None


def _bets(alpha: float, most: float) -> Vector:
    # The largest loss must not cost all: below 1 / (most - alpha) the capital stays positive.
    return np.array(BETS) / (most - alpha)
