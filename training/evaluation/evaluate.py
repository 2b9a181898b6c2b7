"""Quality of predictions on unseen prompts, and of the certified policies that use them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from router.bundle.manifest import QUANTILES
from router.domain import Certificate
from training.arrays import Matrix, Rungs, Vector
from training.certification.certify import TARGET
from training.certification.rules import certified_rungs, smallest
from training.data.outcomes import Outcomes
from training.evaluation import metrics, tasks
from training.evaluation.frontier import FrontierPoint, frontier
from training.evaluation.policies import (
    MethodReport,
    Points,
    PolicyReport,
    auroc,
    columns,
    policy,
    policy_report,
    reported,
)
from training.evaluation.references import oracle_curve
from training.evaluation.spending import TOKENS, Saving, Spending, Unit
from training.model.families import log_loss
from training.prediction import Prediction


@dataclass(frozen=True)
class RungReport:
    """One rung on the test split.

    Attributes:
        thinking_tokens: mean; None where counts are not recorded.
        calibration_error: over 15 bins of equal mass.
        debiased: calibration error without the part that chance adds.
        reliability: (mean prediction, mean correctness, prompts) per bin.
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
class AbsoluteReport:
    """An absolute target on the test split.

    Attributes:
        quality: the target, 0..1.
        selected: share of prompts that the policy claims to answer with that quality.
        right: share of the selected prompts answered right; None if none is selected.
    """

    quality: float
    threshold: float
    selected: float
    right: float | None


@dataclass(frozen=True)
class Report:
    """All figures of a test split.

    Attributes:
        samples: answers per prompt and rung, mean.
        default: the target of requests that name none.
        reported: the certified target that savings, tasks and mistakes are about; None where none is certified.
        savings: by unit; none where thinking tokens are not recorded.
        frontier: by rising price; none where thinking tokens are not recorded.
        fixed: one point per fixed rung.
        oracle: curve of the probability (split-half) oracle; equal to `hindsight` with one sample a prompt.
        gap_closed: (accuracy - hull) / (oracle - hull) at the tokens of the policy that is reported.
        never_solved: share of prompts that no rung answered right.
        mistakes: the prompts where the router was most sure of a cheaper rung and wrong.
        per_prompt: the policies that keep a target by each prompt's own forecast.
        kinds: as `tasks`, by kind of prompt; none where the file names none.
    """

    prompts: int
    samples: float
    default: float
    reported: float | None
    savings: list[Saving]
    frontier: list[FrontierPoint]
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
    per_prompt: list[PolicyReport]
    kinds: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def evaluate(
    outcomes: Outcomes,
    prediction: Prediction,
    certificates: tuple[Certificate, ...],
    absolute: tuple[Certificate, ...] = (),
    units: Sequence[Unit] = (TOKENS,),
    reference: int | None = None,
    per_prompt: tuple[Certificate, ...] = (),
) -> Report:
    """Evaluate predictions and their certificates on outcomes of the test split.

    Args:
        prediction: for the prompts of the outcomes.
        certificates: relative targets.
        absolute: absolute targets.
        units: in which savings are stated.
        reference: position of the rung of targets that are not certified; None = the top rung.
        per_prompt: relative targets by each prompt's own forecast.
    """
    policies = [policy(outcomes, prediction, c.alpha, c) for c in certificates]
    oracle, hindsight = oracles(outcomes)
    target = reported(policies)
    proof = next((one for one in certificates if target is not None and one.alpha == target.alpha), None)
    chosen = certified_rungs(proof, prediction, reference)
    return Report(
        len(outcomes),
        float(outcomes.samples.mean()),
        TARGET,
        None if target is None else target.alpha,
        [] if target is None else savings(outcomes, chosen, units),
        frontier(outcomes, prediction, certificates),
        [_rung(outcomes, prediction, i) for i in range(len(outcomes.ladder))],
        policies,
        [_absolute(outcomes, prediction.claimed, c) for c in absolute],
        [],
        _fixed(outcomes),
        oracle,
        hindsight,
        None if target is None else gap_closed(outcomes, target, oracle),
        tasks.tasks(outcomes, prediction, chosen),
        float((outcomes.correct.max(axis=1) == 0).mean()),
        tasks.mistakes(outcomes, prediction, chosen),
        [_per_prompt(outcomes, prediction, c) for c in per_prompt],
        tasks.kinds(outcomes, prediction, chosen),
    )


def savings(outcomes: Outcomes, chosen: Rungs, units: Sequence[Unit]) -> list[Saving]:
    """The saving of chosen rungs [prompts] in every unit; none where thinking tokens are not recorded."""
    if not outcomes.known_tokens.all():
        return []
    rows = np.arange(len(outcomes))
    correct, spent = outcomes.correct[rows, chosen], outcomes.thinking_tokens[rows, chosen]
    spending = Spending(outcomes, correct, spent, outcomes.totals_at(chosen))
    return list(spending.savings(units))


def oracles(outcomes: Outcomes) -> tuple[Points, Points]:
    """Curves of the probability oracle and of hindsight; empty where token counts are not recorded.

    The probability oracle chooses on one half of the samples and scores on the other, so it cannot exploit luck.
    """
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
    # At equal tokens: a policy that spends more than the oracle would otherwise seem to close more of the gap.
    floor = metrics.hull_accuracy(tokens, accuracy, target.thinking_tokens)
    best = metrics.hull_accuracy(*columns(oracle), target.thinking_tokens)
    return float((target.accuracy - floor) / (best - floor)) if best > floor else None


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
        auroc(correct[:, None], predicted[:, None]),
        metrics.calibration_error(correct, predicted),
        metrics.debiased_calibration_error(correct, predicted),
        metrics.reliability(correct, predicted),
        within if known else None,
    )


def _per_prompt(outcomes: Outcomes, prediction: Prediction, certificate: Certificate) -> PolicyReport:
    chosen = smallest(prediction.quality, certificate.threshold, prediction.far)
    return policy_report(outcomes, chosen, "router", certificate.alpha, certificate.threshold)


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


def _fixed(outcomes: Outcomes) -> Points:
    if not outcomes.known_tokens.all():
        return []
    return _points((outcomes.thinking_tokens.mean(axis=0), outcomes.correct.mean(axis=0)))


def _points(curve: tuple[Vector, Vector]) -> Points:
    return [(float(t), float(a)) for t, a in zip(*curve, strict=True)]
