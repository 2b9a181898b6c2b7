"""The chat API over HTTP, as vLLM speaks it, and every way in which an engine may not."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from router.backends.chat import Chat, request_body
from router.backends.dialects import DIALECTS
from router.backends.http import EngineClient, Timeouts
from router.backends.replica import Replica
from router.backends.replicas import Replicas
from router.backends.sse import LONGEST_LINE
from router.backends.stream_state import StreamState, merged
from router.domain import (
    SLACK,
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Message,
    Prompt,
    ReasoningBudget,
    ReasoningDelta,
    Role,
    Sampling,
    ToolCall,
    ToolCallDelta,
)
from router.errors import BackendError, BackendUnavailable, InvalidRequest
from tests.support.engine import (
    ANSWER,
    DONE,
    MODEL,
    PROMPT_TOKENS,
    THOUGHT,
    Engine,
    Handler,
    Stream,
    answers,
    delta,
    events_to,
    sends,
    serving,
    usage,
    well_behaved,
)
from tests.support.fakes import RecordingObserver, router_of, verified
from tests.support.fakes import request_of as route_request
from tests.support.in_time import in_time
from tests.support.ports import free_port

TIMEOUT = 0.5
VLLM = DIALECTS["vllm"]

GOOD = (delta(reasoning="so"), delta(content="4"), delta("stop"), usage(1, 1), DONE)


async def breaks_off(request: web.Request, _: dict[str, Any]) -> Stream:
    """The connection is cut in the middle of the stream."""
    response = await events_to(request, delta(reasoning="so"), delta(content="4"))
    assert request.transport is not None
    request.transport.abort()
    return response


async def hangs(_: web.Request, __: dict[str, Any]) -> Stream:
    await asyncio.sleep(3_600)
    raise AssertionError("unreachable")


async def hangs_after_a_token(request: web.Request, body: dict[str, Any]) -> Stream:
    await events_to(request, delta(reasoning="so"))
    return await hangs(request, body)


async def thinks_for_ever(request: web.Request, _: dict[str, Any]) -> Stream:
    return await events_to(request, *[delta(reasoning="hm ")] * 100_000, pause=0.005)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with serving(Engine()) as engine:
        yield engine


@asynccontextmanager
async def asking(url: str, model: str = MODEL, seconds: float = 10.0) -> AsyncIterator[Chat]:
    """A backend in vLLM's dialect, without a second phase."""
    client = EngineClient(url, Timeouts(first=seconds, idle=seconds, total=seconds, question=2), connections=50)
    yield Chat(client, model, VLLM, None)
    await client.close()


@pytest.fixture
async def backend(engine: Engine) -> AsyncIterator[Chat]:
    async with asking(engine.url) as backend:
        yield backend


@pytest.fixture
async def hasty(engine: Engine) -> AsyncIterator[Chat]:
    """Gives the engine TIMEOUT seconds."""
    async with asking(engine.url, seconds=TIMEOUT) as backend:
        yield backend


def request_of(budget: int | None = 16, *, floor: int = 0, sampling: Sampling | None = None) -> GenerationRequest:
    return GenerationRequest(Prompt.of("2 + 2 ="), ReasoningBudget(str(budget), budget), floor, sampling or Sampling())


async def run(backend: Chat, request: GenerationRequest | None = None) -> list[GenerationEvent]:
    return [event async for event in backend.stream(request or request_of())]


async def end_of(backend: Chat, request: GenerationRequest | None = None) -> Completion:
    [*_, completion] = await run(backend, request)
    assert isinstance(completion, Completion)
    return completion


async def test_thinking_then_the_answer_then_the_completion(backend: Chat) -> None:
    *events, _ = await run(backend)
    thinking = [event.text for event in events if isinstance(event, ReasoningDelta)]
    assert "".join(thinking) == "".join(THOUGHT[:16])
    content = [event.text for event in events if isinstance(event, ContentDelta)]
    assert "".join(content) == "".join(ANSWER)
    assert events == [*map(ReasoningDelta, thinking), *map(ContentDelta, content)]


@pytest.mark.parametrize(
    ("budget", "used", "finish"),
    [
        (0, 0, FinishReason.FORCED),
        (1, 1, FinishReason.FORCED),
        (16, 16, FinishReason.FORCED),
        (256, 40, FinishReason.NATURAL),
        (None, 40, FinishReason.NATURAL),
    ],
)
async def test_the_budget_reaches_the_engine_and_its_count_comes_back(
    backend: Chat, budget: int | None, used: int, finish: FinishReason
) -> None:
    completion = await end_of(backend, request_of(budget))
    assert completion == Completion(
        finish,
        request_of(budget).budget,
        Enforcement.NATIVE,
        CountSource.ENGINE,
        prompt_tokens=PROMPT_TOKENS,
        thinking_tokens=used,
        answer_tokens=len(ANSWER),
        reported_thinking_tokens=used,
    )


async def test_tokens_are_counted_by_the_engine_not_by_deltas(backend: Chat) -> None:
    *events, completion = await run(backend)
    assert isinstance(completion, Completion)
    assert sum(isinstance(event, ReasoningDelta) for event in events) < (completion.thinking_tokens or 0)


async def test_an_engine_that_ignores_the_budget_is_seen(engine: Engine, backend: Chat) -> None:
    engine.handler = sends(delta(reasoning="so"), delta("stop", content="4"), usage(40, 1), DONE)
    assert (await end_of(backend)).budget_violated


async def test_an_answer_cut_short_is_reported_as_truncated(backend: Chat) -> None:
    completion = await end_of(backend, request_of(sampling=Sampling(max_answer_tokens=2)))
    assert (completion.finish, completion.answer_tokens) == (FinishReason.TRUNCATED, 2)


def test_there_is_room_for_the_answer_beyond_the_budget() -> None:
    body = request_body(MODEL, VLLM, request_of(64, sampling=Sampling(max_answer_tokens=100)))
    assert (body["thinking_token_budget"], body["max_tokens"]) == (64, 164)


def test_without_a_budget_nothing_is_capped() -> None:
    assert not {"thinking_token_budget", "max_tokens"} & request_body(MODEL, VLLM, request_of(None)).keys()


@pytest.mark.parametrize(("budget", "thinks"), [(0, False), (1, True), (None, True)])
def test_budget_zero_asks_the_template_not_to_think(budget: int | None, thinks: bool) -> None:
    body = request_body(MODEL, VLLM, request_of(budget))
    assert body["chat_template_kwargs"] == {"enable_thinking": thinks, "thinking": thinks}
    assert body.get("thinking_token_budget") != 0


def test_every_message_is_sent_with_its_role() -> None:
    turns = tuple(Message(role, role.name) for role in Role)
    body = request_body(MODEL, VLLM, GenerationRequest(Prompt(turns), ReasoningBudget("0", 0)))
    roles = [role.value if role is not Role.DEVELOPER else "system" for role in Role]
    assert body["messages"] == [{"role": name, "content": role.name} for name, role in zip(roles, Role, strict=True)]


def test_the_sampling_is_sent() -> None:
    body = request_body(MODEL, VLLM, request_of(sampling=Sampling(temperature=0.7, seed=5)))
    assert (body["temperature"], body["seed"], body["model"]) == (0.7, 5, MODEL)
    assert "seed" not in request_body(MODEL, VLLM, request_of())


async def test_a_floor_is_refused_before_anything_is_sent(engine: Engine, backend: Chat) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await run(backend, request_of(floor=8))
    assert caught.value.field == "options.min_thinking_tokens"
    assert not engine.bodies


async def test_the_older_name_of_thinking_is_understood(engine: Engine, backend: Chat) -> None:
    engine.handler = sends(delta(reasoning_content="so"), *GOOD[1:])
    assert (await run(backend))[0] == ReasoningDelta("so")


async def test_what_arrives_together_leaves_together(engine: Engine, backend: Chat) -> None:
    together = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in (GOOD[0], *[GOOD[1]] * 5, *GOOD[2:4]))
    engine.handler = sends(together, DONE)
    assert (await run(backend))[:2] == [ReasoningDelta("so"), ContentDelta("44444")]


async def test_comments_and_other_lines_are_skipped(engine: Engine, backend: Chat) -> None:
    engine.handler = sends(b": keep-alive\n\n", b"event: message\r\nid: 1\r\n", *GOOD)
    assert (await run(backend))[:2] == [ReasoningDelta("so"), ContentDelta("4")]


async def test_lines_that_end_otherwise_are_understood(engine: Engine, backend: Chat) -> None:
    engine.handler = sends(b"data:" + json.dumps(delta(content="4")).encode() + b"\r\n\r\n", *GOOD[2:])
    assert (await run(backend))[0] == ContentDelta("4")


async def test_an_event_may_arrive_in_pieces(engine: Engine, backend: Chat) -> None:
    data = b"data: " + json.dumps(delta(content="vier \u00fcber"), ensure_ascii=False).encode() + b"\n\n"
    engine.handler = sends(*[data[i : i + 1] for i in range(len(data))], *GOOD[2:])
    assert (await run(backend))[0] == ContentDelta("vier über")


@pytest.mark.parametrize("empty", [{}, {"content": None}, {"content": "", "reasoning": ""}, {"role": "assistant"}])
async def test_an_empty_delta_is_no_event(engine: Engine, backend: Chat, empty: dict[str, Any]) -> None:
    engine.handler = sends(delta(**empty), *GOOD)
    assert len(await run(backend)) == 3


async def test_without_usage_the_count_is_an_estimate_and_called_one(engine: Engine, backend: Chat) -> None:
    engine.handler = sends(*GOOD[:3], DONE)
    completion = await end_of(backend)
    assert (completion.count_source, completion.thinking_tokens) == (CountSource.ESTIMATE, 1)
    assert (completion.enforcement, completion.reported_thinking_tokens) == (Enforcement.HINT, None)
    assert (completion.answer_tokens, completion.budget_violated) == (None, False)
    engine.handler = sends(*GOOD[1:3], DONE)
    completion = await end_of(backend)
    assert (completion.count_source, completion.thinking_tokens) == (CountSource.NONE, None), "nothing to estimate"


async def test_usage_without_details_reports_no_thinking(engine: Engine, backend: Chat) -> None:
    counts = {"prompt_tokens": 3, "completion_tokens": 5, "completion_tokens_details": None}
    engine.handler = sends(*GOOD[:3], {"choices": [], "usage": counts}, DONE)
    completion = await end_of(backend)
    assert (completion.prompt_tokens, completion.thinking_tokens, completion.answer_tokens) == (3, 1, 4)
    assert completion.count_source is CountSource.ESTIMATE


@pytest.mark.parametrize("status", [408, 500, 502, 503])
async def test_a_broken_engine_is_unavailable(engine: Engine, backend: Chat, status: int) -> None:
    engine.handler = answers(status)
    with pytest.raises(BackendUnavailable, match=str(status)):
        await run(backend)


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_a_refusal_is_not_worth_another_try(engine: Engine, backend: Chat, status: int) -> None:
    engine.handler = answers(status)
    with pytest.raises(BackendError, match=str(status)) as caught:
        await run(backend)
    assert not isinstance(caught.value, BackendUnavailable)


async def nonsense(backend: Chat) -> list[GenerationEvent]:
    """Running fails with a BackendError that another try would not mend; what came before it."""
    events: list[GenerationEvent] = []
    with pytest.raises(BackendError) as caught:
        async for event in backend.stream(request_of()):
            events += [event]
    assert not isinstance(caught.value, BackendUnavailable)
    return events


@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
async def test_a_page_in_place_of_a_stream_is_an_error(engine: Engine, backend: Chat, content_type: str) -> None:
    engine.handler = answers(200, "<html>Sign in</html>", content_type)
    assert await nonsense(backend) == []


@pytest.mark.parametrize("end", [(), (DONE,), (usage(1, 1), DONE)])
async def test_a_stream_without_a_finish_is_an_error(
    engine: Engine, backend: Chat, end: tuple[dict[str, Any] | bytes, ...]
) -> None:
    engine.handler = sends(*GOOD[:2], *end)
    assert await nonsense(backend) == [ReasoningDelta("so"), ContentDelta("4")]


async def test_a_stream_that_breaks_off_is_an_error(engine: Engine, backend: Chat) -> None:
    engine.handler = breaks_off
    with pytest.raises(BackendError):
        await run(backend)


async def test_an_error_within_the_stream_is_an_error(engine: Engine, backend: Chat) -> None:
    engine.handler = sends(GOOD[0], {"error": {"message": "out of memory", "code": 500}}, DONE)
    assert await nonsense(backend) == [ReasoningDelta("so")]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"3",
        b"[]",
        b"\xff\xfe",
        b'{"choices": NaN}',
        b"[" * 100_000,
        b'{"choices": 3}',
        b'{"choices": [3]}',
        b'{"choices": [{"delta": 3}]}',
        b'{"choices": [{"delta": {"content": 3}}]}',
        b'{"choices": [{"delta": {"reasoning": {"text": "so"}}}]}',
        b'{"choices": [], "usage": 3}',
        b'{"choices": [], "usage": {"completion_tokens_details": 3}}',
        b'{"usage": {"completion_tokens": "five", "completion_tokens_details": {"reasoning_tokens": 1}}}',
        b'{"usage": {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": "1"}}}',
    ],
)
async def test_nonsense_of_any_shape_is_a_typed_error(engine: Engine, backend: Chat, line: bytes) -> None:
    engine.handler = sends(b"data: " + line + b"\n\n", delta("stop"), DONE)
    await nonsense(backend)


async def test_a_line_without_end_is_an_error(engine: Engine, backend: Chat) -> None:
    engine.handler = sends(*[b"data: " + b"x" * LONGEST_LINE] * 4)
    await nonsense(backend)


async def test_an_error_does_not_repeat_what_the_engine_said(engine: Engine, backend: Chat) -> None:
    engine.handler = answers(500, "Traceback: secret of the engine", "text/plain")
    with pytest.raises(BackendError) as caught:
        await run(backend)
    assert "secret" not in str(caught.value)


async def test_a_refused_connection_is_unavailable() -> None:
    async with asking(f"http://127.0.0.1:{free_port()}") as backend:
        with pytest.raises(BackendUnavailable):
            await run(backend)
        assert not await backend.ready()


@pytest.mark.parametrize("handler", [hangs, hangs_after_a_token])
async def test_an_engine_that_hangs_is_an_error_in_time(engine: Engine, hasty: Chat, handler: Handler) -> None:
    engine.handler = handler
    started = time.perf_counter()
    with pytest.raises(BackendError):
        await in_time(run(hasty), TIMEOUT)
    assert time.perf_counter() - started > TIMEOUT / 2
    await asyncio.wait_for(engine.disconnected.wait(), 30)


async def test_an_answer_that_has_ended_is_whole_though_its_stream_does_not_end(engine: Engine, hasty: Chat) -> None:
    async def hangs_at_the_end(request: web.Request, _: dict[str, Any]) -> Stream:
        await events_to(request, *GOOD[:-1])
        await asyncio.sleep(3_600)
        raise AssertionError

    engine.handler = hangs_at_the_end
    events = await in_time(run(hasty), TIMEOUT)
    end = events[-1]
    assert isinstance(end, Completion) and end.finish is FinishReason.NATURAL
    assert ContentDelta("4") in events


async def test_closing_the_stream_is_seen_by_the_engine(engine: Engine, backend: Chat) -> None:
    engine.handler = thinks_for_ever
    async with aclosing(backend.stream(request_of())) as events:
        await anext(events)
        assert not engine.disconnected.is_set()
    await asyncio.wait_for(engine.disconnected.wait(), 30)


async def test_cancelling_the_stream_is_seen_by_the_engine(engine: Engine, backend: Chat) -> None:
    engine.handler = thinks_for_ever
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await run(backend)
    await asyncio.wait_for(engine.disconnected.wait(), 30)


async def test_leaving_a_router_is_seen_by_the_engine(engine: Engine, backend: Chat) -> None:
    engine.handler = thinks_for_ever
    router = router_of(backend=backend)
    async with aclosing(router.generate(route_request(), Sampling())) as events:
        for _ in range(3):
            await anext(events)
    await asyncio.wait_for(engine.disconnected.wait(), 30)


async def test_an_engine_that_fails_once_is_tried_again(engine: Engine, backend: Chat) -> None:
    async def fails_once(request: web.Request, body: dict[str, Any]) -> Stream:
        return await (answers(503) if len(engine.bodies) == 1 else well_behaved)(request, body)

    engine.handler = fails_once
    replicas = Replicas([Replica("only", await verified(backend))], RecordingObserver())
    events = [event async for event in router_of(backend=replicas).generate(route_request(), Sampling())]
    assert isinstance(events[-1], Completion)
    assert len(engine.bodies) == 2


async def test_many_streams_at_once_keep_apart(backend: Chat) -> None:
    completions = await asyncio.gather(*[end_of(backend, request_of(budget)) for budget in range(1, 40)])
    assert [completion.thinking_tokens for completion in completions] == list(range(1, 40))


async def test_an_engine_that_serves_the_model_is_ready(backend: Chat) -> None:
    assert await backend.ready()


async def test_an_engine_that_serves_another_model_is_not_ready(engine: Engine) -> None:
    async with asking(engine.url + "/", "another") as backend:
        assert not await backend.ready()


@pytest.mark.parametrize("text", ["<html>", "[]", "3", "null", '{"data": 3}', '{"data": [3]}', '{"data": [{}]}'])
async def test_an_engine_that_lists_nonsense_is_not_ready(text: str) -> None:
    async def models(_: web.Request) -> Stream:
        return web.Response(text=text, content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with asking("http://{}:{}".format(*runner.addresses[0][:2])) as backend:
        assert not await backend.ready()
    await runner.cleanup()


def read(budget: int | None, *chunks: dict[str, Any], kind: str = "vllm") -> tuple[StreamState, bool]:
    """The state of a stream after some chunks, and whether its thought is over its budget."""
    state, over = StreamState(DIALECTS[kind]), False
    for chunk in chunks:
        _, over = state.read([chunk], budget)
    return state, over


def drawn(ids: list[int], text: str = "so") -> dict[str, Any]:
    """A piece of a thought with its token ids, and without a count."""
    return {"choices": [{"delta": {"reasoning": text}, "token_ids": ids}]}


@pytest.mark.parametrize(("thought", "over"), [(16, False), (16 + SLACK, False), (16 + SLACK + 1, True)])
def test_a_thought_is_over_beyond_budget_and_slack(thought: int, over: bool) -> None:
    assert read(16, usage(thought, 0))[1] is over
    assert read(16, drawn([1] * thought))[1] is over
    assert read(None, usage(thought, 0))[1] is False


def test_what_comes_after_a_thought_that_is_over_is_not_read() -> None:
    state = StreamState(VLLM)
    chunks = [drawn([1] * 5, "a"), drawn([1] * 10, "b"), drawn([1], "c"), delta(content="4")]
    assert state.read(chunks, 10) == ([ReasoningDelta("ab")], True)
    assert (state.text, len(state.counts.ids), state.count.tokens) == ("ab", 15, 15)


def test_token_ids_are_counted_while_it_thinks_and_no_longer() -> None:
    answer = {"choices": [{"delta": {"content": "4"}, "token_ids": [7, 8]}]}
    state, _ = read(None, drawn([1, 2]), drawn([3]), answer, delta("stop"))
    assert (state.counts.ids, state.text, state.count.tokens) == ([1, 2, 3], "soso", 3)
    end = state.completion(request_of(16))
    assert (end.count_source, end.enforcement, end.finish) == (
        CountSource.ROUTER, Enforcement.NATIVE, FinishReason.NATURAL,
    )  # fmt: skip
    assert end.answer_tokens is None, "nobody said how many tokens there were in all"


def test_the_engines_own_count_is_preferred_whenever_it_comes() -> None:
    state, _ = read(None, drawn([1, 2]), usage(9, 0), drawn([3, 4]), delta("stop"))
    assert (state.count.tokens, state.completion(request_of(16)).count_source) == (9, CountSource.ENGINE)


def test_what_was_drawn_so_far_is_the_count_where_the_engine_tells_no_other() -> None:
    def timed(total: int, **said: str) -> dict[str, Any]:
        return {**delta(None, **said), "timings": {"predicted_n": total}}

    thinking = [timed(3, reasoning_content="so"), timed(5, reasoning_content="so")]
    state, _ = read(None, *thinking, timed(9, content="4"), kind="llama_cpp")
    assert state.count.tokens == 5
    assert read(2, *thinking, kind="llama_cpp")[1] is True
    assert read(3, *thinking, kind="llama_cpp")[1] is False


@pytest.mark.parametrize(
    ("budget", "thought", "finish"),
    [
        (16, 15, FinishReason.NATURAL),
        (16, 16, FinishReason.FORCED),
        (16, 17, FinishReason.FORCED),
        (0, 0, FinishReason.FORCED),
        (None, 16, FinishReason.NATURAL),
    ],
)
def test_a_thought_that_reached_its_budget_was_forced(budget: int | None, thought: int, finish: FinishReason) -> None:
    state, _ = read(None, usage(thought, 4), delta("stop"))
    end = state.completion(request_of(budget))
    assert (end.finish, end.thinking_tokens, end.answer_tokens, end.prompt_tokens) == (
        finish, thought, 4, PROMPT_TOKENS,
    )  # fmt: skip


def test_without_a_budget_to_think_nothing_was_thought() -> None:
    end = read(None, delta(content="4"), delta("stop"))[0].completion(request_of(0))
    assert (end.thinking_tokens, end.enforcement, end.finish) == (0, Enforcement.NATIVE, FinishReason.FORCED)
    unknown = read(None, delta(content="4"), delta("stop"))[0].completion(request_of(16))
    assert (unknown.thinking_tokens, unknown.enforcement, unknown.finish) == (
        None, Enforcement.HINT, FinishReason.NATURAL,
    )  # fmt: skip


def test_the_last_word_on_usage_and_finish_counts() -> None:
    state, _ = read(None, usage(3, 1), delta("length"), usage(5, 2), delta("stop"), delta(content=""))
    end = state.completion(request_of(16))
    assert (end.thinking_tokens, end.answer_tokens, end.finish) == (5, 2, FinishReason.NATURAL)


def test_tool_calls_come_piece_by_piece() -> None:
    pieces = [
        {"index": 1, "id": "call-1", "function": {"name": "add", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"id": None},
    ]
    state = StreamState(VLLM)
    events, _ = state.read([delta(tool_calls=pieces), delta(content="a"), delta(content="b")], None)
    assert events == [
        ToolCallDelta(1, ToolCall("call-1", "add", "{")),
        ToolCallDelta(0, ToolCall("", "", "}")),
        ToolCallDelta(0, ToolCall("", "", "")),
        ContentDelta("ab"),
    ]


def test_neighbours_of_one_kind_are_joined() -> None:
    call = ToolCallDelta(0, ToolCall("", "", "x"))
    events: list[GenerationEvent] = [ReasoningDelta("a"), ReasoningDelta("b"), ContentDelta("c"), call, call]
    assert list(merged([*events, ContentDelta("d"), ContentDelta("e")])) == [
        ReasoningDelta("ab"), ContentDelta("c"), call, call, ContentDelta("de"),
    ]  # fmt: skip


def test_a_request_streams_from_the_model() -> None:
    body = request_body(MODEL, VLLM, request_of(0, sampling=Sampling(seed=0, max_answer_tokens=7)))
    assert (body["model"], body["stream"], body["seed"], body["max_tokens"]) == (MODEL, True, 0, 7)
    assert "tools" not in body


async def test_a_model_that_does_not_think_need_not_wait_for_the_end_of_a_thought(
    engine: Engine, backend: Chat
) -> None:
    answer = [delta(content="word ")] * 100

    async def waits_in_the_middle(request: web.Request, body: dict[str, Any]) -> Stream:
        return await hangs(request, body) if await events_to(request, *answer[:3]) else Stream()

    engine.handler = sends(*answer, delta("stop"), DONE)
    for _ in range(3):
        [first, *_] = await run(backend, request_of(None))
        assert isinstance(first, ContentDelta) and len(first.text) == 500, "all at once: it might have been a thought"
    engine.handler = waits_in_the_middle
    async with aclosing(backend.stream(request_of(None))) as events:
        assert isinstance(await asyncio.wait_for(anext(events), 30), ContentDelta)
    engine.handler = sends(*GOOD)
    await run(backend)
    engine.handler = sends(delta(content="let me see</think>4"), delta("stop"), DONE)
    assert (await run(backend))[:2] == [ReasoningDelta("let me see"), ContentDelta("4")], "it thinks after all"
