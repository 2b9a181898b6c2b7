"""Learned predictors of P(correct) that the router is compared with.

They are fitted on the fit split alone and go through the same certificate and evaluation as the router. A predictor
with something to tune is tuned by log-loss over folds that keep groups together.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from router.domain import Prompt
from training.arrays import Fold, Matrix, Vector
from training.data.outcomes import Outcomes
from training.evaluation.learners import (
    SEED,
    Inputs,
    Learn,
    Predict,
    boosting,
    factorisation,
    item_response,
    logistic,
    nearest,
    per_rung,
    ridge,
)
from training.model.families import log_loss

FOLDS = 4
WORDS = 5_000
"""Most frequent words and pairs of words that TF-IDF keeps."""

SHRINKAGE = 5.0
"""Prompts of a task that the overall mean counts as."""

Predictor = Callable[[list[Prompt], list[str]], Matrix]
"""(prompts, tasks) -> P(correct) [prompts, rungs]."""

Extract = Callable[[list[Prompt]], NDArray[Any]]
"""prompts -> numbers [prompts, width]."""


def baselines(fit: Outcomes, features: Extract, vectors: Extract) -> Iterator[tuple[str, Predictor]]:
    """Every learned baseline with its name, fitted on the fit split.

    Args:
        features: the router's own inputs [prompts, width]; each predictor extracts them again, so a cache pays.
        vectors: coordinates [prompts, width] in which "kNN" measures distances.
    """
    folds = list(GroupKFold(FOLDS, shuffle=True, random_state=SEED).split(fit.correct, groups=fit.groups))
    yield "task label", _task_means(fit)
    for read, encoder, learners in _learners(features, vectors, folds[0]):
        raw = read(fit.prompts)
        encoded = [_encoded(encoder, raw, fold) for fold in folds]
        x = encoder.fit_transform(raw)
        for name, candidates in learners.items():
            learn = _best(candidates, encoded, fit.correct, folds)
            yield name, _on_prompts(read, encoder, _bounded(learn, x, fit.correct))


def _learners(features: Extract, vectors: Extract, fold: Fold) -> Iterator[tuple[Extract, Any, dict[str, list[Learn]]]]:
    """Readers of prompts, each with its encoder and the learners by name, with candidates to choose from."""
    yield _lengths, StandardScaler(), {"prompt length": [per_rung(logistic(1.0, "newton-cholesky"))]}
    # Single characters count as words, because digits and signs are what distinguishes one sum from another.
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True, max_features=WORDS)
    yield _texts, words, {"TF-IDF logit": [per_rung(logistic(c, "liblinear")) for c in (0.1, 0.3, 1.0, 3.0, 10.0)]}
    yield vectors, StandardScaler(), {"kNN": [nearest(k) for k in (5, 10, 20, 50, 100)]}
    yield (
        features,
        StandardScaler(),
        {
            "logistic": [per_rung(logistic(c, "newton-cholesky")) for c in (1e-3, 1e-2, 1e-1, 1.0)],
            "gradient boosting": [per_rung(boosting(fold))],
            "matrix factorisation": [factorisation(rank) for rank in (1, 2, 4)],
            "two-parameter IRT": [item_response()],
            "ridge per rung": [per_rung(ridge(penalty)) for penalty in (1.0, 10.0, 100.0, 1000.0)],
        },
    )


def _texts(prompts: list[Prompt]) -> NDArray[np.object_]:
    return np.array([prompt.text for prompt in prompts], dtype=object)


def _lengths(prompts: list[Prompt]) -> Matrix:
    logs = np.log1p([len(prompt.text) for prompt in prompts])
    return np.column_stack([logs, logs**2])


def _encoded(encoder: Any, raw: NDArray[Any], fold: Fold) -> tuple[Inputs, Inputs]:
    """The rows of a fold and the rows held out, by an encoder that never saw the latter, as with a new prompt."""
    fresh, (rows, held) = clone(encoder), fold
    return fresh.fit_transform(raw[rows]), fresh.transform(raw[held])


def _on_prompts(read: Extract, encoder: Any, predict: Predict) -> Predictor:
    return lambda prompts, _: predict(encoder.transform(read(prompts)))


def _bounded(learn: Learn, x: Inputs, y: Matrix) -> Predict:
    """A fitted learner whose P(correct) stays as far from 0 and 1 as the router's."""
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


def _task_means(fit: Outcomes) -> Predictor:
    tasks, mean = np.array(fit.tasks), fit.correct.mean(axis=0)

    def shrunk(task: str) -> Vector:
        own = fit.correct[tasks == task]
        return np.asarray((own.sum(axis=0) + SHRINKAGE * mean) / (len(own) + SHRINKAGE))

    means = {task: shrunk(task) for task in set(fit.tasks)}
    # A task that the fit split lacks gets the overall mean; reshape keeps the width when nothing is asked.
    return lambda _, asked: np.array([means.get(task, mean) for task in asked]).reshape(-1, len(mean))
