"""The router's frontier: what it loses and saves at every price, those of the certified targets among them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from router.domain import Certificate
from training.arrays import Matrix, Rungs, Vector
from training.data.dataset import Outcomes
from training.evaluation import metrics
from training.evaluation.certify import choose, price_grid
from training.evaluation.spending import Interval
from training.prediction import Prediction

STEP = 0.03
"""Share of always-top's tokens that lies at least between two points, targets excepted."""


@dataclass(frozen=True)
class FrontierPoint:
    """The policy of one price on the test split.

    Attributes:
        certified: the strictest target that is served at this price; None where none is.
        loss: accuracy of always-top minus the policy's, with its 95 % interval.
        thinking_tokens: mean per prompt.
        saved_against_top: share of always-top's thinking tokens that was saved, with its 95 % interval.
        saved_against_hull: the same against the cheapest mix of fixed rungs of the policy's accuracy.
        rungs: share of prompts sent to each rung.
    """

    certified: float | None
    accuracy: float
    loss: float
    loss_interval: Interval
    thinking_tokens: float
    saved_against_top: float
    top_interval: Interval
    saved_against_hull: float
    rungs: list[float]


def frontier(outcomes: Outcomes, prediction: Prediction, certificates: tuple[Certificate, ...]) -> list[FrontierPoint]:
    """Points by rising price; none where thinking tokens are not recorded.

    Args:
        prediction: for the prompts of the outcomes.
        certificates: relative targets, whose points are always there.
    """
    if not (outcomes.known_tokens.all() and outcomes.thinking_tokens[:, -1].mean() > 0):
        return []
    targets: dict[float, float] = {}
    for certificate in sorted(certificates, key=lambda one: -one.alpha):
        targets[certificate.threshold] = certificate.alpha  # the strictest comes last and stays
    chosen = dict(_chosen(outcomes, prediction, targets))
    return list(_points(outcomes, chosen, targets))


def _chosen(outcomes: Outcomes, prediction: Prediction, targets: dict[float, float]) -> Iterator[tuple[float, Rungs]]:
    """Prices with the rungs that they choose [prompts]."""
    rows, top = np.arange(len(outcomes)), outcomes.thinking_tokens[:, -1].mean()
    last = np.inf
    for price in sorted({*price_grid(prediction.cost), *targets}):
        chosen = choose(prediction.quality, prediction.cost, price, prediction.far)
        spent = outcomes.thinking_tokens[rows, chosen].mean()
        if price in targets or last - spent >= STEP * top:
            last = spent
            yield price, chosen


def _points(outcomes: Outcomes, chosen: dict[float, Rungs], targets: dict[float, float]) -> Iterator[FrontierPoint]:
    rows, rungs = np.arange(len(outcomes)), len(outcomes.ladder)
    correct = np.column_stack([outcomes.correct[rows, one] for one in chosen.values()])
    spent = np.column_stack([outcomes.thinking_tokens[rows, one] for one in chosen.values()])
    tokens, accuracy = outcomes.thinking_tokens.mean(axis=0), outcomes.correct.mean(axis=0)
    losses = outcomes.correct[:, -1:] - correct
    # One bootstrap of all columns: a sample of prompts is the same for every point.
    columns = np.column_stack([losses, spent, outcomes.thinking_tokens[:, -1]])
    samples = metrics.bootstrap_means(outcomes.groups, columns)
    loss_intervals = _intervals(samples[:, : len(chosen)])
    top_intervals = _intervals(1 - samples[:, len(chosen) : -1] / np.maximum(samples[:, -1:], 1e-12))
    for i, (price, one) in enumerate(chosen.items()):
        right, used = float(correct[:, i].mean()), float(spent[:, i].mean())
        mix = metrics.hull_tokens(tokens, accuracy, right)
        yield FrontierPoint(
            targets.get(price),
            right,
            float(losses[:, i].mean()),
            loss_intervals[i],
            used,
            float(1 - used / tokens[-1]),
            top_intervals[i],
            float(1 - used / mix) if mix > 0 else 0.0,
            (np.bincount(one, minlength=rungs) / len(one)).tolist(),
        )


def _intervals(samples: Matrix) -> list[Interval]:
    """95 % intervals of columns."""
    bounds: list[Vector] = np.quantile(samples, [0.025, 0.975], axis=0).T.tolist()
    return [(float(low), float(high)) for low, high in bounds]
