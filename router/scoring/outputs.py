"""The outputs of a bundle's graph, wherever it runs: checked against the bundle, and turned into scores."""

from collections.abc import Sequence
from math import isfinite

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

NOT_FINITE = "the graph returned a number that is not finite"
Outputs = Sequence[NDArray[np.float32]]
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


def scores(outputs: Outputs, known: list[bool]) -> list[Score]:
    """One score per row; rungs that are not `known` get no token forecast. Raises ClassifierError where a number is not
    finite."""
    quality, means, quantiles = outputs
    columns = zip(quality.tolist(), means.tolist(), quantiles.swapaxes(1, 2).tolist(), strict=True)
    rows = [[of_quality, of_means, *of_quantiles] for of_quality, of_means, of_quantiles in columns]
    if not all(known):
        return [_partly_known(row, known) for row in rows]
    if not isfinite(sum([sum(map(sum, row)) for row in rows])):  # one sum is cheaper than a look at each
        raise ClassifierError(NOT_FINITE)
    return [Score(*map(tuple, row)) for row in rows]


def _partly_known(row: list[list[float]], known: list[bool]) -> Score:
    quality, *tokens = row
    columns = [tuple(n if is_known else None for n, is_known in zip(column, known, strict=True)) for column in tokens]
    if not all(n is None or isfinite(n) for column in (quality, *columns) for n in column):
        raise ClassifierError(NOT_FINITE)
    return Score(tuple(quality), *columns)
