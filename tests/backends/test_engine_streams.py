"""Streams of engines, played by a real server through the whole router to a real client of its API."""

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web

from router._gen import budget_router_pb2 as pb
from router.backends.chat import Chat
from router.backends.completions import Piece
from router.backends.dialects import DIALECTS
from router.backends.http import EngineClient, Timeouts
from router.backends.limits import MAX_STREAM_TOKENS, ReadLimits
from router.backends.markers import Markers
from router.backends.replica import Replica
from router.backends.replicas import Replicas
from router.backends.sse import SPARE_EVENTS, Bounds
from router.backends.stream_state import StreamState
from router.backends.thought import Thought, ThoughtReader
from router.backends.token_client import TokenClient
from router.backends.two_phase import TwoPhase
from router.bundle.manifest import Bundle
from router.domain import (
    Completion,
    ContentDelta,
    Enforcement,
    FinishReason,
    GenerationRequest,
    MaxLoss,
    Prompt,
    ReasoningBudget,
    RoutingOptions,
    Sampling,
)
from router.events import Generated
from router.outcomes.sqlite import SqliteOutcomes, read_rows
from tests.rpc.conftest import generate, serving
from tests.support.engine import DONE, MODEL, Engine, Stream, delta, events_to, usage
from tests.support.engine import serving as engine_serving
from tests.support.fakes import ListLog, RecordingObserver, ladder_of, policy_of, request_of, router_of, verified
from tests.support.simulators import simulated

STREAMS: dict[str, list[dict[str, Any]]] = {
    case["name"]: case["events"] for case in json.loads((Path(__file__).parent / "engine_streams.json").read_text())
}
GOOD = [delta(reasoning="step "), delta("stop", content="42"), usage(1, 1)]
NATURAL, FORCED, TRUNCATED = pb.FINISH_REASON_NATURAL, pb.FINISH_REASON_FORCED, pb.FINISH_REASON_TRUNCATED


@dataclass
class Played:
    """What a caller got, and what was asked of the engine.

    Attributes:
        calls: arguments of tool calls, joined by index.
    """

    thought: str = ""
    answer: str = ""
    refusal: str = ""
    calls: dict[int, str] = field(default_factory=dict)
    end: Any = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    records: list[Completion] = field(default_factory=list)


def plays(engine: Engine, *streams: Iterable[dict[str, Any] | bytes]) -> None:
    """Have the engine answer its first requests with these streams, and further ones with the last."""
    chat = [list(stream) for stream in streams]

    async def handler(request: web.Request, _: dict[str, Any]) -> Stream:
        return await events_to(request, *chat[min(len(engine.bodies), len(chat)) - 1], DONE)

    engine.handler = handler


@asynccontextmanager
async def routed(engine_url: str, bundle: Bundle, kind: str, log: Any) -> AsyncIterator[tuple[Any, RecordingObserver]]:
    """A real service before an engine, without a second phase; rungs 8 and 64."""
    client = EngineClient(engine_url, Timeouts(first=20, idle=20, total=60, question=5), connections=5)
    backend = Replicas([Replica("a", await verified(Chat(client, MODEL, DIALECTS[kind], None)))], RecordingObserver())
    observer = RecordingObserver()
    router = router_of(backend=backend, policy=policy_of(ladder_of(0, 8, 64)), observer=observer, log=log)
    try:
        async with serving(router, bundle) as service:
            yield service, observer
    finally:
        await client.close()


async def play(
    bundle: Bundle,
    *streams: Iterable[dict[str, Any] | bytes],
    budget: int = 8,
    kind: str = "vllm",
    log: Any = None,
    sampling: Any = None,
) -> Played:
    """Play streams to one caller."""
    async with engine_serving(Engine()) as engine:
        plays(engine, *streams)
        async with routed(engine.url, bundle, kind, log or ListLog()) as (service, observer):
            got = Played(asked=engine.bodies)
            asked = generate(options=pb.RoutingOptions(rung=str(budget)), sampling=sampling)
            async for reply in service.routing.Generate(asked, timeout=60):
                match reply.WhichOneof("event"):
                    case "reasoning":
                        got.thought += reply.reasoning
                    case "content":
                        got.answer += reply.content
                    case "refusal":
                        got.refusal += reply.refusal
                    case "tool_call":
                        call = reply.tool_call
                        got.calls[call.index] = got.calls.get(call.index, "") + call.call.arguments
                    case "completion":
                        assert got.end is None, "one answer"
                        got.end = reply.completion
            got.records = [record.completion for record in observer.of(Generated)]
    return got


RIGHT: dict[str, dict[str, Any]] = {
    "ends inside the thought": {"finish_reason": NATURAL, "answer": "42", "attempts": 2, "thinking_tokens": 3},
    "white space for an answer": {"finish_reason": NATURAL, "answer": "42", "attempts": 2, "thinking_tokens": 2},
    "end marker leaks into content": {
        "thought": "let me see", "answer": "42", "thinking_tokens": 3, "reported_thinking_tokens": 0,
        "counts_disagree": True, "count_source": pb.COUNT_SOURCE_ESTIMATE, "answer_tokens": 1,
    },
    "whole thought leaks into content": {
        "thought": "let me see", "answer": "42", "thinking_tokens": 3, "reported_thinking_tokens": 0,
        "counts_disagree": True,
    },
    "error is null": {"thought": "step ", "answer": "42", "finish_reason": NATURAL, "thinking_tokens": 1},
    "content as parts": {"answer": "42", "finish_reason": NATURAL, "thinking_tokens": 0, "answer_tokens": 1},
    "content filter": {"answer": "I can", "finish_reason": pb.FINISH_REASON_FILTERED, "attempts": 1},
    "aborted": {"answer": "half an answ", "finish_reason": pb.FINISH_REASON_ABORTED, "attempts": 1},
    "refusal": {
        "answer": "", "refusal": "That I must decline.", "finish_reason": pb.FINISH_REASON_REFUSED, "attempts": 1,
    },
    "half an emoji a delta": {"answer": "\N{GRINNING FACE}", "finish_reason": NATURAL},
    "several choices": {"answer": "A", "finish_reason": NATURAL},
    "negative usage": {
        "answer": "42", "prompt_tokens": None, "thinking_tokens": None, "answer_tokens": None,
        "count_source": pb.COUNT_SOURCE_NONE,
    },
    "usage of 2**63": {"answer": "42", "prompt_tokens": None, "answer_tokens": None},
    "over budget, told at the end": {
        "answer": "The answer is 4.", "budget_violated": True, "thinking_tokens": 50, "attempts": 1,
    },
}  # fmt: skip


def check(got: Played, right: dict[str, Any]) -> None:
    for name, wanted in right.items():
        if name in ("thought", "answer", "refusal"):
            assert getattr(got, name) == wanted, name
        elif wanted is None:
            assert not got.end.HasField(name), name
        else:
            assert getattr(got.end, name) == wanted, (name, got.end)


@pytest.mark.parametrize("name", STREAMS)
async def test_every_stream_of_the_list_ends_as_is_right(bundle: Bundle, tmp_path: Path, name: str) -> None:
    log = SqliteOutcomes(tmp_path / "outcomes.sqlite", RecordingObserver())
    got = await play(bundle, STREAMS[name], GOOD, log=log)
    await log.close()
    check(got, RIGHT[name])
    [row] = read_rows(tmp_path / "outcomes.sqlite")
    assert row["finish"] == pb.FinishReason.Name(got.end.finish_reason).removeprefix("FINISH_REASON_").lower()


@pytest.mark.parametrize("name", ["ends inside the thought", "white space for an answer"])
@pytest.mark.parametrize("budget", [8, 64])
async def test_an_engine_that_never_answers_is_asked_twice_and_no_more(bundle: Bundle, name: str, budget: int) -> None:
    got = await play(bundle, STREAMS[name], budget=budget)
    check(got, {"answer": "", "finish_reason": pb.FINISH_REASON_NO_ANSWER, "attempts": 2, "rung": "64"})
    assert len(got.asked) == 2


def text(content: object, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return delta(finish, content=content) | more


STOP = [delta("stop"), usage(0, 4)]

SIBLINGS: dict[str, tuple[list[dict[str, Any] | bytes], dict[str, Any]]] = {
    "nothing but a stop": ([delta("stop")], {"answer": "42", "attempts": 2}),
    "invisible characters": ([text("\u200b\ufeff\x00\n"), *STOP], {"answer": "42", "attempts": 2}),
    "markers alone": ([text("<think>"), text("</think>"), *STOP], {"answer": "42", "attempts": 2}),
    "a cut marker": ([text("<th"), text("ink>so</t"), text("hink>\n\n4"), *STOP], {"thought": "so", "answer": "\n\n4"}),
    "a lone end, cut": ([text("let me </"), text("think>"), text("4"), *STOP], {"thought": "let me ", "answer": "4"}),
    "an end behind a thought": ([delta(reasoning="so"), text("</think>"), text("4"), *STOP], {"answer": "4"}),
    "code about markers": ([text("`<think>`, `</think>`"), *STOP], {"answer": "`<think>`, `</think>`"}),
    "markers in an answer": (
        [delta(reasoning="so"), text("A <think> b </think> c"), delta("stop"), usage(1, 5)],
        {"answer": "A <think> b </think> c", "thinking_tokens": 1, "counts_disagree": False},
    ),
    "a long lone thought": (
        [*[text("hm ")] * 900, text("</think>4"), *STOP], {"counts_disagree": True, "budget_violated": True},
    ),
    "an error of null parts": ([text("4", error=None), delta("stop", content="") | {"error": {}}], {"answer": "4"}),
    "parts of unknown kinds": (
        [text([{"type": "image", "url": "x"}, {"type": "text", "text": "4"}, "2"]), *STOP], {"answer": "42"},
    ),
    "a thought in parts": (
        [text([{"type": "thinking", "thinking": [{"type": "text", "text": "so"}]}, {"text": "4"}]), *STOP],
        {"thought": "so", "answer": "4"},
    ),
    "halves at the end": ([text("4\ud83d"), *STOP], {"answer": "4\ufffd"}),
    "halves in a thought": (
        [delta(reasoning="\ud83d"), delta(reasoning="\ude00\ude00"), text("4"), *STOP],
        {"thought": "\N{GRINNING FACE}\ufffd", "answer": "4"},
    ),
    "a half of the other kind": ([text("\ude00\ud83dx"), *STOP], {"answer": "\ufffd\ufffdx"}),
    "control characters": ([text("a\x00\x1b[31mb"), *STOP], {"answer": "a\x00\x1b[31mb"}),
    "broken bytes": ([b'data: {"choices":[{"delta":{"content":"4\xff"}}]}\n\n', *STOP], {"answer": "4\ufffd"}),
    "an id of halves": ([text("4", id="\ud800"), *STOP], {"answer": "4"}),
    "the other choices first": (
        [{"choices": [{"index": 2, "delta": {"content": "C"}, "finish_reason": "length"}]}, text("4"), *STOP],
        {"answer": "4", "finish_reason": NATURAL},
    ),
    "a filter without a word": ([delta("content_filter")], {"finish_reason": pb.FINISH_REASON_FILTERED, "attempts": 1}),
    "a refusal of null": ([delta(refusal=None, content="4"), *STOP], {"answer": "4", "finish_reason": NATURAL}),
    "a refusal in parts": (
        [text([{"type": "refusal", "refusal": "No."}]), *STOP], {"finish_reason": pb.FINISH_REASON_REFUSED},
    ),
    "an end of nobody's": ([text("4"), delta("weird")], {"finish_reason": pb.FINISH_REASON_ABORTED, "answer": "4"}),
    "an end that is no word": ([text("4"), delta(3)], {"finish_reason": pb.FINISH_REASON_ABORTED}),  # type: ignore[arg-type]
    "too long": ([text("4"), delta("max_tokens")], {"finish_reason": TRUNCATED}),
    "an end of Anthropic's": ([text("4"), delta("end_turn")], {"finish_reason": NATURAL}),
    "a call": (
        [delta("tool_calls", tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}])],
        {"finish_reason": NATURAL, "attempts": 1},
    ),
    "a call and an abort": (
        [delta("abort", tool_calls=[{"index": 0, "id": "a", "function": {"name": "f\ud800", "arguments": "{\ud83d"}}])],
        {"finish_reason": pb.FINISH_REASON_ABORTED, "attempts": 1},
    ),
    "usage beyond 64 bits": ([text("4", "stop", usage={"prompt_tokens": 2**64})], {"answer": "4"}),
    "more thought than tokens": (
        [delta(reasoning="so"), text("4", "stop"), usage(5, -3)], {"thinking_tokens": 1, "budget_violated": False},
    ),
    "a total below its parts": (
        [text("4", "stop", usage={"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 3})],
        {"prompt_tokens": None, "answer_tokens": None},
    ),
    "usage with the first event": (
        [delta(reasoning="so") | usage(1, 0) | {"choices": delta(reasoning="so")["choices"]}, text("4", "stop")],
        {"thinking_tokens": 1, "prompt_tokens": 9},
    ),
    "three for two hundred": (
        [*[delta(reasoning="step ")] * 200, text("4", "stop"), usage(3, 1)],
        {"reported_thinking_tokens": 3, "counts_disagree": True, "thinking_tokens": 250, "budget_violated": True},
    ),
    "as many as 32 bits hold, twice": (
        [delta(reasoning="so"), delta("stop"), usage(2**31 - 1, 0)], {"answer": "42", "attempts": 2},
    ),
    "a blank refusal": ([delta(refusal=" \u200b"), *STOP], {"answer": "42", "refusal": "", "attempts": 2}),
    "a refusal that begins with blanks": (
        [delta(refusal="\n"), delta(refusal="No."), *STOP],
        {"refusal": "\nNo.", "finish_reason": pb.FINISH_REASON_REFUSED},
    ),
    "none for two hundred": (
        [*[delta(reasoning="step ")] * 200, text("4", "stop")],
        {"count_source": pb.COUNT_SOURCE_ESTIMATE, "counts_disagree": False, "budget_violated": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIBLINGS)
async def test_their_siblings_end_as_is_right(bundle: Bundle, name: str) -> None:
    stream, right = SIBLINGS[name]
    check(await play(bundle, stream, GOOD), right)


COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama_cpp", "openai_effort"])
@pytest.mark.parametrize("number", ["5", True, [], {}, "x" * 100])
@pytest.mark.parametrize("name", [*COUNTS, "usage"])
async def test_a_count_that_is_no_number_is_a_typed_error(bundle: Bundle, kind: str, number: object, name: str) -> None:
    counted = {name: number} if name == "usage" else {"usage": dict.fromkeys(COUNTS, 9) | {name: number}}
    if counted.get("usage", True):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await play(bundle, [delta(reasoning="so"), text("4", "stop"), {"choices": []} | counted], kind=kind)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("first", [2**24, 2**31 - 1])
async def test_counts_of_all_attempts_fit_the_wire(bundle: Bundle, first: int) -> None:
    silent = [delta(reasoning="so"), delta("stop"), usage(first, 0)]
    got = await play(bundle, silent, kind="openai_effort", budget=64)
    check(got, {"finish_reason": pb.FINISH_REASON_NO_ANSWER, "attempts": 2})
    assert got.end.thinking_tokens <= 2 * 2**24


@pytest.mark.parametrize("limit", [None, 2**31 - 1, MAX_STREAM_TOKENS])
@pytest.mark.parametrize("piece", [Piece("", [1] * 100_000, None), Piece("so long " * 100_000, [], None)])
def test_a_thought_of_two_phases_is_bounded(limit: int | None, piece: Piece) -> None:
    thought = Thought([], [])
    reader = ThoughtReader(thought, limit, [2], "</think>")
    read = 0
    while not reader.over:
        reader.read([piece])
        read += 1
    assert read <= 12 and len(thought.ids) <= MAX_STREAM_TOKENS


@pytest.mark.parametrize("budget", [None, 2**31 - 1])
def test_a_caller_that_allows_everything_gets_a_bounded_stream(budget: int | None) -> None:
    request = GenerationRequest(Prompt.of("2 + 2 ="), ReasoningBudget("r", budget))
    state = StreamState(DIALECTS["vllm"], Markers(), ReadLimits.of(request, True))
    characters = 0
    while not state.full:
        state.read([delta(reasoning="x" * 1_000_000)], None)
        characters += 1_000_000
    assert characters <= 16_000_000
    assert Bounds.of(budget, 100).events <= 4 * MAX_STREAM_TOKENS + SPARE_EVENTS


@pytest.mark.parametrize("uncapped", [True, False])
@pytest.mark.parametrize("name", ["reasoning", "content", "nothing"])
def test_token_ids_are_bounded_whatever_text_comes_with_them(uncapped: bool, name: str) -> None:
    budget = None if uncapped else 8
    request = GenerationRequest(Prompt.of("2 + 2 ="), ReasoningBudget("r", budget))
    state = StreamState(DIALECTS["vllm"], Markers(), ReadLimits.of(request, True))
    state.read([delta(content="so ")], None)
    event = {"choices": [{"delta": {name: "a "}, "token_ids": [1] * 100_000}]}
    read = 0
    while not state.full:
        state.read([event], None)
        read += 1
    assert read <= (3 if uncapped else 1)


@pytest.mark.parametrize("error", ["out of memory", {"message": None}, {"code": 500}, ["no"], True])
async def test_an_error_of_any_shape_is_one(bundle: Bundle, error: object) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await play(bundle, [delta(reasoning="so"), {"error": error}])
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_stream_without_an_end_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await play(bundle, [delta(reasoning="so"), delta(content="4")])
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_all_attempts_are_counted_and_a_violation_in_any_is_one(bundle: Bundle) -> None:
    silent = [*[delta(reasoning="step ")] * 10, delta("stop"), usage(31, 0)]
    got = await play(bundle, silent, [delta(reasoning="so"), delta("stop", content="4"), usage(40, 1)])
    check(got, {"thinking_tokens": 71, "attempts": 2, "budget_violated": True, "reported_thinking_tokens": 40})
    assert (got.end.rung, got.end.budget_tokens) == ("64", 64)
    assert got.records[0].budget_violated


@pytest.mark.parametrize(("name", "part"), [("content", "answer"), ("reasoning", "thought")])
@pytest.mark.parametrize("piece", ["x ", " ", "x" * 1000])
async def test_a_text_without_end_is_cut_at_what_was_asked_for(
    bundle: Bundle, name: str, part: str, piece: str
) -> None:
    endless = [delta(**{name: piece})] * 20_000
    got = await play(bundle, endless, GOOD, sampling=pb.SamplingOptions(max_answer_tokens=64))
    assert len(getattr(got, part)) <= 2 * 32 * (64 + 64 + 1)
    assert got.end.finish_reason in (TRUNCATED, NATURAL)
    assert (got.end.finish_reason == TRUNCATED) == (name == "content" and piece != " ")


async def test_the_engine_is_left_where_its_text_has_no_end(bundle: Bundle) -> None:
    async with engine_serving(Engine()) as engine:

        async def endless(request: web.Request, _: dict[str, Any]) -> Stream:
            return await events_to(request, *[delta(content="x" * 1000)] * 100_000)

        engine.handler = endless
        async with routed(engine.url, bundle, "vllm", ListLog()) as (service, _):
            replies = [
                reply
                async for reply in service.routing.Generate(generate(options=pb.RoutingOptions(rung="8")), timeout=60)
            ]
        await engine.disconnected.wait()
    assert replies[-1].completion.finish_reason == TRUNCATED


async def test_token_ids_cut_an_answer_to_the_token(bundle: Bundle) -> None:
    def drawn(name: str, token: int) -> dict[str, Any]:
        return {"choices": [{"delta": {name: "ab "}, "token_ids": [token]}]}

    got = await play(bundle, [drawn("content", 1)] * 100, sampling=pb.SamplingOptions(max_answer_tokens=4), budget=0)
    assert len(got.answer) <= 3 * (4 + 3)
    check(got, {"finish_reason": TRUNCATED})


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama_cpp"])
async def test_a_text_that_ends_within_the_thought_is_answered_in_a_second_phase(kind: str) -> None:
    async with simulated(kind, ends_thoughts=1) as simulator:
        client = EngineClient(simulator.url, Timeouts(first=5, idle=5, total=5, question=5), connections=5)
        dialect = DIALECTS[kind]
        assert dialect.completions is not None
        two_phase = TwoPhase(TokenClient(client, MODEL, dialect.completions), Markers())
        chat = Chat(client, MODEL, dialect, two_phase)
        router = router_of(backend=chat, policy=policy_of(ladder_of(8, 64)))
        events = [
            event
            async for event in router.generate(request_of(options=RoutingOptions(MaxLoss(0.02), rung="64")), Sampling())
        ]
        await client.close()
    end = events[-1]
    assert isinstance(end, Completion)
    assert "".join(event.text for event in events if isinstance(event, ContentDelta)) == "The answer is 4."
    assert (end.attempts, end.finish, end.thinking_tokens) == (1, FinishReason.NATURAL, 40)
    assert end.enforcement is Enforcement.TWO_PHASE


async def test_nothing_that_was_not_asked_for_is_sent_to_a_hosted_model(bundle: Bundle) -> None:
    got = await play(bundle, GOOD, kind="openai_effort")
    assert not {"temperature", "seed", "max_tokens", "max_completion_tokens"} & got.asked[0].keys()
    sampling = pb.SamplingOptions(temperature=0.5, seed=0, max_answer_tokens=9)
    [body] = (await play(bundle, GOOD, kind="openai_effort", sampling=sampling)).asked
    assert (body["temperature"], body["seed"], body["max_completion_tokens"]) == (0.5, 0, 17)
    assert "max_tokens" not in body
