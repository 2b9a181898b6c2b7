"""Cost and loss of a policy on a test split, under the certificate that allows it.

The router and every baseline go through the same steps: predictions on the certify split, a certificate, and the
certified choices on the test split, in thinking tokens used. Savings are stated against always-top and against the
hull, the cheapest random mix of fixed rungs of the same accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import roc_auc_score

from router.domain import Certificate
from training.arrays import Matrix, Rungs, Vector
from training.certification.certify import TARGET
from training.certification.rules import certified_rungs, choose, losses
from training.certification.sequences import learned_prices
from training.data.outcomes import Outcomes
from training.evaluation import metrics
from training.evaluation.references import cascade
from training.evaluation.spending import Interval, Spending
from training.model.families import log_loss
from training.prediction import Prediction

UNKNOWN = None, None
"""An estimate where thinking tokens are not recorded."""

Points = list[tuple[float, float]]
"""(mean thinking tokens, accuracy)"""


@dataclass(frozen=True)
class PolicyReport:
    """A policy on the test split; costs and savings are None where thinking tokens are not recorded.

    Attributes:
        alpha: the largest mean loss allowed.
        threshold: the certified price; None where none was proved, which means always-top.
        rung: the rung that everybody gets; None where it is chosen by price.
        loss: accuracy of always-top minus the policy's, with its 95 % interval.
        thinking_tokens: mean per prompt.
        saved_against_top: share of always-top's thinking tokens that were saved, with its 95 % interval.
        saved_against_hull: the same against the cheapest mix of fixed rungs of the policy's accuracy.
        above_hull: accuracy minus that of the best mix of fixed rungs with as many thinking tokens.
        rungs: share of prompts sent to each rung.
    """

    method: str
    alpha: float
    threshold: float | None
    accuracy: float
    loss: float
    loss_interval: Interval
    thinking_tokens: float | None
    saved_against_top: float | None
    top_interval: Interval | None
    saved_against_hull: float | None
    hull_interval: Interval | None
    rungs: list[float]
    above_hull: float | None
    above_interval: Interval | None
    rung: str | None = None


@dataclass(frozen=True)
class MethodReport:
    """One method beside the others.

    Attributes:
        area_gain: area under the method's curve minus that under the hull of fixed rungs, in accuracy (AIQ difference).
        curve: one point per price.
    """

    method: str
    log_loss: float | None
    auroc: float | None
    area_gain: float | None
    policy: PolicyReport
    curve: Points


def compare(
    name: str, certify: tuple[Outcomes, Prediction], test: tuple[Outcomes, Prediction], alpha: float = TARGET
) -> MethodReport:
    """A method's curve on the test split, and its policy at the price that the certify split proves.

    Fixed rungs are left out, since all methods have the same ones.

    Args:
        certify, test: outcomes of a split, and the method's predictions for them.
        alpha: the largest mean loss allowed.
    """
    learned = learned_prices(certify)
    proved = learned.proved(alpha)
    outcomes, prediction = test
    curve = [
        _point(outcomes, choose(prediction.quality, prediction.cost, one.threshold, prediction.far, one.tie))
        for one in learned.policies
    ]
    return MethodReport(
        name,
        log_loss(outcomes.correct, prediction.quality),
        auroc(outcomes.correct, prediction.quality),
        _area_gain(outcomes, curve),
        policy(outcomes, prediction, alpha, None if isinstance(proved, str) else proved.certificate(alpha), name),
        curve,
    )


def policy(
    outcomes: Outcomes, prediction: Prediction, alpha: float, proof: Certificate | None, name: str = "router"
) -> PolicyReport:
    """The report of the certified policy; without a certificate that is always-top."""
    report = policy_report(
        outcomes, certified_rungs(proof, prediction), name, alpha, None if proof is None else proof.threshold
    )
    fixed = None if proof is None or proof.rung is None else outcomes.ladder.rungs[proof.rung].name
    return replace(report, rung=fixed)


def reported(policies: Sequence[PolicyReport]) -> PolicyReport | None:
    """The certified policy that a report is about: the one at TARGET, else the strictest; None without any.

    At TARGET the router serves the least strict policy that loses no more than TARGET.
    """
    certified = sorted((one for one in policies if one.threshold is not None), key=lambda one: one.alpha)
    served = [one for one in certified if one.alpha <= TARGET]
    return served[-1] if served else next(iter(certified), None)


def policy_report(
    outcomes: Outcomes,
    chosen: Rungs,
    name: str,
    alpha: float,
    threshold: float | None,
    spent: Vector | None = None,
) -> PolicyReport:
    """Accuracy and savings of chosen rungs [prompts].

    Args:
        spent: thinking tokens [prompts] where these are not the chosen rung's, as for a cascade.
    """
    rows = np.arange(len(outcomes))
    correct = outcomes.correct[rows, chosen]
    spent = outcomes.thinking_tokens[rows, chosen] if spent is None else spent
    known = bool(outcomes.known_tokens.all())
    spending = Spending(outcomes, correct, spent)
    loss, loss_interval = spending.loss()
    top, top_interval = spending.saved_against_top() if known else UNKNOWN
    hull, hull_interval = spending.saved_against_hull() if known else UNKNOWN
    above, above_interval = spending.above_hull() if known else UNKNOWN
    return PolicyReport(
        name,
        alpha,
        threshold,
        float(correct.mean()),
        loss,
        loss_interval,
        float(spent.mean()) if known else None,
        top,
        top_interval,
        hull,
        hull_interval,
        (np.bincount(chosen, minlength=len(outcomes.ladder)) / len(chosen)).tolist(),
        above,
        above_interval,
    )


def cheapest_cascade(
    certify: tuple[Outcomes, Prediction], test: tuple[Outcomes, Prediction], alpha: float = TARGET
) -> PolicyReport:
    """Run a low rung, keep its answer where it is predicted right, else run the top rung too and pay for both.

    The low rung and its threshold are the cheapest pair that loses at most `alpha` on the certify split.
    """
    outcomes, prediction = certify
    # A threshold of 2 keeps no answer: the fallback is always-top with a wasted first attempt, priced as always-top.
    best = (float(outcomes.thinking_tokens[:, -1].mean()), 0, 2.0)
    for low in range(len(outcomes.ladder) - 1):
        for threshold in np.linspace(0, 1, 51):
            chosen, spent = cascade(prediction.quality, low, threshold, outcomes.thinking_tokens)
            if losses(outcomes.correct, chosen).mean() <= alpha:
                best = min(best, (float(spent.mean()), low, float(threshold)))
    outcomes, prediction = test
    chosen, spent = cascade(prediction.quality, best[1], best[2], outcomes.thinking_tokens)
    name = f"cascade from {outcomes.ladder.rungs[best[1]].name}"
    return policy_report(outcomes, chosen, name, alpha, best[2], spent)


def best_fixed(certify: Outcomes, test: Outcomes, alpha: float = TARGET) -> PolicyReport:
    """The cheapest single rung whose loss on the certify split is at most `alpha`."""
    accuracy = certify.correct.mean(axis=0)
    index = int(np.argmax(accuracy >= accuracy[-1] - alpha))
    chosen = np.full(len(test), index)
    return policy_report(test, chosen, f"best fixed rung ({test.ladder.rungs[index].name})", alpha, None)


def auroc(correct: Matrix, predicted: Matrix) -> float | None:
    """Mean area under the ROC curve over rungs with both classes; None if no rung has both. Tables [prompts, rungs]."""
    both = [
        roc_auc_score(y >= 0.5, p) for y, p in zip(correct.T, predicted.T, strict=True) if 0 < (y >= 0.5).mean() < 1
    ]
    return float(np.mean(both)) if both else None


def columns(points: Points) -> tuple[Vector, Vector]:
    """Points as two vectors: tokens and accuracy [points]."""
    tokens, accuracy = np.array(points).T
    return tokens, accuracy


def _point(outcomes: Outcomes, chosen: Rungs) -> tuple[float, float]:
    rows = np.arange(len(outcomes))
    return float(outcomes.thinking_tokens[rows, chosen].mean()), float(outcomes.correct[rows, chosen].mean())


def _area_gain(outcomes: Outcomes, curve: Points) -> float | None:
    if not outcomes.known_tokens.all():
        return None
    tokens, accuracy = outcomes.thinking_tokens.mean(axis=0), outcomes.correct.mean(axis=0)
    # Over the costs of the ladder, beyond which neither curve has points.
    low, high = float(tokens.min()), float(tokens.max())
    own = metrics.area(*columns(curve), low, high)
    return own - metrics.area(tokens, accuracy, low, high)
