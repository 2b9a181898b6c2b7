"""Beta calibration (Kull, Silva Filho & Flach 2017) of out-of-fold predictions.

    logit p' = c_b + a ln p - b ln(1 - p),   a, b >= 0

All rungs share a and b; each rung b has its own offset c_b. The map is fitted on out-of-fold predictions of the fit
split, so the labels of the certify split stay unseen until certificates are tested.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from training.arrays import Fold, Matrix
from training.model.families import log_loss

LEAST = 1e-6
"""Probabilities are clipped this far from 0 and 1 before the logarithm."""


@dataclass(frozen=True)
class BetaMap:
    """A fitted calibration map.

    Attributes:
        up: a, the weight of ln p.
        down: b, the weight of -ln(1 - p).
        offsets: c [rungs].
    """

    up: float
    down: float
    offsets: Matrix

    def __call__(self, p: Matrix) -> Matrix:
        """Calibrated probabilities [prompts, rungs]."""
        p = np.clip(p, LEAST, 1 - LEAST)
        return np.asarray(expit(self.offsets + self.up * np.log(p) - self.down * np.log1p(-p)))


def fit(p: Matrix, correct: Matrix) -> BetaMap:
    """The map that minimises the log-loss of predictions `p` [prompts, rungs] against correctness, 0..1."""
    p = np.clip(p, LEAST, 1 - LEAST)
    left, right = np.log(p), -np.log1p(-p)

    def loss(w: Matrix) -> tuple[float, Matrix]:
        q = expit(w[2:] + w[0] * left + w[1] * right)
        gap = (q - correct) / correct.size
        return log_loss(correct, q), np.concatenate([[(gap * left).sum(), (gap * right).sum()], gap.sum(axis=0)])

    # a, b >= 0 keep the map rising: calibration must never reverse the order of two prompts.
    rungs = p.shape[1]
    bounds = [(0, None)] * 2 + [(None, None)] * rungs
    w = minimize(loss, np.array([1.0, 1.0, *[0.0] * rungs]), jac=True, method="L-BFGS-B", bounds=bounds).x
    return BetaMap(float(w[0]), float(w[1]), w[2:])


def fit_if_better(p: Matrix, correct: Matrix, folds: list[Fold]) -> BetaMap | None:
    """The map fitted on all of `p`, or None where maps fitted on the other folds do not lower the log-loss.

    Cross-validation decides, because a map always lowers the log-loss of the rows it was fitted on.
    """
    mapped = np.empty_like(p)
    for others, held in folds:
        mapped[held] = fit(p[others], correct[others])(p[held])
    return fit(p, correct) if log_loss(correct, mapped) < log_loss(correct, p) else None
