"""What is reported, as functions of arrays: calibration, the hull of fixed rungs, areas, bootstrap."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 15
DRAWS = 5_000
CHUNK = 250
"""Bootstrap draws weighed at once; bounds memory."""

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


def reliability(correct: Vector, predicted: Vector) -> list[tuple[float, float, int]]:
    """(mean prediction, mean correctness, prompts) of BINS bins of equal mass."""
    bins = np.array_split(np.argsort(predicted, kind="stable"), BINS)
    return [(float(predicted[b].mean()), float(correct[b].mean()), len(b)) for b in bins if len(b)]


def calibration_error(correct: Vector, predicted: Vector) -> float:
    """Expected calibration error over BINS bins of equal mass (Nixon et al. 2019)."""
    bins = reliability(correct, predicted)
    return sum(abs(said - was) * n for said, was, n in bins) / len(predicted)


def debiased_calibration_error(correct: Vector, predicted: Vector, draws: int = 100) -> float:
    """The same less what a perfectly calibrated model would show on as many prompts (Kumar et al. 2019), at least 0."""
    random = np.random.default_rng(0)
    perfect = [calibration_error(random.binomial(1, predicted).astype(float), predicted) for _ in range(draws)]
    return max(0.0, calibration_error(correct, predicted) - float(np.mean(perfect)))


def hull(tokens: Vector, accuracy: Vector) -> tuple[Vector, Vector]:
    """Corners (tokens, accuracy), rising, of the best random mixes of points: the upper concave, rising envelope."""
    corners: list[tuple[float, float]] = []
    for t, a in sorted(zip(tokens.tolist(), accuracy.tolist(), strict=True), key=lambda point: (point[0], -point[1])):
        if corners and a <= corners[-1][1]:
            continue
        while len(corners) > 1 and _slope(corners[-2], corners[-1]) <= _slope(corners[-1], (t, a)):
            corners.pop()
        corners.append((t, a))
    return np.array([t for t, _ in corners]), np.array([a for _, a in corners])


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (other[1] - one[1]) / max(other[0] - one[0], 1e-12)


def hull_tokens(tokens: Vector, accuracy: Vector, wanted: float) -> float:
    """Fewest mean tokens with which a mix of fixed rungs reaches `wanted`, or its own best where none does."""
    t, a = hull(tokens, accuracy)
    return float(np.interp(wanted, a, t))


def hull_accuracy(tokens: Vector, accuracy: Vector, spent: float) -> float:
    """Best accuracy of a mix of fixed rungs that spends `spent` mean tokens."""
    return float(np.interp(spent, *hull(tokens, accuracy)))


def area(tokens: Vector, accuracy: Vector, low: float, high: float) -> float:
    """Average of the hull over costs low..high (AIQ of RouterBench, Hu et al. 2024)."""
    at = np.linspace(low, high, 400)
    return float(np.interp(at, *hull(tokens, accuracy)).mean())


def bootstrap_means(groups: Sequence[str], values: Matrix, draws: int = DRAWS, seed: int = 0) -> Matrix:
    """Column means [draws, columns] of bootstrap samples of groups; `values` has one row per prompt."""
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((group.max() + 1, values.shape[1] + 1))
    np.add.at(sums, group, np.column_stack([values, np.ones(len(values))]))
    random, n, totals = np.random.default_rng(seed), len(sums), []
    for start in range(0, draws, CHUNK):
        drawn = random.integers(n, size=(min(CHUNK, draws - start), n))
        offsets = np.arange(len(drawn))[:, None] * n
        weights = np.bincount((drawn + offsets).ravel(), minlength=drawn.size).reshape(drawn.shape)
        totals.append(weights @ sums)
    whole = np.concatenate(totals)
    return np.asarray(whole[:, :-1] / whole[:, -1:])


def bootstrap_interval(means: Matrix, statistic: Callable[[Vector], float]) -> tuple[float, float]:
    """95 % interval of a statistic of column means, from resampled ones."""
    low, high = np.quantile([statistic(row) for row in means], [0.025, 0.975])
    return float(low), float(high)
