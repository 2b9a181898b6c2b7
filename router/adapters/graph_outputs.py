"""What a bundle's graph answers, wherever it runs: held against the bundle, and turned into scores."""

from collections.abc import Sequence
from math import isfinite, isnan

import numpy as np
from numpy.typing import NDArray

from router.artifact import MODEL, QUANTILES, Bundle
from router.domain import Score, TokenForecast
from router.errors import ArtifactError, ClassifierError

NAMES = ("quality", "mean_tokens", "token_quantiles")

PARITY_TOLERANCE = 1e-4
"""Largest difference in P(correct) between training's figures and those of what serves."""

Outputs = Sequence[NDArray[np.float32]]
"""Quality [n, rungs], mean tokens [n, rungs], token quantiles [n, rungs, 3]: those that NAMES names."""


def shapes(prompts: int, rungs: int) -> list[tuple[int, ...]]:
    """Of the outputs, in order."""
    return [(prompts, rungs), (prompts, rungs), (prompts, rungs, len(QUANTILES))]


def counted(outputs: Outputs, bundle: Bundle) -> NDArray[np.bool_]:
    """Which rungs [rungs] have token forecasts, by the outputs for the bundle's parity sample.

    Raises:
        ArtifactError: this is not what training gave, so the graph is not the bundle's.
    """
    quality, means, quantiles = outputs
    prompts, rungs = len(bundle.parity.prompts), len(bundle.manifest.ladder)
    if [output.shape for output in outputs] != shapes(prompts, rungs):
        raise ArtifactError(f"{MODEL}: its outputs do not fit a ladder of {rungs} rungs")
    if not prompts or [len(row) for row in bundle.parity.quality] != [rungs] * prompts:
        raise ArtifactError(f"{MODEL}: its parity sample needs prompts, and for each the quality of {rungs} rungs")
    if not np.allclose(quality, bundle.parity.quality, rtol=0, atol=PARITY_TOLERANCE):
        raise ArtifactError(f"{MODEL}: it does not reproduce the parity sample")
    known: NDArray[np.bool_] = ~np.isnan(means[0])
    if (np.isnan(means) == known).any() or (np.isnan(quantiles) == known[:, None]).any():
        raise ArtifactError(f"{MODEL}: a rung has token forecasts for some prompts only")
    return known


def scores(outputs: Outputs, known: NDArray[np.bool_]) -> list[Score]:
    """One score per row. Raises ClassifierError where a number that must be `known` is not finite."""
    quality, means, quantiles = outputs
    forecasts = np.concatenate([means[:, :, None], quantiles], axis=2)
    expected = forecasts if known.all() else forecasts[:, known]
    if not isfinite(quality.sum() + expected.sum()):  # one sum is cheaper than a look at each
        raise ClassifierError("the graph returned a number that is not finite")
    rows = zip(quality.tolist(), forecasts.tolist(), strict=True)
    if known.all():
        return [Score(tuple(q), tuple(map(TokenForecast._make, t))) for q, t in rows]
    return [Score(tuple(q), tuple(None if isnan(one[0]) else TokenForecast(*one) for one in t)) for q, t in rows]
