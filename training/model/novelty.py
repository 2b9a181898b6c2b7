"""How far a prompt lies from those that were fitted on: the squared Mahalanobis distance of its scaled inputs.

The inputs of prompts of one kind depend on each other: some words come together, others exclude each other, and numbers
grow with the length. A prompt of another kind breaks such rules, though none of its inputs need be unusual by itself.
Inputs that hardly vary over the fitted prompts are not read, as the model does not read them either.
"""

from dataclasses import dataclass

import numpy as np

from training.arrays import Matrix, Vector

NEAR = 0.99
"""Share of prompts like the certified ones that is not called far."""

RIDGE = 0.01
"""Added to the variance in every direction; that of one scaled input is 1. Without it a direction in which the fitted
prompts happen not to vary would count without bound."""


@dataclass(frozen=True)
class Novelty:
    """The distance.

    Attributes:
        whitening: scaled inputs of mean 0 -> coordinates of unit variance, in which the distance is the length
            [width, width].
    """

    whitening: Matrix

    def __call__(self, scaled: Matrix) -> Vector:
        """Squared distances [prompts] of scaled inputs [prompts, width]."""
        return np.asarray(((scaled @ self.whitening) ** 2).sum(axis=1))


def fit(scaled: Matrix) -> Novelty:
    """The distance from prompts whose scaled inputs [prompts, width] have mean 0 and variance 1."""
    covariance = scaled.T @ scaled / len(scaled) + RIDGE * np.eye(scaled.shape[1])
    return Novelty(np.linalg.cholesky(np.linalg.inv(covariance)))


def limit(distances: Vector) -> float:
    """The distance beyond which a prompt is far, by split conformal prediction.

    Args:
        distances: those of prompts that were not fitted on [prompts]. A new prompt like these is beyond the limit with
            probability 1 - NEAR at most, or 1 / (prompts + 1) where there are too few of them for that.
    """
    rank = min(int(np.ceil((len(distances) + 1) * NEAR)), len(distances))
    return float(np.sort(distances)[rank - 1])
