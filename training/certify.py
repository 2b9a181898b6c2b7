"""Certificates by Learn-then-Test (Angelopoulos et al. 2021) with a fixed sequence of thresholds.

The loss of a policy on a prompt is D = Y_top - Y_chosen, in -1..1, averaged over the prompts of a group, which are
not independent. Starting from threshold 0 (nothing predicted worse than the top rung), ever more daring ones are
tested for E[D] <= alpha until one fails; the last that passed is certified: with probability 1 - delta over the
calibration data its true mean loss is at most alpha.
"""

import numpy as np
from numpy.typing import NDArray

from router.domain import Certificate
from training.dataset import Outcomes

ALPHAS = (0.005, 0.01, 0.02, 0.05, 0.1)
DELTA = 0.1
THRESHOLDS = tuple(np.round(np.arange(0.0, 0.5, 0.005), 4).tolist())
"""Fixed before any label is looked at, most careful first."""

Matrix = NDArray[np.float64]


def choose(quality: Matrix, threshold: float) -> NDArray[np.intp]:
    """The serving rule: smallest rung whose predicted loss against the top rung is at most `threshold`."""
    passing: NDArray[np.bool_] = quality[:, -1:] - quality <= threshold
    first: NDArray[np.intp] = passing.argmax(axis=1)
    return first


def losses(correct: Matrix, quality: Matrix, threshold: float) -> NDArray[np.float64]:
    """D of every prompt: correctness at the top rung less correctness at the chosen one."""
    return correct[:, -1] - correct[np.arange(len(correct)), choose(quality, threshold)]


def betting_p_value(values: NDArray[np.float64], alpha: float, delta: float = DELTA) -> float:
    """p-value of "E[D] > alpha" by betting (Waudby-Smith & Ramdas 2024, section 4), for D in -1..1.

    Bets are placed on (D + 1) / 2 in 0..1 and depend on the past only, so the capital is a supermartingale under
    the hypothesis and 1 / its maximum is a p-value (Ville).
    """
    x, bound = (values + 1) / 2, (alpha + 1) / 2
    n = np.arange(1, len(x) + 1)
    mean = (0.5 + np.cumsum(x)) / (n + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (n + 1)
    past = np.concatenate(([0.25], variance[:-1]))
    bets = np.minimum(np.sqrt(2 * np.log(1 / delta) / (len(x) * past)), 0.75 / (1 - bound))
    capital = np.cumsum(np.log1p(bets * (bound - x)))
    return float(np.exp(-max(capital.max(), 0.0)))


def certify(outcomes: Outcomes, quality: Matrix, seed: int = 0) -> tuple[Certificate, ...]:
    """One certificate per alpha that can be proved on the certify split; `quality` [prompts, rungs] is predicted."""
    _, group = np.unique(outcomes.groups, return_inverse=True)
    sizes = np.bincount(group)
    order = np.random.default_rng(seed).permutation(len(sizes))
    by_threshold = [(np.bincount(group, losses(outcomes.correct, quality, t)) / sizes)[order] for t in THRESHOLDS]
    certificates = []
    for alpha in ALPHAS:
        proved = None
        for threshold, values in zip(THRESHOLDS, by_threshold, strict=True):
            if betting_p_value(values, alpha) > DELTA:
                break
            proved = Certificate(alpha, DELTA, threshold, len(sizes))
        if proved is not None:
            certificates.append(proved)
    return tuple(certificates)
