"""Chat requests of the OpenAI API: every field, and every way to get one wrong."""

from typing import Any

import pytest

from router.admission.identity import Call
from router.domain import (
    Image,
    MaxLoss,
    Message,
    MinQuality,
    OnUnmet,
    ReasoningEffort,
    ResponseFormat,
    Role,
    RoutingOptions,
    Sampling,
    Tool,
    ToolCall,
    Tools,
)
from router.errors import InvalidRequest, PermissionDenied
from router.openai.bodies import MAX_VALUES, UNCOUNTED_BYTES, parsed
from router.openai.requests import ChatRequest, chat_request
from router.openai.wishes import HEADERS, seconds_left
from tests.support.fakes import LIMITS

QUESTION = {"role": "user", "content": "2 + 2 ="}
SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA, "strict": True}}


def asked(headers: dict[str, str] | None = None, call: Call | None = None, **fields: Any) -> ChatRequest:
    """What a good body becomes, with some of its fields replaced."""
    body = {"model": "auto", "messages": [QUESTION]} | fields
    return chat_request(body, headers or {}, LIMITS, call or Call())


def refused(field: str, headers: dict[str, str] | None = None, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        asked(headers, **fields)
    assert caught.value.field == field
    return caught.value


def test_a_bare_request_leaves_all_else_to_the_server() -> None:
    plain = asked()
    assert plain.route.prompt.messages == (Message(Role.USER, "2 + 2 ="),)
    assert (plain.route.model, plain.route.tenant) == ("", "default")
    assert plain.route.options == LIMITS.default_options
    assert plain.sampling == Sampling() and plain.tools == Tools()
    assert not (plain.stream or plain.include_usage or plain.include_decision)
    nulls = dict.fromkeys(("temperature", "stop", "tools", "tool_choice", "stream", "budget_router", "n", "user"))
    assert asked(**nulls, stream_options=None) == plain
    assert asked(user="x", metadata={"a": "b"}, store=False, service_tier="auto") == plain


def test_every_field_of_sampling_arrives() -> None:
    drawn: dict[str, Any] = {"temperature": 1, "top_p": 0.5, "top_k": 20, "min_p": 0.1, "seed": 7}
    drawn |= {"presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.1}
    assert asked(**drawn).sampling == Sampling(**drawn)
    assert asked(stop="x").sampling.stop == ("x",) and asked(stop=["x", "y"]).sampling.stop == ("x", "y")
    probabilities = asked(logprobs=True, top_logprobs=3).sampling
    assert probabilities.logprobs and probabilities.top_logprobs == 3
    assert asked(max_tokens=7).sampling.max_answer_tokens == 7
    assert asked(max_tokens=7, max_completion_tokens=9).sampling.max_answer_tokens == 9


def test_the_form_of_an_answer_arrives() -> None:
    assert asked(response_format={"type": "text"}).sampling.response_format is None
    assert asked(response_format={"type": "json_object"}).sampling.response_format == ResponseFormat()
    nested = {"name": "sum", "strict": True, "schema": SCHEMA, "description": "A sum."}
    form = asked(response_format={"type": "json_schema", "json_schema": nested}).sampling.response_format
    assert form == ResponseFormat(SCHEMA, "sum", True)


def test_tools_arrive() -> None:
    tool = Tool("add", "Adds.", SCHEMA, True)
    assert asked(tools=[TOOL], parallel_tool_calls=False).tools == Tools((tool,), "auto", False)
    named = {"type": "function", "function": {"name": "add"}}
    assert asked(tools=[TOOL], tool_choice=named).tools.choice == "add"
    assert asked(tools=[TOOL], tool_choice="required").tools.choice == "required"
    assert asked(tools=[], tool_choice="auto", parallel_tool_calls=True).tools == Tools()


def test_a_conversation_arrives() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    picture = {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "auto"}}
    prompt = asked(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Look."}, picture, {"type": "text", "text": "So?"}]},
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm.", "refusal": None},
            {"role": "tool", "tool_call_id": "c1", "content": "", "name": "add", "tool_failed": True},
            {"role": "assistant", "content": None, "refusal": "I will not.", "reasoning": "No."},
            QUESTION,
            {"role": "assistant", "content": "The sum "},
        ]
    ).route.prompt
    assert prompt.messages == (
        Message(Role.DEVELOPER, "Be brief."),
        Message.of(Role.USER, ("Look.", Image("https://x/y.png"), "So?")),
        Message(Role.ASSISTANT, "", tool_calls=(ToolCall("c1", "add", '{"a":1}'),), reasoning="Hm."),
        Message(Role.TOOL, "", tool_call_id="c1", tool_failed=True),
        Message(Role.ASSISTANT, "I will not.", reasoning="No."),
        Message(Role.USER, "2 + 2 ="),
        Message(Role.ASSISTANT, "The sum "),
    )
    assert prompt.begun is prompt.messages[-1]


def test_wishes_arrive_in_the_body_and_in_headers() -> None:
    wanted: dict[str, Any] = {"max_loss": 0.1, "min_thinking_tokens": 1, "max_thinking_tokens": 64, "max_latency": 2.5}
    wanted |= {"on_unmet": "reject", "rung": "64", "conversation_id": "c", "per_prompt_target": True, "escalate": True}
    low = ReasoningEffort.LOW
    options = RoutingOptions(
        MaxLoss(0.1, per_prompt=True), 1, 64, 2.5, OnUnmet.REJECT, "64", "c", escalate=True, reasoning_effort=low
    )
    in_body = asked(budget_router=wanted | {"tenant": "default", "include_decision": True}, reasoning_effort="low")
    assert in_body.route.options == options and in_body.include_decision
    words = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in wanted.items()}
    words |= {"reasoning_effort": "low", "include_decision": "true", "tenant": "default"}
    headers = {header: words[name] for header, name in HEADERS.items() if name in words}
    assert asked(headers, budget_router={}) == in_body
    assert asked({"x-budget-router-min-quality": "0.9"}).route.options.target == MinQuality(0.9)
    both = asked({"x-budget-router-max-thinking-tokens": "9"}, budget_router={"max_thinking_tokens": 8})
    assert both.route.options.max_thinking_tokens == 8


def test_a_deadline_bounds_the_latency() -> None:
    options = asked(call=Call(None, seconds_left({"x-request-timeout": "1.5"}))).route.options
    assert options.max_latency == 1.5 and options.latency_of_call
    assert seconds_left({}) is None
    for wrong in ("0", "-1", "nan", "inf", "soon", "1e9", ""):
        with pytest.raises(InvalidRequest, match="x-request-timeout"):
            seconds_left({"x-request-timeout": wrong})


def test_credentials_name_the_tenant() -> None:
    assert asked(call=Call("search")).route.tenant == "search"
    with pytest.raises(PermissionDenied):
        asked(call=Call("search"), budget_router={"tenant": "other"})


def test_unknown_fields_go_to_the_engine_unchanged() -> None:
    own: dict[str, Any] = {"logit_bias": {"7": -1}, "min_tokens": 3, "chat_template_kwargs": {"style": "brief"}}
    assert asked(**own).sampling.passed == own
    refused("thinking_token_budget", thinking_token_budget=8)
    refused("functions", functions=[])
    many: dict[str, Any] = {f"field{number}": 1 for number in range(65)}
    refused("body", **many)
    refused("body", one="x" * 40_000, two="x" * 40_000)
    refused("deep", deep=_nested(101))


def _nested(levels: int) -> Any:
    return [_nested(levels - 1)] if levels else 1


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("messages", {"messages": None}),
        ("messages", {"messages": "2 + 2"}),
        ("messages", {"messages": []}),
        ("messages", {"messages": [{"role": "system", "content": "Be brief."}]}),
        ("messages", {"messages": [QUESTION] * 1_001}),
        ("messages[0]", {"messages": ["2 + 2"]}),
        ("messages[0].role", {"messages": [{"role": "robot", "content": "x"}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": " "}]}),
        ("messages[0].content", {"messages": [{"role": "user"}]}),
        ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}),
        ("messages[0].name", {"messages": [QUESTION | {"name": "Ada"}]}),
        ("messages[0].tool_failed", {"messages": [QUESTION | {"tool_failed": True}]}),
        ("model", {"model": 7}),
        ("model", {"model": "x" * 129}),
        ("n", {"n": 2}),
        ("modalities", {"modalities": ["audio"]}),
        ("stream", {"stream": "yes"}),
        ("stream_options", {"stream_options": 1}),
        ("temperature", {"temperature": "hot"}),
        ("temperature", {"temperature": True}),
        ("sampling.temperature", {"temperature": 3}),
        ("sampling.max_answer_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": 1.5}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**40}),
        ("stop", {"stop": 1}),
        ("stop", {"stop": [1]}),
        ("sampling.stop", {"stop": ["x"] * 9}),
        ("sampling.top_logprobs", {"top_logprobs": 2}),
        ("response_format.type", {"response_format": {"type": "yaml"}}),
        ("response_format.json_schema", {"response_format": {"type": "json_schema"}}),
        ("response_format.schema", {"response_format": {"type": "json_object", "schema": {}}}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("tools[0].function", {"tools": [{"type": "function"}]}),
        ("tools[0].name", {"tools": [{"type": "function", "function": {"name": ""}}]}),
        ("tools[0].parameters", {"tools": [{"type": "function", "function": {"name": "x", "parameters": [1]}}]}),
        ("tools", {"tools": [TOOL] * 129}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": "sub"}),
        ("tool_choice", {"tool_choice": {"type": "allowed_tools"}}),
        ("options.reasoning_effort", {"reasoning_effort": "enormous"}),
        ("budget_router", {"budget_router": []}),
        ("budget_router.max_los", {"budget_router": {"max_los": 0.1}}),
        ("budget_router.max_loss", {"budget_router": {"max_loss": "0.1"}}),
        ("options.max_loss", {"budget_router": {"max_loss": 2}}),
        ("options.min_quality", {"budget_router": {"max_loss": 0.1, "min_quality": 0.5}}),
        ("options.on_unmet", {"budget_router": {"on_unmet": "panic"}}),
        ("options.escalate", {"budget_router": {"escalate": True}}),
    ],
)
def test_what_is_wrong_is_refused_by_name(field: str, fields: dict[str, Any]) -> None:
    refused(field, **fields)


@pytest.mark.parametrize("body", [None, [], "x", 1])
def test_a_body_is_an_object(body: Any) -> None:
    with pytest.raises(InvalidRequest, match="body: must be an object"):
        chat_request(body, {}, LIMITS, Call())


@pytest.mark.parametrize(
    ("header", "value"),
    [("max-los", "1"), ("max-loss", "much"), ("rung-", "1"), ("escalate", "1"), ("max-thinking-tokens", "1.5")],
)
def test_a_wrong_header_is_refused_by_name(header: str, value: str) -> None:
    refused(f"x-budget-router-{header}", {f"x-budget-router-{header}": value})


def test_bodies_are_json_of_few_values() -> None:
    assert parsed(b'{"a": [1, "x"]}') == {"a": [1, "x"]}
    long = b'["' + b'a, b: [{ \\\\\\" ' * (UNCOUNTED_BYTES // 4) + b'"]'
    assert len(parsed(long)[0]) > UNCOUNTED_BYTES, "what stands in a text is no value"
    for wrong in (b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 100_000, b"[" * 300_000, b"[1" + b",1" * 300_000 + b"]"):
        with pytest.raises(InvalidRequest, match="body"):
            parsed(wrong)
    with pytest.raises(InvalidRequest, match=f"{MAX_VALUES:,}"):
        parsed(b'[""' + b',""' * 300_000 + b"]")
