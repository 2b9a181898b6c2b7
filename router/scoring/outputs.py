"""The outputs of a bundle's graph, wherever it runs: checked against the bundle, and turned into scores."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.bundle.checks import MAX_WIRE_COUNT
from router.bundle.manifest import MODEL, QUANTILES, Bundle
from router.domain import Score
from router.errors import ArtifactError, ClassifierError

NAMES = ("quality", "mean_tokens", "token_quantiles")
NOVELTY = "novelty"
"""The graph's outputs, in order; the last one is there in bundles that say what is far."""

VECTOR = "vector"
"""A further output, the vector of the embedding [n, dimensions], in bundles that are new enough; no score reads it."""

PARITY_TOLERANCE = 1e-4
"""Largest difference in P(correct) between the figures of training and those of serving."""

HALF_TOLERANCE = 1e-2
"""As PARITY_TOLERANCE, in half precision: training computes in single on a CPU, a GPU rounds after every step."""

ROUNDING = 1e-3
"""How far a figure may lie outside its range."""

NOT_FINITE = "the graph returned a number that is not finite, or out of its range"
Numbers = NDArray[np.float32]
Outputs = Sequence[Numbers]
"""Quality [n, rungs], mean tokens [n, rungs], token quantiles [n, rungs, 3], in the order of NAMES; novelty [n, 1]."""


def names(far_beyond: float | None) -> Sequence[str]:
    """The outputs to ask a graph for, by what its manifest says is far."""
    return NAMES if far_beyond is None else (*NAMES, NOVELTY)


def shapes(prompts: int, rungs: int, far_beyond: float | None) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs by name, in order."""
    sizes = (prompts, rungs), (prompts, rungs), (prompts, rungs, len(QUANTILES)), (prompts, 1)
    return dict(zip(names(far_beyond), sizes, strict=False))


def far(novelty: Sequence[NDArray[np.floating[Any]]], far_beyond: float | None) -> NDArray[np.bool_] | None:
    """Which prompts [n] are unlike those that were certified; None where the bundle does not say what is far.

    Args:
        novelty: the output of that name, if there is one.
    """
    if far_beyond is None:
        return None
    # Not "beyond": a number that is not finite compares as false, and what cannot be measured is far.
    return np.asarray(~(novelty[0][:, 0] <= far_beyond))


def counted(outputs: Outputs, bundle: Bundle) -> list[bool]:
    """Check the outputs for the bundle's parity sample; returns which rungs [rungs] have token forecasts.

    Raises:
        ArtifactError: they differ from the figures of training, so the graph is not the bundle's.
    """
    quality, means, quantiles = outputs[: len(NAMES)]
    prompts, rungs = len(bundle.parity.prompts), len(bundle.manifest.ladder)
    wanted = shapes(prompts, rungs, bundle.manifest.far_beyond)
    if [output.shape for output in outputs] != list(wanted.values()):
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


def scores(outputs: Outputs, known: list[bool], prompts: int, far_beyond: float | None = None) -> list[Score]:
    """One score per prompt; rungs that are not `known` get no token forecast.

    Raises:
        ClassifierError: the shapes are not those for `prompts`, or a number is not finite or out of its range.
    """
    rungs = len(known)
    if [output.shape for output in outputs] != list(shapes(prompts, rungs, far_beyond).values()):
        raise ClassifierError("the graph returned other shapes than for the sample of its bundle")
    quality, means, quantiles, *novelty = outputs
    # As one array: every look at a small one takes a microsecond, whatever it holds.
    numbers = np.concatenate((quality[:, None], means[:, None], quantiles.transpose(0, 2, 1)), axis=1)
    most, unknown = _bounds(tuple(known))
    # NaN lies in no range.
    if not ((numbers >= -ROUNDING) & (numbers <= most) | unknown).all():
        raise ClassifierError(NOT_FINITE)
    beyond = far(novelty, far_beyond)
    are_far = [False] * prompts if beyond is None else beyond.tolist()
    make = Score if all(known) else partial(_partly_known, known)
    return [make(*map(tuple, rows), far=is_far) for rows, is_far in zip(numbers.tolist(), are_far, strict=True)]


@lru_cache(16)
def _bounds(known: tuple[bool, ...]) -> tuple[Numbers, NDArray[np.bool_]]:
    """The largest figures of a prompt [columns of a Score, 1], and which are unknown [columns of a Score, rungs]."""
    forecasts = 1 + len(QUANTILES)
    most = np.array([1 + ROUNDING, *[MAX_WIRE_COUNT] * forecasts], dtype=np.float32)[:, None]
    return most, np.array([[False] * len(known), *[[not one for one in known]] * forecasts])


def _partly_known(known: list[bool], quality: tuple[float, ...], *forecasts: tuple[float, ...], far: bool) -> Score:
    """The score in its columns, without the forecasts of rungs that are not `known`."""
    columns = [
        tuple(n if is_known else None for n, is_known in zip(column, known, strict=True)) for column in forecasts
    ]
    return Score(quality, *columns, far=far)
