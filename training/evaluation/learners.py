"""The learners behind the baselines: each fits inputs to correctness and returns a predictor of P(correct)."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor

from training.arrays import Fold, Matrix, Vector

SEED = 0
ITERATIONS = 300
PENALTY = 3e-3
STEEPEST = 4.0
"""Bound on |log a| of the item response model: exp must not overflow on a prompt unlike any before."""

Inputs = Any
"""One row per prompt, dense or sparse."""

Predict = Callable[[Inputs], Matrix]
Learn = Callable[[Inputs, Matrix], Predict]
"""Fits inputs to correctness [prompts, rungs], 0..1."""

LearnRung = Callable[[Inputs, Vector], Callable[[Inputs], Vector]]
"""Fits inputs to correctness at a single rung [prompts], 0..1."""

Backward = Callable[[Matrix], Vector]
"""A gradient by logits [prompts, rungs] -> the gradient by weights."""

Forward = Callable[[Vector, Matrix], tuple[Matrix, Backward]]
"""(weights, inputs) -> logits [prompts, rungs] and their backward pass."""


def per_rung(learn: LearnRung) -> Learn:
    """A learner of its own for every rung."""

    def all_rungs(x: Inputs, y: Matrix) -> Predict:
        rungs = [learn(x, column) for column in y.T]
        return lambda new: np.column_stack([predict(new) for predict in rungs])

    return all_rungs


def logistic(c: float, solver: str) -> LearnRung:
    """Logistic regression; `c` and `solver` are scikit-learn's."""
    return lambda x, y: _classifier(LogisticRegression(C=c, solver=solver, max_iter=ITERATIONS), x, y)


def boosting(fold: Fold) -> LearnRung:
    """Gradient-boosted trees, stopped early by a fold.

    scikit-learn would draw its own validation rows and tear groups apart.
    """

    def learn(x: Inputs, y: Vector) -> Callable[[Inputs], Vector]:
        rows, held = fold
        validation = dict(zip(("X_val", "y_val", "sample_weight_val"), _weighted(x[held], y[held]), strict=True))
        model = HistGradientBoostingClassifier(
            max_iter=ITERATIONS, max_leaf_nodes=15, max_bins=63, early_stopping=True, random_state=SEED
        )
        return _classifier(model, x[rows], y[rows], **validation)

    return learn


def nearest(k: int) -> Learn:
    """Mean of the k nearest prompts. The overall mean counts as one more neighbour, so no prediction is certain."""

    def learn(x: Inputs, y: Matrix) -> Predict:
        near = min(k, len(x))
        model, mean = KNeighborsRegressor(near, algorithm="brute").fit(x, y), y.mean(axis=0)
        return lambda new: (near * model.predict(new) + mean) / (near + 1)

    return learn


def ridge(penalty: float) -> LearnRung:
    """Ridge regression on correctness, not bounded to 0..1 (the form of R2-Router, arXiv 2602.02823)."""
    return lambda x, y: Ridge(alpha=penalty).fit(x, y).predict


def factorisation(rank: int) -> Learn:
    """logit P_b = (W'x) . v_b + c_b with W'x of `rank` numbers (RouteLLM's matrix factorisation, arXiv 2406.18665)."""

    def learn(x: Inputs, y: Matrix) -> Predict:
        width, rungs = x.shape[1], y.shape[1]
        ends = [width * rank, (width + rungs) * rank]

        def forward(w: Vector, x: Matrix) -> tuple[Matrix, Backward]:
            project, rung, constant = np.split(w, ends)
            project, rung = project.reshape(width, rank), rung.reshape(rungs, rank)
            factors = x @ project

            def backward(gap: Matrix) -> Vector:
                return np.concatenate([(x.T @ (gap @ rung)).ravel(), (gap.T @ factors).ravel(), gap.sum(axis=0)])

            return factors @ rung.T + constant, backward

        start = np.random.default_rng(SEED).normal(scale=0.1, size=ends[1])  # all zeros would be a saddle point
        return _descend(forward, start, x, y)

    return learn


def item_response() -> Learn:
    """P_b = sigmoid(a(x) (theta_b - d(x))) with log a and d linear in x (the form of RADAR, arXiv 2509.25426).

    Neither has a constant: the scale and the origin of theta stand in for them.
    """

    def forward(w: Vector, x: Matrix) -> tuple[Matrix, Backward]:
        steep, hard, theta = np.split(w, [x.shape[1], 2 * x.shape[1]])
        log_a = x @ steep
        a = np.exp(np.clip(log_a, -STEEPEST, STEEPEST))
        z = a[:, None] * (theta - (x @ hard)[:, None])

        def backward(gap: Matrix) -> Vector:
            # Where log a is clipped, a no longer depends on the weights.
            of_log_a = (gap * z).sum(axis=1) * (np.abs(log_a) < STEEPEST)
            return np.concatenate([x.T @ of_log_a, -(x.T @ (a * gap.sum(axis=1))), a @ gap])

        return z, backward

    return lambda x, y: _descend(forward, np.zeros(2 * x.shape[1]), x, y)


def _classifier(model: Any, x: Inputs, y: Vector, **validation: Any) -> Callable[[Inputs], Vector]:
    if y.min() == y.max():  # classifiers refuse a single class
        return lambda new: np.full(new.shape[0], y[0])
    rows, labels, weights = _weighted(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty may need more than ITERATIONS
        model.fit(rows, labels, sample_weight=weights, **validation)
    return lambda new: np.asarray(model.predict_proba(new)[:, 1])


def _weighted(x: Inputs, y: Vector) -> tuple[Inputs, NDArray[np.int_], Vector]:
    """Rows, 0/1 labels and weights. A prompt with a fractional label appears twice, right and wrong, by that share."""
    right, wrong = np.flatnonzero(y > 0), np.flatnonzero(y < 1)
    labels = np.repeat([1, 0], [len(right), len(wrong)])
    return x[np.concatenate([right, wrong])], labels, np.concatenate([y[right], 1 - y[wrong]])


def _descend(forward: Forward, start: Vector, x: Matrix, y: Matrix) -> Predict:
    """Minimise the penalised log-loss.

    Args:
        start: the penalised weights; one free constant per rung follows them, at the logit of the rung's mean.
    """
    penalties = np.concatenate([np.full(len(start), PENALTY), np.zeros(y.shape[1])])

    def loss(w: Vector) -> tuple[float, Vector]:
        z, backward = forward(w, x)
        value = np.mean(np.logaddexp(0, z) - y * z) + penalties @ w**2 / 2
        return float(value), backward((expit(z) - y) / y.size) + penalties * w

    first = np.concatenate([start, logit(np.clip(y.mean(axis=0), 1e-3, 1 - 1e-3))])
    w = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS, "ftol": 1e-6}).x
    return lambda new: np.asarray(expit(forward(w, new)[0]))
