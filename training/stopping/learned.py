"""A learned rule: from the evidence at a cut, how right the answer would be here and at every later rung.

Stopping at cut k is worth P(correct at k | evidence), going on to rung j is worth P(correct at j | evidence) less the
price of the tokens until there. The rule stops where nothing ahead is worth its tokens. It looks at the plans "go to j
and stop", so it undervalues going on and looking again; the certificate is about the rule as it is.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from router.stopping.evidence import LEAST_NUMBER, LEAST_QUALITY, STOOD, WIDTH
from training.arrays import Mask, Matrix, Vector
from training.stopping.evidence import evidence
from training.stopping.traces import NO_ANSWER, Traces

PENALTY = 1.0
"""Inverse strength of the quadratic penalty on slopes, as scikit-learn's C."""

FEWEST = 20
"""Traces below which a cut learns nothing, and predicts means."""


def features(traces: Traces, quality: Matrix | None, first: int = 0) -> Matrix:
    """The evidence as numbers [traces, rungs, WIDTH], as `router.stopping.evidence.numbers` has them for one cut.

    Args:
        quality: P(correct) by the text alone [traces, rungs]; None where it was not scored.
        first: position of the first rung that is probed.
    """
    table = evidence(traces, first)
    logprobs = (traces.probe_logprob, traces.probe_min_logprob, traces.end_logprob)
    columns = [
        traces.answers == NO_ANSWER,
        *(table.stood >= cuts for cuts in STOOD),
        table.changed,
        np.isfinite(traces.probe_logprob),
        *(np.maximum(np.nan_to_num(one), LEAST_NUMBER) for one in logprobs),
        np.zeros(traces.answers.shape) if quality is None else _logit(quality),
    ]
    return np.stack(columns, axis=2).astype(float)


@dataclass(frozen=True)
class Lookahead:
    """Predictions at every cut of how right the answer will be at every rung.

    Attributes:
        slopes, offsets: of logistic regressions [cuts, WIDTH, rungs] and [cuts, rungs].
        more: tokens from each cut to each rung, probes included [cuts, rungs].
    """

    slopes: Matrix
    offsets: Matrix
    more: Matrix

    def quality(self, seen: Matrix) -> Matrix:
        """P(correct) [traces, cuts, rungs] from the features [traces, rungs, WIDTH]."""
        logits = np.einsum("tkf,kfr->tkr", seen[:, : len(self.slopes)], self.slopes) + self.offsets
        return np.asarray(1 / (1 + np.exp(-logits)))

    def stopping(self, quality: Matrix, price: float) -> Mask:
        """Where the rule stops [traces, rungs]: no later rung is worth more than the answer that is there.

        Args:
            quality: what `quality` gives, which does not depend on the price.
            price: P(correct) that a further token must buy.
        """
        cuts, rungs = self.offsets.shape
        behind = np.arange(rungs) < np.arange(cuts)[:, None]
        best = np.where(behind, -np.inf, quality - price * self.more).argmax(axis=2)
        stops = np.ones((len(quality), rungs), bool)
        stops[:, :cuts] = best == np.arange(cuts)
        return stops


def learn(traces: Traces, quality: Matrix | None = None) -> Lookahead:
    """Fit the predictions of every cut to the thoughts that get there."""
    seen, rungs = features(traces, quality), len(traces.ladder)
    slopes = np.zeros((rungs - 1, WIDTH, rungs))
    offsets, more = np.zeros((rungs - 1, rungs)), np.zeros((rungs - 1, rungs))
    for k in range(rungs - 1):
        open_ = ~traces.ended[:, k]
        rows = open_ if open_.any() else np.ones(len(traces), bool)
        for j in range(k, rungs):
            slopes[k, :, j], offsets[k, j] = _logistic(seen[rows, k], traces.correct[rows, j])
            probes = traces.probe_tokens[rows, k + 1 : j + 1 if j < rungs - 1 else j].sum(axis=1)
            thought = traces.thinking_tokens[rows, j] - traces.thinking_tokens[rows, k]
            more[k, j] = max(0.0, float((thought + probes).mean()))
    return Lookahead(slopes, offsets, more)


def _logistic(x: Matrix, y: Vector) -> tuple[Vector, float]:
    """Slopes and offset for targets in 0..1; a constant where there are too few, or all are the same."""
    mean = float(np.clip(y.mean(), 1 / (len(y) + 2), 1 - 1 / (len(y) + 2)))
    constant = np.zeros(x.shape[1]), float(_logit(np.array(mean)))
    if len(y) < FEWEST or y.min() == y.max():
        return constant
    spread = x.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    twice, weights = np.vstack([x, x]) / scale, np.concatenate([y, 1 - y])
    kept = weights > 0
    target = np.repeat([1, 0], len(y))
    model = LogisticRegression(C=PENALTY, max_iter=1000).fit(twice[kept], target[kept], weights[kept])
    return model.coef_[0] / scale, float(model.intercept_[0])


def _logit(p: Matrix) -> Matrix:
    bounded = np.clip(p, LEAST_QUALITY, 1 - LEAST_QUALITY)
    return np.asarray(np.log(bounded / (1 - bounded)))
