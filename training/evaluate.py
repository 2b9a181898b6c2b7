"""How good predictions and choices are on prompts they have not seen.

The router and every baseline go through the same steps: predictions on the certify split, a certificate, and its
choices on the test split, in thinking tokens really used. Savings are stated against always-top and against the
hull, the cheapest random mix of fixed rungs of the same accuracy.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from router.artifact import QUANTILES
from router.domain import Certificate
from training import metrics
from training.baselines import cascade, oracle_curve
from training.certify import Groups, betting_p_value, choose, losses, price_grid, walk
from training.dataset import Outcomes
from training.fit import Prediction
from training.forms import log_loss

TARGET = 0.02
"""The maximum loss at which methods are compared."""

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Interval = tuple[float, float]
Points = list[tuple[float, float]]
"""(mean thinking tokens, accuracy)"""


@dataclass(frozen=True)
class RungReport:
    """One rung on the test split.

    Attributes:
        calibration_error: over 15 bins of equal mass; `debiased` less what chance alone shows.
        coverage: share of prompts below the p50, p90 and p99 forecast; None where counts are not recorded.
    """

    rung: str
    accuracy: float
    thinking_tokens: float | None
    brier: float
    log_loss: float
    auroc: float | None
    calibration_error: float
    debiased: float
    reliability: list[tuple[float, float, int]]
    coverage: list[float] | None


@dataclass(frozen=True)
class PolicyReport:
    """A policy on the test split; savings are None where thinking tokens are not recorded.

    Attributes:
        threshold: what its certificate allows; None where none was proved, which means always-top.
        loss: accuracy of always-top less the policy's.
        saved_against_top: share of always-top's thinking tokens that were not spent, and its 95 % interval.
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


@dataclass(frozen=True)
class AbsoluteReport:
    """An absolute target on the test split: prompts said to meet it, and how many of those were right."""

    quality: float
    threshold: float
    selected: float
    right: float | None


@dataclass(frozen=True)
class MethodReport:
    """One method beside the others.

    Attributes:
        area_gain: area under its curve less that of the hull of fixed rungs, in accuracy (AIQ difference).
    """

    method: str
    log_loss: float | None
    auroc: float | None
    area_gain: float | None
    policy: PolicyReport
    curve: Points


@dataclass(frozen=True)
class Report:
    """Everything about a test split.

    Attributes:
        oracle: curve of the probability (split-half) oracle; with one sample a prompt the same as `hindsight`.
        gap_closed: (accuracy - hull) / (oracle - hull) at the tokens of the router's TARGET policy.
        mistakes: the prompts where the router was most wrongly sure of a cheaper rung.
    """

    prompts: int
    samples: float
    rungs: list[RungReport]
    policies: list[PolicyReport]
    absolute: list[AbsoluteReport]
    methods: list[MethodReport]
    fixed: Points
    oracle: Points
    hindsight: Points
    gap_closed: float | None
    tasks: list[dict[str, Any]]
    never_solved: float
    mistakes: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def evaluate(
    outcomes: Outcomes,
    prediction: Prediction,
    certificates: tuple[Certificate, ...],
    absolute: tuple[Certificate, ...] = (),
) -> Report:
    """Judge predictions and their certificates on outcomes of the test split."""
    policies = [policy(outcomes, prediction, c.alpha, c.threshold) for c in certificates]
    oracle, hindsight = oracles(outcomes)
    target = next((p for p in policies if p.alpha == TARGET), None)
    return Report(
        len(outcomes),
        float(outcomes.samples.mean()),
        [_rung(outcomes, prediction, i) for i in range(len(outcomes.ladder))],
        policies,
        [_absolute(outcomes, prediction.quality, c) for c in absolute],
        [],
        _fixed(outcomes),
        oracle,
        hindsight,
        None if target is None else gap_closed(outcomes, target, oracle),
        list(_tasks(outcomes, prediction, target)),
        float((outcomes.correct.max(axis=1) == 0).mean()),
        mistakes(outcomes, prediction, target),
    )


def compare(
    name: str, certify: tuple[Outcomes, Prediction], test: tuple[Outcomes, Prediction], alpha: float = TARGET
) -> MethodReport:
    """A method's curve on the test split, and its policy with the threshold that the certify split proves."""
    prices = price_grid(certify[1].cost)
    groups = Groups(certify[0].groups, seed=0)
    chosen = (choose(certify[1].quality, certify[1].cost, price) for price in prices)
    values = (groups.means(losses(certify[0].correct, c)) for c in chosen)
    threshold, _ = walk((betting_p_value(v, alpha) for v in values), prices)
    outcomes, prediction = test
    curve = [_point(outcomes, choose(prediction.quality, prediction.cost, price)) for price in prices]
    return MethodReport(
        name,
        log_loss(outcomes.correct, prediction.quality),
        _auroc(outcomes.correct, prediction.quality),
        _area_gain(outcomes, curve),
        policy(outcomes, prediction, alpha, threshold, name),
        curve,
    )


def policy(
    outcomes: Outcomes, prediction: Prediction, alpha: float, price: float | None, name: str = "router"
) -> PolicyReport:
    """The policy with a price; without one it is always-top."""
    top = np.full(len(outcomes), len(outcomes.ladder) - 1)
    chosen = top if price is None else choose(prediction.quality, prediction.cost, price)
    return judged(outcomes, chosen, name, alpha, price)


def judged(
    outcomes: Outcomes,
    chosen: NDArray[np.intp],
    name: str,
    alpha: float,
    threshold: float | None,
    spent: Vector | None = None,
) -> PolicyReport:
    """Accuracy and savings of chosen rungs [prompts]; `spent` are the tokens where they are not those of the rung."""
    rows, rungs = np.arange(len(outcomes)), len(outcomes.ladder)
    correct = outcomes.correct[rows, chosen]
    spent = outcomes.thinking_tokens[rows, chosen] if spent is None else spent
    known = bool(outcomes.known_tokens.all())
    values = np.column_stack([correct, spent, outcomes.correct, outcomes.thinking_tokens])

    def against_top(m: Vector) -> float:
        return 1 - m[1] / m[-1] if m[-1] > 0 else 0.0

    def against_hull(m: Vector) -> float:
        mix = metrics.hull_tokens(m[2 + rungs :], m[2 : 2 + rungs], m[0])
        return 1 - m[1] / mix if mix > 0 else 0.0

    def loss(m: Vector) -> float:
        return float(m[1 + rungs] - m[0])

    resampled = metrics.resampled(outcomes.groups, values)

    def bounds(statistic: Any) -> Interval:
        return metrics.interval(resampled, statistic)

    means = values.mean(axis=0)
    return PolicyReport(
        name,
        alpha,
        threshold,
        float(correct.mean()),
        loss(means),
        bounds(loss),
        float(spent.mean()) if known else None,
        against_top(means) if known else None,
        bounds(against_top) if known else None,
        against_hull(means) if known else None,
        bounds(against_hull) if known else None,
        (np.bincount(chosen, minlength=rungs) / len(chosen)).tolist(),
    )


def cheapest_cascade(
    certify: tuple[Outcomes, Prediction], test: tuple[Outcomes, Prediction], alpha: float = TARGET
) -> PolicyReport:
    """Try a low rung, keep it where it is predicted right, else run the top rung too and pay for both.

    Low rung and threshold are the cheapest whose loss on the certify split is at most `alpha`.
    """
    outcomes, prediction = certify
    best = (float(outcomes.thinking_tokens[:, -1].mean()), 0, 2.0)
    for low in range(len(outcomes.ladder) - 1):
        for threshold in np.linspace(0, 1, 51):
            chosen, spent = cascade(prediction.quality, low, threshold, outcomes.thinking_tokens)
            if losses(outcomes.correct, chosen).mean() <= alpha:
                best = min(best, (float(spent.mean()), low, float(threshold)))
    outcomes, prediction = test
    chosen, spent = cascade(prediction.quality, best[1], best[2], outcomes.thinking_tokens)
    name = f"cascade from {outcomes.ladder.rungs[best[1]].name}"
    return judged(outcomes, chosen, name, alpha, best[2], spent)


def best_fixed(certify: Outcomes, test: Outcomes, alpha: float = TARGET) -> PolicyReport:
    """The cheapest single rung whose loss on the certify split is at most `alpha`."""
    accuracy = certify.correct.mean(axis=0)
    index = int(np.argmax(accuracy >= accuracy[-1] - alpha))
    chosen = np.full(len(test), index)
    return judged(test, chosen, f"best fixed rung ({test.ladder.rungs[index].name})", alpha, None)


def oracles(outcomes: Outcomes) -> tuple[Points, Points]:
    """Curves of the probability oracle (choose on one half of the samples, score on the other) and of hindsight."""
    if not outcomes.known_tokens.all():
        return [], []
    tokens = outcomes.thinking_tokens
    hindsight = _points(oracle_curve(outcomes.correct, outcomes.correct, tokens))
    even, odd = outcomes.halves
    if not np.isfinite(outcomes.halves).all():
        return hindsight, hindsight
    curves = [oracle_curve(even, odd, tokens), oracle_curve(odd, even, tokens)]
    return _points((np.mean([c[0] for c in curves], axis=0), np.mean([c[1] for c in curves], axis=0))), hindsight


def gap_closed(outcomes: Outcomes, target: PolicyReport, oracle: Points) -> float | None:
    """Share of the way from the hull to the oracle, in accuracy at equal tokens."""
    if target.thinking_tokens is None or not oracle:
        return None
    tokens, accuracy = outcomes.thinking_tokens.mean(axis=0), outcomes.correct.mean(axis=0)
    floor = metrics.hull_accuracy(tokens, accuracy, target.thinking_tokens)
    best = metrics.hull_accuracy(*_columns(oracle), target.thinking_tokens)
    return float((target.accuracy - floor) / (best - floor)) if best > floor else None


def mistakes(outcomes: Outcomes, prediction: Prediction, target: PolicyReport | None, most: int = 10) -> list[Any]:
    """Prompts where the chosen rung lost most against the top one, the surest prediction first."""
    if target is None or target.threshold is None:
        return []
    rows = np.arange(len(outcomes))
    chosen = choose(prediction.quality, prediction.cost, target.threshold)
    lost, sure = losses(outcomes.correct, chosen), prediction.quality[rows, chosen]
    worst = [i for i in np.lexsort((-sure, -lost))[:most] if lost[i] > 0]
    return [
        {
            "prompt": outcomes.prompts[i][:300],
            "task": outcomes.tasks[i],
            "rung": outcomes.ladder.rungs[chosen[i]].name,
            "predicted": float(sure[i]),
            "correct": float(outcomes.correct[i, chosen[i]]),
            "top": float(outcomes.correct[i, -1]),
        }
        for i in worst
    ]


def _rung(outcomes: Outcomes, prediction: Prediction, index: int) -> RungReport:
    correct, predicted = outcomes.correct[:, index], prediction.quality[:, index]
    tokens, known = outcomes.thinking_tokens[:, index], bool(outcomes.known_tokens[index])
    within = [float((tokens <= prediction.token_quantiles[:, index, q] + 1e-6).mean()) for q in range(len(QUANTILES))]
    return RungReport(
        outcomes.ladder.rungs[index].name,
        float(correct.mean()),
        float(tokens.mean()) if known else None,
        float(((correct - predicted) ** 2).mean()),
        log_loss(correct, predicted),
        _auroc(correct[:, None], predicted[:, None]),
        metrics.calibration_error(correct, predicted),
        metrics.debiased_calibration_error(correct, predicted),
        metrics.reliability(correct, predicted),
        within if known else None,
    )


def _absolute(outcomes: Outcomes, quality: Matrix, certificate: Certificate) -> AbsoluteReport:
    meets = quality >= certificate.threshold
    selected = meets.any(axis=1)
    right = outcomes.correct[np.arange(len(outcomes)), meets.argmax(axis=1)][selected]
    return AbsoluteReport(
        1 - certificate.alpha,
        certificate.threshold,
        float(selected.mean()),
        float(right.mean()) if len(right) else None,
    )


def _tasks(outcomes: Outcomes, prediction: Prediction, target: PolicyReport | None) -> Iterator[dict[str, Any]]:
    """Loss and saving of the target policy by family, the part of a task's name before the last slash."""
    families = np.array([family(task) for task in outcomes.tasks])
    for name in np.unique(families):
        part = np.flatnonzero(families == name)
        some = outcomes.take(part)
        price = target.threshold if target else None
        own = Prediction(prediction.quality[part], prediction.mean_tokens[part], prediction.token_quantiles[part])
        top = np.full(len(some), len(some.ladder) - 1)
        chosen = top if price is None else choose(own.quality, own.cost, price)
        tokens = some.thinking_tokens[np.arange(len(some)), chosen].mean()
        known = some.known_tokens.all() and some.thinking_tokens[:, -1].mean() > 0
        yield {
            "task": str(name),
            "prompts": len(some),
            "accuracy": float(some.correct[:, -1].mean()),
            "loss": float(losses(some.correct, chosen).mean()),
            "saved_against_top": float(1 - tokens / some.thinking_tokens[:, -1].mean()) if known else None,
            "auroc": _auroc(some.correct, own.quality),
        }


def family(task: str) -> str:
    """The part of a task's name before the last slash."""
    return task.rpartition("/")[0] or task


def _fixed(outcomes: Outcomes) -> Points:
    if not outcomes.known_tokens.all():
        return []
    return _points((outcomes.thinking_tokens.mean(axis=0), outcomes.correct.mean(axis=0)))


def _points(curve: tuple[Vector, Vector]) -> Points:
    return [(float(t), float(a)) for t, a in zip(*curve, strict=True)]


def _columns(points: Points) -> tuple[Vector, Vector]:
    tokens, accuracy = np.array(points).T
    return tokens, accuracy


def _point(outcomes: Outcomes, chosen: NDArray[np.intp]) -> tuple[float, float]:
    rows = np.arange(len(outcomes))
    return float(outcomes.thinking_tokens[rows, chosen].mean()), float(outcomes.correct[rows, chosen].mean())


def _area_gain(outcomes: Outcomes, curve: Points) -> float | None:
    if not outcomes.known_tokens.all():
        return None
    tokens, accuracy = outcomes.thinking_tokens.mean(axis=0), outcomes.correct.mean(axis=0)
    low, high = float(tokens.min()), float(tokens.max())
    own = metrics.area(*_columns(curve), low, high)
    return own - metrics.area(tokens, accuracy, low, high)


def _auroc(correct: Matrix, predicted: Matrix) -> float | None:
    """Mean over the rungs that have both classes."""
    both = [
        roc_auc_score(y >= 0.5, p) for y, p in zip(correct.T, predicted.T, strict=True) if 0 < (y >= 0.5).mean() < 1
    ]
    return float(np.mean(both)) if both else None
