"""What the router is measured against: learned predictors of P(correct), and policies that are none.

Predictors are fitted on the fit split alone and go through the same certificate and evaluation as the router. What
they can be tuned by is chosen by log-loss over folds that keep groups together.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from training.data.dataset import Outcomes
from training.evaluation.certify import choose
from training.model.families import log_loss

FOLDS = 4
SEED = 0
WORDS = 5_000
"""Words and pairs of words that TF-IDF tells apart, the most frequent ones."""

SHRINKAGE = 5.0
"""The overall mean counts as much as this many prompts of a task."""

ITERATIONS = 300
PENALTY = 3e-3
STEEPEST = 4.0
"""Bound on |log a| of the item response model: exp must not overflow on a prompt unlike any before."""

WEIGHTS = (1e-4, 1e2)
"""Range of the oracle's prices: P(correct) that the mean tokens of the dearest rung must buy."""

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Rungs = NDArray[np.intp]
Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
Inputs = Any
"""One row per prompt, dense or sparse."""

Predictor = Callable[[list[str], list[str]], Matrix]
"""(prompts, tasks) -> P(correct) [prompts, rungs]."""

Extract = Callable[[list[str]], NDArray[Any]]
"""Prompts to numbers [prompts, width]."""

Predict = Callable[[Inputs], Matrix]
Learn = Callable[[Inputs, Matrix], Predict]
"""Fits inputs to correctness [prompts, rungs], 0..1."""

Slopes = Callable[[Matrix], Vector]
Forward = Callable[[Vector, Matrix], tuple[Matrix, Slopes]]
"""(weights, inputs) -> logits [prompts, rungs], and what takes a gradient by them back to the weights."""

LearnOne = Callable[[Inputs, Vector], Callable[[Inputs], Vector]]
"""The same for a single rung."""


def baselines(fit: Outcomes, features: Extract, vectors: Extract) -> Iterator[tuple[str, Predictor]]:
    """Every learned baseline by name, fitted on the fit split.

    Args:
        features: the router's own inputs [prompts, width]; asked again by each predictor, so a cache pays.
        vectors: what "kNN" measures distances in [prompts, width].
    """
    folds = list(GroupKFold(FOLDS, shuffle=True, random_state=SEED).split(fit.correct, groups=fit.groups))
    yield "task label", _task_means(fit)
    for read, encoder, forms in _forms(features, vectors, folds[0]):
        raw = read(fit.prompts)
        encoded = [_encoded(encoder, raw, fold) for fold in folds]
        x = encoder.fit_transform(raw)
        for name, candidates in forms.items():
            learn = _best(candidates, encoded, fit.correct, folds)
            yield name, _on_prompts(read, encoder, _bounded(learn, x, fit.correct))


def carrot(quality: Matrix, tokens: Matrix, weight: float) -> Rungs:
    """The rung [prompts] with the largest quality - weight * tokens (CARROT's plug-in rule, arXiv 2502.03261).

    Args:
        quality: predicted P(correct) [prompts, rungs].
        tokens: predicted thinking tokens [prompts, rungs].
    """
    return choose(quality, tokens, weight)


def cascade(quality: Matrix, low: int, threshold: float, tokens: Matrix) -> tuple[Rungs, Vector]:
    """Final rungs and tokens spent [prompts]: rung `low`, and where it is not predicted right the top one after it.

    Args:
        quality: predicted P(correct) [prompts, rungs].
        low: a rung below the top one.
        tokens: thinking tokens really used [prompts, rungs]; the first attempt is paid for in any case.
    """
    kept = quality[:, low] >= threshold
    spent = tokens[:, low] + np.where(kept, 0.0, tokens[:, -1])
    return np.where(kept, low, quality.shape[1] - 1), spent


def hindsight(correct: Matrix, tokens: Matrix) -> Rungs:
    """The cheapest [prompts] of the rungs that did best; both tables are [prompts, rungs]."""
    best = correct == correct.max(axis=1, keepdims=True)
    chosen: Rungs = np.where(best, tokens, np.inf).argmin(axis=1)
    return chosen


def oracle_curve(choose_on: Matrix, score_on: Matrix, tokens: Matrix, points: int = 50) -> tuple[Vector, Vector]:
    """Mean tokens and accuracy [points] of argmax choose_on - weight * tokens, by rising weight.

    With the same table [prompts, rungs] twice this is hindsight. Choosing on one half of the samples and scoring on
    the other, averaged over both orders, is the probability oracle, which knows P(correct) but not the luck of a draw.
    """
    rows, dearest = np.arange(len(tokens)), float(tokens.mean(axis=0).max())
    chosen = [choose(choose_on, tokens, weight / (dearest or 1.0)) for weight in np.geomspace(*WEIGHTS, points)]
    return np.array([tokens[rows, c].mean() for c in chosen]), np.array([score_on[rows, c].mean() for c in chosen])


def _forms(features: Extract, vectors: Extract, fold: Fold) -> Iterator[tuple[Extract, Any, dict[str, list[Learn]]]]:
    """What reads the prompts, what is fitted to encode that, and the candidates by name that see it encoded."""
    yield _lengths, StandardScaler(), {"prompt length": [_per_rung(_logistic(1.0, "newton-cholesky"))]}
    # Single characters count as words: digits and signs tell sums apart.
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True, max_features=WORDS)
    yield _texts, words, {"TF-IDF logit": [_per_rung(_logistic(c, "liblinear")) for c in (0.1, 0.3, 1.0, 3.0, 10.0)]}
    yield vectors, StandardScaler(), {"kNN": [_nearest(k) for k in (5, 10, 20, 50, 100)]}
    yield (
        features,
        StandardScaler(),
        {
            "logistic": [_per_rung(_logistic(c, "newton-cholesky")) for c in (1e-3, 1e-2, 1e-1, 1.0)],
            "gradient boosting": [_per_rung(_boosting(fold))],
            "matrix factorisation": [_factorisation(rank) for rank in (1, 2, 4)],
            "two-parameter IRT": [_item_response()],
            "ridge per rung": [_per_rung(_ridge(penalty)) for penalty in (1.0, 10.0, 100.0, 1000.0)],
        },
    )


def _texts(prompts: list[str]) -> NDArray[np.object_]:
    return np.array(prompts, dtype=object)


def _lengths(prompts: list[str]) -> Matrix:
    logs = np.log1p([len(prompt) for prompt in prompts])
    return np.column_stack([logs, logs**2])


def _encoded(encoder: Any, raw: NDArray[Any], fold: Fold) -> tuple[Inputs, Inputs]:
    """A fold's rows and those held out, whose words must be as new to the encoder as a new prompt's."""
    fresh, (rows, held) = clone(encoder), fold
    return fresh.fit_transform(raw[rows]), fresh.transform(raw[held])


def _on_prompts(read: Extract, encoder: Any, predict: Predict) -> Predictor:
    return lambda prompts, _: predict(encoder.transform(read(prompts)))


def _bounded(learn: Learn, x: Inputs, y: Matrix) -> Predict:
    """As the router's, P(correct) stays further from 0 and 1 than the number of prompts can tell."""
    predict, bound = learn(x, y), 1 / (len(y) + 2)
    return lambda new: np.clip(predict(new), bound, 1 - bound)


def _best(candidates: list[Learn], encoded: list[tuple[Inputs, Inputs]], y: Matrix, folds: list[Fold]) -> Learn:
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda learn: log_loss(y, _out_of_fold(learn, encoded, y, folds)))


def _out_of_fold(learn: Learn, encoded: list[tuple[Inputs, Inputs]], y: Matrix, folds: list[Fold]) -> Matrix:
    predicted = np.zeros(y.shape)
    for (rows, held), (x, new) in zip(folds, encoded, strict=True):
        predicted[held] = _bounded(learn, x, y[rows])(new)
    return predicted


def _per_rung(learn: LearnOne) -> Learn:
    def all_rungs(x: Inputs, y: Matrix) -> Predict:
        rungs = [learn(x, column) for column in y.T]
        return lambda new: np.column_stack([predict(new) for predict in rungs])

    return all_rungs


def _logistic(c: float, solver: str) -> LearnOne:
    return lambda x, y: _classified(LogisticRegression(C=c, solver=solver, max_iter=ITERATIONS), x, y)


def _boosting(fold: Fold) -> LearnOne:
    """Trees, stopped early by a fold; sklearn's own validation rows would not keep groups together."""

    def learn(x: Inputs, y: Vector) -> Callable[[Inputs], Vector]:
        rows, held = fold
        rest = dict(zip(("X_val", "y_val", "sample_weight_val"), _weighted(x[held], y[held]), strict=True))
        model = HistGradientBoostingClassifier(
            max_iter=ITERATIONS, max_leaf_nodes=15, max_bins=63, early_stopping=True, random_state=SEED
        )
        return _classified(model, x[rows], y[rows], **rest)

    return learn


def _classified(model: Any, x: Inputs, y: Vector, **validation: Any) -> Callable[[Inputs], Vector]:
    if y.min() == y.max():  # classifiers refuse a single class
        return lambda new: np.full(new.shape[0], y[0])
    rows, labels, weights = _weighted(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty may need more than ITERATIONS
        model.fit(rows, labels, sample_weight=weights, **validation)
    return lambda new: np.asarray(model.predict_proba(new)[:, 1])


def _weighted(x: Inputs, y: Vector) -> tuple[Inputs, NDArray[np.int_], Vector]:
    """Rows, 0/1 labels and weights; a prompt whose label is a fraction stands there both right and wrong."""
    right, wrong = np.flatnonzero(y > 0), np.flatnonzero(y < 1)
    labels = np.repeat([1, 0], [len(right), len(wrong)])
    return x[np.concatenate([right, wrong])], labels, np.concatenate([y[right], 1 - y[wrong]])


def _task_means(fit: Outcomes) -> Predictor:
    tasks, mean = np.array(fit.tasks), fit.correct.mean(axis=0)

    def shrunk(task: str) -> Vector:
        own = fit.correct[tasks == task]
        return np.asarray((own.sum(axis=0) + SHRINKAGE * mean) / (len(own) + SHRINKAGE))

    means = {task: shrunk(task) for task in set(fit.tasks)}
    return lambda _, asked: np.array([means.get(task, mean) for task in asked]).reshape(-1, len(mean))


def _nearest(k: int) -> Learn:
    """Mean of the k nearest prompts; the overall mean counts as one more, so that none is sure."""

    def learn(x: Inputs, y: Matrix) -> Predict:
        near = min(k, len(x))
        model, mean = KNeighborsRegressor(near, algorithm="brute").fit(x, y), y.mean(axis=0)
        return lambda new: (near * model.predict(new) + mean) / (near + 1)

    return learn


def _ridge(penalty: float) -> LearnOne:
    """Clipped to probabilities by _bounded (R2-Router's form, arXiv 2602.02823)."""
    return lambda x, y: Ridge(alpha=penalty).fit(x, y).predict


def _factorisation(rank: int) -> Learn:
    """logit P_b = (W'x) . v_b + c_b, W'x of `rank` numbers (RouteLLM's matrix factorisation, arXiv 2406.18665)."""

    def learn(x: Inputs, y: Matrix) -> Predict:
        width, rungs = x.shape[1], y.shape[1]
        ends = [width * rank, (width + rungs) * rank]

        def forward(w: Vector, x: Matrix) -> tuple[Matrix, Slopes]:
            project, rung, constant = np.split(w, ends)
            project, rung = project.reshape(width, rank), rung.reshape(rungs, rank)
            factors = x @ project

            def slopes(gap: Matrix) -> Vector:
                return np.concatenate([(x.T @ (gap @ rung)).ravel(), (gap.T @ factors).ravel(), gap.sum(axis=0)])

            return factors @ rung.T + constant, slopes

        start = np.random.default_rng(SEED).normal(scale=0.1, size=ends[1])  # all zeros would be a saddle point
        return _descended(forward, start, x, y)

    return learn


def _item_response() -> Learn:
    """P_b = sigmoid(a(x) (theta_b - d(x))), log a and d linear in x (RADAR's form, arXiv 2509.25426).

    Neither has a constant: the scale and the origin of theta stand in for them.
    """

    def forward(w: Vector, x: Matrix) -> tuple[Matrix, Slopes]:
        steep, hard, theta = np.split(w, [x.shape[1], 2 * x.shape[1]])
        log_a = x @ steep
        a = np.exp(np.clip(log_a, -STEEPEST, STEEPEST))
        z = a[:, None] * (theta - (x @ hard)[:, None])

        def slopes(gap: Matrix) -> Vector:
            of_log_a = (gap * z).sum(axis=1) * (np.abs(log_a) < STEEPEST)
            return np.concatenate([x.T @ of_log_a, -(x.T @ (a * gap.sum(axis=1))), a @ gap])

        return z, slopes

    return lambda x, y: _descended(forward, np.zeros(2 * x.shape[1]), x, y)


def _descended(forward: Forward, start: Vector, x: Matrix, y: Matrix) -> Predict:
    """Least penalised log-loss from `start`, which one free constant per rung follows, and which alone is penalised."""
    penalties = np.concatenate([np.full(len(start), PENALTY), np.zeros(y.shape[1])])

    def loss(w: Vector) -> tuple[float, Vector]:
        z, slopes = forward(w, x)
        value = np.mean(np.logaddexp(0, z) - y * z) + penalties @ w**2 / 2
        return float(value), slopes((expit(z) - y) / y.size) + penalties * w

    first = np.concatenate([start, logit(np.clip(y.mean(axis=0), 1e-3, 1 - 1e-3))])
    w = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS, "ftol": 1e-6}).x
    return lambda new: np.asarray(expit(forward(w, new)[0]))
