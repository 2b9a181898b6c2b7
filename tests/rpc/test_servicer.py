"""Every method through a real server and a real stub."""

import asyncio
import gc
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from router._gen import budget_router_pb2 as pb
from router.bundle.manifest import Bundle
from router.domain import (
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    ReasoningBudget,
    ReasoningDelta,
)
from router.errors import SettingsError
from router.routing.explain import Explainer
from router.rpc.boundary import Boundary
from router.rpc.identity import OperatorGuard
from router.rpc.server import RouterServer
from router.rpc.server import Service as Routed
from router.rpc.servicer import BudgetRouterServicer
from tests.rpc.conftest import Service, decide, generate, refusal, serving, user
from tests.support.fakes import (
    CERTIFICATE,
    LIMITS,
    DictCache,
    FakeBackend,
    FakeClassifier,
    Hang,
    ListLog,
    RecordingObserver,
    completion_of,
    router_of,
    until,
)

NAME = "budget_router.v1.BudgetRouterService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def decided(service: Service, **fields: Any) -> pb.Decision:
    response = await service.routing.Decide(decide(**fields))
    decision: pb.Decision = response.decision
    return decision


async def test_decide_returns_the_whole_curve(service: Service) -> None:
    decision = await decided(service)
    assert [f.rung for f in decision.forecasts] == [rung.name for rung in service.ladder.rungs]
    assert all(0 <= f.quality <= 1 for f in decision.forecasts)
    assert decision.rung in [f.rung for f in decision.forecasts]
    assert decision.source == pb.DECISION_SOURCE_CLASSIFIER
    assert decision.model_version == service.router.served_model("").bundle.version
    assert decision.reason


async def test_the_predicted_quality_is_the_chosen_rungs(service: Service) -> None:
    decision = await decided(service)
    assert decision.predicted_quality == {f.rung: f.quality for f in decision.forecasts}[decision.rung]


async def test_what_was_left_out_is_said(service: Service) -> None:
    document = "The committee met on a grey morning. " * 500
    (whole,) = decide().messages
    long = pb.Message(role=pb.ROLE_USER, content=f"{document}\n\n{whole.content}")
    several = [long, answer("Two"), whole]
    for turns, left_out in (([whole], 0), ([long], len(document) + 2), (several, len(long.content) + len("Two"))):
        asked = pb.DecideRequest(messages=turns)
        decision = (await service.routing.Decide(asked)).decision
        assert decision.truncated_characters == left_out
        explained = await service.routing.Explain(pb.ExplainRequest(request=asked))
        said = [one for one in explained.sentences if "was not scored" in one]
        assert said == ([f"The text of {left_out:,} characters was not scored, but counted."] if left_out else [])


def answer(content: str) -> pb.Message:
    return pb.Message(role=pb.ROLE_ASSISTANT, content=content)


async def test_the_second_time_a_prompt_is_answered_from_the_cache(service: Service) -> None:
    first, second = await decided(service), await decided(service)
    assert second.source == pb.DECISION_SOURCE_CACHE
    assert list(second.forecasts) == list(first.forecasts)
    assert second.decision_id != first.decision_id


async def test_tenants_do_not_share_cache_entries(bundle: Bundle) -> None:
    async with serving(router_of(tenants=frozenset({"one", "other"})), bundle) as service:
        await decided(service, tenant="one")
        assert (await decided(service, tenant="other")).source == pb.DECISION_SOURCE_CLASSIFIER
        assert (await decided(service, tenant="one")).source == pb.DECISION_SOURCE_CACHE


async def test_a_certified_decision_carries_its_certificate(fake: Service) -> None:
    decision = await decided(fake, options=pb.RoutingOptions(max_loss=CERTIFICATE.alpha))
    assert decision.certified and decision.meets_target
    assert decision.certificate.alpha == CERTIFICATE.alpha
    assert decision.certificate.threshold == CERTIFICATE.threshold
    assert decision.certificate.prompts == CERTIFICATE.prompts


async def test_without_a_certificate_the_top_rung_is_chosen_and_it_is_said(service: Service) -> None:
    decision = await decided(service, options=pb.RoutingOptions(max_loss=0))
    assert decision.rung == service.ladder.rungs[-1].name
    assert not decision.certified
    assert not decision.HasField("certificate")


async def test_the_target_in_force_is_reported(service: Service) -> None:
    absolute = await decided(service, options=pb.RoutingOptions(min_quality=0.25))
    assert absolute.min_quality == 0.25 and absolute.WhichOneof("target") == "min_quality"
    assert (await decided(service)).WhichOneof("target") == "max_loss"


async def test_a_named_rung_is_used(service: Service) -> None:
    for rung in service.ladder.rungs:
        decision = await decided(service, options=pb.RoutingOptions(rung=rung.name))
        assert (decision.rung, decision.budget_tokens) == (rung.name, rung.tokens)
        assert decision.source == pb.DECISION_SOURCE_OVERRIDE
        assert not decision.HasField("predicted_quality")


async def test_a_conversation_keeps_its_rung(service: Service) -> None:
    first = await decided(service, options=pb.RoutingOptions(conversation_id="loop", max_loss=0))
    later = await decided(service, text="other", options=pb.RoutingOptions(conversation_id="loop", max_loss=1))
    assert later.rung == first.rung
    assert later.source == pb.DECISION_SOURCE_PINNED


async def test_a_conversation_goes_up_after_a_failed_tool(service: Service) -> None:
    low = service.ladder.rungs[1].tokens
    opened = await decided(service, options=pb.RoutingOptions(conversation_id="tools", max_thinking_tokens=low))
    call = pb.Message(role=pb.ROLE_ASSISTANT, tool_calls=[pb.ToolCall(id="1", name="look", arguments="{}")])
    failed = pb.Message(role=pb.ROLE_TOOL, content="no such file", tool_call_id="1", tool_failed=True)
    asked = decide(options=pb.RoutingOptions(conversation_id="tools", escalate=True))
    asked.messages.extend([call, failed])
    explained = await service.routing.Explain(pb.ExplainRequest(request=asked))
    names = [rung.name for rung in service.ladder.rungs]
    decision = explained.decision
    assert (decision.rung, decision.rule) == (names[names.index(opened.rung) + 1], pb.RULE_FIXED)
    assert (decision.source, decision.escalation) == (pb.DECISION_SOURCE_ESCALATED, pb.ESCALATION_TOOL_FAILED)
    assert "a tool failed: the conversation goes up from rung" in explained.sentences[0]
    assert "From now on the conversation keeps this rung." in explained.sentences
    later = await service.routing.Explain(pb.ExplainRequest(decision_id=decision.decision_id))
    assert later.decision.escalation == pb.ESCALATION_TOOL_FAILED, "the log knows it, too"


async def test_ceiling_and_floor_bound_the_choice(service: Service) -> None:
    low, high = service.ladder.rungs[1].tokens or 0, service.ladder.rungs[2].tokens or 0
    for options in (pb.RoutingOptions(max_thinking_tokens=low), pb.RoutingOptions(min_thinking_tokens=high)):
        budget = (await decided(service, options=options)).budget_tokens
        assert budget <= low if options.HasField("max_thinking_tokens") else budget >= high


async def test_reject_refuses_what_cannot_be_met(fake: Service) -> None:
    options = pb.RoutingOptions(min_quality=1, on_unmet=pb.ON_UNMET_REJECT)
    refused = await refusal(fake.routing.Decide(decide(options=options)))
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.reason == "TargetUnmet"


async def test_when_the_classifier_fails_the_top_rung_is_marked_as_fallback(bundle: Bundle) -> None:
    async with serving(router_of(classifier=FakeClassifier(failing=True)), bundle) as service:
        decision = await decided(service)
    assert decision.source == pb.DECISION_SOURCE_FALLBACK
    assert decision.rung == service.ladder.rungs[-1].name
    assert not decision.forecasts and not decision.certified


async def test_a_cache_that_fails_is_a_miss(bundle: Bundle) -> None:
    async with serving(router_of(cache=DictCache(failing=True)), bundle) as service:
        for _ in range(2):
            assert (await decided(service)).source == pb.DECISION_SOURCE_CLASSIFIER


async def test_a_batch_is_answered_in_order(service: Service) -> None:
    rungs = [rung.name for rung in service.ladder.rungs]
    requests = [decide(f"prompt {rung}", options=pb.RoutingOptions(rung=rung)) for rung in rungs]
    response = await service.routing.DecideBatch(pb.DecideBatchRequest(requests=requests))
    assert [d.rung for d in response.decisions] == rungs


async def test_a_batch_of_the_largest_size_is_answered(service: Service) -> None:
    requests = [decide(f"prompt {i}") for i in range(1024)]
    response = await service.routing.DecideBatch(pb.DecideBatchRequest(requests=requests))
    assert len({d.decision_id for d in response.decisions}) == 1024


async def test_a_batch_says_what_decide_says(service: Service) -> None:
    texts = ["2 + 2 =", "Spell this word backward (example: sun -> nus): stone", "ü ∑ 漢字 🙂"]
    alone = [await decided(service, text=text) for text in texts]
    response = await service.routing.DecideBatch(pb.DecideBatchRequest(requests=[decide(text) for text in texts]))
    assert [list(d.forecasts) for d in response.decisions] == [list(d.forecasts) for d in alone]


async def test_a_stream_is_decision_reasoning_content_completion(service: Service) -> None:
    request = generate(options=pb.RoutingOptions(rung=service.ladder.rungs[1].name))
    kinds = [event.WhichOneof("event") async for event in service.routing.Generate(request)]
    assert kinds[0] == "decision" and kinds[-1] == "completion"
    assert kinds.count("decision") == kinds.count("completion") == 1
    deltas = kinds[1:-1]
    assert deltas == sorted(deltas, key=["reasoning", "content"].index)


async def test_a_stream_says_what_the_backend_did(fake: Service) -> None:
    events = [event async for event in fake.routing.Generate(generate())]
    assert "".join(e.reasoning for e in events) == "first then "
    assert "".join(e.content for e in events) == "the answer"
    done = events[-1].completion
    assert (done.prompt_tokens, done.thinking_tokens, done.answer_tokens) == (7, 2, 2)
    assert (done.count_source, done.enforcement) == (pb.COUNT_SOURCE_ENGINE, pb.ENFORCEMENT_NATIVE)
    assert done.finish_reason == pb.FINISH_REASON_NATURAL
    assert not done.budget_violated


async def test_the_thought_never_exceeds_the_budget(pocket: Service) -> None:
    for rung in pocket.ladder.rungs[:4]:
        sampling = pb.SamplingOptions(max_answer_tokens=4)
        request = generate(options=pb.RoutingOptions(rung=rung.name), sampling=sampling)
        events = [event async for event in pocket.routing.Generate(request)]
        done = events[-1].completion
        assert done.budget_tokens == rung.tokens
        assert done.thinking_tokens == sum(e.WhichOneof("event") == "reasoning" for e in events)
        assert done.thinking_tokens <= done.budget_tokens and not done.budget_violated
        assert done.answer_tokens <= 4


async def test_a_floor_is_held(pocket: Service) -> None:
    options = pb.RoutingOptions(min_thinking_tokens=20)
    events = [event async for event in pocket.routing.Generate(generate(options=options))]
    assert events[-1].completion.thinking_tokens >= 20


async def test_a_seed_makes_sampling_repeatable(pocket: Service) -> None:
    sampling = pb.SamplingOptions(temperature=1.5, seed=3, max_answer_tokens=8)
    request = generate(sampling=sampling, options=pb.RoutingOptions(rung=pocket.ladder.rungs[1].name))
    one, two = [[(e.reasoning, e.content) async for e in pocket.routing.Generate(request)] for _ in range(2)]
    assert one == two


@pytest.mark.parametrize("turns", [1, 3])
async def test_sampling_reaches_the_backend(fake: Service, backend: FakeBackend, turns: int) -> None:
    sampling = pb.SamplingOptions(temperature=0.5, max_answer_tokens=9, seed=4)
    options = pb.RoutingOptions(min_thinking_tokens=16)
    request = generate(messages=user() * turns, sampling=sampling, options=options)
    _ = [event async for event in fake.routing.Generate(request)]
    (asked,) = backend.asked
    assert (asked.sampling.temperature, asked.sampling.max_answer_tokens, asked.sampling.seed) == (0.5, 9, 4)
    assert asked.min_thinking_tokens == 16
    assert len(asked.prompt.messages) == turns


async def test_counts_that_nobody_reported_are_absent(bundle: Bundle) -> None:
    unlimited = ReasoningBudget("high", None)
    done = Completion(FinishReason.TRUNCATED, unlimited, Enforcement.HINT, CountSource.NONE, None, None, None)
    async with serving(router_of(backend=FakeBackend([ContentDelta("4"), done])), bundle) as service:
        events = [event async for event in service.routing.Generate(generate())]
    completion = events[-1].completion
    for name in ("prompt_tokens", "thinking_tokens", "answer_tokens", "budget_tokens"):
        assert not completion.HasField(name)
    assert completion.count_source == pb.COUNT_SOURCE_NONE
    assert completion.finish_reason == pb.FINISH_REASON_TRUNCATED


async def test_a_budget_that_the_backend_broke_is_said(bundle: Bundle) -> None:
    broken = completion_of(ReasoningBudget("16", 16), thinking_tokens=17)
    async with serving(router_of(backend=FakeBackend([broken])), bundle) as service:
        events = [event async for event in service.routing.Generate(generate())]
    assert events[-1].completion.budget_violated


async def test_an_outcome_is_attached_to_its_decision(fake: Service, log: ListLog) -> None:
    decision = await decided(fake)
    request = pb.ReportOutcomeRequest(decision_id=decision.decision_id, correct=0.5, label_source=pb.LABEL_SOURCE_JUDGE)
    assert await fake.routing.ReportOutcome(request) == pb.ReportOutcomeResponse()
    (outcome,) = log.outcomes
    assert (outcome.decision_id, outcome.correct, outcome.label_source.value) == (decision.decision_id, 0.5, "judge")


async def test_a_correctness_of_zero_is_not_a_missing_one(service: Service) -> None:
    decision = await decided(service)
    request = pb.ReportOutcomeRequest(decision_id=decision.decision_id, correct=0, label_source=pb.LABEL_SOURCE_USER)
    assert await service.routing.ReportOutcome(request) == pb.ReportOutcomeResponse()


async def test_an_outcome_log_that_fails_is_unavailable_with_a_time_to_retry(bundle: Bundle) -> None:
    async with serving(router_of(log=ListLog(failing=True)), bundle) as service:
        request = pb.ReportOutcomeRequest(decision_id="x", correct=1, label_source=pb.LABEL_SOURCE_USER)
        refused = await refusal(service.routing.ReportOutcome(request))
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert refused.retry_seconds


async def test_explain_tells_why_for_a_request_and_for_an_earlier_decision(service: Service) -> None:
    asked = await service.routing.Explain(pb.ExplainRequest(request=decide("Calculate 12 + 34.")))
    assert asked.sentences[0] == f"Rung {asked.decision.rung} was chosen: {asked.decision.reason}."
    again = await service.routing.Explain(pb.ExplainRequest(decision_id=asked.decision.decision_id))
    assert again.decision == asked.decision
    assert list(again.sentences) == list(asked.sentences)[: len(again.sentences)]


async def test_explain_tells_nothing_of_another_tenants_decisions(service: Service) -> None:
    known = (await service.routing.Decide(decide())).decision.decision_id
    for request in (
        pb.ExplainRequest(decision_id=known, tenant="another"),
        pb.ExplainRequest(decision_id="f" * 32),
    ):
        seen = await refusal(service.routing.Explain(request))
        assert (seen.code, seen.fields) == (grpc.StatusCode.NOT_FOUND, ["decision_id"])


async def test_explain_needs_a_subject_and_names_what_is_wrong_with_it(service: Service) -> None:
    for request, field in (
        (pb.ExplainRequest(), "decision_id"),
        (pb.ExplainRequest(decision_id=""), "decision_id"),
        (pb.ExplainRequest(request=pb.DecideRequest()), "request.messages"),
        (pb.ExplainRequest(request=decide(" ")), "request.messages[0].content"),
    ):
        seen = await refusal(service.routing.Explain(request))
        assert (seen.code, seen.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_health_is_reported_for_each_service(service: Service) -> None:
    health: Any = health_pb2_grpc.HealthStub(service.channel)
    for name in ("", NAME, f"backend/{service.router.served_model('').model}"):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING
    refused = await refusal(health.Check(health_pb2.HealthCheckRequest(service="nobody")))
    assert refused.code is grpc.StatusCode.NOT_FOUND


async def test_health_follows_the_backend(bundle: Bundle) -> None:
    backend = FakeBackend(is_ready=False)
    async with serving(router_of(backend=backend), bundle) as service:
        health: Any = health_pb2_grpc.HealthStub(service.channel)
        changes = health.Watch(health_pb2.HealthCheckRequest(service=NAME))
        assert (await changes.read()).status == NOT_SERVING
        backend.is_ready = True
        assert (await changes.read()).status == SERVING
        changes.cancel()


async def test_reflection_lists_the_services(service: Service) -> None:
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = reflection.ServerReflectionInfo(iter([request]))
    listed = {found.name async for reply in call for found in reply.list_services_response.service}
    assert listed >= {NAME, "grpc.health.v1.Health"}


async def test_an_unknown_method_is_unimplemented(service: Service) -> None:
    call = service.channel.unary_unary("/budget_router.v1.BudgetRouterService/Nothing")(b"")
    assert (await refusal(call)).code is grpc.StatusCode.UNIMPLEMENTED


async def test_calls_beyond_the_limit_are_refused_not_queued(bundle: Bundle) -> None:
    backend = FakeBackend([ReasoningDelta("hm"), Hang()])
    async with serving(router_of(backend=backend), bundle, max_calls=1) as service:
        call = service.routing.Generate(generate())
        await call.read()
        assert (await refusal(service.routing.Decide(decide()))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        call.cancel()
        await until(lambda: backend.open == 0)


async def test_a_stream_under_way_outlives_the_drain_and_new_calls_are_refused(bundle: Bundle) -> None:
    async with serving(router_of(backend=FakeBackend(delay=0.1)), bundle) as service:
        events = aiter(service.routing.Generate(generate()))
        await anext(events)
        draining = asyncio.create_task(service.server.drain(20))
        rest = [event async for event in events]
        assert rest[-1].WhichOneof("event") == "completion"
        await draining
        assert (await refusal(service.routing.Decide(decide(), timeout=5))).code is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_that_outstays_the_drain_is_cut_and_its_backend_stopped(bundle: Bundle) -> None:
    backend = FakeBackend([ReasoningDelta("hm"), Hang()])
    async with serving(router_of(backend=backend), bundle) as service:
        call = service.routing.Generate(generate())
        await call.read()
        await until(lambda: backend.open == 1)
        await service.server.drain(0.1)
        await until(lambda: backend.open == 0)
        assert backend.cancelled == 1


async def test_a_port_in_use_is_a_settings_error(service: Service, bundle: Bundle) -> None:
    routing = Routed.routing(BudgetRouterServicer(service.router, Explainer(service.router, ListLog()), LIMITS))
    boundary = Boundary(OperatorGuard("token"), 1, RecordingObserver())
    with pytest.raises(SettingsError, match=service.address):
        RouterServer(routing, boundary, service.address, None, service.router.health)


@pytest.mark.parametrize("steps", range(8))
async def test_a_start_that_is_cancelled_at_any_step_leaves_a_server_that_can_be_stopped(
    service: Service, steps: int
) -> None:
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    routing = Routed.routing(BudgetRouterServicer(service.router, Explainer(service.router, ListLog()), LIMITS))
    boundary = Boundary(OperatorGuard("token"), 1, RecordingObserver())
    server = RouterServer(routing, boundary, "127.0.0.1:0", None, service.router.health)
    start = asyncio.create_task(server.start())
    for _ in range(steps):
        await asyncio.sleep(0)
    start.cancel()
    await asyncio.wait([start])
    await server.drain(0)
    gc.collect()  # a task of gRPC whose error nobody has seen speaks up when it is freed
    assert not faults
