"""What two phases ask of an engine, id by id, and what they make of what it draws."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from router.backends.completions import Piece, TokenCompletionAPI
from router.backends.dialects import DIALECTS
from router.backends.http import EngineClient, Timeouts
from router.backends.markers import Markers
from router.backends.thought import Thought
from router.backends.token_client import TokenClient
from router.backends.two_phase import TwoPhase
from router.domain import (
    Completion,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationRequest,
    Prompt,
    ReasoningBudget,
    ReasoningDelta,
    Sampling,
)
from router.errors import InvalidRequest
from tests.support.simulators import (
    END,
    EOS,
    MODEL,
    START,
    STEP,
    THOUGHT,
    USER,
    WINDOW,
    Simulator,
    encode,
    simulated,
)

PROMPT = [USER, *encode("user:2 + 2 ="), START]
MOST = 64


def completions_of(kind: str) -> TokenCompletionAPI:
    found = DIALECTS[kind].completions
    assert found is not None
    return found


VLLM = completions_of("vllm")


@asynccontextmanager
async def engine(completions: TokenCompletionAPI = VLLM, **faults: Any) -> AsyncIterator[tuple[Simulator, TwoPhase]]:
    """A simulator, and two phases on it; its bodies are those of generations alone."""
    async with simulated("vllm", **faults) as simulator:
        client = EngineClient(simulator.url, Timeouts(first=5, idle=5, total=5, question=5), connections=5)
        try:
            yield simulator, TwoPhase(TokenClient(client, MODEL, completions), Markers())
        finally:
            await client.close()


def request_of(budget: int | None, floor: int = 0, most: int = MOST, text: str = "2 + 2 =") -> GenerationRequest:
    return GenerationRequest(
        Prompt.of(text), ReasoningBudget(str(budget), budget), floor, Sampling(max_answer_tokens=most)
    )


async def completed(backend: TwoPhase, request: GenerationRequest) -> Completion:
    *_, end = [event async for event in backend.stream(request)]
    assert isinstance(end, Completion)
    return end


def phases(simulator: Simulator) -> list[dict[str, Any]]:
    """The completions that were asked for."""
    return [body for path, body in simulator.bodies if path == "/v1/completions"]


def steps(first: int, last: int) -> list[int]:
    """Token ids of a part of the thought."""
    return [STEP + i for i in range(first, last)]


async def test_the_thought_is_cut_at_its_budget_and_answered_behind_its_end() -> None:
    async with engine() as (simulator, backend):
        end = await completed(backend, request_of(8))
    thinking, answering = phases(simulator)
    assert (thinking["prompt"], thinking["max_tokens"], thinking["stop_token_ids"]) == (PROMPT, 8, [END])
    assert not thinking.get("logit_bias")
    assert answering["prompt"] == [*PROMPT, *steps(0, 8), END]
    assert (answering["max_tokens"], answering["stop_token_ids"]) == (MOST, [])
    assert [int(token) for token in answering["logit_bias"]] == [START], "the model must not think again"
    assert end == Completion(
        FinishReason.FORCED, request_of(8).budget, Enforcement.TWO_PHASE, CountSource.ROUTER, len(PROMPT), 8, 5
    )


@pytest.mark.parametrize("budget", [None, THOUGHT + 1])
async def test_a_thought_that_ends_by_itself_is_natural(budget: int | None) -> None:
    async with engine() as (simulator, backend):
        end = await completed(backend, request_of(budget))
    assert (end.finish, end.thinking_tokens) == (FinishReason.NATURAL, THOUGHT)
    assert phases(simulator)[1]["prompt"] == [*PROMPT, *steps(0, THOUGHT), END], "with one end marker"


async def test_a_thought_without_a_cap_leaves_room_for_the_answer() -> None:
    async with engine() as (simulator, backend):
        await completed(backend, request_of(None))
    assert phases(simulator)[0]["max_tokens"] == WINDOW - len(PROMPT) - MOST - 1


async def test_below_the_floor_the_end_is_banned() -> None:
    async with engine() as (simulator, backend):
        end = await completed(backend, request_of(30, floor=10))
    below, above, _ = phases(simulator)
    assert ([int(token) for token in below["logit_bias"]], below["max_tokens"]) == ([END], 10)
    assert (above["prompt"], above["max_tokens"]) == ([*PROMPT, *steps(0, 10)], 20)
    assert not above.get("logit_bias")
    assert (end.finish, end.thinking_tokens) == (FinishReason.FORCED, 30)


async def test_a_floor_of_just_the_budget_leaves_nothing_to_think_beyond() -> None:
    async with engine() as (simulator, backend):
        end = await completed(backend, request_of(10, floor=10))
    assert len(phases(simulator)) == 2
    assert (end.finish, end.thinking_tokens) == (FinishReason.FORCED, 10)


async def test_with_a_floor_and_no_cap_the_room_is_what_is_left() -> None:
    async with engine() as (simulator, backend):
        end = await completed(backend, request_of(None, floor=10))
    assert phases(simulator)[1]["max_tokens"] == WINDOW - len(PROMPT) - 10 - MOST - 1
    assert (end.finish, end.thinking_tokens) == (FinishReason.NATURAL, THOUGHT)


async def test_an_answer_of_just_its_limit_is_truncated() -> None:
    async with engine() as (_, backend):
        end = await completed(backend, request_of(8, most=3))
    assert (end.finish, end.answer_tokens) == (FinishReason.TRUNCATED, 3)


async def test_prompt_budget_and_answer_must_fit_below_the_window() -> None:
    fits = WINDOW - len(PROMPT) - MOST - 1
    async with engine() as (simulator, backend):
        assert (await completed(backend, request_of(fits))).thinking_tokens == THOUGHT
        simulator.bodies.clear()
        with pytest.raises(InvalidRequest, match=f"messages: .* {WINDOW} tokens, exceed .* window of {WINDOW}"):
            await completed(backend, request_of(fits + 1))
        assert not phases(simulator)


@pytest.mark.parametrize(("budget", "opened"), [(None, PROMPT), (0, [*PROMPT, END])])
async def test_an_answer_may_take_all_that_is_left(budget: int | None, opened: list[int]) -> None:
    async with engine() as (simulator, backend):
        end = await completed(backend, request_of(budget, most=WINDOW - len(opened) - 1))
        assert (end.thinking_tokens, end.prompt_tokens) == (0, len(opened))
        assert len(phases(simulator)) == 1, "there is no room to think"
        with pytest.raises(InvalidRequest, match="messages"):
            await completed(backend, request_of(budget, most=WINDOW - len(opened)))


async def test_what_cannot_fit_with_any_prompt_is_named() -> None:
    async with engine() as (_, backend):
        backend.borders.check(request_of(WINDOW))  # nothing is known of the window yet
        await backend.ready()
        backend.borders.check(request_of(WINDOW - MOST - 1))
        with pytest.raises(InvalidRequest, match=r"sampling\.max_answer_tokens"):
            backend.borders.check(request_of(WINDOW - MOST))
        with pytest.raises(InvalidRequest, match=r"sampling\.max_answer_tokens"):
            backend.borders.check(request_of(WINDOW - 1, most=1))
        with pytest.raises(InvalidRequest, match=r"options\.max_thinking_tokens"):
            backend.borders.check(request_of(WINDOW, most=1))


@pytest.mark.parametrize("budget", [None, 8])
async def test_an_answer_that_has_ended_is_whole_though_its_stream_does_not_end(budget: int | None) -> None:
    async with simulated("vllm", lingers=True) as simulator:
        client = EngineClient(simulator.url, Timeouts(first=5, idle=0.5, total=60, question=5), connections=5)
        end = await completed(TwoPhase(TokenClient(client, MODEL, VLLM), Markers()), request_of(budget))
        await client.close()
    assert end.finish is (FinishReason.NATURAL if budget is None else FinishReason.FORCED)
    assert (end.thinking_tokens, end.answer_tokens) == (THOUGHT if budget is None else budget, 5)


async def test_without_a_window_nothing_is_limited() -> None:
    limits: list[int | None] = []

    async def unknown(*_: object) -> None:
        return None

    def body(model: str, ids: list[int], most: int | None, *rest: Any) -> dict[str, Any]:
        limits.append(most)
        return VLLM.body(model, ids, most or 100, *rest)

    async with engine(replace(VLLM, window=unknown, body=body)) as (_, backend):
        assert (await completed(backend, request_of(None))).thinking_tokens == THOUGHT
    assert limits == [None, MOST]


async def test_a_budget_of_0_opens_with_a_thought_that_is_over() -> None:
    async with engine() as (simulator, backend):
        end = await completed(backend, request_of(0))
    [answering] = phases(simulator)
    assert answering["prompt"] == [*PROMPT, END]
    assert (end.finish, end.thinking_tokens, end.prompt_tokens) == (FinishReason.FORCED, 0, len(PROMPT) + 1)
    async with engine(ignores_zero=True) as (simulator, backend):
        await completed(backend, request_of(0))
    assert phases(simulator)[0]["prompt"] == [*PROMPT, END], "also where the template cannot close it"


@pytest.mark.parametrize(
    ("rendered", "opened"),
    [
        ([5], [5, START]),
        ([5, START], [5, START]),
        ([5, START, 6], [5, START, 6]),
        ([5, START, 6, 7], [5, START, 6, 7]),
        ([5, START, 6, 7, 8], [5, START, 6, 7, 8, START]),
        ([START], [START]),
    ],
)
async def test_a_thought_is_opened_where_the_template_has_not_done_so(rendered: list[int], opened: list[int]) -> None:
    async def render(*_: object) -> list[int]:
        return rendered

    async with engine(replace(VLLM, render=render)) as (_, backend):
        assert await backend.borders.opening(request_of(8)) == opened
        assert await backend.borders.opening(request_of(0)) == [*opened, END]


async def test_a_start_of_several_tokens_is_not_banned() -> None:
    async def encoded(_: object, __: str, text: str) -> list[int]:
        return [7, 8] if text == "<think>" else encode(text)

    async with engine(replace(VLLM, encode=encoded)) as (simulator, backend):
        thought = Thought([*PROMPT], steps(0, 3), used=5)
        await backend.ready()
        *_, end = [event async for event in backend.answer(request_of(3), thought)]
    assert not phases(simulator)[0].get("logit_bias")
    assert isinstance(end, Completion) and end.thinking_tokens == 5, "what was drawn, not what was kept"


async def test_markers_are_asked_for_once() -> None:
    async with engine() as (simulator, backend):
        for _ in range(3):
            assert await backend.ready()
        assert [body["prompt"] for _, body in simulator.bodies if "prompt" in body][:2] == ["<think>", "</think>"]
        asked = len(simulator.bodies)
        assert await backend.ready() and len(simulator.bodies) == asked
        assert await backend.client.encode("so") == encode("so")


@pytest.mark.parametrize(
    ("piece", "text", "ids", "natural"),
    [
        (Piece("so</think>4", [105, END, 300], None), "so", [105], True),
        (Piece("so", [105], "stop"), "so", [105], True),
        (Piece("so", [105], "length"), "so", [105], False),
        (Piece("", [END], None), "", [], True),
    ],
)
async def test_a_thought_ends_at_its_marker_or_where_the_engine_stops(
    piece: Piece, text: str, ids: list[int], natural: bool
) -> None:
    read = iter([piece, Piece("4", [300], None), Piece("", [EOS], "stop")] + [Piece("", [], "stop")] * 100)
    async with engine(replace(VLLM, piece=lambda _: next(read))) as (simulator, backend):
        events = [event async for event in backend.stream(request_of(3))]
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert thought.startswith(text)
    assert phases(simulator)[1]["prompt"][len(PROMPT) :][: len(ids)] == ids
    end = events[-1]
    assert isinstance(end, Completion) and (end.finish is FinishReason.NATURAL or not natural)


async def test_an_answer_without_ids_has_no_count_of_its_own() -> None:
    async with engine(replace(VLLM, piece=lambda chunk: replace(VLLM.piece(chunk), ids=[]))) as (_, backend):
        end = await completed(backend, request_of(16))
    assert (end.answer_tokens, end.thinking_tokens) == (None, 16)
