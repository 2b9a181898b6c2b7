"""The predictions of a model, in arrays."""

from dataclasses import dataclass

import numpy as np

from training.arrays import Mask, Matrix, Rows


@dataclass(frozen=True)
class Prediction:
    """Predictions for a list of prompts.

    Attributes:
        quality: P(correct) [prompts, rungs].
        mean_tokens: expected thinking tokens [prompts, rungs]; NaN for rungs without recorded counts.
        token_quantiles: thinking tokens at the manifest's QUANTILES [prompts, rungs, quantiles]; NaN likewise.
        far: prompts that are unlike those that were certified [prompts]; None where the model does not tell. The
            router takes the top rung for them, whatever is predicted.
    """

    quality: Matrix
    mean_tokens: Matrix
    token_quantiles: Matrix
    far: Mask | None = None

    @property
    def cost(self) -> Matrix:
        """The cost [prompts, rungs] that a policy weighs against quality: mean tokens, else the rung's position.

        One rung without a forecast is enough to fall back, since tokens and positions cannot be compared.
        """
        if np.isfinite(self.mean_tokens).all():
            return self.mean_tokens
        return np.broadcast_to(np.arange(self.quality.shape[1], dtype=float), self.quality.shape)

    @property
    def claimed(self) -> Matrix:
        """P(correct) that an absolute target may rely on [prompts, rungs]: 0 for far prompts, which claim nothing."""
        return self.quality if self.far is None else np.where(self.far[:, None], 0.0, self.quality)

    def take(self, which: Rows) -> "Prediction":
        """The predictions for the prompts at `which`, in that order."""
        far = None if self.far is None else self.far[which]
        return Prediction(self.quality[which], self.mean_tokens[which], self.token_quantiles[which], far)
