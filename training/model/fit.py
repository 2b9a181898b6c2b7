"""Fit P(correct | prompt, rung) and a token forecast per rung.

The family of the quality model is chosen by cross-validated log-loss on the fit split alone, from the fixed list
CANDIDATES. Tokens are one regression on log(1 + tokens) of every rung. Its residuals give the mean (Duan's smearing
estimator, JASA 1983) and, on the certify split, conformal quantiles. No forecast exceeds the rung's cap.
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
from training.arrays import Fold, Matrix
from training.data.dataset import Outcomes
from training.model import calibration, novelty
from training.model.calibration import BetaMap
from training.model.embedding import Embedding, embed
from training.model.families import BATCH, STEPS, Cure, Head, ModelFamily, Network, PooledLogit, log_loss
from training.model.novelty import Novelty
from training.prediction import Prediction

FOLDS = 4
SEED = 0
RARE = 0.02
"""Columns with less variance than this are dropped: they are mostly noise. A word in 2 % of prompts has about .02."""

RESIDUALS = 50
"""Points of the residual grid that the mean forecast averages over."""

MANY = 4_000
"""Fewest prompts for a cure model: on fewer, a share that is never solved looks like a flat curve."""

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
        extract: prompts -> hand features and the vector of the embedding [prompts, width].
        scale: drops rare columns and standardises the rest.
        bound: P(correct) stays this far from 0 and 1, because n prompts cannot show a chance below about 1 / n.
        caps: most tokens of each rung; infinite where there is no cap, NaN where tokens are not recorded.
        residual_grid: mid-quantiles of the out-of-fold residuals of log(1 + tokens), ascending [rungs, RESIDUALS].
        residual_quantiles: the same residuals at QUANTILES [rungs, quantiles].
        chosen: name of the family in CANDIDATES.
        log_losses: cross-validated, by name of family.
        novelty: distance of prompts from those that were fitted on.
        far_beyond: distance beyond which a prompt is far; None until `with_novelty` has found it.
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
    novelty: Novelty
    far_beyond: float | None = None

    def predict(self, prompts: list[str]) -> Prediction:
        """The predictions that serving will make for prompts."""
        scaled = self.scale.transform(self.extract(prompts))
        quality = self.head.predict(scaled)
        quality = np.clip(quality if self.beta is None else self.beta(quality), self.bound, 1 - self.bound)
        logs = self.tokens.predict(scaled)[:, :, None]
        draws, quantiles = (self._tokens(logs + r) for r in (self.residual_grid, self.residual_quantiles))
        far = None if self.far_beyond is None else self.novelty(scaled) > self.far_beyond
        return Prediction(quality, draws.mean(axis=2), quantiles, far)

    def _tokens(self, logs: Matrix) -> Matrix:
        return np.asarray(np.minimum(np.maximum(np.expm1(logs), 0), self.caps[:, None]))

    def with_conformal_tokens(self, outcomes: Outcomes) -> "Fitted":
        """The same model with split-conformal token quantiles (Lei et al. 2018).

        Args:
            outcomes: prompts that the model was not fitted on. For a new prompt like these, the quantile q is at least
                the tokens used with probability q, whatever the regression is worth.
        """
        known = outcomes.known_tokens
        logs = self.tokens.predict(self.scale.transform(self.extract(outcomes.prompts)))
        residuals = np.sort(np.log1p(np.where(known, outcomes.thinking_tokens, 0)) - logs, axis=0)
        n = len(outcomes)
        # Among n + 1 exchangeable residuals the new one is below the k-th of the n with probability k / (n + 1),
        # so rank ceil((n + 1) q) covers at least q.
        ranks = np.minimum(np.ceil((n + 1) * np.array(QUANTILES)).astype(int), n) - 1
        return replace(self, residual_quantiles=residuals[ranks].T)

    def with_novelty(self, prompts: list[str]) -> "Fitted":
        """The same model, which knows how far a prompt may lie; `prompts` are those of the certificates, unlabelled."""
        return replace(self, far_beyond=novelty.limit(self.novelty(self.scale.transform(self.extract(prompts)))))


def inputs(embedding: Embedding, prompts: list[str]) -> Inputs:
    """Hand features and the vector of an embedding [prompts, width]."""
    hand = features.extract([Prompt.of(text) for text in prompts])
    return np.hstack([hand, embed(embedding, prompts)])


class CachedInputs:
    """Inputs of a fixed list of prompts, extracted once and looked up afterwards. Raises KeyError for others."""

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
    """Choose a family and train it.

    Args:
        outcomes: the fit split.
        extract: replaces `inputs` where these are cached or extracted elsewhere.
        candidates: families to choose from, by name.
    """
    # Small matrices gain nothing from a second thread, and lose a factor of 25 while another process has the core.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of passes is chosen; it is not a limit hit
        return _fit(outcomes, embedding, extract or partial(inputs, embedding), candidates)


def _fit(outcomes: Outcomes, embedding: Embedding, extract: Extract, candidates: dict[str, ModelFamily]) -> Fitted:
    x = extract(outcomes.prompts)
    # Folds keep groups together: a paraphrase in the other fold would make every family look better than it is.
    folds = list(GroupKFold(FOLDS, shuffle=True, random_state=SEED).split(x, groups=outcomes.groups))
    scales = [_scale().fit(x[train]) for train, _ in folds]
    families = {name: family for name, family in candidates.items() if name != "cure" or len(outcomes) >= MANY}
    held_out = {
        name: _out_of_fold(lambda a, b, f=family: f.fit(a, b).predict, x, outcomes.correct, folds, scales)  # type: ignore[misc]
        for name, family in tqdm(families.items(), desc="fit", unit="family", leave=False, disable=None)
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
        families[chosen].fit(scaled, outcomes.correct),
        calibration.fit_if_better(held_out[chosen], outcomes.correct, folds),
        1 / (len(outcomes) + 2),
        _tokens(len(x)).fit(scaled, logs),
        np.where(known, caps(outcomes.ladder), np.nan),
        np.quantile(residuals, (np.arange(RESIDUALS) + 0.5) / RESIDUALS, axis=0).T,
        np.quantile(residuals, QUANTILES, axis=0).T,
        chosen,
        log_losses,
        novelty.fit(scaled),
    )


def families_named(names: Sequence[str]) -> dict[str, ModelFamily]:
    """The candidates with these names, or all of them if there are no names. Raises KeyError with an unknown name."""
    return {name: CANDIDATES[name] for name in names} or CANDIDATES


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
    folds: list[Fold],
    scales: list[Pipeline],
) -> Matrix:
    """Predictions for every row by a model that saw neither the row nor its group."""
    predicted = np.zeros(y.shape)
    for (rows, held), scale in zip(folds, scales, strict=True):
        predicted[held] = train(scale.transform(x[rows]), y[rows])(scale.transform(x[held]))
    return predicted
