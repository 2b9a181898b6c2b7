"""Metrics count what happened; log lines say it without prompt text."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import Tenant, Tenants
from router.bundle.manifest import Bundle
from router.domain import Checkpoint, DecisionSource, FinishReason, MaxLoss, RoutingOptions
from router.events import Audited, CallCompleted, Decided, Degraded, Generated, Record, RequestShed, StreamAborted
from router.serving.gauges import Gauges
from router.stopping.evidence import Probe, following
from router.stopping.rules import AgreeRule, StoppingCertificate
from router.telemetry import log_writer
from router.telemetry.log_writer import DeferredLog
from router.telemetry.logs import LogLines, Observers, configure_logging
from router.telemetry.metrics import MOST_WAITING, Metrics
from tests.support.fakes import (
    BUNDLE,
    FOREIGN_BUNDLE,
    LADDER,
    MODEL,
    RISING,
    TENANT,
    RecordingObserver,
    at_once,
    completion_of,
    decision_of,
    policy_of,
    request_of,
    router_of,
)

SECRET = "the patient is called Rosencrantz"
COMPLETION = completion_of(LADDER.rungs[4], thinking_tokens=100)
RECORDS: list[Record] = [
    Decided(TENANT, decision_of(), 0.001),
    Generated(request_of(SECRET), decision_of(), COMPLETION, 0.02, 0.5),
    Degraded("cache", "Redis took longer than 5 ms"),
    StreamAborted(request_of(SECRET), decision_of(), "caller"),
]

VERDICTS = ("stop", "go_on", "failed")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """A sample's value."""
    found = registry.get_sample_value(f"budget_router_{name}", labels)
    assert found is not None, name
    return found


def lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was written to standard output, line by line."""
    return [json.loads(line) for line in captured.readouterr().out.splitlines()]


@pytest.fixture
def log_lines(capsys: pytest.CaptureFixture[str]) -> Iterator[LogLines]:
    """As in production, onto the captured standard output; written at once, so that nothing need be waited for."""
    configure_logging().close()
    *processors, _ = structlog.get_config()["processors"]
    processors.append(structlog.processors.JSONRenderer(lambda event, **_: log_writer._line(event).strip()))
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(), processors=processors)
    yield LogLines(at_once)
    structlog.reset_defaults()


def test_log_lines_are_json_without_prompt_text(log_lines: LogLines, capsys: pytest.CaptureFixture[str]) -> None:
    for record in RECORDS:
        log_lines(record)
    written = lines(capsys)
    assert [line["event"] for line in written] == ["decided", "generated", "degraded", "broken"]
    assert all("Rosencrantz" not in json.dumps(line) for line in written)
    assert all({"level", "timestamp"} <= line.keys() for line in written)


def test_a_decision_line_says_what_was_decided_and_why(log_lines: LogLines, capsys: pytest.CaptureFixture[str]) -> None:
    log_lines(RECORDS[0])
    [line] = lines(capsys)
    assert line["decision_id"] == "a-decision"
    assert (line["rung"], line["source"], line["certified"]) == ("128", "classifier", True)
    assert (line["meets_target"], line["reason"]) == (True, "because")
    assert line["predicted_quality"] == RISING.quality[4]
    assert line["milliseconds"] == 1.0
    assert line["truncated_characters"] == 0


def test_a_generation_line_says_what_was_used(log_lines: LogLines, capsys: pytest.CaptureFixture[str]) -> None:
    log_lines(RECORDS[1])
    [line] = lines(capsys)
    assert (line["thinking_tokens"], line["budget"], line["finish"]) == (100, "128", "natural")
    assert line["budget_violated"] is False


def test_a_line_waits_without_the_prompt_and_tells_when_it_happened(
    log_lines: LogLines, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting: list[DeferredLog] = []
    later = LogLines(waiting.append)
    before = datetime.now(UTC)
    for record in RECORDS:
        later(record)
    after = datetime.now(UTC)
    assert "Rosencrantz" in repr(RECORDS) and "Rosencrantz" not in repr(waiting)
    time.sleep(0.02)
    for line in waiting:
        at_once(line)
    written = lines(capsys)
    assert len(written) == len(RECORDS)
    assert all(before <= datetime.fromisoformat(line["timestamp"]) <= after for line in written)


def test_what_was_not_let_in_makes_no_line() -> None:
    waiting: list[DeferredLog] = []
    LogLines(waiting.append)(RequestShed("a", "queue"))
    assert not waiting


def test_every_observer_is_reported() -> None:
    watching = [RecordingObserver(), RecordingObserver()]
    tell = Observers(watching)
    for record in RECORDS:
        tell(record)
    assert [observer.records for observer in watching] == [RECORDS, RECORDS]


def test_decisions_are_counted_by_rung_and_source(metrics: Metrics, registry: CollectorRegistry) -> None:
    for source in (DecisionSource.CLASSIFIER, DecisionSource.CACHE, DecisionSource.CACHE):
        metrics(Decided(TENANT, decision_of(source=source), 0.002))
    assert value(registry, "decisions_total", model=MODEL, rung="128", source="cache") == 2
    assert value(registry, "decisions_total", model=MODEL, rung="128", source="classifier") == 1
    assert value(registry, "decide_seconds_count") == 3
    assert value(registry, "decide_seconds_sum") == pytest.approx(0.006)


def test_records_wait_for_their_thread_or_for_a_scrape_and_not_too_many(registry: CollectorRegistry) -> None:
    deferred: list[Callable[[], None]] = []
    metrics = Metrics(registry, deferred.append)
    counter = metrics._calls("Decide", "OK")
    for _ in range(MOST_WAITING - 1):
        metrics(CallCompleted("Decide", "OK"))
    assert counter._value.get() == 0 and len(deferred) == 1
    metrics(CallCompleted("Decide", "OK"))
    assert counter._value.get() == MOST_WAITING
    metrics(CallCompleted("Decide", "OK"))
    deferred[-1]()
    assert counter._value.get() == MOST_WAITING + 1
    metrics(CallCompleted("Decide", "OK"))
    assert value(registry, "calls_total", method="Decide", code="OK") == MOST_WAITING + 2


def test_decisions_for_prompts_unlike_the_certified_ones_are_counted(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    for score in (RISING, replace(RISING, far=True), None):
        metrics(Decided(TENANT, decision_of(score=score, certificate=None), 0))
    assert value(registry, "far_total") == 1


def test_decisions_that_promise_less_are_counted(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics(Decided(TENANT, decision_of(), 0))
    metrics(Decided(TENANT, decision_of(certificate=None), 0))
    metrics(Decided(TENANT, decision_of(certificate=None, meets_target=False), 0))
    assert value(registry, "uncertified_total") == 2
    assert value(registry, "target_unmet_total") == 1


def test_the_forecast_is_summed_beside_that_of_the_top_rung(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics(Decided(TENANT, decision_of(index=2), 0))
    assert value(registry, "predicted_thinking_tokens_total") == 20.0
    assert value(registry, "predicted_top_thinking_tokens_total") == 50.0


def test_a_fallback_does_not_look_like_a_saving(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics(Decided(TENANT, decision_of(score=None, source=DecisionSource.FALLBACK, certificate=None), 0))
    assert value(registry, "predicted_thinking_tokens_total") == 0
    assert value(registry, "predicted_top_thinking_tokens_total") == 0
    assert value(registry, "decisions_total", model=MODEL, rung="128", source="fallback") == 1


def bounded(tokens: int | None, seconds: float | None = None) -> Generated:
    """A generation at the third of six rungs, whose caller allows so many thinking tokens and seconds."""
    request = request_of(options=RoutingOptions(MaxLoss(0.05), max_thinking_tokens=tokens, max_latency=seconds))
    return Generated(request, decision_of(index=2), completion_of(thinking_tokens=12), 0.02, 0.5)


def test_what_was_used_is_summed_beside_what_the_top_rung_would_have_used(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics(bounded(None))
    at_top = decision_of(index=len(LADDER) - 1)
    metrics(Generated(request_of(), at_top, completion_of(thinking_tokens=80), 0.02, 0.5))
    # Nothing is known about these: a pinned rung without a score, a caller's cap or deadline, tokens not counted.
    metrics(Generated(request_of(), decision_of(index=2, score=None), completion_of(thinking_tokens=9), 0.02, 0.5))
    metrics(bounded(200))
    metrics(bounded(None, seconds=0.5))
    metrics(replace(bounded(None, seconds=0.5), decision=at_top))
    metrics(Generated(request_of(), decision_of(index=2), completion_of(thinking_tokens=None), 0.02, 0.5))
    forecast = {"model": MODEL, "source": "forecast"}
    assert value(registry, "realised_thinking_tokens_total", **forecast) == 12 + 80
    assert value(registry, "realised_top_thinking_tokens_total", **forecast) == 50 + 80
    assert (
        registry.get_sample_value("budget_router_realised_thinking_tokens_total", {**forecast, "source": "audit"})
        is None
    )


def test_what_stopping_saves_and_what_it_wastes_is_counted(metrics: Metrics, registry: CollectorRegistry) -> None:
    rule = StoppingCertificate(0.02, 0.1, AgreeRule(0, 1), 400, 12.0, 6.0)
    decision = decision_of(index=len(LADDER) - 1)
    decision = replace(decision, choice=replace(decision.choice, stopping=rule))
    passed = [
        Checkpoint(rung, "4", tokens, following(None, "4", Probe("4", tokens, True), 9, False), stops)
        for rung, tokens, stops in (("16", 4, False), ("32", 0, False), ("64", 4, True))
    ]
    end = replace(completion_of(thinking_tokens=20), probe_tokens=4, checkpoints=tuple(passed))
    for finish in (FinishReason.CONVERGED, FinishReason.FORCED):
        metrics(Generated(request_of(), decision, replace(end, finish=finish), 0.02, 0.5))
    counted = {verdict: value(registry, "checkpoints_total", model=MODEL, verdict=verdict) for verdict in VERDICTS}
    assert counted == dict.fromkeys(VERDICTS, 2)
    assert value(registry, "probe_tokens_total", model=MODEL) == 8
    assert value(registry, "stopping_tokens_total", model=MODEL) == 2 * (20 + 4)
    assert value(registry, "stopping_top_tokens_total", model=MODEL) == 50 + 20
    forecast = {"model": MODEL, "source": "forecast"}
    assert value(registry, "realised_thinking_tokens_total", **forecast) == 48


def test_audits_measure_what_the_top_rung_uses(metrics: Metrics, registry: CollectorRegistry) -> None:
    for tokens in ((10, 40), (40, 40), None):
        metrics(Audited(MODEL, 0.02, 0.0, 1.0, False, tokens))
    audit = {"model": MODEL, "source": "audit"}
    assert value(registry, "realised_thinking_tokens_total", **audit) == 50
    assert value(registry, "realised_top_thinking_tokens_total", **audit) == 80
    assert value(registry, "audits_total", model=MODEL, alpha="0.02") == 3


def test_what_alerts_count_begins_at_zero(registry: CollectorRegistry) -> None:
    """Prometheus sees no increase in a series whose first sample is 1."""
    Metrics(registry)
    for dependency in ("tenants", "tls", "artifact", "audit", "cache entries", "pin entries", "pins"):
        assert value(registry, "degraded_total", dependency=dependency) == 0
    assert value(registry, "outcomes_lost_total", cause="full") == 0


def test_generations_are_counted_by_their_end(metrics: Metrics, registry: CollectorRegistry) -> None:
    for finish in (FinishReason.FORCED, FinishReason.FORCED, FinishReason.TRUNCATED):
        completion = completion_of(thinking_tokens=100, finish=finish)
        metrics(Generated(request_of(), decision_of(), completion, 0.02, 0.5))
    assert value(registry, "completions_total", finish="forced", enforcement="native") == 2
    assert value(registry, "completions_total", finish="truncated", enforcement="native") == 1
    assert value(registry, "thinking_tokens_sum") == 300
    assert value(registry, "answer_tokens_total") == 6
    assert value(registry, "first_token_seconds_sum") == pytest.approx(0.06)
    assert value(registry, "generate_seconds_sum") == pytest.approx(1.5)


@pytest.mark.parametrize(("used", "violations"), [(127, 0), (128, 0), (129, 1), (None, 0)])
def test_thinking_beyond_the_budget_is_counted(
    metrics: Metrics, registry: CollectorRegistry, used: int | None, violations: int
) -> None:
    metrics(Generated(request_of(), decision_of(), completion_of(thinking_tokens=used), 0.02, 0.5))
    assert value(registry, "enforcement_violation_total") == violations


def test_contradicted_counts_are_counted_and_shown(
    metrics: Metrics, registry: CollectorRegistry, log_lines: LogLines, capsys: pytest.CaptureFixture[str]
) -> None:
    doubtful = replace(completion_of(thinking_tokens=250), reported_thinking_tokens=3, counts_disagree=True)
    for completion in (completion_of(), doubtful):
        metrics(Generated(request_of(), decision_of(), completion, 0.02, 0.5))
        log_lines(Generated(request_of(), decision_of(), completion, 0.02, 0.5))
    assert value(registry, "count_disagreement_total") == 1
    assert [(line["reported_thinking_tokens"], line["counts_disagree"]) for line in lines(capsys)] == [
        (None, False), (3, True),
    ]  # fmt: skip


def test_only_an_answer_is_recovered(metrics: Metrics, registry: CollectorRegistry) -> None:
    for finish in (FinishReason.NATURAL, FinishReason.NO_ANSWER):
        completion = replace(completion_of(finish=finish), attempts=2)
        metrics(Generated(request_of(), decision_of(), completion, 0.02, 0.5))
    assert value(registry, "truncation_recovered_total") == 1


def test_what_nobody_counted_does_not_pull_the_histogram_down(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics(Generated(request_of(), decision_of(), completion_of(thinking_tokens=None), 0.02, 0.5))
    assert value(registry, "thinking_tokens_count") == 0


def test_every_fallback_has_a_counter(metrics: Metrics, registry: CollectorRegistry) -> None:
    for dependency in ("cache", "classifier", "backend", "outcomes", "cache"):
        metrics(Degraded(dependency, "down"))
    assert value(registry, "degraded_total", dependency="cache") == 2
    assert value(registry, "degraded_total", dependency="outcomes") == 1


def test_streams_that_break_are_counted_by_their_cause(metrics: Metrics, registry: CollectorRegistry) -> None:
    for cause in ("caller", "backend", "caller"):
        metrics(StreamAborted(request_of(), decision_of(), cause))
    assert value(registry, "broken_streams_total", cause="caller") == 2
    assert value(registry, "broken_streams_total", cause="backend") == 1


def test_two_services_in_one_process_count_apart() -> None:
    one, other = CollectorRegistry(), CollectorRegistry()
    Metrics(one)(RECORDS[2])
    Metrics(other)
    assert other.get_sample_value("budget_router_degraded_total", {"dependency": "cache"}) == 0


def test_what_is_not_let_in_and_what_gave_way_is_counted(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics(RequestShed("a", "queue"))
    metrics(RequestShed("a", "quota"))
    metrics(CallCompleted("Generate", "RESOURCE_EXHAUSTED"))
    metrics(Decided(TENANT, replace(decision_of(), target_relaxation=0.01), 0))
    metrics(Decided(TENANT, decision_of(), 0))
    assert value(registry, "shed_total", tenant="a", cause="queue") == 1
    assert value(registry, "calls_total", method="Generate", code="RESOURCE_EXHAUSTED") == 1
    assert value(registry, "relaxed_total", tenant="default") == 1


def test_refusals_for_want_of_credentials_are_reported(log_lines: LogLines, capsys: pytest.CaptureFixture[str]) -> None:
    for record in [CallCompleted("Decide", code) for code in ("OK", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED")]:
        log_lines(record)
    assert [line["code"] for line in lines(capsys)] == ["UNAUTHENTICATED"]


async def test_gauges_tell_what_is_true_now(registry: CollectorRegistry) -> None:
    queue = FairQueue(100, 60)
    tenants = Tenants({"default": Tenant()})
    admission = Admission(tenants, queue, MemoryQuotas(), RecordingObserver())
    certificates = router_of().served_model("").bundle.manifest.certificates
    router = router_of(admission=admission, policy=policy_of(certificates=certificates))
    away = False
    registry.register(Gauges(router, queue, admission, lambda: {"cache": away}))
    assert value(registry, "token_backlog") == 0
    holders = [asyncio.create_task(_held(queue, 80)) for _ in range(2)]
    await asyncio.sleep(0.01)
    away = True
    assert value(registry, "token_backlog") == 160
    assert value(registry, "queued_tokens") == 80
    assert value(registry, "left_out", dependency="cache") == 1
    assert value(registry, "certified", model=MODEL, alpha=f"{certificates[0].alpha:g}") == 1
    router.suspend(MODEL, router.served_model("").bundle.version)
    assert value(registry, "certified", model=MODEL, alpha=f"{certificates[0].alpha:g}") == 0
    for holder in holders:
        holder.cancel()
    await asyncio.gather(*holders, return_exceptions=True)


@pytest.mark.parametrize(("bundle", "matches"), [(BUNDLE, 1), (FOREIGN_BUNDLE, 0)], ids=["own", "foreign"])
async def test_a_gauge_tells_whether_the_bundle_is_about_the_engine(
    registry: CollectorRegistry, bundle: Bundle, matches: int
) -> None:
    queue, observer = FairQueue(100, 60), RecordingObserver()
    admission = Admission(Tenants({"default": Tenant()}), queue, MemoryQuotas(), observer)
    certificates = bundle.manifest.certificates
    router = router_of(bundle=bundle, policy=policy_of(certificates=certificates), admission=admission)
    registry.register(Gauges(router, queue, admission, dict))
    assert value(registry, "bundle_matches", model=MODEL) == matches
    believed = [value(registry, "certified", model=MODEL, alpha=f"{one.alpha:g}") for one in certificates]
    assert believed == [matches] * len(certificates)


async def _held(queue: FairQueue, tokens: float) -> None:
    async with queue.turn("a", 1, tokens):
        await asyncio.Event().wait()
