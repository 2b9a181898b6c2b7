"""The figures of a report as functions of arrays: calibration, the hull of fixed rungs, areas, bootstrap."""

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np

from training.arrays import Matrix, Rows, Vector

BINS = 15
"""Bins of the calibration error."""

DRAWS = 5_000
"""Bootstrap samples."""

CHUNK = 250
"""Bootstrap samples computed at once; bounds memory."""


def reliability(correct: Vector, predicted: Vector) -> list[tuple[float, float, int]]:
    """(mean prediction, mean correctness, prompts) of BINS bins of equal mass, for vectors [prompts]."""
    return [(float(predicted[b].mean()), float(correct[b].mean()), len(b)) for b in _bins(predicted) if len(b)]


def calibration_error(correct: Vector, predicted: Vector) -> float:
    """Expected calibration error over BINS bins of equal mass (Nixon et al. 2019)."""
    bins = reliability(correct, predicted)
    return sum(abs(mean - accuracy) * n for mean, accuracy, n in bins) / len(predicted)


def debiased_calibration_error(correct: Vector, predicted: Vector) -> float:
    """Calibration error without the part that chance adds: bins are finite, so even perfect predictions show some.

    With d the error of a bin of n prompts, and v the variance of correctness minus prediction in it, d^2 - v / n is an
    unbiased estimate of the true error's square (Kumar et al. 2019, section 4). The result is

        calibration error * sqrt(sum n (d^2 - v / n) / sum n d^2),

    0 where that is negative: what chance adds to the mean square is taken off the mean error in proportion. As v is
    measured, correctness may be 0 or 1, or a mean of any number of samples.
    """
    errors = [correct[b] - predicted[b] for b in _bins(predicted) if len(b) > 1]
    squares = sum(len(one) * float(one.mean()) ** 2 for one in errors)
    chance = sum(float(one.var(ddof=1)) for one in errors)
    left = max(0.0, 1 - chance / squares) if squares > 0 else 0.0
    return calibration_error(correct, predicted) * sqrt(left)


def _bins(predicted: Vector) -> list[Rows]:
    """Positions of prompts in BINS bins of equal mass, by rising prediction."""
    bins: list[Rows] = np.array_split(np.argsort(predicted, kind="stable"), BINS)
    return bins


def hull(tokens: Vector, accuracy: Vector) -> tuple[Vector, Vector]:
    """Corners (tokens, accuracy), rising, of the best random mixes of points: the upper concave, rising envelope.

    A mix that takes one rung with probability p and another otherwise lies on the line between them, so the envelope
    is all that can be had without a model. The corners are found by Andrew's monotone chain.
    """
    corners: list[tuple[float, float]] = []
    for t, a in sorted(zip(tokens.tolist(), accuracy.tolist(), strict=True), key=lambda point: (point[0], -point[1])):
        if corners and a <= corners[-1][1]:
            continue
        while len(corners) > 1 and _slope(corners[-2], corners[-1]) <= _slope(corners[-1], (t, a)):
            corners.pop()
        corners.append((t, a))
    return np.array([t for t, _ in corners]), np.array([a for _, a in corners])


def _slope(left: tuple[float, float], right: tuple[float, float]) -> float:
    return (right[1] - left[1]) / max(right[0] - left[0], 1e-12)


def hull_tokens(tokens: Vector, accuracy: Vector, wanted: float) -> float:
    """Fewest mean tokens with which a mix of fixed rungs reaches accuracy `wanted`, or else its own best accuracy."""
    t, a = hull(tokens, accuracy)
    return float(np.interp(wanted, a, t))


def hull_accuracy(tokens: Vector, accuracy: Vector, spent: float) -> float:
    """Best accuracy of a mix of fixed rungs with `spent` mean tokens."""
    return float(np.interp(spent, *hull(tokens, accuracy)))


def area(tokens: Vector, accuracy: Vector, low: float, high: float) -> float:
    """Mean accuracy of the hull over costs low..high, in tokens (AIQ of RouterBench, Hu et al. 2024)."""
    at = np.linspace(low, high, 400)
    return float(np.interp(at, *hull(tokens, accuracy)).mean())


def bootstrap_means(groups: Sequence[str], values: Matrix, draws: int = DRAWS, seed: int = 0) -> Matrix:
    """Column means [draws, columns] of bootstrap samples of groups.

    Whole groups are drawn, because prompts of a group are not independent.

    Args:
        values: [prompts, columns].
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((group.max() + 1, values.shape[1] + 1))
    np.add.at(sums, group, np.column_stack([values, np.ones(len(values))]))
    random, n, totals = np.random.default_rng(seed), len(sums), []
    for start in range(0, draws, CHUNK):
        drawn = random.integers(n, size=(min(CHUNK, draws - start), n))
        # How often each group was drawn, for all samples of the chunk in one count; sums then follow by a product.
        offsets = np.arange(len(drawn))[:, None] * n
        weights = np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(drawn.shape)
        totals.append(weights @ sums)
    samples = np.concatenate(totals)
    return np.asarray(samples[:, :-1] / samples[:, -1:])


def bootstrap_interval(means: Matrix, statistic: Callable[[Vector], float]) -> tuple[float, float]:
    """95 % interval of a statistic of column means, from their bootstrap samples [draws, columns]."""
    low, high = np.quantile([statistic(row) for row in means], [0.025, 0.975])
    return float(low), float(high)


def mean_interval(groups: Sequence[str], values: Vector) -> tuple[float, float]:
    """95 % interval of the mean of values [prompts]."""
    return bootstrap_interval(bootstrap_means(groups, values[:, None]), lambda means: float(means[0]))
