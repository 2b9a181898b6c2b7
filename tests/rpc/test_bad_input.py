"""Everything a caller can get wrong: the exact status, the field by name, and a server that goes on.

Every case is sent as bytes, as another language's client might, so that no check of the Python library helps.
"""

import math
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from router._gen import budget_router_pb2 as pb
from router.bundle.manifest import Bundle
from tests.rpc.conftest import (
    ADMIN,
    ROUTING,
    TOKEN,
    Refusal,
    Service,
    bearer,
    corrupt,
    decide,
    generate,
    refusal,
    serving,
    user,
)
from tests.support.fakes import FakeBackend, Hang, router_of

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@dataclass(frozen=True)
class Case:
    """A bad request and how it must be refused."""

    name: str
    method: str
    data: bytes
    field: str
    code: grpc.StatusCode = INVALID


def options_case(name: str, field: str, code: grpc.StatusCode = INVALID, **options: object) -> list[Case]:
    """The same bad option to Decide and Generate."""
    asked = pb.RoutingOptions(**options)  # type: ignore[arg-type]
    return [
        Case(f"{name}, Decide", "Decide", decide(options=asked).SerializeToString(), field, code),
        Case(f"{name}, Generate", "Generate", generate(options=asked).SerializeToString(), field, code),
    ]


def sampling_case(name: str, field: str, **sampling: object) -> Case:
    """A bad sampling option."""
    asked = pb.SamplingOptions(**sampling)  # type: ignore[arg-type]
    return Case(name, "Generate", generate(sampling=asked).SerializeToString(), field)


def tools_case(name: str, field: str, *tools: pb.Tool, choice: str = "") -> Case:
    """Bad tools."""
    return Case(name, "Generate", generate(tools=tools, tool_choice=choice).SerializeToString(), field)


def outcome_case(name: str, field: str, code: grpc.StatusCode = INVALID, **fields: object) -> Case:
    """A bad outcome."""
    good = {"decision_id": "x", "correct": 1.0, "label_source": pb.LABEL_SOURCE_USER}
    asked = {k: v for k, v in (good | fields).items() if v is not None}
    return Case(name, "ReportOutcome", pb.ReportOutcomeRequest(**asked).SerializeToString(), field, code)  # type: ignore[arg-type]


def batch_case(name: str, field: str, *requests: pb.DecideRequest, code: grpc.StatusCode = INVALID) -> Case:
    """A bad batch."""
    return Case(name, "DecideBatch", pb.DecideBatchRequest(requests=requests).SerializeToString(), field, code)


def decide_case(name: str, field: str, request: pb.DecideRequest, code: grpc.StatusCode = INVALID) -> Case:
    """A bad Decide."""
    return Case(name, "Decide", request.SerializeToString(), field, code)


def not_utf8_cases(name: str, good: bytes, bad: bytes) -> list[Case]:
    """Strings that are not UTF-8, in every string of the API."""
    mark = good.decode()
    opened = pb.RoutingOptions(rung=mark)
    talk = pb.RoutingOptions(conversation_id=mark)
    requests = [
        ("Decide", decide(mark), "messages[0].content"),
        ("Decide", decide(messages=user() + user(mark)), "messages[1].content"),
        ("Decide", decide(model=mark), "model"),
        ("Decide", decide(tenant=mark), "tenant"),
        ("Decide", decide(options=opened), "options.rung"),
        ("Decide", decide(options=talk), "options.conversation_id"),
        ("DecideBatch", pb.DecideBatchRequest(requests=[decide(), decide(model=mark)]), "requests[1].model"),
        ("DecideBatch", pb.DecideBatchRequest(requests=[decide(mark)]), "requests[0].messages[0].content"),
        ("Generate", generate(mark), "messages[0].content"),
        ("Generate", generate(model=mark), "model"),
        ("Generate", generate(tenant=mark), "tenant"),
        ("Generate", generate(options=opened), "options.rung"),
        ("Generate", generate(options=talk), "options.conversation_id"),
        ("ReportOutcome", pb.ReportOutcomeRequest(decision_id=mark, correct=1), "decision_id"),
        ("Explain", pb.ExplainRequest(decision_id=mark), "decision_id"),
        ("Explain", pb.ExplainRequest(request=decide(mark)), "request.messages[0].content"),
    ]
    return [Case(f"{name}, {m} {field}", m, corrupt(r, good, bad), field) for m, r, field in requests]


CASES: list[Case] = [
    # what does not parse
    *not_utf8_cases("invalid UTF-8", b"@@@", b"\xff\xfe\xfd"),
    *not_utf8_cases("lone surrogate", b"@@@", b"\xed\xa0\x80"),
    *not_utf8_cases("overlong encoding", b"@@", b"\xc0\xaf"),
    *(
        Case(f"garbage, {m}", m, b"\xff\xff\xff\x07 no message", "request")
        for m in ("Decide", "DecideBatch", "Generate", "ReportOutcome", "Explain")
    ),
    Case("truncated", "Decide", decide("a long enough prompt").SerializeToString()[:-3], "request"),
    # messages
    decide_case("no messages", "messages", pb.DecideRequest()),
    Case("no messages, Generate", "Generate", b"", "messages"),
    decide_case("blank prompt", "messages[0].content", decide("")),
    decide_case("white space", "messages[0].content", decide(" \t\n\u00a0\u2003")),
    decide_case("a system alone", "messages", decide(messages=[pb.Message(role=pb.ROLE_SYSTEM, content="Be brief.")])),
    decide_case("blank second message", "messages[1].content", decide(messages=[*user(), *user("  ")])),
    decide_case("3 MB prompt", "messages", decide("x" * 3_000_000)),
    Case("3 MB prompt, Generate", "Generate", generate("x" * 3_000_000).SerializeToString(), "messages"),
    decide_case("3 MB in many messages", "messages", decide(messages=user("x" * 100_000) * 30)),
    decide_case("one byte too many", "messages", decide("é" * (1 << 19) + "x")),
    decide_case("10k messages", "messages", decide(messages=user() * 10_000)),
    decide_case("1,001 messages", "messages", decide(messages=user() * 1_001)),
    decide_case("unspecified role", "messages[0].role", decide(messages=[pb.Message(content="hi")])),
    decide_case("unknown role", "messages[0].role", decide(messages=[pb.Message(role=99, content="hi")])),  # type: ignore[arg-type]
    decide_case("negative role", "messages[0].role", decide(messages=[pb.Message(role=-1, content="hi")])),  # type: ignore[arg-type]
    # tools and images
    *(
        decide_case(f"{name}", f"messages[0].{field}", decide(messages=[pb.Message(role=role, **fields)]))
        for name, role, field, fields in (
            ("tool calls of a user", pb.ROLE_USER, "tool_calls", {"content": "x", "tool_calls": [pb.ToolCall()]}),
            ("a user answers a call", pb.ROLE_USER, "tool_call_id", {"content": "x", "tool_call_id": "1"}),
            ("images of a tool", pb.ROLE_TOOL, "image_urls", {"content": "x", "image_urls": ["https://x/y"]}),
            ("image from a file", pb.ROLE_USER, "image_urls[0]", {"image_urls": ["file:///etc/passwd"]}),
            ("image over http", pb.ROLE_USER, "image_urls[1]", {"image_urls": ["https://x/y", "http://10.0.0.1/"]}),
            ("reasoning of a user", pb.ROLE_USER, "reasoning", {"content": "x", "reasoning": "Hm."}),
            ("both forms of content", pb.ROLE_USER, "parts", {"content": "x", "parts": [pb.ContentPart(text="x")]}),
            (
                "both forms of images",
                pb.ROLE_USER,
                "parts",
                {"image_urls": ["https://x/y"], "parts": [pb.ContentPart(image_url="https://x/y")]},
            ),
            ("a part of nothing", pb.ROLE_USER, "parts[1]", {"parts": [pb.ContentPart(text="x"), pb.ContentPart()]}),
            ("blank parts", pb.ROLE_USER, "parts", {"parts": [pb.ContentPart(text=" "), pb.ContentPart(text="\n")]}),
            (
                "an image part of a tool",
                pb.ROLE_TOOL,
                "parts[0].image_url",
                {"parts": [pb.ContentPart(image_url="https://x/y")]},
            ),
            (
                "an image part over http",
                pb.ROLE_USER,
                "parts[0].image_url",
                {"parts": [pb.ContentPart(image_url="http://10.0.0.1/")]},
            ),
        )
    ),
    decide_case("a tool alone says nothing", "messages", decide(messages=[pb.Message(role=pb.ROLE_TOOL)])),
    decide_case("a thought alone", "messages", decide(messages=[pb.Message(role=pb.ROLE_ASSISTANT, reasoning="Hm.")])),
    decide_case(
        "instructions and silence",
        "messages",
        decide(messages=[pb.Message(role=pb.ROLE_DEVELOPER, content="x"), pb.Message(role=pb.ROLE_ASSISTANT)]),
    ),
    decide_case(
        "a developer says nothing", "messages[0].content", decide(messages=[pb.Message(role=pb.ROLE_DEVELOPER)])
    ),
    decide_case(
        "reasoning of 2 MB",
        "messages",
        decide(messages=[*user(), pb.Message(role=pb.ROLE_ASSISTANT, reasoning="x" * 2_000_000)]),
    ),
    decide_case(
        "parts of 2 MB",
        "messages",
        decide(messages=[pb.Message(role=pb.ROLE_USER, parts=[pb.ContentPart(text="x" * 1_000_000)] * 2)]),
    ),
    decide_case(
        "tool calls of 2 MB",
        "messages",
        decide(messages=[pb.Message(role=pb.ROLE_ASSISTANT, tool_calls=[pb.ToolCall(arguments="x" * 2_000_000)])]),
    ),
    tools_case("129 tools", "tools", *[pb.Tool(name=f"t{i}") for i in range(129)]),
    tools_case("tools of 2 MB", "tools", pb.Tool(name="t", description="x" * 2_000_000)),
    tools_case("a tool without a name", "tools[1].name", pb.Tool(name="t"), pb.Tool(name=" ")),
    tools_case("parameters that are not JSON", "tools[0].parameters", pb.Tool(name="t", parameters="{")),
    tools_case("parameters that are a list", "tools[0].parameters", pb.Tool(name="t", parameters="[1]")),
    tools_case("parameters nested too deep", "tools[0].parameters", pb.Tool(name="t", parameters="[" * 100_000)),
    Case(
        "parallel calls of no tools",
        "Generate",
        generate(parallel_tool_calls=False).SerializeToString(),
        "parallel_tool_calls",
    ),
    tools_case("a choice that is no tool", "tool_choice", pb.Tool(name="t"), choice="u"),
    # names
    decide_case("unknown model", "model", decide(model="gpt-17"), NOT_FOUND),
    decide_case("unknown tenant", "tenant", decide(tenant="nobody"), NOT_FOUND),
    Case("unknown model, Generate", "Generate", generate(model="x").SerializeToString(), "model", NOT_FOUND),
    Case("unknown tenant, Generate", "Generate", generate(tenant="x").SerializeToString(), "tenant", NOT_FOUND),
    # options
    *options_case("loss NaN", "options.max_loss", max_loss=math.nan),
    *options_case("loss infinite", "options.max_loss", max_loss=math.inf),
    *options_case("loss negative", "options.max_loss", max_loss=-0.01),
    *options_case("loss above 1", "options.max_loss", max_loss=1.01),
    *options_case("quality 0", "options.min_quality", min_quality=0),
    *options_case("quality NaN", "options.min_quality", min_quality=math.nan),
    *options_case("quality 2", "options.min_quality", min_quality=2),
    *options_case("quality negative", "options.min_quality", min_quality=-0.5),
    *options_case("floor negative", "options.min_thinking_tokens", min_thinking_tokens=-1),
    *options_case("ceiling negative", "options.max_thinking_tokens", max_thinking_tokens=-1),
    *options_case("floor above ceiling", "options.min_thinking_tokens", min_thinking_tokens=64, max_thinking_tokens=32),
    *options_case("no rung left", "options.max_thinking_tokens", min_thinking_tokens=1, max_thinking_tokens=2),
    *options_case("floor above the top rung", "options.min_thinking_tokens", min_thinking_tokens=2**31 - 1),
    *options_case("unknown rung", "options.rung", NOT_FOUND, rung="17"),
    *options_case("rung under the floor", "options.rung", rung="0", min_thinking_tokens=16),
    *options_case("rung above the ceiling", "options.rung", rung="64", max_thinking_tokens=63),
    *options_case("latency zero", "options.max_latency", max_latency=Duration()),
    *options_case("latency negative", "options.max_latency", max_latency=Duration(seconds=-1)),
    *options_case("latency negative nanoseconds", "options.max_latency", max_latency=Duration(nanos=-1)),
    *options_case("unknown effort", "options.reasoning_effort", reasoning_effort=99),
    *options_case("floor above the effort", "options.min_thinking_tokens", min_thinking_tokens=64, reasoning_effort=1),
    *options_case("rung above the effort", "options.rung", rung="64", reasoning_effort=pb.REASONING_EFFORT_MINIMAL),
    *options_case("unknown on_unmet", "options.on_unmet", on_unmet=99),
    *options_case("control character in a conversation id", "options.conversation_id", conversation_id="a\nb"),
    *options_case("rung too long", "options.rung", rung="r" * 129),
    *options_case("control character in a rung", "options.rung", rung="1\x1b[31m"),
    *options_case("conversation id too long", "options.conversation_id", conversation_id="c" * 129),
    *options_case("escalation without a conversation", "options.escalate", escalate=True),
    *options_case("conversation id of too many bytes", "options.conversation_id", conversation_id="é" * 65),
    # sampling
    sampling_case("temperature negative", "sampling.temperature", temperature=-0.1),
    sampling_case("temperature above 2", "sampling.temperature", temperature=2.1),
    sampling_case("temperature NaN", "sampling.temperature", temperature=math.nan),
    sampling_case("temperature infinite", "sampling.temperature", temperature=math.inf),
    sampling_case("answer of 0 tokens", "sampling.max_answer_tokens", max_answer_tokens=0),
    sampling_case("answer of -1 tokens", "sampling.max_answer_tokens", max_answer_tokens=-1),
    sampling_case("answer too long", "sampling.max_answer_tokens", max_answer_tokens=32_769),
    # outcomes
    outcome_case("no decision id", "decision_id", decision_id=""),
    outcome_case("unknown decision id", "decision_id", NOT_FOUND, decision_id="f" * 32),
    outcome_case("decision id of 1 MB", "decision_id", decision_id="f" * 1_000_000),
    outcome_case("correct missing", "correct", correct=None),
    outcome_case("correct NaN", "correct", correct=math.nan),
    outcome_case("correct 1.5", "correct", correct=1.5),
    outcome_case("correct negative", "correct", correct=-0.5),
    outcome_case("no label source", "label_source", label_source=pb.LABEL_SOURCE_UNSPECIFIED),
    outcome_case("unknown label source", "label_source", label_source=99),
    # batches
    batch_case("batch of 0", "requests"),
    batch_case("batch of 1025", "requests", *[decide()] * 1025),
    batch_case("blank in a batch", "requests[1].messages[0].content", decide(), decide(" ")),
    batch_case("no messages in a batch", "requests[2].messages", decide(), decide(), pb.DecideRequest()),
    batch_case(
        "bad option in a batch", "requests[1].options.max_loss", decide(), decide(options=pb.RoutingOptions(max_loss=2))
    ),
    batch_case("unknown model in a batch", "requests[1].model", decide(), decide(model="x"), code=NOT_FOUND),
    batch_case("unknown tenant in a batch", "requests[1].tenant", decide(), decide(tenant="x"), code=NOT_FOUND),
    batch_case(
        "unknown rung in a batch",
        "requests[1].options.rung",
        decide(),
        decide(options=pb.RoutingOptions(rung="17")),
        code=NOT_FOUND,
    ),
    batch_case(
        "rung outside the bounds in a batch",
        "requests[1].options.rung",
        decide(),
        decide(options=pb.RoutingOptions(rung="0", min_thinking_tokens=16)),
    ),
    batch_case(
        "no rung left in a batch",
        "requests[1].options.max_thinking_tokens",
        decide(),
        decide(options=pb.RoutingOptions(min_thinking_tokens=1, max_thinking_tokens=2)),
    ),
]


async def refused(service: Service, case: Case) -> Refusal:
    return await refusal(service.send(f"{ROUTING}/{case.method}", case.data))


def test_case_names_are_distinct() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_input_is_refused_by_name(fake: Service, case: Case) -> None:
    seen = await refused(fake, case)
    assert (seen.code, seen.fields) == (case.code, [case.field])
    assert seen.message.startswith(case.field) and len(seen.message) < 300
    assert seen.reason in ("InvalidRequest", "NotFound")


async def test_a_server_that_saw_it_all_still_answers(service: Service) -> None:
    for case in CASES:
        seen = await refused(service, case)
        assert (case.name, seen.code) == (case.name, case.code)
        assert "Traceback" not in seen.message and "\n" not in seen.message
    response = await service.routing.Decide(decide())
    assert response.decision.rung
    assert [e.WhichOneof("event") async for e in service.routing.Generate(generate())][-1] == "completion"


async def test_nothing_bad_reaches_the_backend(bundle: Bundle) -> None:
    backend = FakeBackend()
    async with serving(router_of(backend=backend), bundle) as service:
        for case in CASES:
            if case.method == "Generate":
                await refused(service, case)
    assert backend.asked == []


@pytest.mark.parametrize(
    ("request_", "method", "field"),
    [
        (pb.PromoteModelRequest(path="@@@"), "PromoteModel", "path"),
        (pb.FlushCacheRequest(tenant="@@@"), "FlushCache", "tenant"),
    ],
    ids=["path", "tenant"],
)
async def test_admin_strings_that_are_not_utf8_are_named(
    fake: Service, request_: pb.PromoteModelRequest | pb.FlushCacheRequest, method: str, field: str
) -> None:
    data = corrupt(request_, b"@@@", b"\xff\xfe\xfd")
    seen = await refusal(fake.admin_channel.unary_unary(f"{ADMIN}/{method}")(data, **bearer(TOKEN)))
    assert (seen.code, seen.fields) == (INVALID, [field])


async def test_a_message_beyond_the_transports_limit_is_resource_exhausted(service: Service) -> None:
    call = service.routing.Decide(decide("x" * (17 << 20)))
    assert (await refusal(call)).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await service.routing.Decide(decide())).decision.rung


async def test_a_deadline_already_past_is_deadline_exceeded(service: Service) -> None:
    for call in (service.routing.Decide(decide(), timeout=-1), service.routing.Generate(generate(), timeout=-1)):
        assert (await refusal(call)).code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await service.routing.Decide(decide())).decision.rung


async def test_a_deadline_that_passes_is_deadline_exceeded(bundle: Bundle) -> None:
    async with serving(router_of(backend=FakeBackend([Hang()])), bundle) as service:
        seen = await refusal(service.routing.Generate(generate(), timeout=0.2))
    assert seen.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    "text",
    [
        "\0",
        "a\0b",
        "\u202e\ufeff",
        "🙂" * 1_000,
        "x" * (1 << 20),
        "\ufffe\uffff",
        "(" * 10_000,
        "9" * 10_000,
        "<think>",
    ],
    ids=["NUL", "NUL within", "invisible", "emoji", "1 MiB", "non-characters", "brackets", "digits", "a marker"],
)
async def test_odd_prompts_are_scored(service: Service, text: str) -> None:
    assert (await service.routing.Decide(decide(text))).decision.forecasts


async def test_a_prompt_beyond_the_backends_window_is_refused_by_name(pocket: Service) -> None:
    seen = await refusal(pocket.routing.Generate(generate("x" * 5_000)))
    assert (seen.code, seen.fields) == (INVALID, ["messages"])


async def test_fields_of_a_later_version_are_ignored(service: Service) -> None:
    later = decide().SerializeToString() + bytes([0x82, 0x7D, 3]) + b"new"  # field 2000, three bytes
    (reply,) = await service.send(f"{ROUTING}/Decide", later)
    assert pb.DecideResponse.FromString(reply).decision.rung
