"""Policies that the router is compared with and that are no router: a cascade, hindsight, and oracles."""

import numpy as np

from training.arrays import Matrix, Rungs, Vector
from training.certification.rules import choose

WEIGHTS = (1e-4, 1e2)
"""Range of the oracle's prices: P(correct) that the mean tokens of the most expensive rung must buy."""


def cascade(quality: Matrix, low: int, threshold: float, tokens: Matrix) -> tuple[Rungs, Vector]:
    """Final rungs and tokens spent [prompts]: rung `low`, then the top rung where `low` is not predicted right.

    Args:
        quality: predicted P(correct) [prompts, rungs].
        low: a rung below the top one.
        threshold: predicted P(correct) from which the answer of `low` is kept.
        tokens: thinking tokens used [prompts, rungs]; the first attempt is always paid for.
    """
    kept = quality[:, low] >= threshold
    spent = tokens[:, low] + np.where(kept, 0.0, tokens[:, -1])
    return np.where(kept, low, quality.shape[1] - 1), spent


def hindsight(correct: Matrix, tokens: Matrix) -> Rungs:
    """The cheapest [prompts] of the rungs that did best; both tables are [prompts, rungs]."""
    # argmin takes the first of equals, which is the cheaper rung.
    best = correct == correct.max(axis=1, keepdims=True)
    chosen: Rungs = np.where(best, tokens, np.inf).argmin(axis=1)
    return chosen


def oracle_curve(choose_on: Matrix, score_on: Matrix, tokens: Matrix, points: int = 50) -> tuple[Vector, Vector]:
    """Mean tokens and accuracy [points] of argmax choose_on - weight * tokens, by rising weight.

    With one table [prompts, rungs] in both roles this is hindsight. Choosing on one half of the samples and scoring on
    the other, averaged over both orders, is the probability oracle: it knows P(correct), but not the luck of a draw.
    """
    # Prices are per mean tokens of the most expensive rung, so one range of weights fits ladders of any length.
    rows, most = np.arange(len(tokens)), float(tokens.mean(axis=0).max())
    chosen = [choose(choose_on, tokens, weight / (most or 1.0)) for weight in np.geomspace(*WEIGHTS, points)]
    return np.array([tokens[rows, c].mean() for c in chosen]), np.array([score_on[rows, c].mean() for c in chosen])
