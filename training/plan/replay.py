"""Policies replayed on recorded outcomes.

Rungs are chosen as serving chooses them, from a bundle's forecasts; each choice then costs what was recorded at that
rung. Without a bundle there are no forecasts. The best fixed rung and hindsight, the cheapest of the rungs that turned
out best for each prompt, then take the router's place; no router is more accurate than hindsight.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from router.bundle import manifest
from router.bundle.manifest import QUANTILES
from router.domain import DEFAULT_MAX_LOSS, Certificate
from router.routing.policy import LatencyProfile
from training.arrays import Mask, Matrix, Rungs
from training.certification.rules import certified_rungs, losses
from training.data.outcomes import Outcomes
from training.data.schema import DatasetError
from training.evaluation.metrics import hull_accuracy
from training.evaluation.spending import Unit
from training.model import inference
from training.model.fit import caps
from training.prediction import Prediction

DEADLINE_QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.99)
"""Quantiles of the top rung's latency that serve as deadlines by default."""


@dataclass(frozen=True)
class PlanRow:
    """A policy on recorded traffic.

    Attributes:
        max_loss: the certified target; None where the policy has none.
        deadline: seconds; None for no deadline.
        accuracy: mean correctness, 0..1.
        loss: accuracy of always-top minus `accuracy`.
        mix_accuracy: accuracy of the best random mix of fixed rungs that thinks as many tokens.
        thinking_tokens: mean per request.
        p50, p99: latency in seconds.
        gpu_seconds: per 1,000 requests.
        money: for 1,000 requests; None without prices.
        in_time: share of requests that end within the deadline; None without a deadline.
        rungs: share of prompts at each rung.
    """

    policy: str
    max_loss: float | None
    deadline: float | None
    accuracy: float
    loss: float
    mix_accuracy: float
    thinking_tokens: float
    p50: float
    p99: float
    gpu_seconds: float
    money: float | None
    in_time: float | None
    rungs: list[float]

    @property
    def label(self) -> str:
        """The policy and its target."""
        return self.policy if self.max_loss is None else f"{self.policy}, loss {self.max_loss:g}"


@dataclass(frozen=True)
class RecordedTraffic:
    """Recorded outcomes, and the latency of serving them when `concurrency` requests share a GPU.

    Attributes:
        price: what tokens cost; None where that is unknown.

    Raises:
        DatasetError: a rung lacks token counts, so its latency is unknown.
    """

    outcomes: Outcomes
    latency: LatencyProfile
    concurrency: int = 1
    price: Unit | None = None

    def __post_init__(self) -> None:
        for rung, known in zip(self.outcomes.ladder.rungs, self.outcomes.known_tokens, strict=True):
            if not known:
                raise DatasetError(f"rung {rung.name}: thinking_tokens are not recorded for every prompt")

    def row(self, policy: str, chosen: Rungs, deadline: float | None, max_loss: float | None = None) -> PlanRow:
        """Quality and cost of the chosen rungs [prompts]; `deadline` is in seconds."""
        prompts, width = np.arange(len(chosen)), len(self.outcomes.ladder)
        correct, thought = self.outcomes.correct, self.outcomes.thinking_tokens
        seconds = self.latency.seconds(thought[prompts, chosen])
        tokens = float(thought[prompts, chosen].mean())
        return PlanRow(
            policy=policy,
            max_loss=max_loss,
            deadline=deadline,
            accuracy=float(correct[prompts, chosen].mean()),
            loss=float(losses(correct, chosen).mean()),
            mix_accuracy=hull_accuracy(thought.mean(axis=0), correct.mean(axis=0), tokens),
            thinking_tokens=tokens,
            p50=float(np.quantile(seconds, 0.5)),
            p99=float(np.quantile(seconds, 0.99)),
            # Requests that run together on a GPU share its seconds.
            gpu_seconds=float(seconds.mean()) / self.concurrency * 1_000,
            money=None if self.price is None else self.price.of(self._all_tokens(chosen)),
            in_time=None if deadline is None else float((seconds <= deadline).mean()),
            rungs=(np.bincount(chosen, minlength=width) / len(chosen)).tolist(),
        )

    def _all_tokens(self, chosen: Rungs) -> float:
        """Mean tokens of thoughts and answers at chosen rungs [prompts]; of answers as assumed where not recorded."""
        totals = self.outcomes.totals_at(chosen)
        if totals is not None:
            return float(totals.mean())
        thought = self.outcomes.thinking_tokens[np.arange(len(chosen)), chosen]
        return float(thought.mean()) + self.latency.answer_tokens

    def default_deadlines(self) -> list[float]:
        """Quantiles of the top rung's latency in seconds, rising, to three digits."""
        seconds = np.quantile(self.latency.seconds(self.outcomes.thinking_tokens[:, -1]), DEADLINE_QUANTILES)
        return sorted({float(f"{value:.3g}") for value in seconds})


def rows(
    traffic: RecordedTraffic,
    prediction: Prediction | None,
    certificates: Sequence[Certificate],
    deadlines: Sequence[float],
) -> list[PlanRow]:
    """Every fixed rung, then the router at every target: first without a deadline, then with each one, rising.

    Args:
        prediction: forecasts for the same prompts; without them the best fixed rung and hindsight replace the router.
        certificates: the relative targets.
        deadlines: in seconds.
    """
    plan = list(_fixed_rungs(traffic))
    for deadline in (None, *sorted(deadlines)):
        if prediction is None:
            plan += _hindsight(traffic, deadline)
        else:
            plan += _router(traffic, prediction, certificates, deadline)
    return plan


def served_rungs(prediction: Prediction, certificate: Certificate, in_time: Mask) -> Rungs:
    """The rungs that `router.routing.policy.Policy` serves under a relative certificate, for all prompts at once.

    The rule stands three times: the policy decides one prompt without NumPy, in microseconds; `rules.choose`
    decides a table without deadlines; this adds deadlines to it. tests/training/test_decision_rule.py holds the three
    equal.

    Args:
        in_time: rungs that keep the deadline [prompts, rungs].

    Returns:
        The certified policy's rung. If it is late, the next more expensive one that is in time, else the longest in
        time; if every rung is late, the cheapest.
    """
    wanted, last = certified_rungs(certificate, prediction), in_time.shape[1] - 1
    enough = in_time & (np.arange(last + 1) >= wanted[:, None])
    longest = last - in_time[:, ::-1].argmax(axis=1)
    served = np.where(enough.any(axis=1), enough.argmax(axis=1), longest)
    return np.where(in_time.any(axis=1), served, 0)


def forecast(directory: Path, outcomes: Outcomes) -> tuple[Prediction, tuple[Certificate, ...]]:
    """A bundle's forecasts for the prompts of outcomes, and its relative certificates.

    Raises:
        ArtifactError: the bundle is missing or damaged.
        DatasetError: the outcomes have another ladder.
    """
    bundle = manifest.load(directory)
    return inference.predict_outcomes(bundle, outcomes), bundle.manifest.certificates


def summary(plan: Sequence[PlanRow], target: float = DEFAULT_MAX_LOSS) -> str:
    """One or two sentences: the policy that serves `target` beside always-top, then under the tightest deadline.

    Without a bundle they are about hindsight; without a certificate that covers the target, about always-top.
    """
    top = next(row for row in plan if row.rungs[-1] == 1)
    free = [row for row in plan if row.deadline is None]
    routed = [row for row in free if row.max_loss is not None]
    # Certificates come in rising order of their loss; the last one that covers the target serves it.
    covering = [row for row in routed if row.max_loss is not None and row.max_loss <= target]
    if routed and not covering:
        return (
            f"No certificate covers a loss of {target:g}, so the router takes the top rung: "
            f"{top.thinking_tokens:.1f} thinking tokens a request; p99 {top.p99:.3g} s; accuracy {top.accuracy:.3f}."
        )
    best = (covering or free)[-1]
    sentence = (
        f"{best.label}: {best.thinking_tokens:.1f} thinking tokens a request, always-top {top.thinking_tokens:.1f}; "
        f"p99 {best.p99:.3g} s, always-top {top.p99:.3g} s; "
        f"accuracy {best.accuracy:.3f}, always-top {top.accuracy:.3f}."
    )
    tight = next((row for row in plan if row.deadline is not None and row.label == best.label), None)
    if tight is None or tight.in_time is None:
        return sentence
    return f"{sentence} Within {tight.deadline:g} s: accuracy {tight.accuracy:.3f}, {tight.in_time:.1%} in time."


def _fixed_rungs(traffic: RecordedTraffic) -> Iterator[PlanRow]:
    *lower, top = (rung.name for rung in traffic.outcomes.ladder.rungs)
    for i, name in enumerate([*lower, f"{top} (top)"]):
        yield traffic.row(f"always {name}", np.full(len(traffic.outcomes), i), None)


def _router(
    traffic: RecordedTraffic, prediction: Prediction, certificates: Sequence[Certificate], deadline: float | None
) -> Iterator[PlanRow]:
    p99 = prediction.token_quantiles[:, :, QUANTILES.index(0.99)]
    # As in serving: a rung without a forecast may use its whole cap.
    most = np.where(np.isnan(p99), caps(traffic.outcomes.ladder), p99)
    in_time = _in_time(traffic.latency, most, deadline)
    for certificate in certificates:
        chosen = served_rungs(prediction, certificate, in_time)
        yield traffic.row("router", chosen, deadline, certificate.alpha)


def _hindsight(traffic: RecordedTraffic, deadline: float | None) -> Iterator[PlanRow]:
    correct, tokens = traffic.outcomes.correct, traffic.outcomes.thinking_tokens
    # A fixed rung is chosen before a prompt is seen, so its p99 must keep the deadline; hindsight knows each length.
    p99 = np.quantile(tokens, 0.99, axis=0, keepdims=True)
    fixed = _best(correct.mean(axis=0, keepdims=True), _in_time(traffic.latency, p99, deadline))
    yield traffic.row("best fixed rung", np.repeat(fixed, len(correct)), deadline)
    yield traffic.row("hindsight", _best(correct, _in_time(traffic.latency, tokens, deadline)), deadline)


def _in_time(latency: LatencyProfile, tokens: Matrix, deadline: float | None) -> Mask:
    if deadline is None:
        return np.ones(tokens.shape, bool)
    return np.asarray(latency.seconds(tokens) <= deadline)


def _best(correct: Matrix, in_time: Mask) -> Rungs:
    """The cheapest of the best rungs in time; where all are late, the cheapest."""
    # argmax takes the first of equals; -1 lies below every correctness, and where all are late all are equal.
    return np.asarray(np.where(in_time, correct, -1).argmax(axis=1))
