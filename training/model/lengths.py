"""A forecast of thinking tokens: one model of how long a thought is by itself prices every rung.

A thought whose natural length is L uses min(cap, L) tokens at a rung, so

    E tokens = integral of P(L > t | prompt) over t from 0 to the cap.

The line of t is cut into segments, and a network predicts P(L > t) in the middle of each. At the longest rung a thought
may be cut as well (right-censored); no segment lies beyond that cap, so every label is known. The model is shared by
all rungs, and a longer rung adds segments to those of a shorter one: no forecast falls as the cap rises.
"""

from dataclasses import dataclass, replace

import numpy as np

from router.bundle.manifest import QUANTILES
from router.domain import SLACK
from training.arrays import Matrix, Vector
from training.model.families import Head, Network

NETWORK = Network((64, 32), 3.0, 60)
"""Chosen among sizes and penalties by cross-validation on the fit split of the pocket outcomes."""

EQUAL_MASS, EQUAL_WIDTH = 40, 16
"""Segments with as many thoughts each, and segments as wide as each other, which divide the long ones of the tail."""

SECOND_ATTEMPTS = 0.01
"""Share of the answers, at most, whose tokens exceed a cap that is held: those of a second attempt are added up."""


@dataclass(frozen=True)
class Lengths:
    """A fitted forecast.

    Attributes:
        head: P(L > t) [prompts, segments] from scaled features.
        widths: tokens of each segment [segments].
        spent: those of them that each rung spends on a thought that long [segments, rungs]; it never falls with the
            rung.
        factors: quantiles of (1 + tokens) / (1 + E L) [rungs, quantiles]; they never fall with the rung.
        caps: most tokens of each rung [rungs]; infinite where there is no cap or thoughts exceed it, NaN where tokens
            are not recorded.
    """

    head: Head
    widths: Vector
    spent: Matrix
    factors: Matrix
    caps: Vector

    def predict(self, scaled: Matrix) -> tuple[Matrix, Matrix]:
        """Mean [prompts, rungs] and quantiles [prompts, rungs, quantiles] of the tokens used; NaN without records."""
        weights, biases = self.steps()
        steps = np.einsum("ns,srk->nrk", self.head.predict(scaled), weights) + biases
        tokens = np.minimum(np.maximum(np.cumsum(steps, axis=1), 0), self.caps[:, None])
        return tokens[:, :, 0], tokens[:, :, 1:]

    def steps(self) -> tuple[Matrix, Matrix]:
        """What each rung adds to the rung below it, linear in P(L > t): weights and biases.

        Returns:
            [segments, rungs, 1 + quantiles] and [rungs, 1 + quantiles], the mean first. Beyond the lowest rung none is
            negative, so sums over rungs never fall, however the arithmetic rounds.
        """
        # A quantile is (1 + E L) * factor - 1.
        means, quantiles = self.spent[:, :, None], self.widths[:, None, None] * self.factors
        weights = np.concatenate([means, quantiles], axis=2)
        biases = np.concatenate([np.zeros((len(self.factors), 1)), self.factors - 1], axis=1)
        return np.diff(weights, axis=1, prepend=0), np.diff(biases, axis=0, prepend=0)

    def conformal(self, scaled: Matrix, tokens: Matrix) -> "Lengths":
        """The same forecast with split-conformal quantiles (Lei et al. 2018).

        Args:
            scaled: features of prompts that the model was not fitted on.
            tokens: used by them [prompts, rungs]. For a new prompt like these, the quantile q is at least the tokens
                used with probability q, whatever the model is worth.
        """
        length = self.head.predict(scaled) @ self.widths
        ratios = np.sort((1 + np.nan_to_num(tokens)) / (1 + length)[:, None], axis=0)
        n = len(tokens)
        # Among n + 1 exchangeable ratios the new one is below the k-th of the n with probability k / (n + 1), so rank
        # ceil((n + 1) q) covers at least q. The largest factor of the rungs below keeps quantiles from falling, and
        # covers no less.
        ranks = np.minimum(np.ceil((n + 1) * np.array(QUANTILES)).astype(int), n) - 1
        return replace(self, factors=np.maximum.accumulate(ratios[ranks].T, axis=0))


def fit(scaled: Matrix, tokens: Matrix, caps: Vector, times: float = 1.0) -> Lengths:
    """Fit the length of thoughts at the longest rung with recorded tokens.

    The quantiles are those of the fitted prompts, which are too narrow for others; see `Lengths.conformal`.

    Args:
        scaled: features [prompts, width].
        tokens: used [prompts, rungs]; a rung without recorded tokens has NaN.
        caps: most tokens of each rung [rungs]; infinite where there is no cap.
        times: rows that say the same, as in `ModelFamily.repeated`.
    """
    known = np.isfinite(tokens).all(axis=0)
    length = tokens[:, np.flatnonzero(known)[-1]] if known.any() else np.zeros(len(tokens))
    edges = _edges(length, caps)
    middles = (edges[1:] + edges[:-1]) / 2
    head = NETWORK.repeated(times).fit(scaled, (length[:, None] > middles).astype(float))
    widths = np.diff(edges)
    spent = _shares(tokens, length, caps) * np.diff(np.minimum(edges[:, None], caps), axis=0)
    none = np.ones((len(caps), len(QUANTILES)))
    # A cap that is held may be exceeded by the token or two that end a thought, and rarely by a second attempt. One
    # that is a provider's hint is exceeded often: it bounds no forecast, nor do those of longer rungs.
    within = np.nan_to_num(tokens) <= caps + SLACK
    held = np.logical_and.accumulate(within.mean(axis=0) >= 1 - SECOND_ATTEMPTS)
    used = np.where(within, np.nan_to_num(tokens), 0.0).max(axis=0)
    most = np.maximum.accumulate(np.where(held, np.maximum(caps, used), np.inf))
    made = Lengths(head, widths, np.maximum.accumulate(spent, axis=1), none, np.where(known, most, np.nan))
    return made.conformal(scaled, tokens)


def _edges(length: Vector, caps: Vector) -> Vector:
    """Ascending bounds of the segments, from 0 to the longest thought; every cap below that is one of them."""
    longest = max(float(length.max()), 1.0)
    even = np.linspace(0, longest, EQUAL_WIDTH + 1)
    return np.unique(np.concatenate([even, caps[caps < longest], np.quantile(length, np.linspace(0, 1, EQUAL_MASS))]))


def _shares(tokens: Matrix, length: Vector, caps: Vector) -> Vector:
    """The share that thoughts at each rung use of min(cap, L): 1 under a hard cap, less for an effort without a cap."""
    within = np.minimum(length[:, None], caps).mean(axis=0)
    used = np.nan_to_num(tokens).mean(axis=0)
    return np.asarray(np.minimum(np.divide(used, within, out=np.ones(len(caps)), where=within > 0), 1))
