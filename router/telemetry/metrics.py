"""Prometheus metrics, for alerts and graphs. Prompt text never appears."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from router.domain import Completion, FinishReason, Rule
from router.events import (
    Audited,
    CallCompleted,
    Decided,
    Degraded,
    GatewayAnswered,
    GatewayShown,
    Generated,
    Record,
    RecordsLost,
    RequestShed,
    Shadowed,
    StreamAborted,
    Swapped,
    TaskFailed,
    Taught,
)

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Bounds of the buckets of times in seconds: a decision takes the first ones, a generation the last."""

TOKENS = (0, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Bounds of the buckets of thinking tokens; powers of two, as the caps of most ladders."""


DEPENDENCIES = (
    "artifact", "audit", "backend", "cache", "cache entries", "classifier", "learning", "outcomes", "pin entries",
    "pins", "quotas", "tenants", "tls"
)  # fmt: skip
"""What requests may go on without: the labels of `degraded`."""


MOST_WAITING = 256
"""Records that wait to be counted."""


class Metrics:
    """Prometheus metrics.

    Most records are decisions and ends of calls, which change the same few series. They are counted some at a time: a
    moment later, before every scrape, and at once where MOST_WAITING wait.

    Args:
        defer: runs a function a moment later, in another thread; None counts every record at once, as where another
            process is scraped.
    """

    def __init__(self, registry: CollectorRegistry, defer: Callable[[Callable[[], None]], None] | None = None) -> None:
        self._defer = defer
        self._waiting: deque[Decided | CallCompleted] = deque()
        self._one = threading.Lock()
        registry.register(_Before(self.count))  # before all others, which are read in the order of their registration

        def counter(name: str, text: str) -> Counter:
            return Counter(f"budget_router_{name}", text, registry=registry)

        def counters(name: str, text: str, *labels: str) -> Callable[..., Counter]:
            # `labels` takes a lock and builds a key; the cache makes it a lookup. It stays small, since every label has
            # few values: rungs, sources, dependencies, tenants of the file.
            return cache(Counter(f"budget_router_{name}", text, labels, registry=registry).labels)

        def gauges(name: str, text: str, *labels: str) -> Callable[..., Gauge]:
            # Of several workers one alone audits and promotes, so the newest figure is the one that counts.
            return cache(
                Gauge(
                    f"budget_router_{name}", text, labels, registry=registry, multiprocess_mode="livemostrecent"
                ).labels
            )

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"budget_router_{name}", text, buckets=buckets, registry=registry)

        self._decisions = counters("decisions", "Decisions made", "model", "rung", "source")
        self._unmet = counter("target_unmet", "Decisions whose own forecast does not meet the target")
        self._uncertified = counter("uncertified", "Decisions without a certificate behind them")
        self._far = counter("far", "Decisions for prompts unlike the calibration prompts")
        self._escalations = counters("escalations", "Conversations that went up from their rung", "model", "cause")
        self._relaxed = counters("relaxed", "Decisions whose target was relaxed under pressure", "tenant")
        self._shed = counters("shed", "Generations that were refused for want of room", "tenant", "cause")
        self._calls = counters("calls", "Calls answered", "method", "code")
        self._gateway = counters("gateway_requests", "Requests that a gateway has asked about", "outcome", "cause")
        self._shown = counters("gateway_responses", "Responses that a gateway has shown", "outcome")
        self._decide_seconds = histogram("decide_seconds", "Time to decide", SECONDS)
        self._predicted = counter("predicted_thinking_tokens", "Mean thinking tokens forecast at the chosen rung")
        self._predicted_top = counter("predicted_top_thinking_tokens", "The same, had the top rung been chosen")
        text = "Thinking tokens used where it is known what the top rung would have used"
        self._realised = counters("realised_thinking_tokens", text, "model", "source")
        text = "Thinking tokens that the top rung used there (audit) or would have used (forecast)"
        self._realised_top = counters("realised_top_thinking_tokens", text, "model", "source")
        self._completions = counters("completions", "Generations ended", "finish", "enforcement")
        self._thinking = histogram("thinking_tokens", "Thinking tokens used", TOKENS)
        self._answer = counter("answer_tokens", "Answer tokens")
        self._violations = counter("enforcement_violation", "Generations that thought beyond their budget")
        self._disagreements = counter("count_disagreement", "Generations whose engine's token counts are contradicted")
        self._first_token = histogram("first_token_seconds", "Time to the first token", SECONDS)
        self._generate_seconds = histogram("generate_seconds", "Time to the last token", SECONDS)
        self._recovered = counter("truncation_recovered", "Answers from the next rung, after the chosen one gave none")
        self._looked = counters("checkpoints", "Answers that stopping rules looked at", "model", "verdict")
        self._probed = counters("probe_tokens", "Tokens of these answers that are no part of the reply", "model")
        text = "Thinking tokens and tokens of probes under a stopping rule, where the top rung's forecast is known"
        self._stopping = counters("stopping_tokens", text, "model")
        self._stopping_top = counters("stopping_top_tokens", "The top rung's forecast for these", "model")
        self._broken = counters("broken_streams", "Generations that did not reach their end", "cause")
        self._audits = counters("audits", "Answers compared with the top rung's", "model", "alpha")
        self._audit_loss = counters("audit_loss", "Answers that the top rung would have got right", "model", "alpha")
        self._audit_wealth = gauges("audit_wealth", "Evidence against the certificate", "model", "alpha")
        self._audit_alarm = gauges("audit_alarm", "1 = an audit has refuted the certificate", "model", "alpha")
        self._lessons = counters("lessons", "Requests that were drawn to learn from", "model", "outcome")
        self._lesson_tokens = counters("lesson_tokens", "Tokens that answers behind cuts and judges took", "model")
        self._shadow_agreement = gauges("shadow_agreement", "Same rungs as the last candidate bundle's", "model")
        self._shadow_saved = gauges("shadow_saved", "Share of tokens that the candidate would not have spent", "model")
        self._swaps = counters("model_swaps", "Bundles swapped in", "model")
        self._failures = counters("background_failures", "Failures of background tasks, which go on", "task")
        self._lost = counters("outcomes_lost", "Records of the outcome log that are lost", "cause")
        self._degraded = counters("degraded", "Requests that went on without a dependency", "dependency")
        # A series that begins at 1 has no increase for Prometheus, so those that alerts count begin at 0.
        for dependency in DEPENDENCIES:
            self._degraded(dependency)
        for cause in ("full", "unwritable"):
            self._lost(cause)

    def __call__(self, record: Record) -> None:
        match record:
            case Decided() | CallCompleted():
                if self._defer is None:
                    self._count([record])
                else:
                    self._count_later(record, self._defer)
            case GatewayAnswered(outcome, cause):
                self._gateway(outcome, cause).inc()
            case GatewayShown(outcome):
                self._shown(outcome).inc()
            case Generated():
                self._generated(record)
            case StreamAborted(_, _, cause):
                self._broken(cause).inc()
            case Audited(model, alpha, loss, wealth, alarmed, tokens):
                self._audits(model, f"{alpha:g}").inc()
                # A counter cannot fall, so an answer better than the top rung's adds nothing.
                self._audit_loss(model, f"{alpha:g}").inc(max(loss, 0))
                self._audit_wealth(model, f"{alpha:g}").set(wealth)
                self._audit_alarm(model, f"{alpha:g}").set(alarmed)
                if tokens is not None:
                    self._spent(model, "audit", *tokens)
            case Shadowed(model, _, _, _, agreement, saved):
                self._shadow_agreement(model).set(agreement)
                self._shadow_saved(model).set(saved)
            case Taught(model, _, outcome, tokens):
                self._lessons(model, outcome).inc()
                self._lesson_tokens(model).inc(tokens)
            case Swapped(model, _, _):
                self._swaps(model).inc()
            case RequestShed(tenant, cause):
                self._shed(tenant, cause).inc()
            case Degraded(dependency, _):
                self._degraded(dependency).inc()
            case RecordsLost(cause, records, _):
                self._lost(cause).inc(records)
            case TaskFailed(task, _):
                self._failures(task).inc()

    def _count_later(self, record: Decided | CallCompleted, defer: Callable[[Callable[[], None]], None]) -> None:
        self._waiting.append(record)
        if len(self._waiting) >= MOST_WAITING:
            self.count()
        elif len(self._waiting) == 1:
            defer(self.count)

    def count(self) -> None:
        """Count the records that wait; any thread may."""
        with self._one:  # to the end: a scrape must not pass by records that another thread has just taken
            self._count([self._waiting.popleft() for _ in range(len(self._waiting))])

    def _count(self, records: Sequence[Decided | CallCompleted]) -> None:
        changes: defaultdict[Counter, float] = defaultdict(float)
        for record in records:
            if isinstance(record, CallCompleted):
                changes[self._calls(record.method, record.code)] += 1
            else:
                self._decided(record, changes)
        for series, change in changes.items():
            series.inc(change)

    def _decided(self, record: Decided, changes: defaultdict[Counter, float]) -> None:
        decision = record.decision
        self._decide_seconds.observe(record.seconds)
        changes[self._decisions(decision.model, decision.rung.name, decision.source.value)] += 1
        if decision.target_relaxation:
            changes[self._relaxed(record.tenant)] += 1
        if not decision.choice.meets_target:
            changes[self._unmet] += 1
        if decision.choice.certificate is None:
            changes[self._uncertified] += 1
        if decision.escalation is not None:
            changes[self._escalations(decision.model, decision.escalation.value)] += 1
        if decision.score is not None:
            if decision.score.far:
                changes[self._far] += 1
            chosen, top = decision.expected_thinking_tokens, decision.score.mean[-1]
            if chosen is not None and top is not None:
                changes[self._predicted] += chosen
                changes[self._predicted_top] += top

    def _generated(self, record: Generated) -> None:
        completion = record.completion
        self._completions(completion.finish.value, completion.enforcement.value).inc()
        self._violations.inc(completion.budget_violated)
        self._disagreements.inc(completion.counts_disagree)
        self._recovered.inc(completion.attempts > 1 and completion.finish is not FinishReason.NO_ANSWER)
        self._climbed(record.decision.model, completion)
        if completion.thinking_tokens is not None and completion.spent_thinking is not None:
            self._thinking.observe(completion.thinking_tokens)
            if (at_top := _at_top(record, completion.thinking_tokens)) is not None:
                self._spent(record.decision.model, "forecast", completion.spent_thinking, at_top)
                if record.decision.rule is Rule.STOPPING:
                    self._stopping(record.decision.model).inc(completion.spent_thinking)
                    self._stopping_top(record.decision.model).inc(at_top)
        self._answer.inc(completion.answer_tokens or 0)
        self._first_token.observe(record.first_token_seconds)
        self._generate_seconds.observe(record.seconds)

    def _climbed(self, model: str, completion: Completion) -> None:
        """What a stopping rule has looked at; nothing where there was none."""
        for passed in completion.checkpoints:
            verdict = "stop" if passed.stops else "go_on" if passed.probe_tokens else "failed"
            self._looked(model, verdict).inc()
        if completion.checkpoints:
            self._probed(model).inc(completion.probe_tokens)

    def _spent(self, model: str, source: str, used: float, at_top: float) -> None:
        self._realised(model, source).inc(used)
        self._realised_top(model, source).inc(at_top)


class _Before(Collector):
    """Has work done before a scrape."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def collect(self) -> Sequence[Metric]:
        self._work()
        return ()


def _at_top(record: Generated, used: int) -> float | None:
    """Thinking tokens that the top rung would have used; None where nobody knows, or where the caller may save."""
    decision, completion, options = record.decision, record.completion, record.request.options
    if options.max_latency is not None:  # the decision does not say whether this has kept out a rung
        return None
    most, top = options.max_thinking_tokens, decision.ladder.rungs[-1]
    if completion.finish is FinishReason.CONVERGED:
        return None if decision.score is None else decision.score.mean[-1]
    if decision.rung == top:  # also the engine's default, the only rung of its ladder: nothing is saved
        return used
    if most is not None and (top.tokens is None or most < top.tokens):  # the caller saves here, not the router
        return None
    return None if decision.score is None else decision.score.mean[-1]
