"""What a model predicts for prompts, in arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Predictions for some prompts.

    Attributes:
        quality: P(correct) [prompts, rungs].
        mean_tokens: thinking tokens [prompts, rungs]; NaN for rungs without recorded counts.
        token_quantiles: the same at QUANTILES [prompts, rungs, quantiles].
    """

    quality: Matrix
    mean_tokens: Matrix
    token_quantiles: Matrix

    @property
    def cost(self) -> Matrix:
        """What a policy weighs against quality: mean tokens, or the position where tokens are not known."""
        if np.isfinite(self.mean_tokens).all():
            return self.mean_tokens
        return np.broadcast_to(np.arange(self.quality.shape[1], dtype=float), self.quality.shape)
