"""P(correct | prompt, rung) and a token forecast per rung.

The form of the quality model is chosen by cross-validated log-loss on the fit split alone, from the fixed list
CANDIDATES. Tokens: one regression on log(1 + tokens) of every rung; its residuals give the mean (Duan's smearing
estimator, JASA 1983) and, on the certify split, conformal quantiles; no forecast exceeds the rung's cap.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import VarianceThreshold
from sklearn.model_selection import GroupKFold
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from router.bundle import features
from router.bundle.manifest import QUANTILES
from router.domain import BudgetLadder, Prompt
from training.data.dataset import Outcomes
from training.model import calibration
from training.model.calibration import BetaMap
from training.model.embedding import Embedding, embed
from training.model.families import BATCH, STEPS, Cure, Head, ModelFamily, Network, PooledLogit, log_loss
from training.prediction import Matrix, Prediction

FOLDS = 4
SEED = 0
RARE = 0.02
"""Columns that vary less than this, as a word in 2 % of prompts does, are dropped: they are mostly noise."""

RESIDUALS = 50
"""Points of the residual grid that the mean is taken over."""

MANY = 4_000
"""Prompts from which on a cure model can be told from one that is merely flat."""

Inputs = NDArray[np.float32]
Extract = Callable[[list[str]], Inputs]

CANDIDATES: dict[str, ModelFamily] = {
    "pooled logit": PooledLogit(1e-3),
    "cure": Cure(1e-4),
    "logistic": Network((), 10.0, 40),
    "network 32, strong penalty": Network((32,), 30.0, 40, 3),
    "network 32": Network((32,), 3.0, 40, 3),
    "network 64-32": Network((64, 32), 3.0, 60, 3),
}


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it was chosen.

    Attributes:
        extract: hand features and the vector of the embedding [prompts, width].
        scale: drops rare columns and standardises the rest.
        bound: P(correct) stays this far from 0 and 1, further than the number of prompts can tell.
        caps: most tokens of each rung; infinite where there is no cap, NaN where tokens are not recorded.
        residual_grid: mid-quantiles of the out-of-fold residuals of log(1 + tokens), ascending [rungs, RESIDUALS].
        residual_quantiles: the same at QUANTILES [rungs, quantiles].
        log_losses: cross-validated, by name of form.
    """

    embedding: Embedding
    extract: Extract
    scale: Pipeline
    head: Head
    beta: BetaMap | None
    bound: float
    tokens: MLPRegressor
    caps: Matrix
    residual_grid: Matrix
    residual_quantiles: Matrix
    chosen: str
    log_losses: dict[str, float]

    def predict(self, prompts: list[str]) -> Prediction:
        """What serving will say."""
        scaled = self.scale.transform(self.extract(prompts))
        quality = self.head.predict(scaled)
        quality = np.clip(quality if self.beta is None else self.beta(quality), self.bound, 1 - self.bound)
        logs = self.tokens.predict(scaled)[:, :, None]
        draws, quantiles = (self._tokens(logs + r) for r in (self.residual_grid, self.residual_quantiles))
        return Prediction(quality, draws.mean(axis=2), quantiles)

    def _tokens(self, logs: Matrix) -> Matrix:
        return np.asarray(np.minimum(np.maximum(np.expm1(logs), 0), self.caps[:, None]))

    def with_conformal_tokens(self, outcomes: Outcomes) -> "Fitted":
        """Quantiles replaced by split-conformal ones (Lei et al. 2018) from outcomes that were not fitted."""
        known = outcomes.known_tokens
        logs = self.tokens.predict(self.scale.transform(self.extract(outcomes.prompts)))
        residuals = np.sort(np.log1p(np.where(known, outcomes.thinking_tokens, 0)) - logs, axis=0)
        n = len(outcomes)
        ranks = np.minimum(np.ceil((n + 1) * np.array(QUANTILES)).astype(int), n) - 1
        return replace(self, residual_quantiles=residuals[ranks].T)


def inputs(embedding: Embedding, prompts: list[str]) -> Inputs:
    """Hand features and the vector of an embedding [prompts, width]."""
    hand = features.extract([Prompt.of(text) for text in prompts])
    return np.hstack([hand, embed(embedding, prompts)])


class CachedInputs:
    """Inputs of prompts that are asked for again and again, extracted once."""

    def __init__(self, extract: Extract, prompts: list[str]) -> None:
        self._place = {text: i for i, text in enumerate(prompts)}
        self._inputs = extract(prompts)

    def __call__(self, prompts: list[str]) -> Inputs:
        return self._inputs[[self._place[text] for text in prompts]]


def fit(
    outcomes: Outcomes,
    embedding: Embedding,
    extract: Extract | None = None,
    candidates: dict[str, ModelFamily] = CANDIDATES,
) -> Fitted:
    """Choose and train; the outcomes are the fit split, `extract` gives `inputs` where they are known already."""
    # Small matrices gain nothing from a second thread, and lose a factor of 25 where another process has the core.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of passes is chosen, not a limit hit
        return _fit(outcomes, embedding, extract or partial(inputs, embedding), candidates)


def _fit(outcomes: Outcomes, embedding: Embedding, extract: Extract, candidates: dict[str, ModelFamily]) -> Fitted:
    x = extract(outcomes.prompts)
    folds = list(GroupKFold(FOLDS, shuffle=True, random_state=SEED).split(x, groups=outcomes.groups))
    scales = [_scale().fit(x[train]) for train, _ in folds]
    forms = {name: form for name, form in candidates.items() if name != "cure" or len(outcomes) >= MANY}
    held_out = {
        name: _out_of_fold(lambda a, b, f=form: f.fit(a, b).predict, x, outcomes.correct, folds, scales)  # type: ignore[misc]
        for name, form in tqdm(forms.items(), desc="fit", unit="form", leave=False, disable=None)
    }
    log_losses = {name: log_loss(outcomes.correct, predicted) for name, predicted in held_out.items()}
    chosen = min(log_losses, key=lambda name: log_losses[name])
    known = outcomes.known_tokens
    logs = np.log1p(np.where(known, outcomes.thinking_tokens, 0))
    residuals = logs - _out_of_fold(lambda a, b: _tokens(len(a)).fit(a, b).predict, x, logs, folds, scales)
    scale = _scale().fit(x)
    scaled = scale.transform(x)
    return Fitted(
        embedding,
        extract,
        scale,
        forms[chosen].fit(scaled, outcomes.correct),
        calibration.if_it_helps(held_out[chosen], outcomes.correct, folds),
        1 / (len(outcomes) + 2),
        _tokens(len(x)).fit(scaled, logs),
        np.where(known, caps(outcomes.ladder), np.nan),
        np.quantile(residuals, (np.arange(RESIDUALS) + 0.5) / RESIDUALS, axis=0).T,
        np.quantile(residuals, QUANTILES, axis=0).T,
        chosen,
        log_losses,
    )


def families_named(forms: Sequence[str]) -> dict[str, ModelFamily]:
    """The candidates of these names; of none, all. Raises KeyError with what is not one."""
    return {name: CANDIDATES[name] for name in forms} or CANDIDATES


def caps(ladder: BudgetLadder) -> Matrix:
    """Most thinking tokens of each rung; infinite where there is no cap."""
    return np.array([np.inf if rung.tokens is None else float(rung.tokens) for rung in ladder.rungs])


def _scale() -> Pipeline:
    return make_pipeline(VarianceThreshold(RARE), StandardScaler())


def _tokens(prompts: int) -> MLPRegressor:
    passes, batch = max(40, STEPS * BATCH // prompts), min(BATCH, prompts)
    return MLPRegressor(hidden_layer_sizes=(32,), alpha=3.0, max_iter=passes, batch_size=batch, random_state=SEED)


def _out_of_fold(
    train: Callable[[Matrix, Matrix], Callable[[Matrix], Matrix]],
    x: Inputs,
    y: Matrix,
    folds: list[tuple[NDArray[np.intp], NDArray[np.intp]]],
    scales: list[Pipeline],
) -> Matrix:
    predicted = np.zeros(y.shape)
    for (rows, held), scale in zip(folds, scales, strict=True):
        predicted[held] = train(scale.transform(x[rows]), y[rows])(scale.transform(x[held]))
    return predicted
