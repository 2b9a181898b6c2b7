"""The predictions of a model, in arrays."""

from dataclasses import dataclass

import numpy as np

from training.arrays import Matrix


@dataclass(frozen=True)
class Prediction:
    """Predictions for a list of prompts.

    Attributes:
        quality: P(correct) [prompts, rungs].
        mean_tokens: expected thinking tokens [prompts, rungs]; NaN for rungs without recorded counts.
        token_quantiles: thinking tokens at the manifest's QUANTILES [prompts, rungs, quantiles]; NaN likewise.
    """

    quality: Matrix
    mean_tokens: Matrix
    token_quantiles: Matrix

    @property
    def cost(self) -> Matrix:
        """The cost [prompts, rungs] that a policy weighs against quality: mean tokens, else the rung's position.

        One rung without a forecast is enough to fall back, since tokens and positions cannot be compared.
        """
        if np.isfinite(self.mean_tokens).all():
            return self.mean_tokens
        return np.broadcast_to(np.arange(self.quality.shape[1], dtype=float), self.quality.shape)
