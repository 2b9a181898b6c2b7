"""What comes in becomes the domain's own: every limit at its edge, and every field in its place."""

import asyncio
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message as ProtoMessage
from hypothesis import given
from hypothesis import strategies as st

from router._gen import budget_router_pb2 as pb
from router.admission.identity import Call
from router.domain import (
    Image,
    LabelSource,
    MaxLoss,
    Message,
    MinQuality,
    OnUnmet,
    Outcome,
    ReasoningEffort,
    Role,
    RouteRequest,
    RoutingOptions,
    Tool,
    ToolCall,
    Tools,
)
from router.errors import FieldError
from router.requests import schemas
from router.requests.conversations import MAX_ATTACHED
from router.requests.limits import Limits
from router.requests.tools import MAX_SCHEMAS_BYTES
from router.rpc import requests

MOST_BYTES = 1_000
LIMITS = Limits(max_messages=3, max_prompt_bytes=MOST_BYTES, default_target=MaxLoss(0.05))


def decide(content: str = "2 + 2 =", **fields: Any) -> pb.DecideRequest:
    """A good request, but for what is given."""
    return pb.DecideRequest(**{"messages": [pb.Message(role=pb.ROLE_USER, content=content)]} | fields)


def routed(message: pb.DecideRequest, remaining: float | None = None) -> RouteRequest:
    return requests.route_request(message, LIMITS, Call(), remaining)


def options(remaining: float | None = None, **fields: Any) -> RoutingOptions:
    """What the options of a message become."""
    return routed(decide(options=pb.RoutingOptions(**fields)), remaining).options


def turn(**fields: Any) -> Message:
    """What one turn of a conversation becomes."""
    asked = pb.Message(role=pb.ROLE_USER, content="x")
    return routed(pb.DecideRequest(messages=[pb.Message(**fields), asked])).prompt.messages[0]


def checked_tools(message: pb.GenerateRequest, limits: Limits = LIMITS) -> Tools:
    return asyncio.run(requests.tools(message, limits))


def checked_batch(message: pb.DecideBatchRequest) -> list[RouteRequest]:
    return asyncio.run(requests.batch(message, LIMITS, Call()))


def refused(field: str, parse: Any, *arguments: Any, **named: Any) -> None:
    """Parsing fails, and the field at fault is named."""
    with pytest.raises(FieldError) as caught:
        parse(*arguments, **named)
    assert caught.value.field == field


def test_a_request_without_wishes_gets_the_defaults() -> None:
    plain = routed(decide())
    assert (plain.options, plain.tenant, plain.model) == (RoutingOptions(MaxLoss(0.05)), "default", "")
    assert options() == RoutingOptions(MaxLoss(0.05))
    of_call = RoutingOptions(MaxLoss(0.05), max_latency=2.0, latency_of_call=True)
    assert routed(decide(), remaining=2.0).options == of_call


def test_every_option_finds_its_place() -> None:
    given = options(
        min_quality=0.5,
        min_thinking_tokens=16,
        max_thinking_tokens=64,
        max_latency=Duration(seconds=2, nanos=5 * 10**8),
        on_unmet=pb.ON_UNMET_REJECT,
        rung="64",
        conversation_id="talk",
        escalate=True,
        reasoning_effort=pb.REASONING_EFFORT_LOW,
    )
    assert given == RoutingOptions(
        MinQuality(0.5), 16, 64, 2.5, OnUnmet.REJECT, "64", "talk", escalate=True, reasoning_effort=ReasoningEffort.LOW
    )


def test_a_target_per_prompt_is_the_named_or_the_default_loss() -> None:
    assert options(max_loss=0.1, per_prompt_target=True).target == MaxLoss(0.1, per_prompt=True)
    assert options(per_prompt_target=True).target == MaxLoss(0.05, per_prompt=True)
    assert options(min_quality=0.5, per_prompt_target=True).target == MinQuality(0.5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_loss_may_be_nothing_or_everything(value: float) -> None:
    assert options(max_loss=value).target == MaxLoss(value)


def test_a_quality_lies_above_0_and_reaches_1() -> None:
    assert options(min_quality=1.0).target == MinQuality(1.0)
    assert options(min_quality=1e-9).target == MinQuality(1e-9)


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_a_floor_is_refused_only_above_its_ceiling(floor: int, ceiling: int) -> None:
    if floor > ceiling:
        refused("options.min_thinking_tokens", options, min_thinking_tokens=floor, max_thinking_tokens=ceiling)
    else:
        given = options(min_thinking_tokens=floor, max_thinking_tokens=ceiling)
        assert (given.min_thinking_tokens, given.max_thinking_tokens) == (floor, ceiling)


def test_one_number_may_be_both_floor_and_ceiling() -> None:
    assert options(min_thinking_tokens=64, max_thinking_tokens=64) == RoutingOptions(MaxLoss(0.05), 64, 64)
    assert options(min_thinking_tokens=0, max_thinking_tokens=0) == RoutingOptions(MaxLoss(0.05), 0, 0)


@pytest.mark.parametrize(
    ("nanos", "remaining", "seconds"), [(1, None, 1e-9), (10**9 - 1, 0.25, 0.25), (25 * 10**7, 9.0, 0.25)]
)
def test_the_shorter_of_wish_and_deadline_bounds_the_latency(
    nanos: int, remaining: float | None, seconds: float
) -> None:
    assert options(remaining, max_latency=Duration(nanos=nanos)).max_latency == pytest.approx(seconds, abs=1e-15)


def test_names_have_room_for_128_bytes() -> None:
    assert options(rung="r" * 128).rung == "r" * 128
    assert options(conversation_id="é" * 64).conversation_id == "é" * 64
    refused("model", routed, decide(model="m" * 129))
    refused("tenant", routed, decide(tenant="t" * 129))


def test_a_conversation_may_be_as_long_as_its_limits() -> None:
    three = [pb.Message(role=pb.ROLE_USER, content="x")] * 3
    assert len(routed(pb.DecideRequest(messages=three)).prompt.messages) == 3
    refused("messages", routed, pb.DecideRequest(messages=[*three, *three[:1]]))
    refused("messages", routed, pb.DecideRequest())


@given(st.integers(MOST_BYTES - 5, MOST_BYTES + 5), st.sampled_from(["content", "shown", "parts", "reasoning"]))
def test_the_bytes_of_texts_are_limited_not_those_of_images_and_wrapping(size: int, form: str) -> None:
    text, url = "x" * size, "https://example.com/" + "a" * MOST_BYTES
    message = {
        "content": pb.Message(role=pb.ROLE_USER, content=text),
        "shown": pb.Message(role=pb.ROLE_USER, content=text, image_urls=[url]),
        "parts": pb.Message(role=pb.ROLE_USER, parts=[pb.ContentPart(text=text), pb.ContentPart(image_url=url)]),
        "reasoning": pb.Message(role=pb.ROLE_ASSISTANT, content="y", reasoning=text[1:]),
    }[form]
    if size > MOST_BYTES:
        refused("messages", routed, pb.DecideRequest(messages=[message]))
    else:
        assert routed(pb.DecideRequest(messages=[message])).prompt.text == ("y" if form == "reasoning" else text)


@given(st.integers(-5, 5), st.booleans())
def test_the_bytes_of_images_have_a_bound_of_their_own(beyond: int, in_parts: bool) -> None:
    most = 2 * MOST_BYTES
    first = "https://example.com/"
    urls = [first, first + "a" * (most - 2 * len(first) + beyond)]
    shown = {"parts": [pb.ContentPart(image_url=url) for url in urls]} if in_parts else {"image_urls": urls}
    request = pb.DecideRequest(messages=[pb.Message(role=pb.ROLE_USER, **shown)])
    limits = replace(LIMITS, max_image_bytes=most)
    if beyond > 0:
        refused("messages", requests.route_request, request, limits, Call())
    else:
        assert requests.route_request(request, limits, Call()).prompt.messages[0].images == tuple(urls)


def test_the_bytes_of_all_turns_and_their_calls_are_limited_together() -> None:
    half = pb.Message(role=pb.ROLE_USER, content="x" * (MOST_BYTES // 2))
    calls = pb.Message(role=pb.ROLE_ASSISTANT, tool_calls=[pb.ToolCall(name="f", arguments="y" * (MOST_BYTES // 2))])
    assert routed(pb.DecideRequest(messages=[half, half])).prompt
    refused("messages", routed, pb.DecideRequest(messages=[half, calls]))


def test_every_turn_keeps_what_it_says_calls_answers_and_shows() -> None:
    call = pb.ToolCall(id="1", name="add", arguments="{}")
    assert turn(role=pb.ROLE_SYSTEM, content="Be brief.") == Message(Role.SYSTEM, "Be brief.")
    assert turn(role=pb.ROLE_ASSISTANT, tool_calls=[call]) == Message(Role.ASSISTANT, "", (ToolCall("1", "add", "{}"),))
    assert turn(role=pb.ROLE_TOOL, content="4", tool_call_id="1") == Message(Role.TOOL, "4", (), "1")
    assert turn(role=pb.ROLE_DEVELOPER, content="Be brief.") == Message(Role.DEVELOPER, "Be brief.")
    assert turn(role=pb.ROLE_ASSISTANT, content="4", reasoning=" So.") == Message(Role.ASSISTANT, "4", reasoning=" So.")
    shown = "data:image/png;base64,AA"
    assert turn(role=pb.ROLE_USER, image_urls=[shown]) == Message(Role.USER, "", images=(shown,))


def test_parts_keep_their_order_and_their_texts_are_the_content() -> None:
    shown, other = "data:image/png;base64,AA", "https://example.com/a"
    parts = [
        pb.ContentPart(image_url=shown),
        pb.ContentPart(text="A cat?"),
        pb.ContentPart(text=""),
        pb.ContentPart(image_url=other),
    ]
    kept = turn(role=pb.ROLE_USER, parts=parts)
    assert kept.parts == (Image(shown), "A cat?", "", Image(other))
    assert (kept.content, kept.images) == ("A cat?\n", (shown, other))
    assert turn(role=pb.ROLE_TOOL, tool_call_id="1", parts=parts[1:2]) == Message(Role.TOOL, "A cat?", (), "1")


@pytest.mark.parametrize(
    "fields", [{}, {"content": " "}, {"reasoning": "Hm."}, {"parts": [pb.ContentPart(text="")]}], ids=str
)
def test_an_assistant_and_a_tool_may_say_nothing(fields: dict[str, Any]) -> None:
    asked = pb.Message(role=pb.ROLE_USER, content="2 + 2 =")
    for role in (pb.ROLE_ASSISTANT, pb.ROLE_TOOL):
        if role == pb.ROLE_TOOL and "reasoning" in fields:
            continue
        said = pb.Message(role=role, **fields)
        assert len(routed(pb.DecideRequest(messages=[asked, said])).prompt.messages) == 2


@pytest.mark.parametrize(
    ("field", "owner", "fields"),
    [
        ("tool_calls", pb.ROLE_ASSISTANT, {"tool_calls": [pb.ToolCall(name="f")]}),
        ("tool_call_id", pb.ROLE_TOOL, {"tool_call_id": "1"}),
        ("image_urls", pb.ROLE_USER, {"image_urls": ["https://x/y"]}),
        ("reasoning", pb.ROLE_ASSISTANT, {"reasoning": "Hm."}),
    ],
)
def test_what_belongs_to_one_role_is_refused_of_every_other(field: str, owner: int, fields: dict[str, Any]) -> None:
    for role in (pb.ROLE_SYSTEM, pb.ROLE_USER, pb.ROLE_ASSISTANT, pb.ROLE_TOOL, pb.ROLE_DEVELOPER):
        if role == owner:
            assert turn(role=role, content="x", **fields).content == "x"
        else:
            refused(f"messages[0].{field}", turn, role=role, content="x", **fields)


def test_the_system_alone_asks_for_nothing() -> None:
    system, user = pb.Message(role=pb.ROLE_SYSTEM, content="Be brief."), pb.Message(role=pb.ROLE_USER, content="x")
    developer = pb.Message(role=pb.ROLE_DEVELOPER, content="Be brief.")
    for alone in ([system], [system] * 3, [developer], [system, developer]):
        refused("messages", routed, pb.DecideRequest(messages=alone))
    assert routed(pb.DecideRequest(messages=[user, system])).prompt.text == "x"


@pytest.mark.parametrize("content", ["", " ", "\n\t"])
def test_a_turn_that_says_nothing_is_refused(content: str) -> None:
    refused("messages[0].content", turn, role=pb.ROLE_USER, content=content)
    refused("messages[0].role", turn, content=content)


def test_tools_reach_their_limits() -> None:
    def tools(count: int, size: int = 0, choice: str = "") -> Tools:
        offered = [pb.Tool(name=f"t{i}", description="d" * size) for i in range(count)]
        return checked_tools(pb.GenerateRequest(tools=offered, tool_choice=choice))

    assert tools(0) == Tools()
    assert tools(1) == Tools((Tool("t0", "", {}),))
    assert tools(2, choice="t1").choice == "t1"
    assert tools(1, choice="required").choice == "required"
    limit = Limits(1, 10_000, MaxLoss(0.05))
    many = pb.GenerateRequest(tools=[pb.Tool(name=f"t{i}") for i in range(128)])
    assert len(checked_tools(many, limit).offered) == 128
    wrapped = pb.Tool(name="t0", description="d" * 500).ByteSize() - 500
    assert tools(1, MOST_BYTES - wrapped).offered
    refused("tools", tools, 1, MOST_BYTES - wrapped + 1)


def test_a_tool_is_strict_and_calls_are_parallel_only_where_the_caller_says_so() -> None:
    for said in (True, False):
        given = pb.GenerateRequest(tools=[pb.Tool(name="t", strict=said)], parallel_tool_calls=said)
        assert checked_tools(given) == Tools((Tool("t", "", {}, said),), parallel=said)
    assert checked_tools(pb.GenerateRequest(tools=[pb.Tool(name="t")])) == Tools((Tool("t", "", {}),))


def test_the_parameters_of_a_tool_are_a_json_object() -> None:
    given = pb.GenerateRequest(tools=[pb.Tool(name="t", description="d", parameters='{"type": "object"}')])
    assert checked_tools(given).offered == (Tool("t", "d", {"type": "object"}),)


@pytest.mark.parametrize("open_", ['{"a":', "["])
@pytest.mark.parametrize("levels", [1, 99, 100, 800, 950, 960, 970, 980, 990, 5_000])
def test_the_parameters_of_a_tool_have_few_levels(open_: str, levels: int) -> None:
    close = "}" if open_ != "[" else "]"
    deep = pb.Tool(name="t", parameters='{"a":' + open_ * (levels - 1) + "1" + close * (levels - 1) + "}")
    large = replace(LIMITS, max_prompt_bytes=1 << 20)
    if levels <= schemas.MAX_SCHEMA_LEVELS:
        assert checked_tools(pb.GenerateRequest(tools=[deep]), large).offered
    else:
        refused("tools[0].parameters", checked_tools, pb.GenerateRequest(tools=[deep]), large)


def test_the_parameters_of_tools_are_bounded_one_by_one_and_together() -> None:
    def tools(*sizes: int) -> Tools:
        offered = [pb.Tool(name="t", parameters=json.dumps({"a": "d" * (size - 9)})) for size in sizes]
        return checked_tools(pb.GenerateRequest(tools=offered), replace(LIMITS, max_prompt_bytes=1 << 20))

    one, four = schemas.MAX_SCHEMA_BYTES, MAX_SCHEMAS_BYTES // schemas.MAX_SCHEMA_BYTES
    assert len(tools(*[one] * four).offered) == four
    refused("tools[1].parameters", tools, one, one + 1)
    refused("tools", tools, *[one] * four, 9)


def test_the_tool_calls_and_images_of_a_conversation_are_bounded_together() -> None:
    def attached(calls: int, images: int, parts: int = 0) -> RouteRequest:
        shown = pb.Message(role=pb.ROLE_USER, image_urls=["https://a"] * images)
        if parts:
            shown = pb.Message(role=pb.ROLE_USER, parts=[pb.ContentPart(text="a")] * parts)
        called = pb.Message(role=pb.ROLE_ASSISTANT, content="c", tool_calls=[pb.ToolCall()] * calls)
        limits = replace(LIMITS, max_prompt_bytes=1 << 20)
        return requests.route_request(pb.DecideRequest(messages=[shown, called]), limits, Call())

    assert len(attached(MAX_ATTACHED - 1, 1).prompt.messages[1].tool_calls) == MAX_ATTACHED - 1
    refused("messages", attached, MAX_ATTACHED, 1)
    refused("messages", attached, 0, MAX_ATTACHED + 1)
    refused("messages", attached, 1, 0, MAX_ATTACHED)


@pytest.mark.parametrize("correct", [0.0, 0.5, 1.0])
def test_an_outcome_is_a_share_of_what_is_right(correct: float) -> None:
    message = pb.ReportOutcomeRequest(decision_id="i" * 128, correct=correct, label_source=pb.LABEL_SOURCE_JUDGE)
    assert requests.outcome(message, "search") == Outcome("i" * 128, correct, LabelSource.JUDGE, "search")


def test_a_batch_has_1_to_1024_requests_in_order() -> None:
    many = pb.DecideBatchRequest(requests=[decide(str(i)) for i in range(1024)])
    assert [one.prompt.text for one in checked_batch(many)] == [str(i) for i in range(1024)]
    assert len(checked_batch(pb.DecideBatchRequest(requests=[decide()]))) == 1
    refused("requests", checked_batch, pb.DecideBatchRequest())
    refused("requests[1].messages", checked_batch, pb.DecideBatchRequest(requests=[decide(), {}]))


def test_what_is_explained_is_a_decision_or_a_request() -> None:
    def explained(**fields: Any) -> object:
        return requests.explained(pb.ExplainRequest(**fields), LIMITS, Call("search"))

    assert explained(decision_id="an-id") == "an-id"
    asked = explained(request=decide())
    assert isinstance(asked, RouteRequest) and (asked.prompt.text, asked.tenant) == ("2 + 2 =", "search")
    refused("decision_id", explained, decision_id="")
    refused("decision_id", explained)
    refused("request.messages", explained, request=pb.DecideRequest())


@pytest.mark.parametrize("value", [math.nan, -0.0001, 1.0001])
def test_what_lies_outside_0_1_is_refused(value: float) -> None:
    message: ProtoMessage = pb.RoutingOptions(max_loss=value)
    refused("options.max_loss", routed, decide(options=message))
    report = pb.ReportOutcomeRequest(decision_id="x", correct=value, label_source=pb.LABEL_SOURCE_USER)
    refused("correct", requests.outcome, report, None)
