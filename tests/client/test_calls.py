"""Every call, by both clients, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from router._gen import budget_router_pb2 as pb
from router.bundle.manifest import Bundle
from router.client import (
    AsyncClient,
    Client,
    Completion,
    Content,
    ContentPart,
    DeadlineExceeded,
    Decision,
    Event,
    InvalidArgument,
    LikelyToken,
    Logprobs,
    Message,
    NotFound,
    Reasoning,
    Refusal,
    ResponseFormat,
    RoutingOptions,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    Unavailable,
    calls,
    event_to_json,
    to_json,
    turn,
)
from router.client.mirror import MESSAGES, read, read_event
from router.domain import Image, ReasoningDelta, Role
from router.domain import Logprobs as DomainLogprobs
from router.domain import ResponseFormat as DomainFormat
from router.domain import Sampling as DomainSampling
from router.domain import TokenLogprob as DomainToken
from router.domain import ToolCall as DomainCall
from tests.client.conftest import CLIENTS, connected, streamed
from tests.rpc.conftest import Service, serving
from tests.support.fakes import FakeBackend, Hang, ListLog, completion_of, router_of, until
from tests.support.ports import free_port

PROMPT = "2 + 2 ="


async def test_a_decision_is_typed(client: Any) -> None:
    decision = await client.decide(PROMPT)
    assert isinstance(decision, Decision)
    assert decision.rung in [forecast.rung for forecast in decision.forecasts]
    assert (decision.source, decision.certified, decision.meets_target) == ("classifier", True, True)
    assert decision.budget_tokens == int(decision.rung)
    assert decision.certificate is not None and decision.certificate.alpha == 0.05
    assert (decision.max_loss, decision.min_quality) == (0.05, None)


async def test_what_is_absent_is_none(client: Any) -> None:
    decision = await client.decide(PROMPT, options=RoutingOptions(rung="16"))
    assert (decision.predicted_quality, decision.certificate, decision.forecasts) == (None, None, ())


async def test_a_batch_is_answered_in_order(client: Any) -> None:
    decisions = await client.decide_batch([PROMPT, [Message("user", PROMPT)]], options=RoutingOptions(rung="32"))
    assert [decision.rung for decision in decisions] == ["32", "32"]


async def test_a_stream_is_made_of_events(client: Any) -> None:
    events = await streamed(client, PROMPT, options=RoutingOptions(max_loss=0.05))
    match events:
        case [Decision(rung=rung), Reasoning(), Reasoning(), Content("the "), Content("answer"), Completion() as end]:
            assert (end.rung, end.thinking_tokens, end.finish_reason, end.count_source) == (
                rung,
                2,
                "natural",
                "engine",
            )
        case _:
            pytest.fail(f"not the events of a stream: {events}")


@pytest.mark.parametrize(
    ("options", "rung"),
    [
        (RoutingOptions(rung="32"), "32"),
        (RoutingOptions(max_loss=0), "256"),
        (RoutingOptions(max_loss=0.05), "128"),
        (RoutingOptions(min_quality=0.5), "32"),
        (RoutingOptions(min_quality=0.5, min_thinking_tokens=33), "64"),
        (RoutingOptions(max_loss=0.05, max_thinking_tokens=64), "64"),
        (RoutingOptions(max_loss=0.05, reasoning_effort="none"), "0"),
        (RoutingOptions(max_loss=0.05, reasoning_effort="low"), "64"),
        (RoutingOptions(max_loss=0.05, reasoning_effort="max"), "128"),
        (RoutingOptions(max_loss=0.05, max_latency=0.7), "32"),
        (RoutingOptions(max_loss=0.2), "128"),
        (RoutingOptions(max_loss=0.2, per_prompt_target=True), "64"),
        (RoutingOptions(min_quality=0.99), "256"),
        (RoutingOptions(min_quality=0.99, on_unmet="top_rung"), "256"),
        (RoutingOptions(min_quality=0.99, on_unmet="cheapest_near_best"), "128"),
    ],
    ids=str,
)
async def test_options_reach_the_policy(client: Any, options: RoutingOptions, rung: str) -> None:
    assert (await client.decide(PROMPT, options=options)).rung == rung


async def test_a_decision_says_whether_its_target_is_about_the_prompt(client: Any) -> None:
    for asked in (True, False):
        decision = await client.decide(PROMPT, options=RoutingOptions(max_loss=0.2, per_prompt_target=asked))
        assert (decision.max_loss, decision.per_prompt_target) == (0.2, asked)


async def test_a_conversation_keeps_its_rung(client: Any) -> None:
    await client.decide(PROMPT, options=RoutingOptions(min_quality=0.5, conversation_id="c"))
    decision = await client.decide(PROMPT, options=RoutingOptions(conversation_id="c"))
    assert (decision.rung, decision.source) == ("32", "pinned")


async def test_a_conversation_goes_up_after_a_failed_tool(client: Any) -> None:
    await client.decide(PROMPT, options=RoutingOptions(min_quality=0.5, conversation_id="up"))
    call = Message("assistant", tool_calls=[{"id": "1", "name": "add", "arguments": "{}"}])
    loop = [Message("user", PROMPT), call, Message("tool", "no", tool_call_id="1", tool_failed=True)]
    decision = await client.decide(loop, options=RoutingOptions(conversation_id="up", escalate=True))
    assert (decision.rung, decision.source, decision.escalation) == ("64", "escalated", "tool_failed")
    assert (await client.decide(loop, options=RoutingOptions(conversation_id="up"))).escalation is None


async def test_a_conversation_reaches_the_backend_as_dataclasses_or_mappings(client: Any, backend: FakeBackend) -> None:
    call = ToolCall("c1", "add", '{"a": 2}')
    typed = [
        Message("system", "Be brief."),
        Message("user", PROMPT),
        Message("assistant", tool_calls=[call]),
        Message("tool", "4", tool_call_id="c1", tool_failed=True),
    ]
    plain = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "name": "add", "arguments": '{"a": 2}'}]},
        {"role": "tool", "content": "4", "tool_call_id": "c1", "tool_failed": True},
    ]
    for prompt in (typed, plain):
        await streamed(client, prompt)
    first, second = (asked.prompt.messages for asked in backend.asked)
    assert first == second
    assert [message.role for message in first] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL]
    assert first[2].tool_calls == (DomainCall("c1", "add", '{"a": 2}'),) and first[3].tool_call_id == "c1"
    assert first[3].tool_failed


async def test_parts_reasoning_and_a_developer_reach_the_backend(client: Any, backend: FakeBackend) -> None:
    url = "https://example.com/a"
    typed = [
        Message("developer", "Be brief."),
        Message("user", parts=["A cat?", ContentPart(image_url=url), ContentPart("Or a dog?")]),
        Message("assistant", reasoning="Hm."),
        Message("user", PROMPT),
    ]
    plain = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "parts": [{"text": "A cat?"}, {"image_url": url}, {"text": "Or a dog?", "image_url": None}]},
        {"role": "assistant", "reasoning": "Hm."},
        {"role": "user", "content": PROMPT},
    ]
    for prompt in (typed, plain):
        await streamed(client, prompt)
    first, second = (asked.prompt.messages for asked in backend.asked)
    assert first == second
    assert first[0].role is Role.DEVELOPER and first[2].reasoning == "Hm."
    assert first[1].parts == ("A cat?", Image(url), "Or a dog?")


async def test_strict_tools_and_single_calls_reach_the_backend(client: Any, backend: FakeBackend) -> None:
    await streamed(client, PROMPT, tools=[Tool("add", strict=True), {"name": "sub"}], parallel_tool_calls=False)
    (asked,) = backend.asked
    assert [tool.strict for tool in asked.tools.offered] == [True, None] and asked.tools.parallel is False


def test_a_stream_becomes_the_turn_that_is_sent_back() -> None:
    events: list[Event] = [
        Reasoning("So "),
        Reasoning("be it."),
        Content("I "),
        ToolCallDelta(1, ToolCall("c2", "sub", "{")),
        ToolCallDelta(0, ToolCall("c1", "add", "")),
        ToolCallDelta(1, ToolCall("", "", "}")),
        Content("call."),
    ]
    calls = (ToolCall("c1", "add", ""), ToolCall("c2", "sub", "{}"))
    assert turn(events) == Message("assistant", "I call.", calls, reasoning="So be it.")
    assert turn([Refusal("No.")]) == Message("assistant", "No.") and turn([]) == Message("assistant")


async def test_tools_and_sampling_reach_the_backend(client: Any, backend: FakeBackend) -> None:
    tool = Tool("add", "Adds.", {"type": "object"})
    sampling = {"temperature": 0.7, "max_answer_tokens": 99, "seed": 7}
    await streamed(client, PROMPT, tools=[tool], tool_choice="required", **sampling)
    (asked,) = backend.asked
    assert (asked.sampling.temperature, asked.sampling.max_answer_tokens, asked.sampling.seed) == (0.7, 99, 7)
    assert [(offered.name, offered.parameters) for offered in asked.tools.offered] == [("add", {"type": "object"})]
    assert asked.tools.choice == "required"


def test_sampling_that_is_unset_is_not_sent() -> None:
    unset: dict[str, Any] = {"temperature": None, "max_answer_tokens": None, "seed": None}
    given = calls.generate(PROMPT, RoutingOptions(), "", "", (), "", **unset).request
    assert not given.HasField("sampling")
    given = calls.generate(PROMPT, RoutingOptions(), "", "", (), "", **unset | {"seed": 0}).request
    assert given.sampling == pb.SamplingOptions(seed=0) and given.sampling.HasField("seed")


@pytest.mark.parametrize("stop", ["END", ["END", "\n\n"]])
async def test_the_whole_of_sampling_reaches_the_backend(client: Any, backend: FakeBackend, stop: Any) -> None:
    numbers: dict[str, Any] = {"temperature": 0.0, "top_p": 0.5, "top_k": 7, "min_p": 0.25, "seed": 1}
    numbers |= {"presence_penalty": -1.0, "frequency_penalty": 1.0, "repetition_penalty": 1.5, "max_answer_tokens": 9}
    await streamed(client, PROMPT, stop=stop, logprobs=True, top_logprobs=2, **numbers)
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    assert backend.asked[0].sampling == DomainSampling(**numbers, stop=stops, logprobs=True, top_logprobs=2)


SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (None, None),
        (ResponseFormat("text"), None),
        (ResponseFormat("json_object"), DomainFormat()),
        (ResponseFormat("json_schema", SCHEMA, "sum", True), DomainFormat(SCHEMA, "sum", True)),
        ({"type": "json_schema", "json_schema": SCHEMA}, DomainFormat(SCHEMA)),
        # As it is written for OpenAI's API.
        ({"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}, DomainFormat(SCHEMA, "sum")),
    ],
)
async def test_the_form_of_an_answer_reaches_the_backend(
    client: Any, backend: FakeBackend, given: Any, asked: DomainFormat | None
) -> None:
    await streamed(client, PROMPT, response_format=given)
    assert backend.asked[0].sampling.response_format == asked


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("response_format", {"kind": "json_object"}),
        ("response_format.json_schema", ResponseFormat("json_schema", {"a": {1, 2}})),
        ("response_format.type", ResponseFormat(3)),  # type: ignore[arg-type]
    ],
)
def test_a_form_that_is_none_is_refused_by_name(field: str, given: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        calls.generate(PROMPT, RoutingOptions(), "", "", (), "", form=given)
    assert list(caught.value.fields) == [field]


def test_sampling_that_there_is_not_is_an_error_of_the_program() -> None:
    with pytest.raises(TypeError, match="top_x"):
        Client("127.0.0.1:1").generate(PROMPT, top_x=1)  # type: ignore[call-arg]


async def test_log_probabilities_follow_the_answer(client: Any, backend: FakeBackend) -> None:
    tokens = (DomainToken("4", -0.5, (("4", -0.5), ("5", -1.0))),)
    backend._scripts = [[DomainLogprobs(tokens), completion_of()]]
    event = next(event for event in await streamed(client, PROMPT) if isinstance(event, Logprobs))
    assert event == Logprobs((TokenLogprob("4", -0.5, (LikelyToken("4", -0.5), LikelyToken("5", -1.0))),))
    top = [{"token": "4", "logprob": -0.5}, {"token": "5", "logprob": -1.0}]
    assert event_to_json(event) == {"logprobs": {"tokens": [{"token": "4", "logprob": -0.5, "top": top}]}}


async def test_an_explanation_has_the_decision_and_sentences(client: Any) -> None:
    explanation = await client.explain(PROMPT)
    assert explanation.decision.rung == "128" and explanation.sentences
    earlier = await client.explain(decision_id=explanation.decision.decision_id)
    assert earlier.decision.decision_id == explanation.decision.decision_id


async def test_a_report_reaches_the_log(client: Any, log: ListLog) -> None:
    decision = await client.decide(PROMPT)
    await client.report_outcome(decision.decision_id, correct=1.0, label_source="verifier")
    assert [(o.decision_id, o.correct) for o in log.outcomes] == [(decision.decision_id, 1.0)]


async def test_the_service_names_the_field_at_fault(client: Any) -> None:
    with pytest.raises(InvalidArgument) as blank:
        await client.decide(" ")
    assert (blank.value.code, blank.value.field) == ("INVALID_ARGUMENT", "messages[0].content")
    with pytest.raises(NotFound) as unknown:
        await client.report_outcome("unknown", correct=1.0, label_source="user")
    assert unknown.value.fields == ("decision_id",)
    with pytest.raises(NotFound) as rung:
        await streamed(client, PROMPT, options=RoutingOptions(rung="17"))
    assert rung.value.field == "options.rung"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"options": RoutingOptions(max_loss=0.1, min_quality=0.5)}, "options.max_loss"),
        ({"options": RoutingOptions(on_unmet="unspecified")}, "options.on_unmet"),  # type: ignore[arg-type]
        ({"options": RoutingOptions(min_thinking_tokens=2**31)}, "options.min_thinking_tokens"),
        ({"options": RoutingOptions(max_latency=float("nan"))}, "options.max_latency"),
        ({"prompt": [Message("nobody", "x")]}, "messages[0].role"),  # type: ignore[arg-type]
        ({"prompt": [Message("user", "x"), {"role": "user", "name": "x"}]}, "messages[1]"),
        ({"prompt": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages[0].tool_calls[0]"),
        ({"prompt": "\ud800"}, "messages[0].content"),
        ({"prompt": [Message("user", parts=["x", ContentPart()])]}, "messages[0].parts[1]"),
        ({"prompt": [Message("user", parts=[{"text": "x", "image_url": "y"}])]}, "messages[0].parts[0]"),
        ({"prompt": [Message("user", parts=[{"type": "text"}])]}, "messages[0].parts[0]"),
        ({"tenant": 3}, "tenant"),
    ],
    ids=str,
)
async def test_what_cannot_be_sent_is_refused_by_name(client: Any, arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await client.decide(**{"prompt": PROMPT} | arguments)
    assert caught.value.field == field and caught.value.code == "INVALID_ARGUMENT"


async def test_a_prompt_and_a_decision_are_not_explained_together(client: Any) -> None:
    for subject in ({}, {"prompt": PROMPT, "decision_id": "x"}):
        with pytest.raises(InvalidArgument):
            await client.explain(**subject)


async def test_a_ready_service_is_seen(client: Any) -> None:
    await client.wait_until_ready(30)
    assert await client.is_ready() is True


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_service_that_is_not_ready_is_seen_and_waited_for(bundle: Bundle, kind: str) -> None:
    async with (
        serving(router_of(backend=FakeBackend(is_ready=False)), bundle) as service,
        connected(kind, service.address, timeout=30) as client,
    ):
        assert await client.is_ready() is False
        with pytest.raises(DeadlineExceeded):
            await client.wait_until_ready(0.3)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_service_that_comes_up_late_is_waited_for(bundle: Bundle, kind: str) -> None:
    async with connected(kind, "127.0.0.1:1", timeout=30) as nowhere:
        with pytest.raises(DeadlineExceeded, match=r"127\.0\.0\.1:1 "):
            await nowhere.wait_until_ready(0.3)
    async with serving(router_of(), bundle) as service, connected(kind, service.address) as client:
        await client.wait_until_ready(30)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_no_service_is_said_with_what_to_do(kind: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with connected(kind, address, timeout=5) as client:
        for call in (client.decide(PROMPT), client.is_ready()):
            with pytest.raises(Unavailable) as caught:
                await call
            assert str(caught.value) == f"no service at {address}; start one with `budget-router serve`"


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_proxy_is_not_asked_for_loopback(service: Service, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with connected(kind, service.address, timeout=10) as client:
        assert await client.is_ready()


@pytest.fixture
async def hanging(bundle: Bundle) -> AsyncIterator[tuple[Service, FakeBackend]]:
    """A service whose streams never end."""
    backend = FakeBackend([ReasoningDelta("hm"), Hang()])
    async with serving(router_of(backend=backend), bundle) as service:
        yield service, backend


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_stream_ends_within_the_timeout_of_the_client_or_of_the_call(
    hanging: tuple[Service, FakeBackend], kind: str
) -> None:
    for of_client, of_call in ((0.5, None), (30, 0.5)):
        async with connected(kind, hanging[0].address, timeout=of_client) as client:
            with pytest.raises(DeadlineExceeded):
                await streamed(client, PROMPT, timeout=of_call)


async def test_a_stream_given_up_stops_the_backend(hanging: tuple[Service, FakeBackend]) -> None:
    service, backend = hanging

    def give_up() -> None:
        with Client(service.address) as client:
            events = client.generate(PROMPT)
            assert isinstance(next(events), Decision) and isinstance(next(events), Reasoning)
            events.close()

    await asyncio.to_thread(give_up)
    await until(lambda: backend.cancelled == 1)
    async with AsyncClient(service.address) as client:
        events = client.generate(PROMPT)
        assert isinstance(await anext(events), Decision)
        await events.aclose()
        await until(lambda: backend.cancelled == 2)


def test_replies_mirror_the_proto_file() -> None:
    for kind, message in MESSAGES.items():
        assert {field.name for field in fields(kind)} == set(message.DESCRIPTOR.fields_by_name), kind


@pytest.mark.parametrize(
    ("kind", "message"),
    [(RoutingOptions, pb.RoutingOptions), (Message, pb.Message), (Tool, pb.Tool), (ToolCall, pb.ToolCall)],
)
def test_requests_mirror_the_proto_file(kind: Any, message: Any) -> None:
    assert {field.name for field in fields(kind)} == set(message.DESCRIPTOR.fields_by_name)


def test_a_reply_goes_into_json_under_the_names_of_the_proto() -> None:
    message = pb.Decision(decision_id="d", max_loss=0.02, source=pb.DECISION_SOURCE_CACHE, certified=True)
    message.forecasts.add(rung="64", quality=0.5)
    message.certificate.alpha = 0.02
    written = to_json(read(Decision, message))
    assert written == MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert written["source"] == "DECISION_SOURCE_CACHE"
    assert (written["max_loss"], written["certificate"]["alpha"], written["forecasts"][0]["rung"]) == (0.02, 0.02, "64")
    assert written["meets_target"] is False and written["model"] == ""
    assert not {"min_quality", "budget_tokens", "predicted_quality"} & written.keys()
    assert "budget_tokens" not in written["forecasts"][0]
    assert event_to_json(Reasoning("hm")) == {"reasoning": "hm"}
    delta = ToolCallDelta(1, ToolCall("i", "n", "{}"))
    assert event_to_json(delta) == {"tool_call": {"index": 1, "call": {"id": "i", "name": "n", "arguments": "{}"}}}


def test_what_only_a_newer_service_knows_does_not_fail() -> None:
    unknown = pb.GenerateResponse.FromString(b"\xfa\x01\x02hm")  # field 31
    assert read_event(unknown) is None
    newer = pb.Decision.FromString(pb.Decision(decision_id="d").SerializeToString() + b"\x50\x63")  # source 99
    assert read(Decision, newer).source == "unspecified"
    call = pb.GenerateResponse(tool_call=pb.ToolCallDelta(index=1, call=pb.ToolCall(id="i")))
    assert read_event(call) == ToolCallDelta(1, ToolCall("i", "", ""))
