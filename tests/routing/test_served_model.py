"""A bundle that is not about the engine decides nothing: the engine's own default is served, and everyone is told."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from router.admission.controller import Admission
from router.admission.fair_queue import FairQueue
from router.admission.memory_quotas import MemoryQuotas
from router.admission.tenants import Tenant, Tenants
from router.bundle.manifest import Bundle
from router.domain import (
    DEFAULT_RUNG,
    Completion,
    ContentDelta,
    Decision,
    DecisionSource,
    FinishReason,
    MaxLoss,
    MinQuality,
    OnUnmet,
    Quota,
    ReasoningBudget,
    RoutingOptions,
    Sampling,
)
from router.errors import InvalidRequest, NotFound, TargetUnmet
from router.routing.explain import sentences
from router.routing.generation import ASSUMED_THINKING_TOKENS
from router.routing.router import BudgetRouter
from tests.support.fakes import (
    BUNDLE,
    FINGERPRINT,
    FOREIGN_BUNDLE,
    LATENCY,
    MODEL,
    TENANT,
    UNAVAILABLE,
    DictCache,
    FakeBackend,
    FakeClassifier,
    ListLog,
    RecordingObserver,
    completion_of,
    request_of,
    router_of,
)

ABOUT = FOREIGN_BUNDLE.manifest.backend_fingerprint
UNCAPPED = ReasoningBudget(DEFAULT_RUNG, None)
PROOF = "Prove the four colour theorem."
ANY_TARGET = [MaxLoss(0.0), MaxLoss(0.05), MaxLoss(1.0), MinQuality(0.01), MinQuality(0.8), MinQuality(1.0)]


async def decided(router: BudgetRouter, options: RoutingOptions) -> Decision:
    return await router.decide(request_of(PROOF, options=options))


async def generated(router: BudgetRouter, options: RoutingOptions) -> Completion:
    *_, completion = [event async for event in router.generate(request_of(PROOF, options=options), Sampling())]
    assert isinstance(completion, Completion)
    return completion


@pytest.mark.parametrize("target", ANY_TARGET, ids=str)
async def test_no_score_of_a_foreign_bundle_decides_anything(target: MaxLoss | MinQuality) -> None:
    classifier, cache = FakeClassifier(), DictCache()
    router = router_of(bundle=FOREIGN_BUNDLE, classifier=classifier, cache=cache, explored=0.5)
    for _ in range(20):  # half of the policy's decisions would explore
        decision = await decided(router, RoutingOptions(target, conversation_id="a"))
        assert (decision.source, decision.rung) == (DecisionSource.ENGINE_DEFAULT, UNCAPPED)
        assert (decision.score, decision.predicted_quality, decision.propensities) == (None, None, (1.0,))
        assert not decision.choice.meets_target and decision.choice.certificate is None
    assert classifier.asked == [] and cache.scores == {}


async def test_the_reason_is_short_and_names_where_to_read_more() -> None:
    """Every reply repeats it; the log and `doctor` name both engines."""
    router = router_of(bundle=FOREIGN_BUNDLE)
    reason = (await decided(router, RoutingOptions(MaxLoss(0.05)))).choice.reason
    assert "the engine's own default: the bundle is about another engine; `budget-router doctor` says" in reason
    assert len(reason) < 130
    [served] = router.served_models
    assert ABOUT in served.foreign and FINGERPRINT in served.foreign and "budget-train collect" in served.foreign


async def test_a_bundle_about_a_mere_name_says_how_to_read_the_fingerprint() -> None:
    manifest = replace(FOREIGN_BUNDLE.manifest, backend_fingerprint="Qwen/Qwen3-8B")
    router = router_of(bundle=replace(FOREIGN_BUNDLE, manifest=manifest))
    reason = (await decided(router, RoutingOptions(MaxLoss(0.05)))).choice.reason
    assert "no engine's fingerprint, which `budget-train fit --fingerprint-from URL` reads" in reason
    assert len(reason) < 130


async def test_a_deadline_cannot_be_predicted_and_the_reason_says_so() -> None:
    decision = await decided(router_of(bundle=FOREIGN_BUNDLE), RoutingOptions(MaxLoss(0.05), max_latency=0.001))
    assert decision.rung == UNCAPPED
    assert "no deadline can be predicted" in decision.choice.reason
    # The time-out of a client, which asks for no forecast.
    options = RoutingOptions(MaxLoss(0.05), max_latency=600.0, latency_of_call=True)
    assert "deadline" not in (await decided(router_of(bundle=FOREIGN_BUNDLE), options)).choice.reason


@pytest.mark.parametrize("cap", [0, 1, 300, 1_000_000])
async def test_the_callers_bounds_are_held_whatever_the_foreign_ladder_is(cap: int) -> None:
    backend = FakeBackend()
    router = router_of(bundle=FOREIGN_BUNDLE, backend=backend)
    options = RoutingOptions(MaxLoss(0.05), min_thinking_tokens=cap // 2, max_thinking_tokens=cap)
    completion = await generated(router, options)
    assert completion.budget == ReasoningBudget(DEFAULT_RUNG, cap)
    (asked,) = backend.asked
    assert (asked.budget, asked.min_thinking_tokens) == (completion.budget, cap // 2)


async def test_a_floor_alone_leaves_the_thought_uncapped() -> None:
    backend = FakeBackend()
    await generated(
        router_of(bundle=FOREIGN_BUNDLE, backend=backend), RoutingOptions(MaxLoss(0.05), min_thinking_tokens=9_000)
    )
    assert [(asked.budget, asked.min_thinking_tokens) for asked in backend.asked] == [(UNCAPPED, 9_000)]


async def test_a_caller_who_would_rather_be_refused_is_refused() -> None:
    options = RoutingOptions(MaxLoss(1.0), on_unmet=OnUnmet.REJECT)
    with pytest.raises(TargetUnmet, match="nothing is known about any target: the bundle is about another engine"):
        await decided(router_of(bundle=FOREIGN_BUNDLE), options)


async def test_a_rung_that_the_caller_names_is_a_cap_that_the_caller_sets() -> None:
    backend = FakeBackend()
    router = router_of(bundle=FOREIGN_BUNDLE, backend=backend)
    for name in ("64", "256"):
        decision = await decided(router, RoutingOptions(MaxLoss(0.05), rung=name))
        assert (decision.source, decision.rung.name) == (DecisionSource.OVERRIDE, name)
        assert not decision.choice.meets_target and "about another engine" in decision.choice.reason
    assert (await generated(router, RoutingOptions(MaxLoss(0.05), rung="64"))).budget == ReasoningBudget("64", 64)
    with pytest.raises(NotFound):
        await decided(router, RoutingOptions(MaxLoss(0.05), rung=DEFAULT_RUNG))
    with pytest.raises(InvalidRequest):
        await decided(router, RoutingOptions(MaxLoss(0.05), rung="64", max_thinking_tokens=32))


async def test_a_batch_may_ask_for_both_kinds_of_models() -> None:
    other = router_of(model="other").served_models[0]
    router = router_of(bundle=FOREIGN_BUNDLE, failover=[other])
    requests = [request_of(model=MODEL), request_of(model="other"), request_of(model=MODEL)]
    sources = [decision.source for decision in await router.decide_batch(requests)]
    default = DecisionSource.ENGINE_DEFAULT
    assert sources == [default, DecisionSource.CLASSIFIER, default]


async def test_a_failover_model_with_a_foreign_bundle_is_served_by_its_default() -> None:
    backend = FakeBackend()
    second = router_of(model="second", bundle=FOREIGN_BUNDLE, backend=backend).served_models[0]
    router = router_of(backend=FakeBackend([UNAVAILABLE]), failover=[second])
    events = [event async for event in router.generate(request_of(), Sampling())]
    sources = [event.source for event in events if isinstance(event, Decision)]
    assert sources == [DecisionSource.CLASSIFIER, DecisionSource.ENGINE_DEFAULT]
    assert [asked.budget for asked in backend.asked] == [UNCAPPED]


async def test_an_uncapped_thought_without_an_answer_is_tried_once_more_and_not_capped() -> None:
    backend = FakeBackend([completion_of(UNCAPPED)])
    completion = await generated(router_of(bundle=FOREIGN_BUNDLE, backend=backend), RoutingOptions(MaxLoss(0.05)))
    assert (completion.attempts, completion.finish) == (2, FinishReason.NO_ANSWER)
    assert [asked.budget for asked in backend.asked] == [UNCAPPED, UNCAPPED]


class Charged(MemoryQuotas):
    """Keeps what was charged and what was given back."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[float] = []
        self.unused: list[float] = []

    async def take(self, tenant: str, quota: Quota, lease: str, tokens: float) -> float:
        self.taken.append(tokens)
        return await super().take(tenant, quota, lease, tokens)

    async def give_back(self, tenant: str, quota: Quota, lease: str, unused: float) -> None:
        self.unused.append(unused)
        await super().give_back(tenant, quota, lease, unused)


@pytest.mark.parametrize(
    ("cap", "assumed"), [(None, ASSUMED_THINKING_TOKENS), (100, 100), (0, 0)], ids=["no cap", "cap", "no thought"]
)
async def test_admission_counts_what_is_stated_and_the_completion_corrects_it(cap: int | None, assumed: int) -> None:
    quotas, observer = Charged(), RecordingObserver()
    limited = {TENANT: Tenant(tokens_per_minute=1_000_000)}
    admission = Admission(Tenants(limited), FairQueue(1e9, 1.0), quotas, observer)
    router = router_of(bundle=FOREIGN_BUNDLE, admission=admission)
    completion = await generated(router, RoutingOptions(MaxLoss(0.05), max_thinking_tokens=cap))
    expected = assumed + LATENCY.answer_tokens
    used = (completion.thinking_tokens or 0) + (completion.answer_tokens or 0)
    assert quotas.taken == [expected] and quotas.unused == [expected - used]


async def test_an_answer_that_nobody_counted_is_charged_by_its_length() -> None:
    quotas = Charged()
    limited = {TENANT: Tenant(tokens_per_minute=1_000_000)}
    admission = Admission(Tenants(limited), FairQueue(1e9, 1.0), quotas, RecordingObserver())
    answer = "word " * 80
    backend = FakeBackend([ContentDelta(answer), replace(completion_of(UNCAPPED), answer_tokens=None)])
    completion = await generated(
        router_of(bundle=FOREIGN_BUNDLE, admission=admission, backend=backend), RoutingOptions(MaxLoss(0.05))
    )
    assert completion.answer_tokens is None
    assert quotas.taken[0] - quotas.unused[0] == 2 + len(answer) / 4


async def test_a_deadline_refuses_nobody_for_tokens_that_are_merely_assumed() -> None:
    """A forecast of so many tokens would leave no time to wait at all."""
    assert LATENCY.seconds(ASSUMED_THINKING_TOKENS) > 10
    completion = await generated(router_of(bundle=FOREIGN_BUNDLE), RoutingOptions(MaxLoss(0.05), max_latency=10.0))
    assert completion.budget == UNCAPPED


async def test_the_log_gets_a_ladder_of_one_rung() -> None:
    log = ListLog()
    await generated(router_of(bundle=FOREIGN_BUNDLE, log=log), RoutingOptions(MaxLoss(0.05)))
    ((_, decision),), ((_, _, completion),) = log.decided, log.completed
    assert [rung.name for rung in decision.ladder.rungs] == [DEFAULT_RUNG]
    assert decision.ladder.rungs[decision.choice.index] == completion.budget == UNCAPPED


async def test_an_explanation_says_what_happened() -> None:
    told = " ".join(sentences(await decided(router_of(bundle=FOREIGN_BUNDLE), RoutingOptions(MaxLoss(0.05)))))
    assert "about another engine" in told and "Nothing was predicted" in told and "No certificate" in told


@pytest.mark.parametrize(
    ("bundle", "rungs"), [(BUNDLE, ["128"]), (FOREIGN_BUNDLE, [DEFAULT_RUNG])], ids=["own", "foreign"]
)
async def test_only_the_fingerprint_makes_the_difference(bundle: Bundle, rungs: Sequence[str]) -> None:
    decision = await decided(router_of(bundle=bundle), RoutingOptions(MaxLoss(0.05)))
    assert [decision.rung.name] == rungs
