"""Beta calibration (Kull et al. 2017) of out-of-fold predictions, adopted where it helps held-out log-loss.

    logit p' = c_b + a ln p - b ln(1 - p),   a, b >= 0

with a and b shared by all rungs and an offset per rung. It is fitted on out-of-fold predictions of the fit split, so
that the labels of the certify split stay unseen until certificates are tested.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from training.model.families import log_loss

Matrix = NDArray[np.float64]

LEAST = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logarithm is taken."""


@dataclass(frozen=True)
class BetaMap:
    """A calibration map.

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
    """The map that minimises log-loss of predictions [prompts, rungs]."""
    p = np.clip(p, LEAST, 1 - LEAST)
    left, right = np.log(p), -np.log1p(-p)

    def loss(w: Matrix) -> tuple[float, Matrix]:
        q = expit(w[2:] + w[0] * left + w[1] * right)
        gap = (q - correct) / correct.size
        return log_loss(correct, q), np.concatenate([[(gap * left).sum(), (gap * right).sum()], gap.sum(axis=0)])

    rungs = p.shape[1]
    bounds = [(0, None)] * 2 + [(None, None)] * rungs
    w = minimize(loss, np.array([1.0, 1.0, *[0.0] * rungs]), jac=True, method="L-BFGS-B", bounds=bounds).x
    return BetaMap(float(w[0]), float(w[1]), w[2:])


def if_it_helps(p: Matrix, correct: Matrix, folds: list[tuple[NDArray[np.intp], NDArray[np.intp]]]) -> BetaMap | None:
    """The map, where maps fitted on the other folds lower the log-loss of each fold on the whole; else None."""
    mapped = np.empty_like(p)
    for others, held in folds:
        mapped[held] = fit(p[others], correct[others])(p[held])
    return fit(p, correct) if log_loss(correct, mapped) < log_loss(correct, p) else None
