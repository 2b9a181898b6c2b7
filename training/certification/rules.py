"""The rules by which policies choose rungs, on arrays; the service decides one prompt by the same ones."""

import numpy as np

from router.digits import ROUNDING
from router.domain import Certificate
from training.arrays import Mask, Matrix, Rungs, Vector
from training.prediction import Prediction

PRICES = tuple(float(f"{price:.4g}") for price in (0.0, *np.geomspace(1e-3, 3.0, 160)))
"""P(correct) that the mean cost of the top rung must buy, most careful first; fixed before any label is read."""

TIE = 0.001
"""P(correct) within which rungs are worth the same, so that the smallest is taken: forecasts are no finer."""


def choose(quality: Matrix, cost: Matrix, price: float, far: Mask | None = None, tie: float = 0.0) -> Rungs:
    """The serving rule: the rung [prompts] with the largest quality - price * cost, the cheapest of equals.

    Prompts unlike the certified ones get the top rung, where they lose nothing.

    It is CARROT's plug-in rule, too (arXiv 2502.03261). `router.routing.policy` decides one prompt by the same rule,
    and `plan.replay.served_rungs` adds deadlines; tests/training/test_decision_rule.py holds the three equal.

    Args:
        quality: predicted P(correct) [prompts, rungs].
        cost: predicted cost [prompts, rungs], in any unit.
        price: P(correct) that a unit of cost must buy.
        far: prompts unlike the certified ones [prompts].
        tie: rungs whose worth is within this of the largest are equals.
    """
    worth = quality - price * cost
    best: Rungs = (worth >= worth.max(axis=1, keepdims=True) - tie).argmax(axis=1)
    return best if far is None else np.where(far, quality.shape[1] - 1, best)


def smallest(quality: Matrix, threshold: float, far: Mask | None = None) -> Rungs:
    """The smallest rung [prompts] whose predicted loss is at most a threshold, the top one where there is none.

    `router.routing.policy` decides one prompt by the same rule. Arguments as `choose`.
    """
    passing = quality[:, -1:] - quality <= threshold + ROUNDING
    passing[:, -1] = True
    best: Rungs = passing.argmax(axis=1)
    return best if far is None else np.where(far, quality.shape[1] - 1, best)


def losses(correct: Matrix, chosen: Rungs) -> Vector:
    """D of every prompt: correctness at the top rung minus correctness at the chosen one."""
    return correct[:, -1] - correct[np.arange(len(correct)), chosen]


def constant(rung: int, prediction: Prediction) -> Rungs:
    """One rung for everybody [prompts], but the top one for prompts unlike the certified ones."""
    top = prediction.quality.shape[1] - 1
    everybody = np.full(len(prediction.quality), rung)
    return everybody if prediction.far is None else np.where(prediction.far, top, everybody)


def certified_rungs(certificate: Certificate | None, prediction: Prediction, reference: int | None = None) -> Rungs:
    """The rungs [prompts] that the router serves under a relative certificate.

    Args:
        certificate: None = the target is not certified, so everybody gets the reference rung.
        reference: its position; None = the top rung.
    """
    if certificate is None:
        return constant(prediction.quality.shape[1] - 1 if reference is None else reference, prediction)
    if certificate.rung is not None:
        return constant(certificate.rung, prediction)
    return choose(prediction.quality, prediction.cost, certificate.threshold, prediction.far, certificate.tie)


def price_grid(cost: Matrix) -> list[float]:
    """PRICES per unit of cost, from predicted costs [prompts, rungs]; labels are not read."""
    top = float(cost[:, -1].mean())
    return [price / top if top > 0 else 0.0 for price in PRICES]
