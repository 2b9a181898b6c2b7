"""The outputs of a bundle's graph, wherever it runs: checked against the bundle, and turned into scores."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from router.bundle.manifest import MODEL, QUANTILES, Bundle
from router.domain import Score
from router.errors import ArtifactError, ClassifierError

NAMES = ("quality", "mean_tokens", "token_quantiles")
"""The graph's outputs, in order."""

PARITY_TOLERANCE = 1e-4
"""Largest difference in P(correct) between the figures of training and those of serving."""

HALF_TOLERANCE = 1e-2
"""As PARITY_TOLERANCE, in half precision: training computes in single on a CPU, a GPU rounds after every step."""

MOST_TOKENS = 2**31 - 1
"""Largest forecast: the API carries no larger number."""

ROUNDING = 1e-3
"""How far a figure may lie outside its range."""

NOT_FINITE = "the graph returned a number that is not finite, or out of its range"
Numbers = NDArray[np.float32]
Outputs = Sequence[Numbers]
"""Quality [n, rungs], mean tokens [n, rungs], token quantiles [n, rungs, 3], in the order of NAMES."""


def shapes(prompts: int, rungs: int) -> list[tuple[int, ...]]:
    """Shapes of the outputs, in order."""
    return [(prompts, rungs), (prompts, rungs), (prompts, rungs, len(QUANTILES))]


def counted(outputs: Outputs, bundle: Bundle) -> list[bool]:
    """Check the outputs for the bundle's parity sample; returns which rungs [rungs] have token forecasts.

    Raises:
        ArtifactError: they differ from the figures of training, so the graph is not the bundle's.
    """
    quality, means, quantiles = outputs
    prompts, rungs = len(bundle.parity.prompts), len(bundle.manifest.ladder)
    if [output.shape for output in outputs] != shapes(prompts, rungs):
        raise ArtifactError(f"{MODEL}: its outputs do not fit a ladder of {rungs} rungs")
    if not prompts or [len(row) for row in bundle.parity.quality] != [rungs] * prompts:
        raise ArtifactError(f"{MODEL}: its parity sample needs prompts, and for each the quality of {rungs} rungs")
    tolerance = HALF_TOLERANCE if bundle.manifest.precision == "fp16" else PARITY_TOLERANCE
    if not np.allclose(quality, bundle.parity.quality, rtol=0, atol=tolerance):
        raise ArtifactError(f"{MODEL}: it does not reproduce the parity sample")
    known = ~np.isnan(means[0])
    if (np.isnan(means) == known).any() or (np.isnan(quantiles) == known[:, None]).any():
        raise ArtifactError(f"{MODEL}: a rung has token forecasts for some prompts only")
    return list(known.tolist())


def scores(outputs: Outputs, known: list[bool], prompts: int) -> list[Score]:
    """One score per prompt; rungs that are not `known` get no token forecast.

    Raises:
        ClassifierError: the shapes are not those for `prompts`, or a number is not finite or out of its range.
    """
    quality, means, quantiles = outputs
    expected = prompts, len(known)
    if quality.shape != expected or means.shape != expected or quantiles.shape != (*expected, len(QUANTILES)):
        raise ClassifierError("the graph returned other shapes than for the sample of its bundle")
    _require_ranges(quality, means, quantiles, known)
    columns = zip(quality.tolist(), means.tolist(), quantiles.swapaxes(1, 2).tolist(), strict=True)
    rows = [[of_quality, of_means, *of_quantiles] for of_quality, of_means, of_quantiles in columns]
    if not all(known):
        return [_partly_known(row, known) for row in rows]
    return [Score(*map(tuple, row)) for row in rows]


def _require_ranges(quality: Numbers, means: Numbers, quantiles: Numbers, known: list[bool]) -> None:
    """Raises ClassifierError where P(correct) or a forecast is out of its range. NaN lies in none."""
    # Whole arrays at once: a look at each number would take longer than the graph.
    forecasts = (means >= -ROUNDING) & (means <= MOST_TOKENS)
    levels = (quantiles >= -ROUNDING) & (quantiles <= MOST_TOKENS)
    if not all(known):
        unknown = ~np.array(known)
        forecasts, levels = forecasts | unknown, levels | unknown[:, None]
    sound = (quality >= -ROUNDING) & (quality <= 1 + ROUNDING) & forecasts
    if False in sound or False in levels:
        raise ClassifierError(NOT_FINITE)


def _partly_known(row: list[list[float]], known: list[bool]) -> Score:
    quality, *tokens = row
    columns = [tuple(n if is_known else None for n, is_known in zip(column, known, strict=True)) for column in tokens]
    return Score(tuple(quality), *columns)
