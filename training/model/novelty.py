"""How far a prompt lies from those that were fitted on: the squared Mahalanobis distance of its scaled inputs.

The inputs of prompts of one kind depend on each other: some words come together, others exclude each other, and numbers
grow with the length. A prompt of another kind breaks such rules, though none of its inputs need be unusual by itself.
Inputs that hardly vary over the fitted prompts are not read, as the model does not read them either. The counts of a
conversation are an exception: where one never varied, a prompt that has another count has something around it that no
fitted prompt had, such as a tool result or an image, and is far.

Of what stands around the text only its characters are read. A document has other words than those of the fit split, and
as many commas as its author likes, but that does not change what is asked: read, they made .2 to .4 of the prompts
behind or within unseen documents far, and forecasts of these were as good as of others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from router.bundle.features import NAMES
from router.bundle.scored import AROUND, COUNTS
from training.arrays import Matrix, Vector

Inputs = NDArray[np.floating[Any]]

NEAR = 0.99
"""Share of prompts like the certified ones that is not called far."""

RIDGE = 0.01
"""Added to the variance in every direction; that of one scaled input is 1. Without it a direction in which the fitted
prompts happen not to vary would count without bound."""


UNSEEN = 100.0
"""Weight of a count that never varied. One turn more than ten, log(12 / 11), then counts as much as 76 inputs do."""

COUNTED = [NAMES.index(name) for name in COUNTS]
"""Columns of a conversation's counts."""

UNREAD = [NAMES.index(name) for name in AROUND]
"""Columns that say nothing of how far a prompt is."""


@dataclass(frozen=True)
class Novelty:
    """The distance: the squared length of a linear map of the inputs.

    Attributes:
        weights: inputs -> coordinates of unit variance over the fitted prompts [width, coordinates].
        biases: make their mean 0 [coordinates].
    """

    weights: Matrix
    biases: Vector

    def __call__(self, inputs: Inputs) -> Vector:
        """Squared distances [prompts] of inputs [prompts, width]."""
        return np.asarray(((inputs @ self.weights + self.biases) ** 2).sum(axis=1))


def fit(inputs: Inputs, scale: Pipeline, counts: Sequence[int] = COUNTED, unread: Sequence[int] = UNREAD) -> Novelty:
    """The distance from prompts with these inputs [prompts, width].

    Args:
        scale: fitted to them.
        counts: columns of a conversation's counts.
        unread: columns that are left out.
    """
    select, standardise = scale
    varying = select.get_support(indices=True)
    kept = ~np.isin(varying, unread)
    mean, scaling, scaled = standardise.mean_[kept], standardise.scale_[kept], scale.transform(inputs)[:, kept]
    covariance = scaled.T @ scaled / len(scaled) + RIDGE * np.eye(scaled.shape[1])
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    still = [i for i in counts if i not in unread and np.ptp(inputs[:, i]) == 0]
    weights = np.zeros((inputs.shape[1], len(whitening) + len(still)))
    weights[varying[kept], : len(whitening)] = whitening / scaling[:, None]
    weights[still, range(len(whitening), weights.shape[1])] = UNSEEN
    biases = -(mean / scaling) @ whitening, -UNSEEN * inputs[0, still]
    return Novelty(weights, np.concatenate(biases))


def limit(distances: Vector) -> float:
    """The distance beyond which a prompt is far, by split conformal prediction.

    Args:
        distances: those of prompts that were not fitted on [prompts]. A new prompt like these is beyond the limit with
            probability 1 - NEAR at most, or 1 / (prompts + 1) where there are too few of them for that.
    """
    rank = min(int(np.ceil((len(distances) + 1) * NEAR)), len(distances))
    return float(np.sort(distances)[rank - 1])
