"""P(correct | prompt, rung) and the length of the thought, in scikit-learn.

The form of the quality model is chosen by cross-validated log-loss on the fit split alone, from the fixed list
CANDIDATES. One length model prices every rung: under a cap b a thought takes min(b, length) tokens, so the
residuals of log length give the mean (Duan's smearing estimator, JASA 1983) and the quantiles at each rung.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import VarianceThreshold
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from router import features
from router.artifact import QUANTILES
from router.domain import Prompt
from training.dataset import Outcomes

FOLDS = 4
SEED = 0
RARE = 0.02
"""Columns that vary less than this, as a word in 2 % of prompts does, are dropped: they are mostly noise."""

RESIDUALS = 50
"""Points of the residual grid that the mean is taken over."""

Matrix = NDArray[np.float64]


def _quality(hidden: tuple[int, ...], penalty: float, passes: int) -> Pipeline:
    """A network with one sigmoid per rung; without hidden layers it is a logistic regression per rung."""
    network = MLPClassifier(hidden_layer_sizes=hidden, alpha=penalty, max_iter=passes, random_state=SEED)
    return make_pipeline(VarianceThreshold(RARE), StandardScaler(), network)


CANDIDATES: dict[str, Pipeline] = {
    "logistic": _quality((), 1e-2, 100),
    "network 32": _quality((32,), 1.0, 40),
    "network 64": _quality((64,), 1.0, 40),
    "network 64-32": _quality((64, 32), 3.0, 60),
}


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it was chosen.

    Attributes:
        residual_grid: mid-quantiles of the out-of-fold residuals of log(1 + length), ascending.
        residual_quantiles: the same at QUANTILES.
        candidates: cross-validated log-loss by name of form.
    """

    quality: Pipeline
    length: Pipeline
    residual_grid: Matrix
    residual_quantiles: Matrix
    chosen: str
    candidates: dict[str, float]

    def predict_quality(self, prompts: list[str]) -> Matrix:
        """P(correct) [prompts, rungs]."""
        return np.asarray(self.quality.predict_proba(inputs(prompts)))


def inputs(prompts: list[str]) -> NDArray[np.float32]:
    """The features that serving computes."""
    return features.extract([Prompt.of(text) for text in prompts])


def fit(outcomes: Outcomes) -> Fitted:
    """Choose and train; the outcomes are the fit split."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of passes is chosen, not a limit hit
        return _fit(outcomes)


def _fit(outcomes: Outcomes) -> Fitted:
    x, labels = inputs(outcomes.prompts), (outcomes.correct >= 0.5).astype(int)
    folds = list(GroupKFold(FOLDS, shuffle=True, random_state=SEED).split(x, groups=outcomes.groups))
    losses = {}
    for name, candidate in CANDIDATES.items():
        losses[name] = _log_loss(labels, _out_of_fold(candidate, x, labels, folds, "predict_proba"))
    chosen = min(losses, key=lambda name: losses[name])
    lengths = np.log1p(outcomes.thinking_tokens[:, -1])
    regression = make_pipeline(
        VarianceThreshold(RARE),
        StandardScaler(),
        MLPRegressor(hidden_layer_sizes=(32,), alpha=1e-1, early_stopping=True, max_iter=300, random_state=SEED),
    )
    residuals = lengths - _out_of_fold(regression, x, lengths, folds, "predict")
    return Fitted(
        clone(CANDIDATES[chosen]).fit(x, labels),
        clone(regression).fit(x, lengths),
        np.quantile(residuals, (np.arange(RESIDUALS) + 0.5) / RESIDUALS),
        np.quantile(residuals, QUANTILES),
        chosen,
        losses,
    )


def _out_of_fold(model: Pipeline, x: NDArray[np.float32], y: NDArray[Any], folds: Any, method: str) -> Matrix:
    predicted = np.zeros(y.shape)
    for train, held in folds:
        predicted[held] = getattr(clone(model).fit(x[train], y[train]), method)(x[held])
    return predicted


def _log_loss(labels: NDArray[np.int_], predicted: Matrix) -> float:
    """Mean over rungs."""
    return float(np.mean([log_loss(y, p, labels=[0, 1]) for y, p in zip(labels.T, predicted.T, strict=True)]))
