"""The router's frontier: what it loses and saves at every price, and with every certified policy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from router.domain import Certificate
from training.arrays import Matrix, Rungs, Vector
from training.certification.rules import TIE, certified_rungs, choose, price_grid
from training.data.outcomes import Outcomes
from training.evaluation import metrics
from training.evaluation.spending import Interval
from training.prediction import Prediction

STEP = 0.03
"""Share of always-top's tokens that lies at least between two points, targets excepted."""


@dataclass(frozen=True)
class FrontierPoint:
    """A policy on the test split: that of a price, or one rung for everybody where that is certified.

    Attributes:
        certified: the strictest target that is served by this policy; None where none is.
        rung: the rung that everybody gets; None where it is chosen by price.
        loss: accuracy of always-top minus the policy's, with its 95 % interval.
        thinking_tokens: mean per prompt.
        total_tokens: those of the answers included; None where they are not recorded.
        saved_against_top: share of always-top's thinking tokens that was saved, with its 95 % interval.
        saved_against_hull: the same against the cheapest mix of fixed rungs of the policy's accuracy.
        rungs: share of prompts sent to each rung.
    """

    certified: float | None
    rung: str | None
    accuracy: float
    loss: float
    loss_interval: Interval
    thinking_tokens: float
    total_tokens: float | None
    saved_against_top: float
    top_interval: Interval
    saved_against_hull: float
    rungs: list[float]


def frontier(outcomes: Outcomes, prediction: Prediction, certificates: tuple[Certificate, ...]) -> list[FrontierPoint]:
    """Points by falling cost; none where thinking tokens are not recorded.

    Args:
        prediction: for the prompts of the outcomes.
        certificates: relative targets, whose points are always there.
    """
    if not (outcomes.known_tokens.all() and outcomes.thinking_tokens[:, -1].mean() > 0):
        return []
    strictest: dict[tuple[float, int | None], Certificate] = {}
    for certificate in sorted(certificates, key=lambda one: -one.alpha):
        strictest[0.0 if certificate.rung is not None else certificate.threshold, certificate.rung] = certificate
    return list(_points(outcomes, _chosen(outcomes, prediction, list(strictest.values()))))


def _chosen(
    outcomes: Outcomes, prediction: Prediction, certified: Sequence[Certificate]
) -> list[tuple[Certificate | None, Rungs]]:
    """The rungs [prompts] of certified policies, and of prices between them that differ enough, by falling cost."""
    rows, top = np.arange(len(outcomes)), outcomes.thinking_tokens[:, -1].mean()
    policies = [(one, certified_rungs(one, prediction)) for one in certified]
    spent = [float(outcomes.thinking_tokens[rows, chosen].mean()) for _, chosen in policies]
    between: list[tuple[Certificate | None, Rungs]] = []
    for price in price_grid(prediction.cost):
        chosen = choose(prediction.quality, prediction.cost, price, prediction.far, TIE)
        cost = float(outcomes.thinking_tokens[rows, chosen].mean())
        if all(abs(cost - other) >= STEP * top for other in spent):
            spent.append(cost)
            between.append((None, chosen))
    return sorted([*policies, *between], key=lambda one: -outcomes.thinking_tokens[rows, one[1]].mean())


def _points(outcomes: Outcomes, policies: list[tuple[Certificate | None, Rungs]]) -> Iterator[FrontierPoint]:
    rows, rungs = np.arange(len(outcomes)), len(outcomes.ladder)
    correct = np.column_stack([outcomes.correct[rows, chosen] for _, chosen in policies])
    spent = np.column_stack([outcomes.thinking_tokens[rows, chosen] for _, chosen in policies])
    tokens, accuracy = outcomes.thinking_tokens.mean(axis=0), outcomes.correct.mean(axis=0)
    losses = outcomes.correct[:, -1:] - correct
    # One bootstrap of all columns: a sample of prompts is the same for every point.
    columns = np.column_stack([losses, spent, outcomes.thinking_tokens[:, -1]])
    samples = metrics.bootstrap_means(outcomes.groups, columns)
    loss_intervals = _intervals(samples[:, : len(policies)])
    top_intervals = _intervals(1 - samples[:, len(policies) : -1] / np.maximum(samples[:, -1:], 1e-12))
    for i, (proof, chosen) in enumerate(policies):
        right, used = float(correct[:, i].mean()), float(spent[:, i].mean())
        mix = metrics.hull_tokens(tokens, accuracy, right)
        yield FrontierPoint(
            None if proof is None else proof.alpha,
            None if proof is None or proof.rung is None else outcomes.ladder.rungs[proof.rung].name,
            right,
            float(losses[:, i].mean()),
            loss_intervals[i],
            used,
            _mean(outcomes.totals_at(chosen)),
            float(1 - used / tokens[-1]),
            top_intervals[i],
            float(1 - used / mix) if mix > 0 else 0.0,
            (np.bincount(chosen, minlength=rungs) / len(chosen)).tolist(),
        )


def _mean(values: Vector | None) -> float | None:
    return None if values is None else float(values.mean())


def _intervals(samples: Matrix) -> list[Interval]:
    """95 % intervals of columns."""
    bounds: list[Vector] = np.quantile(samples, [0.025, 0.975], axis=0).T.tolist()
    return [(float(low), float(high)) for low, high in bounds]
