"""OpenAI's own client, against fakes, the pocket reasoner, and a simulated vLLM."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from router.admission.tenants import Key, Tenant, Tenants, digest
from router.domain import (
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)
from router.errors import BackendBusy, BackendError, BackendRefused, BackendTimeout, BackendUnavailable
from router.events import CallCompleted
from tests.http.conftest import QUESTION, Front, fronting
from tests.support.fakes import ANSWER, THINKING, FakeBackend, Hang, ListLog, completion_of, router_of, until

Messages: Any = QUESTION
TOOL: Any = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}, "strict": True}}


@pytest.fixture
async def client(fake: Front) -> AsyncIterator[AsyncOpenAI]:
    async with fake.client() as made:
        yield made


async def test_an_answer_in_one_response(client: AsyncOpenAI) -> None:
    answer: Any = await client.chat.completions.create(model="auto", messages=Messages)
    message = answer.choices[0].message
    assert message.content == "".join(ANSWER) and message.role == "assistant"
    assert message.reasoning_content == message.reasoning == "".join(THINKING)
    assert answer.choices[0].finish_reason == "stop" and answer.model == "fake"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 4, 11)
    assert answer.usage.completion_tokens_details.reasoning_tokens == 2


async def test_an_answer_in_chunks(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="auto", messages=Messages, stream=True, stream_options={"include_usage": True}
    )
    chunks: list[Any] = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(getattr(delta, "reasoning", "") or "" for delta in deltas) == "".join(THINKING)
    assert "".join(getattr(delta, "reasoning_content", "") or "" for delta in deltas) == "".join(THINKING)
    assert "".join(delta.content or "" for delta in deltas) == "".join(ANSWER)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == 2 and not chunks[-1].choices
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_decision_comes_in_headers_and_in_the_body_if_asked_for(client: AsyncOpenAI) -> None:
    wanted: Any = {"budget_router": {"include_decision": True, "max_loss": 0.05}}
    raw = await client.chat.completions.with_raw_response.create(model="auto", messages=Messages, extra_body=wanted)
    shown: Any = raw.parse()
    decision, end = shown.budget_router["decision"], shown.budget_router["completion"]
    assert raw.headers["x-budget-router-decision-id"] == decision["decision_id"]
    assert raw.headers["x-budget-router-rung"] == decision["rung"] == end["rung"] == "128"
    assert raw.headers["x-budget-router-budget-tokens"] == "128"
    assert raw.headers["x-budget-router-certified"] == "true" and decision["certified"]
    assert raw.headers["x-budget-router-reason"] == decision["reason"]
    assert decision["max_loss"] == 0.05 and end["thinking_tokens"] == 2
    stream = await client.chat.completions.create(model="auto", messages=Messages, stream=True, extra_body=wanted)
    chunks: list[Any] = [chunk async for chunk in stream]
    assert chunks[0].budget_router["decision"]["rung"] == "128"
    assert chunks[-1].budget_router["completion"]["finish_reason"] == "natural"


async def test_wishes_by_header_effort_and_body(client: AsyncOpenAI) -> None:
    async def rung(**options: Any) -> str:
        raw = await client.chat.completions.with_raw_response.create(model="auto", messages=Messages, **options)
        return str(raw.headers["x-budget-router-rung"])

    assert await rung(extra_headers={"x-budget-router-max-thinking-tokens": "64"}) == "64"
    assert await rung(extra_body={"budget_router": {"max_thinking_tokens": 32}}) == "32"
    assert await rung(extra_body={"budget_router": {"rung": "16"}}) == "16"
    efforts = [await rung(reasoning_effort=effort) for effort in ("none", "minimal", "low", "medium", "high")]
    assert efforts == ["0", "32", "64", "128", "128"]


async def test_a_served_model_and_one_that_is_not(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["auto", "fake"]
    assert [(await client.models.retrieve(model)).id for model in ("auto", "fake")] == ["auto", "fake"]
    assert (await client.chat.completions.create(model="fake", messages=Messages)).model == "fake"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="gpt-9", messages=Messages)
    assert caught.value.code == "model_not_found" and caught.value.param == "model"


async def test_tool_calls(backend: FakeBackend, client: AsyncOpenAI) -> None:
    pieces = [ToolCall("call-1", "add", ""), ToolCall("", "", '{"a": 2, '), ToolCall("", "", '"b": 2}')]
    second = ToolCallDelta(1, ToolCall("call-2", "add", "{}"))
    backend._scripts[:] = [
        [ReasoningDelta("Hm."), *(ToolCallDelta(0, piece) for piece in pieces), second, completion_of()]
    ]
    answer: Any = await client.chat.completions.create(model="auto", messages=Messages, tools=[TOOL])
    calls = answer.choices[0].message.tool_calls
    assert [(call.id, call.function.name) for call in calls] == [("call-1", "add"), ("call-2", "add")]
    assert json.loads(calls[0].function.arguments) == {"a": 2, "b": 2}
    assert answer.choices[0].finish_reason == "tool_calls" and answer.choices[0].message.content is None
    async with client.chat.completions.stream(model="auto", messages=Messages, tools=[TOOL]) as stream:
        final: Any = await stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.arguments == '{"a": 2, "b": 2}'
    assert final.choices[0].finish_reason == "tool_calls"
    asked = backend.asked[-1].tools
    assert asked.offered[0].name == "add" and asked.choice == "auto"


class Sum(BaseModel):
    """A form of answers."""

    total: int


async def test_structured_output(backend: FakeBackend, client: AsyncOpenAI) -> None:
    backend._scripts[:] = [[ContentDelta('{"total"'), ContentDelta(": 4}"), completion_of()]]
    answer = await client.chat.completions.parse(model="auto", messages=Messages, response_format=Sum)
    assert answer.choices[0].message.parsed == Sum(total=4)
    form = backend.asked[-1].sampling.response_format
    assert form is not None and form.name == "Sum" and form.strict and form.schema is not None
    assert form.schema["required"] == ["total"]


async def test_logprobs_and_refusals(backend: FakeBackend, client: AsyncOpenAI) -> None:
    tokens = Logprobs((TokenLogprob("4", -0.5, (("4", -0.5), ("5", -1.0))),))
    backend._scripts[:] = [
        [ContentDelta("4"), tokens, completion_of()],
        [RefusalDelta("I will "), RefusalDelta("not."), completion_of(finish=FinishReason.REFUSED)],
    ]
    answer: Any = await client.chat.completions.create(model="auto", messages=Messages, logprobs=True, top_logprobs=2)
    (token,) = answer.choices[0].logprobs.content
    assert (token.token, token.logprob, token.bytes) == ("4", -0.5, [52])
    assert [one.token for one in token.top_logprobs] == ["4", "5"]
    answer = await client.chat.completions.create(model="auto", messages=Messages)
    assert answer.choices[0].message.refusal == "I will not." and answer.choices[0].message.content is None


@pytest.mark.parametrize(
    ("finish", "word"),
    [
        (FinishReason.NATURAL, "stop"),
        (FinishReason.FORCED, "stop"),
        (FinishReason.CONVERGED, "stop"),
        (FinishReason.TRUNCATED, "length"),
        (FinishReason.FILTERED, "content_filter"),
        (FinishReason.ABORTED, "length"),
    ],
)
async def test_how_answers_end(backend: FakeBackend, client: AsyncOpenAI, finish: FinishReason, word: str) -> None:
    backend._scripts[:] = [[ContentDelta("4"), completion_of(finish=finish)]]
    answer: Any = await client.chat.completions.create(model="auto", messages=Messages)
    assert answer.choices[0].finish_reason == word


async def test_counts_that_nobody_knows_are_null_beside_the_usage(backend: FakeBackend, client: AsyncOpenAI) -> None:
    unknown = Completion(
        FinishReason.NATURAL, completion_of().budget, Enforcement.HINT, CountSource.NONE, None, None, None
    )
    backend._scripts[:] = [[ContentDelta("4"), unknown]]
    wanted: Any = {"budget_router": {"include_decision": True}}
    answer: Any = await client.chat.completions.create(model="auto", messages=Messages, extra_body=wanted)
    assert answer.usage.total_tokens == 0
    assert answer.budget_router["completion"]["thinking_tokens"] is None


ERRORS: list[tuple[Exception, type[openai.APIStatusError], int]] = [
    (BackendRefused("no"), openai.UnprocessableEntityError, 422),
    (BackendBusy("later", 7.0), openai.RateLimitError, 429),
    (BackendUnavailable("down"), openai.InternalServerError, 503),
    (BackendTimeout("slow"), openai.InternalServerError, 504),
    (BackendError("odd"), openai.InternalServerError, 502),
    (ValueError("a secret"), openai.InternalServerError, 500),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("error", "kind", "status"), ERRORS, ids=lambda value: type(value).__name__)
async def test_errors_before_the_first_event_have_a_status(
    backend: FakeBackend, fake: Front, error: Exception, kind: type[openai.APIStatusError], status: int, stream: bool
) -> None:
    backend._scripts[:] = [[error]]
    async with fake.client() as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model="auto", messages=Messages, stream=stream)
    assert caught.value.status_code == status and caught.value.type
    assert "secret" not in caught.value.message
    if status == 429:
        assert caught.value.response.headers["retry-after"] == "7"


async def test_errors_within_a_stream_end_it(backend: FakeBackend, fake: Front) -> None:
    backend._scripts[:] = [[ReasoningDelta("Hm."), BackendUnavailable("down")]]
    async with fake.client() as client:
        stream = await client.chat.completions.create(model="auto", messages=Messages, stream=True)
        with pytest.raises(openai.APIError, match="down"):
            _ = [chunk async for chunk in stream]
    assert fake.observer.of(CallCompleted) == [CallCompleted("ChatCompletions", "UNAVAILABLE")]


async def test_clients_try_again_what_is_worth_it(backend: FakeBackend, fake: Front) -> None:
    backend._scripts[:] = [[BackendBusy("later", 0.1)], [ContentDelta("4"), completion_of()]]
    async with fake.client(max_retries=1) as client:
        answer = await client.chat.completions.create(model="auto", messages=Messages)
        assert answer.choices[0].message.content == "4"
        backend._scripts[:] = [[BackendRefused("no")]]
        before = len(backend.asked)
        with pytest.raises(openai.UnprocessableEntityError):
            await client.chat.completions.create(model="auto", messages=Messages)
    assert len(backend.asked) == before + 1


async def test_keys_are_the_tenants_own(log: ListLog) -> None:
    keys = {
        "search": Tenant(keys=(Key(sha256=digest("open")),)),
        "other": Tenant(keys=(Key(sha256=digest("narrow"), methods=frozenset({"Decide"})),)),
    }
    async with fronting(router_of(log=log, tenants=keys), tenants=Tenants(keys)) as front:
        async with front.client(api_key="open") as client:
            await client.chat.completions.create(model="auto", messages=Messages)
            with pytest.raises(openai.PermissionDeniedError):
                wanted: Any = {"budget_router": {"tenant": "other"}}
                await client.chat.completions.create(model="auto", messages=Messages, extra_body=wanted)
        for key, kind in (("wrong", openai.AuthenticationError), ("narrow", openai.PermissionDeniedError)):
            async with front.client(api_key=key) as client:
                with pytest.raises(kind):
                    await client.chat.completions.create(model="auto", messages=Messages)
        assert (await front.post())[0] == 401
        async with front.session.get(f"{front.url}/health") as response:
            assert response.status == 200, "probes have no credentials"
    assert [tenant for tenant, _ in log.decided] == ["search"]


async def test_a_deadline_ends_a_call(backend: FakeBackend, fake: Front) -> None:
    backend._scripts[:] = [[Hang()], [ReasoningDelta("Hm."), Hang()]]
    soon = {"x-request-timeout": "0.05"}
    async with fake.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="auto", messages=Messages, extra_headers=soon)
        assert caught.value.status_code == 504 and caught.value.code == "deadline_exceeded"
        stream = await client.chat.completions.create(model="auto", messages=Messages, extra_headers=soon, stream=True)
        with pytest.raises(openai.APIError, match="time"):
            _ = [chunk async for chunk in stream]
    assert backend.open == 0 and backend.cancelled == 2
    assert {record.code for record in fake.observer.of(CallCompleted)} == {"DEADLINE_EXCEEDED"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_that_leaves_ends_its_generation(backend: FakeBackend, fake: Front, stream: bool) -> None:
    backend._scripts[:] = [[ReasoningDelta("Hm."), Hang()]]
    async with fake.client() as client:
        call = asyncio.create_task(client.chat.completions.create(model="auto", messages=Messages, stream=stream))
        await until(lambda: backend.open == 1)
        if stream:
            answer: Any = await call
            await answer.close()
        else:
            call.cancel()
    await until(lambda: not backend.open and bool(fake.observer.of(CallCompleted)))
    assert backend.cancelled == 1
    assert fake.observer.of(CallCompleted) == [CallCompleted("ChatCompletions", "CANCELLED")]


async def test_outcomes_are_reported(fake: Front, log: ListLog) -> None:
    async with fake.client() as client:
        raw = await client.chat.completions.with_raw_response.create(model="auto", messages=Messages)
        said = {"decision_id": raw.headers["x-budget-router-decision-id"], "correct": 1, "label_source": "user"}
        await client.post("/budget_router/outcomes", cast_to=object, body=said)
        assert log.outcomes[0].correct == 1
        with pytest.raises(openai.NotFoundError) as caught:
            await client.post("/budget_router/outcomes", cast_to=object, body=said | {"decision_id": "f" * 32})
        assert caught.value.param == "decision_id"
        for wrong in ({"correct": 2}, {"label_source": "hearsay"}, {"correct": None}, {"score": 1}):
            with pytest.raises(openai.BadRequestError):
                await client.post("/budget_router/outcomes", cast_to=object, body=said | wrong)


async def test_the_blocking_client_and_the_pocket_reasoner(pocket: Front) -> None:
    def ask() -> tuple[str, str]:
        with OpenAI(base_url=f"{pocket.url}/v1", api_key="none") as client:
            whole: Any = client.chat.completions.create(model="pocket", messages=Messages, seed=1)
            chunks = client.chat.completions.create(model="pocket", messages=Messages, seed=1, stream=True)
            said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            return whole.choices[0].message.content, said

    whole, said = await asyncio.to_thread(ask)
    assert whole == said != ""


async def test_responses(client: AsyncOpenAI) -> None:
    answer: Any = await client.responses.create(model="auto", input="2 + 2 =", instructions="Be brief.")
    assert answer.output_text == "".join(ANSWER) and answer.status == "completed"
    thought, message = answer.output
    assert thought.type == "reasoning" and thought.content[0].text == "".join(THINKING)
    assert message.type == "message" and message.role == "assistant"
    assert answer.usage.output_tokens_details.reasoning_tokens == 2 and answer.usage.output_tokens == 4
    again = await client.responses.create(
        model="auto", input=[{"role": "user", "content": "2 + 2 ="}, thought, message, {"role": "user", "content": "?"}]
    )
    assert again.status == "completed"


async def test_responses_in_events(client: AsyncOpenAI, backend: FakeBackend) -> None:
    stream = await client.responses.create(model="auto", input="2 + 2 =", stream=True)
    events: list[Any] = [event async for event in stream]
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"] and kinds[-1] == "response.completed"
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
    assert [event.sequence_number for event in events] == list(range(len(events)))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    thought = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
    assert (thought, said) == ("".join(THINKING), "".join(ANSWER)) and events[-1].response.output_text == said
    async with client.responses.stream(model="auto", input="2 + 2 =") as helped:
        assert (await helped.get_final_response()).output_text == said
    backend._scripts[:] = [[ContentDelta("4"), completion_of(finish=FinishReason.TRUNCATED)]]
    cut = await client.responses.create(model="auto", input="2 + 2 =")
    assert (
        cut.status == "incomplete" and cut.incomplete_details and cut.incomplete_details.reason == "max_output_tokens"
    )


async def test_responses_with_a_form_and_an_effort(client: AsyncOpenAI, backend: FakeBackend) -> None:
    backend._scripts[:] = [[ContentDelta('{"total": 4}'), completion_of()]]
    raw = await client.responses.with_raw_response.parse(
        model="auto", input="2 + 2 =", text_format=Sum, reasoning={"effort": "low"}, max_output_tokens=9
    )
    assert raw.parse().output_parsed == Sum(total=4)
    assert raw.headers["x-budget-router-rung"] == "64"
    assert backend.asked[-1].sampling.max_answer_tokens == 9


@pytest.mark.parametrize(
    ("param", "wrong"),
    [
        ("tools", {"tools": [{"type": "web_search"}]}),
        ("previous_response_id", {"previous_response_id": "resp_1"}),
        ("background", {"background": True}),
        ("store", {"store": True}),
        ("reasoning.summary", {"reasoning": {"summary": "auto"}}),
        ("reasoning.effort", {"reasoning": {"effort": "enormous"}}),
        ("input", {"input": []}),
        ("input", {"input": 7}),
        ("input[1].type", {"input": [*QUESTION, {"type": "function_call", "name": "add"}]}),
        ("input[0].content", {"input": [{"role": "user", "content": " "}]}),
        ("input[0].content[0].type", {"input": [{"role": "user", "content": [{"type": "input_file"}]}]}),
        ("max_output_tokens", {"max_output_tokens": 0}),
        ("text.format.type", {"text": {"format": {"type": "yaml"}}}),
        ("temperature", {"temperature": 3}),
        ("truncation", {"truncation": "auto"}),
    ],
)
async def test_what_responses_do_not_have_is_refused_by_name(fake: Front, param: str, wrong: dict[str, Any]) -> None:
    status, body = await fake.post("/v1/responses", **{"model": "auto", "input": "2 + 2 ="} | wrong)
    assert (status, body["error"]["param"]) == (400, param), body
