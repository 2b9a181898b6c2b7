"""The path of a request, and what happens on it when something fails."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest

from router.domain import (
    Completion,
    ContentDelta,
    Decision,
    DecisionSource,
    FinishReason,
    LabelSource,
    MaxLoss,
    Message,
    MinQuality,
    OnUnmet,
    Outcome,
    Prompt,
    ReasoningDelta,
    Role,
    RouteRequest,
    RoutingOptions,
    Sampling,
    Score,
    ServedEvent,
    Tool,
    ToolCall,
    ToolCallDelta,
    Tools,
)
from router.errors import (
    BackendError,
    BackendUnavailable,
    InvalidRequest,
    NotFound,
    OutcomeLogError,
    TargetUnmet,
)
from router.events import Decided, Degraded, Generated, StreamAborted
from router.routing.router import BudgetRouter
from router.routing.served_model import ServedModel
from tests.support.fakes import (
    ANSWER,
    LADDER,
    MODEL,
    RISING,
    THINKING,
    UNAVAILABLE,
    DictCache,
    FakeBackend,
    FakeClassifier,
    Hang,
    ListLog,
    RecordingObserver,
    Script,
    completion_of,
    ladder_of,
    policy_of,
    request_of,
    router_of,
    score_of,
    until,
)

TOP = len(LADDER) - 1
Event = Decision | ServedEvent


async def events_of(router: BudgetRouter, request: RouteRequest | None = None) -> list[Event]:
    return [event async for event in router.generate(request or request_of(), Sampling())]


def asking(**options: object) -> RouteRequest:
    """A request for at most 5 % loss with these options on top."""
    return request_of(options=replace(RoutingOptions(MaxLoss(0.05)), **options))  # type: ignore[arg-type]


async def test_a_fresh_prompt_is_scored_by_the_classifier() -> None:
    decision = await router_of().decide(request_of())
    assert decision.source is DecisionSource.CLASSIFIER
    assert decision.score == RISING
    assert decision.rung == LADDER.rungs[4]


async def test_a_known_prompt_comes_from_the_cache() -> None:
    classifier = FakeClassifier()
    router = router_of(classifier=classifier)
    first, second = await router.decide(request_of()), await router.decide(request_of())
    assert second.source is DecisionSource.CACHE
    assert second.choice == first.choice
    assert len(classifier.asked) == 1


async def test_ids_are_distinct_and_grow_with_time() -> None:
    router = router_of()
    early = {(await router.decide(request_of())).id for _ in range(100)}
    await asyncio.sleep(0.002)
    late = (await router.decide(request_of())).id
    assert len(early) == 100 and {len(id_) for id_ in early} == {32}
    assert max(early) < late


async def test_one_cached_score_serves_every_target() -> None:
    classifier = FakeClassifier()
    router = router_of(classifier=classifier)
    await router.decide(request_of())
    cheap = await router.decide(request_of(options=RoutingOptions(MaxLoss(0.05), max_thinking_tokens=16)))
    assert (cheap.source, cheap.choice.index) == (DecisionSource.CACHE, 1)


async def test_tenants_do_not_share_scores() -> None:
    router = router_of(tenants=frozenset({"a", "b"}))
    await router.decide(request_of(tenant="a"))
    assert (await router.decide(request_of(tenant="b"))).source is DecisionSource.CLASSIFIER


async def test_every_decision_has_an_id_of_its_own() -> None:
    router = router_of()
    ids = {(await router.decide(request_of())).id for _ in range(10)}
    assert len(ids) == 10


async def test_a_batch_keeps_its_order_and_is_scored_in_one_go() -> None:
    def by_length(prompt: Prompt) -> Score:
        return score_of(*[len(prompt.text) / 10] * len(LADDER))

    classifier = FakeClassifier(by_length)
    texts = ["a", "bbb", "cc", "dddd"]
    decisions = await router_of(classifier=classifier).decide_batch([request_of(text) for text in texts])
    assert [d.predicted_quality for d in decisions] == [len(text) / 10 for text in texts]
    assert [len(asked) for asked in classifier.asked] == [len(texts)]


async def test_twins_in_a_batch_are_scored_once() -> None:
    classifier = FakeClassifier()
    await router_of(classifier=classifier).decide_batch([request_of("same"), request_of("same")])
    assert [len(asked) for asked in classifier.asked] == [1]


async def test_a_batch_mixes_named_cached_and_fresh() -> None:
    router = router_of()
    await router.decide(request_of("known"))
    decisions = await router.decide_batch([request_of("fresh"), asking(rung="0"), request_of("known")])
    assert [d.source for d in decisions] == [
        DecisionSource.CLASSIFIER,
        DecisionSource.OVERRIDE,
        DecisionSource.CACHE,
    ]


async def test_a_bundle_that_is_swapped_in_the_middle_of_a_batch_takes_none_of_its_requests_away() -> None:
    router = router_of()
    asyncio.get_running_loop().call_soon(router.swap, replace(router.served_model("")))
    texts = [f"{number} + 1 =" for number in range(500)]  # more than one turn of the event loop
    assert len(await router.decide_batch([request_of(text) for text in texts])) == len(texts)


async def test_an_empty_batch_is_no_work() -> None:
    assert await router_of().decide_batch([]) == []


async def test_every_decision_is_logged_and_observed() -> None:
    log, observer = ListLog(), RecordingObserver()
    decision = await router_of(log=log, observer=observer).decide(request_of())
    assert log.decided == [("default", decision)]
    [record] = observer.of(Decided)
    assert record.decision == decision
    assert record.seconds > 0


async def test_a_named_rung_is_used_without_asking_the_classifier() -> None:
    classifier = FakeClassifier()
    decision = await router_of(classifier=classifier).decide(asking(rung="16"))
    assert (decision.source, decision.rung.name, decision.score) == (DecisionSource.OVERRIDE, "16", None)
    assert not classifier.asked


@pytest.mark.parametrize(("rung", "meets"), [("16", False), ("256", True)])
async def test_of_a_named_rung_only_the_top_claims_the_target(rung: str, meets: bool) -> None:
    choice = (await router_of().decide(asking(rung=rung))).choice
    assert (choice.meets_target, choice.certificate) == (meets, None)


async def test_an_unknown_rung_is_refused() -> None:
    with pytest.raises(NotFound) as caught:
        await router_of().decide(asking(rung="17"))
    assert caught.value.field == "options.rung"


@pytest.mark.parametrize("bounds", [{"min_thinking_tokens": 32}, {"max_thinking_tokens": 15}])
async def test_a_named_rung_outside_the_bounds_is_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await router_of().decide(asking(rung="16", **bounds))
    assert caught.value.field == "options.rung"


async def test_bounds_without_a_rung_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        await router_of().decide(asking(min_thinking_tokens=17, max_thinking_tokens=31))


async def test_an_unknown_tenant_is_refused() -> None:
    with pytest.raises(NotFound) as caught:
        await router_of().decide(request_of(tenant="stranger"))
    assert caught.value.field == "tenant"


async def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(NotFound) as caught:
        await router_of().decide(request_of(model="another"))
    assert caught.value.field == "model"


@pytest.mark.parametrize("model", ["", MODEL])
async def test_the_served_model_may_be_named_or_not(model: str) -> None:
    assert await router_of().decide(request_of(model=model))


async def test_one_bad_request_refuses_the_batch_before_any_work() -> None:
    classifier, log = FakeClassifier(), ListLog()
    router = router_of(classifier=classifier, log=log)
    with pytest.raises(NotFound):
        await router.decide_batch([request_of(), request_of(tenant="stranger")])
    assert not classifier.asked
    assert not log.decided


async def test_an_unmet_target_can_be_refused() -> None:
    with pytest.raises(TargetUnmet):
        await router_of().decide(request_of(options=RoutingOptions(MinQuality(0.99), on_unmet=OnUnmet.REJECT)))


async def test_a_conversation_keeps_its_rung() -> None:
    router = router_of(classifier=FakeClassifier(lambda p: RISING if p.text == "first" else score_of(*[0.5] * 6)))
    options = RoutingOptions(MaxLoss(0.05), conversation_id="c")
    first = await router.decide(request_of("first", options=options))
    second = await router.decide(request_of("second", options=options))
    assert (second.source, second.rung) == (DecisionSource.PINNED, first.rung)
    assert second.choice.certificate is None


async def test_conversations_of_two_tenants_are_two() -> None:
    router = router_of(tenants=frozenset({"a", "b"}))
    options = RoutingOptions(MaxLoss(0.05), conversation_id="c")
    await router.decide(request_of(options=options, tenant="a"))
    assert (await router.decide(request_of(options=options, tenant="b"))).source is DecisionSource.CLASSIFIER


async def test_of_a_pin_outside_the_bounds_the_nearest_rung_allowed_is_taken() -> None:
    router = router_of()
    assert (await router.decide(asking(conversation_id="c"))).rung.name == "128"
    for bounds, nearest in (({"max_thinking_tokens": 64}, "64"), ({"min_thinking_tokens": 200}, "256"), ({}, "128")):
        decision = await router.decide(asking(conversation_id="c", **bounds))
        assert (decision.source, decision.rung.name) == (DecisionSource.PINNED, nearest)


async def test_a_named_rung_wins_over_the_pin() -> None:
    router = router_of()
    await router.decide(asking(conversation_id="c"))
    assert (await router.decide(asking(conversation_id="c", rung="0"))).source is DecisionSource.OVERRIDE


async def test_requests_without_a_conversation_are_not_pinned() -> None:
    router = router_of()
    await router.decide(asking(conversation_id=""))
    assert (await router.decide(asking(conversation_id=""))).source is DecisionSource.CACHE


async def test_a_cache_that_is_down_is_a_miss() -> None:
    observer = RecordingObserver()
    router = router_of(cache=DictCache(failing=True), observer=observer)
    decisions = [await router.decide(request_of()) for _ in range(2)]
    assert [d.source for d in decisions] == [DecisionSource.CLASSIFIER] * 2
    assert {d.dependency for d in observer.of(Degraded)} == {"cache"}


async def test_a_cache_that_comes_back_is_used_again() -> None:
    cache = DictCache(failing=True)
    router = router_of(cache=cache)
    await router.decide(request_of())
    cache.failing = False
    await router.decide(request_of())
    assert (await router.decide(request_of())).source is DecisionSource.CACHE


async def test_a_classifier_that_is_down_gets_the_top_rung_and_says_so() -> None:
    observer = RecordingObserver()
    decision = await router_of(classifier=FakeClassifier(failing=True), observer=observer).decide(request_of())
    assert (decision.source, decision.choice.index, decision.score) == (DecisionSource.FALLBACK, TOP, None)
    assert decision.choice.certificate is None
    assert [d.dependency for d in observer.of(Degraded)] == ["classifier"]


async def test_the_fallback_stays_below_the_ceiling() -> None:
    decision = await router_of(classifier=FakeClassifier(failing=True)).decide(asking(max_thinking_tokens=100))
    assert (decision.rung.tokens, decision.choice.meets_target) == (64, False)


async def test_a_fallback_is_never_cached() -> None:
    classifier, cache = FakeClassifier(failing=True), DictCache()
    router = router_of(classifier=classifier, cache=cache)
    await router.decide(request_of())
    assert not cache.scores
    classifier.failing = False
    assert (await router.decide(request_of())).source is DecisionSource.CLASSIFIER


async def test_a_fallback_does_not_bind_its_conversation() -> None:
    classifier = FakeClassifier(failing=True)
    router = router_of(classifier=classifier)
    await router.decide(asking(conversation_id="c"))
    classifier.failing = False
    assert (await router.decide(asking(conversation_id="c"))).source is DecisionSource.CLASSIFIER


async def test_a_classifier_that_is_down_does_not_touch_cached_prompts() -> None:
    classifier = FakeClassifier()
    router = router_of(classifier=classifier)
    await router.decide(request_of("known"))
    classifier.failing = True
    known, fresh = await router.decide_batch([request_of("known"), request_of("fresh")])
    assert (known.source, fresh.source) == (DecisionSource.CACHE, DecisionSource.FALLBACK)


async def test_a_generation_is_the_decision_then_deltas_then_the_completion() -> None:
    events = await events_of(router_of())
    assert isinstance(events[0], Decision)
    assert events[1:-1] == [*map(ReasoningDelta, THINKING), *map(ContentDelta, ANSWER)]
    assert isinstance(events[-1], Completion)


async def test_the_backend_gets_the_rung_the_floor_and_the_sampling() -> None:
    backend = FakeBackend()
    sampling = Sampling(temperature=0.5, max_answer_tokens=9, seed=3)
    async for _ in router_of(backend=backend).generate(asking(min_thinking_tokens=20), sampling):
        pass
    [asked] = backend.asked
    assert (asked.prompt, asked.budget, asked.min_thinking_tokens) == (Prompt.of("2 + 2 ="), LADDER.rungs[4], 20)
    assert asked.sampling == sampling


async def test_a_generation_is_logged_and_observed_once_it_ends() -> None:
    log, observer = ListLog(), RecordingObserver()
    decision, *_, completion = await events_of(router_of(log=log, observer=observer))
    assert log.completed == [("default", decision, completion)]
    [record] = observer.of(Generated)
    assert (record.decision, record.completion) == (decision, completion)
    assert 0 < record.first_token_seconds <= record.seconds


async def test_no_answer_at_the_chosen_rung_is_tried_once_more_at_the_next() -> None:
    nothing: Script = [ReasoningDelta("hm"), completion_of(LADDER.rungs[1], finish=FinishReason.TRUNCATED)]
    answer: Script = [ReasoningDelta("hm"), ContentDelta("4"), completion_of(LADDER.rungs[2])]
    backend, observer = FakeBackend(nothing, answer), RecordingObserver()
    router = router_of(backend=backend, observer=observer)
    decision, *rest, completion = await events_of(
        router, request_of(options=RoutingOptions(MaxLoss(0.02), rung=LADDER.rungs[1].name))
    )
    assert isinstance(decision, Decision) and decision.rung == LADDER.rungs[1]
    assert [request.budget for request in backend.asked] == list(LADDER.rungs[1:3])
    assert rest == [ReasoningDelta("hm"), ReasoningDelta("hm"), ContentDelta("4")]
    assert isinstance(completion, Completion)
    assert (completion.attempts, completion.budget) == (2, LADDER.rungs[2])
    assert observer.of(Generated)[0].completion.attempts == 2


async def test_an_answer_that_the_caller_has_begun_may_be_whole() -> None:
    backend = FakeBackend([ReasoningDelta("hm"), completion_of(LADDER.rungs[1])])
    request = replace(request_of(), prompt=Prompt((*request_of().prompt.messages, Message(Role.ASSISTANT, "4"))))
    *_, completion = await events_of(router_of(backend=backend), request)
    assert isinstance(completion, Completion) and len(backend.asked) == 1
    assert (completion.finish, completion.attempts) == (FinishReason.NATURAL, 1)


async def test_where_no_longer_rung_is_allowed_the_chosen_one_is_tried_again() -> None:
    for index, ceiling in ((1, LADDER.rungs[1].tokens), (len(LADDER) - 1, None)):
        backend = FakeBackend([completion_of(LADDER.rungs[index], finish=FinishReason.TRUNCATED)])
        request = request_of(
            options=RoutingOptions(MaxLoss(0.02), rung=LADDER.rungs[index].name, max_thinking_tokens=ceiling)
        )
        *_, completion = await events_of(router_of(backend=backend), request)
        assert isinstance(completion, Completion)
        assert completion.attempts == len(backend.asked) == 2
        assert [asked.budget for asked in backend.asked] == [LADDER.rungs[index]] * 2
        assert completion.finish is FinishReason.NO_ANSWER


async def test_an_answer_that_was_cut_off_is_not_said_twice() -> None:
    backend = FakeBackend([ContentDelta("4"), completion_of(LADDER.rungs[1], finish=FinishReason.TRUNCATED)])
    await events_of(
        router_of(backend=backend), request_of(options=RoutingOptions(MaxLoss(0.02), rung=LADDER.rungs[1].name))
    )
    assert len(backend.asked) == 1


async def test_after_the_first_token_the_backend_is_never_tried_again() -> None:
    backend = FakeBackend([ReasoningDelta("so"), UNAVAILABLE])
    with pytest.raises(BackendUnavailable):
        await events_of(router_of(backend=backend))
    assert len(backend.asked) == 1


@pytest.mark.parametrize("error", [BackendError("nonsense"), InvalidRequest("messages", "too long")])
async def test_an_error_that_another_try_cannot_mend_is_not_tried_again(error: Exception) -> None:
    backend = FakeBackend([error])
    with pytest.raises(type(error)):
        await events_of(router_of(backend=backend))
    assert len(backend.asked) == 1


async def test_a_failed_generation_is_not_logged_as_complete() -> None:
    log = ListLog()
    with pytest.raises(BackendUnavailable):
        await events_of(router_of(backend=FakeBackend([ReasoningDelta("so"), UNAVAILABLE]), log=log))
    assert log.decided
    assert not log.completed


async def reach_the_first_token(stream: AsyncGenerator[Event]) -> None:
    assert isinstance(await anext(stream), Decision)
    assert isinstance(await anext(stream), ReasoningDelta)


async def test_closing_the_generation_closes_the_backends_stream() -> None:
    backend = FakeBackend()
    async with aclosing(router_of(backend=backend).generate(request_of(), Sampling())) as stream:
        await reach_the_first_token(stream)
        assert backend.open == 1
    assert (backend.open, backend.cancelled) == (0, 1)


async def test_cancelling_a_generation_that_waits_closes_the_backends_stream() -> None:
    backend = FakeBackend([ReasoningDelta("so"), Hang()])
    task = asyncio.create_task(events_of(router_of(backend=backend)))
    await until(lambda: backend.open)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (backend.open, backend.cancelled) == (0, 1)


async def test_a_generation_left_at_its_decision_never_reaches_the_backend() -> None:
    backend = FakeBackend()
    async with aclosing(router_of(backend=backend).generate(request_of(), Sampling())) as stream:
        await anext(stream)
    assert not backend.asked


async def test_a_generation_that_fails_is_observed_as_broken_by_the_backend() -> None:
    observer = RecordingObserver()
    with pytest.raises(BackendUnavailable):
        await events_of(router_of(backend=FakeBackend([ReasoningDelta("so"), UNAVAILABLE]), observer=observer))
    assert [broken.cause for broken in observer.of(StreamAborted)] == ["backend"]
    assert not observer.of(Generated)


async def test_a_generation_that_its_caller_leaves_is_observed_as_broken() -> None:
    observer = RecordingObserver()
    async with aclosing(router_of(observer=observer).generate(request_of(), Sampling())) as stream:
        await reach_the_first_token(stream)
    assert [broken.cause for broken in observer.of(StreamAborted)] == ["caller"]


async def test_a_caller_who_leaves_after_the_completion_breaks_nothing() -> None:
    observer = RecordingObserver()
    async with aclosing(router_of(observer=observer).generate(request_of(), Sampling())) as stream:
        async for event in stream:
            if isinstance(event, Completion):
                break
    assert len(observer.of(Generated)) == 1
    assert not observer.of(StreamAborted)


async def test_an_error_in_a_batch_says_which_request_it_means() -> None:
    with pytest.raises(NotFound) as caught:
        await router_of().decide_batch([request_of(), asking(rung="17")])
    assert caught.value.field == "requests[1].options.rung"


async def test_bounds_refused_in_a_batch_say_which_request_they_mean() -> None:
    with pytest.raises(InvalidRequest) as caught:
        await router_of().decide_batch([request_of(), asking(min_thinking_tokens=17, max_thinking_tokens=31)])
    assert caught.value.field == "requests[1].options.max_thinking_tokens"


async def test_an_outcome_reaches_the_log() -> None:
    log = ListLog()
    router = router_of(log=log)
    outcome = Outcome((await router.decide(request_of())).id, 1.0, LabelSource.VERIFIER)
    await router.report(outcome)
    assert log.outcomes == [outcome]


async def test_an_outcome_of_an_unknown_decision_is_refused() -> None:
    with pytest.raises(NotFound) as caught:
        await router_of().report(Outcome("no-such", 1.0, LabelSource.USER))
    assert caught.value.field == "decision_id"


async def test_an_outcome_that_cannot_be_kept_is_an_error() -> None:
    with pytest.raises(OutcomeLogError):
        await router_of(log=ListLog(failing=True)).report(Outcome("any", 1.0, LabelSource.USER))


OTHER = ladder_of(0, 10, 1_000)


def other_model(backend: FakeBackend) -> ServedModel:
    """A second model with a ladder of its own."""
    policy = policy_of(OTHER)
    return router_of(
        model="other", policy=policy, backend=backend, classifier=FakeClassifier(score_of(0.1, 0.8, 0.8))
    ).served_model("")


async def test_where_the_backend_is_down_the_next_model_decides_by_its_own_bundle() -> None:
    down, up, observer = FakeBackend([UNAVAILABLE]), FakeBackend(), RecordingObserver()
    router = router_of(backend=down, failover=[other_model(up)], observer=observer)
    first, second, *rest = await events_of(router)
    assert isinstance(first, Decision) and isinstance(second, Decision)
    assert [(d.model, d.rung.name) for d in (first, second)] == [(MODEL, "128"), ("other", "10")]
    assert isinstance(rest[-1], Completion)
    assert (len(down.asked), len(up.asked)) == (1, 1)
    assert [broken.decision for broken in observer.of(StreamAborted)] == [first]


async def test_a_named_model_is_not_replaced_by_another() -> None:
    router = router_of(backend=FakeBackend([UNAVAILABLE]), failover=[other_model(FakeBackend())])
    with pytest.raises(BackendUnavailable):
        await events_of(router, request_of(model=MODEL))
    assert (await router.decide(request_of(model="other"))).model == "other"
    with pytest.raises(NotFound, match="served: fake, other"):
        await router.decide(request_of(model="third"))


async def test_after_the_first_token_nobody_takes_over() -> None:
    up = FakeBackend()
    router = router_of(backend=FakeBackend([ReasoningDelta("hm"), UNAVAILABLE]), failover=[other_model(up)])
    with pytest.raises(BackendUnavailable):
        await events_of(router)
    assert not up.asked


async def test_what_does_not_fit_the_next_model_is_still_the_first_ones_failure() -> None:
    router = router_of(backend=FakeBackend([UNAVAILABLE]), failover=[other_model(FakeBackend())])
    with pytest.raises(BackendUnavailable):
        await events_of(router, asking(rung="16"))


async def test_one_model_that_can_answer_is_enough_to_be_ready() -> None:
    first, second = FakeBackend(is_ready=False), FakeBackend()
    router = router_of(backend=first, failover=[other_model(second)])
    assert (await router.health())[""]
    second.is_ready = False
    assert not (await router.health())[""]


async def test_a_batch_may_name_several_models() -> None:
    router = router_of(failover=[other_model(FakeBackend())])
    decisions = await router.decide_batch([request_of(model=m) for m in ("other", "", MODEL)])
    assert [d.model for d in decisions] == ["other", MODEL, MODEL]


async def test_two_entries_of_a_batch_with_one_new_conversation_share_a_rung() -> None:
    def by_text(prompt: Prompt) -> Score:
        return RISING if prompt.text == "hard" else score_of(*[0.9] * len(LADDER))

    router = router_of(classifier=FakeClassifier(by_text))
    options = RoutingOptions(MaxLoss(0.05), conversation_id="c")
    one, two = await router.decide_batch([request_of(text, options=options) for text in ("hard", "easy")])
    assert one.rung == two.rung
    assert two.source is DecisionSource.PINNED


async def test_a_tool_call_is_an_answer() -> None:
    call = ToolCallDelta(0, ToolCall("1", "add", "{}"))
    backend = FakeBackend([ReasoningDelta("hm"), call, completion_of()])
    tools = Tools((Tool("add", "", {}),))
    events = [event async for event in router_of(backend=backend).generate(request_of(), Sampling(), tools)]
    assert call in events and isinstance(events[-1], Completion) and events[-1].attempts == 1
    assert backend.asked[0].tools == tools


async def test_some_requests_think_longer_than_chosen_and_the_log_knows_how_likely_that_was() -> None:
    log = ListLog()
    router = router_of(log=log, explored=0.2, classifier=FakeClassifier(score_of(0.9, 0.9, 0.9, 0.9, 0.9, 0.9)))
    decisions = [await router.decide(asking(max_thinking_tokens=64)) for _ in range(500)]
    counts = Counter(d.rung.name for d in decisions)
    assert set(counts) == {"0", "16", "32", "64"}, "never above the ceiling"
    assert 0.1 < sum(counts[name] for name in ("16", "32", "64")) / 500 < 0.3
    for decision in decisions:
        explored = decision.choice.index > 0
        assert (decision.source is DecisionSource.EXPLORE) == explored
        assert decision.choice.certificate is None or not explored
        assert decision.propensities == pytest.approx((0.8, 0.2 / 3, 0.2 / 3, 0.2 / 3, 0, 0))
    assert [d for _, d in log.decided] == decisions


async def test_exploration_never_breaks_the_deadline() -> None:
    scored = FakeClassifier(score_of(*[0.9] * len(LADDER)))
    router = router_of(explored=0.5, classifier=scored)
    options = asking(max_latency=0.5).options
    affordable = router.served_model("").policy.affordable(score_of(*[0.9] * len(LADDER)), options)
    assert 0 < len(affordable) < len(LADDER)
    decisions = [await router.decide(asking(max_latency=0.5)) for _ in range(200)]
    assert {d.choice.index for d in decisions} <= set(affordable)


async def test_named_rungs_and_conversations_are_not_explored() -> None:
    router = router_of(explored=0.5)
    for _ in range(50):
        assert (await router.decide(asking(rung="0"))).rung.name == "0"
        assert (await router.decide(asking(conversation_id="c"))).rung.name == "128"
