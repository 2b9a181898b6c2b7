"""The figures of a report as functions of arrays: calibration, the hull of fixed rungs, areas, bootstrap."""

from collections.abc import Sequence
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
    is all that can be had without a model.
    """
    (t,), (a,) = hulls(tokens[None], accuracy[None])
    return np.unique(t), np.unique(a)


def hulls(tokens: Matrix, accuracy: Matrix) -> tuple[Matrix, Matrix]:
    """The corners of `hull` for each row of points [rows, points]; a row with fewer corners repeats its last one.

    They are found by Andrew's monotone chain, in all rows at once.
    """
    order, rows = np.lexsort((-accuracy, tokens)), np.arange(len(tokens))
    t, a = np.take_along_axis(tokens, order, axis=1), np.take_along_axis(accuracy, order, axis=1)
    last = np.zeros(len(t), dtype=int)  # the corners so far stand in front, up to this position

    def slope(left: Rows, right: Rows) -> Vector:
        return np.asarray((a[rows, right] - a[rows, left]) / np.maximum(t[rows, right] - t[rows, left], 1e-12))

    for point in range(1, t.shape[1]):
        here = np.full(len(t), point)
        higher = a[:, point] > a[rows, last]
        while (below := higher & (last > 0) & (slope(last - 1, last) <= slope(last, here))).any():
            last -= below
        last += higher
        t[rows[higher], last[higher]], a[rows[higher], last[higher]] = t[higher, point], a[higher, point]
    corners = np.minimum(np.arange(t.shape[1]), last[:, None])
    return np.take_along_axis(t, corners, axis=1), np.take_along_axis(a, corners, axis=1)


def along(at: Vector, x: Matrix, y: Matrix) -> Vector:
    """`np.interp` of one value [rows] in each row of corners [rows, corners]."""
    rows, at = np.arange(len(x)), np.clip(at, x[:, 0], x[:, -1])
    left = (x <= at[:, None]).sum(axis=1) - 1
    right = np.minimum(left + 1, x.shape[1] - 1)
    run, rise = x[rows, right] - x[rows, left], y[rows, right] - y[rows, left]
    slope = np.divide(rise, run, out=np.zeros(len(x)), where=run > 0)
    return np.asarray(slope * (at - x[rows, left]) + y[rows, left])


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


def bootstrap_interval(samples: Vector) -> tuple[float, float]:
    """95 % interval of a statistic from its values in bootstrap samples [draws]."""
    low, high = np.quantile(samples, [0.025, 0.975])
    return float(low), float(high)


def mean_interval(groups: Sequence[str], values: Vector) -> tuple[float, float]:
    """95 % interval of the mean of values [prompts]."""
    return bootstrap_interval(bootstrap_means(groups, values[:, None])[:, 0])
