"""Fit P(correct | prompt, rung), a forecast of thinking tokens (`lengths`) and the distance of prompts (`novelty`).

The family of the quality model is chosen by cross-validated log-loss on the fit split alone, from the fixed list
CANDIDATES.
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
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from router.bundle import features
from router.bundle.scored import view
from router.domain import BudgetLadder, Prompt
from training.arrays import Fold, Matrix
from training.data.outcomes import Outcomes
from training.model import calibration, lengths, novelty
from training.model.calibration import BetaMap
from training.model.embedding import Embedding, embed
from training.model.families import Cure, Head, ModelFamily, Network, PooledLogit, log_loss
from training.model.lengths import Lengths
from training.model.novelty import Novelty
from training.prediction import Prediction

FOLDS = 4
SEED = 0
RARE = 0.02
"""Columns with less variance than this are dropped: they are mostly noise. A word in 2 % of prompts has about .02."""

MANY = 4_000
"""Fewest prompts for a cure model: on fewer, a share that is never solved looks like a flat curve."""

ENOUGH = 100
"""Fewest prompts that show how far one in a hundred lies."""

Inputs = NDArray[np.float32]
Extract = Callable[[list[Prompt]], Inputs]

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
        lengths: the forecast of tokens; its quantiles are too narrow until `with_conformal_tokens` has corrected them.
        chosen: name of the family in CANDIDATES.
        log_losses: cross-validated, by name of family.
        held_out: P(correct) for the prompts that were fitted on, each by a model that had not seen it [prompts, rungs].
        novelty: distance of prompts from those that were fitted on.
        far_beyond: distance beyond which a prompt is far; None until `with_novelty` has found it.
    """

    embedding: Embedding
    extract: Extract
    scale: Pipeline
    head: Head
    beta: BetaMap | None
    bound: float
    lengths: Lengths
    chosen: str
    log_losses: dict[str, float]
    held_out: Matrix
    novelty: Novelty
    far_beyond: float | None = None

    def predict(self, prompts: list[Prompt]) -> Prediction:
        """The predictions that serving will make for prompts."""
        found = self.extract(prompts)
        scaled = self.scale.transform(found)
        quality = _bounded(self.head.predict(scaled), self.beta, self.bound)
        far = None if self.far_beyond is None else self.novelty(found) > self.far_beyond
        return Prediction(quality, *self.lengths.predict(scaled), far)

    def with_conformal_tokens(self, outcomes: Outcomes) -> "Fitted":
        """The same model with split-conformal token quantiles, from prompts that it was not fitted on."""
        scaled = self.scale.transform(self.extract(outcomes.prompts))
        return replace(self, lengths=self.lengths.conformal(scaled, outcomes.thinking_tokens))

    def with_novelty(self, prompts: list[Prompt]) -> "Fitted":
        """The same model, which knows how far a prompt may lie; `prompts` are those of the certificates, unlabelled.

        Those that are read whole say it, where they are enough: around others there may stand what hides their
        question, and then they are far.
        """
        whole = [prompt for prompt in prompts if view(prompt).truncated_characters == 0]
        near = whole if len(whole) >= ENOUGH else prompts
        return replace(self, far_beyond=novelty.limit(self.novelty(self.extract(near))))


def inputs(embedding: Embedding, prompts: list[Prompt]) -> Inputs:
    """Hand features and the vector of an embedding [prompts, width]."""
    return np.hstack([features.extract(prompts), embed(embedding, prompts)])


class CachedInputs:
    """Inputs of a fixed list of prompts, extracted once and looked up afterwards. Raises KeyError for others."""

    def __init__(self, extract: Extract, prompts: list[Prompt]) -> None:
        self._place = {prompt: i for i, prompt in enumerate(prompts)}
        self._inputs = extract(prompts)

    def __call__(self, prompts: list[Prompt]) -> Inputs:
        return self._inputs[[self._place[prompt] for prompt in prompts]]


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
    # A group is passed over as often as a prompt that stands alone, however many conversations it is in.
    times = len(outcomes) / len(set(outcomes.groups))
    families = {
        name: family.repeated(times) for name, family in candidates.items() if name != "cure" or len(outcomes) >= MANY
    }
    held_out = {
        name: _out_of_fold(lambda a, b, f=family: f.fit(a, b).predict, x, outcomes.correct, folds, scales)  # type: ignore[misc]
        for name, family in tqdm(families.items(), desc="fit", unit="family", leave=False, disable=None)
    }
    log_losses = {name: log_loss(outcomes.correct, predicted) for name, predicted in held_out.items()}
    chosen = min(log_losses, key=lambda name: log_losses[name])
    scale = _scale().fit(x)
    scaled = scale.transform(x)
    beta, bound = calibration.fit_if_better(held_out[chosen], outcomes.correct, folds), 1 / (len(outcomes) + 2)
    return Fitted(
        embedding,
        extract,
        scale,
        families[chosen].fit(scaled, outcomes.correct),
        beta,
        bound,
        lengths.fit(scaled, outcomes.thinking_tokens, caps(outcomes.ladder), times),
        chosen,
        log_losses,
        _bounded(held_out[chosen], beta, bound),
        novelty.fit(x, scale),
    )


def _bounded(quality: Matrix, beta: BetaMap | None, bound: float) -> Matrix:
    return np.clip(quality if beta is None else beta(quality), bound, 1 - bound)


def families_named(names: Sequence[str]) -> dict[str, ModelFamily]:
    """The candidates with these names, or all of them if there are no names. Raises KeyError with an unknown name."""
    return {name: CANDIDATES[name] for name in names} or CANDIDATES


def caps(ladder: BudgetLadder) -> Matrix:
    """Most thinking tokens of each rung; infinite where there is no cap."""
    return np.array([np.inf if rung.tokens is None else float(rung.tokens) for rung in ladder.rungs])


def _scale() -> Pipeline:
    return make_pipeline(VarianceThreshold(RARE), StandardScaler())


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
