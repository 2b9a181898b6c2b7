"""The same tests against every adapter and every way to hold a budget; the simulators' traps on and off."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from router.backends import canary
from router.backends.connect import Connection, connect
from router.backends.families import FAMILIES
from router.backends.http import Timeouts
from router.backends.markers import Markers
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.backends.verified import VerifiedBackend
from router.domain import (
    DEFAULT_RUNG,
    SLACK,
    Completion,
    ContentDelta,
    CountSource,
    Enforcement,
    FinishReason,
    GenerationRequest,
    Message,
    Prompt,
    ReasoningBudget,
    ReasoningDelta,
    Role,
    Sampling,
    Tool,
    ToolCall,
    ToolCallDelta,
    Tools,
)
from router.errors import BackendBusy, BackendError, BackendUnavailable, InvalidRequest
from router.ports import Backend
from tests.support.simulators import ANSWER, ENGINES, MODEL, OPEN, THOUGHT, WINDOW, Simulator, encode, simulated

KINDS = tuple(ENGINES)
WAYS = ("native", "two_phase")
HASTY = Timeouts(first=1.0, idle=0.5, total=5.0, question=1.0)
EVERY_WAY = [(kind, way) for kind in KINDS for way in WAYS]


@dataclass(frozen=True)
class Answer:
    """What a generation gave."""

    thought: str
    text: str
    completion: Completion
    calls: list[ToolCall]


def request_of(budget: int | None, floor: int = 0, most: int = 64) -> GenerationRequest:
    prompt = Prompt((Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "2 + 2 =")))
    return GenerationRequest(prompt, ReasoningBudget(str(budget), budget), floor, Sampling(max_answer_tokens=most))


async def run(backend: Backend, request: GenerationRequest) -> Answer:
    thought = text = ""
    calls = []
    async with aclosing(backend.stream(request)) as events:
        async for event in events:
            match event:
                case ReasoningDelta(piece):
                    thought += piece
                case ContentDelta(piece):
                    text += piece
                case ToolCallDelta(_, call):
                    calls.append(call)
                case Completion():
                    return Answer(thought, text, event, calls)
    raise AssertionError("the stream ended without a completion")


@asynccontextmanager
async def backend_of(
    simulator: Simulator, enforcement: str = "auto", timeouts: Timeouts = HASTY, **wishes: Any
) -> AsyncIterator[VerifiedBackend]:
    """What the router would serve this engine with, not proved yet."""
    async with AsyncExitStack() as stack:
        connection = Connection(
            simulator.kind, simulator.url, MODEL, enforcement=enforcement, timeouts=timeouts, connections=300, **wishes
        )
        yield connect(connection, canary.holds_budgets, stack)


@asynccontextmanager
async def proved(
    kind: str, enforcement: str = "auto", **faults: Any
) -> AsyncIterator[tuple[Simulator, VerifiedBackend]]:
    """A running engine and its backend, proved."""
    async with simulated(kind, **faults) as simulator, backend_of(simulator, enforcement) as backend:
        await backend.prove()
        simulator.bodies.clear()
        yield simulator, backend


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
@pytest.mark.parametrize("budget", [0, 1, 8, 39, 40, 41, 100, None])
async def test_budgets_are_held_to_the_token(kind: str, way: str, budget: int | None) -> None:
    async with proved(kind, way) as (_, backend):
        answer = await run(backend, request_of(budget))
    used = THOUGHT if budget is None else min(budget, THOUGHT)
    assert answer.thought == "".join(f"s{i} " for i in range(used))
    assert answer.text == "".join(ANSWER)
    assert answer.completion.thinking_tokens == used
    assert answer.completion.enforcement is Enforcement(way)
    assert answer.completion.finish is (
        FinishReason.NATURAL if budget is None or budget > THOUGHT + 1 else answer.completion.finish
    )
    assert not answer.completion.budget_violated


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
@pytest.mark.parametrize("floor", [1, 39, 45, 60])
async def test_floors_are_held(kind: str, way: str, floor: int) -> None:
    async with proved(kind, way) as (_, backend):
        answer = await run(backend, request_of(80, floor))
    assert answer.completion.thinking_tokens == max(floor, THOUGHT)
    assert answer.text == "".join(ANSWER)


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
async def test_several_tokens_a_delta_are_counted_as_such(kind: str, way: str) -> None:
    async with proved(kind, way, several_tokens_a_delta=True) as (_, backend):
        for budget in (0, 8, 13, 100):
            answer = await run(backend, request_of(budget))
            assert answer.completion.thinking_tokens == min(budget, THOUGHT)
            assert answer.text == "".join(ANSWER)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trap", ["ignores_budget", "ignores_zero", "uncounted"])
async def test_an_engine_that_silently_does_nothing_is_found_and_forced(kind: str, trap: str) -> None:
    """The canary sees through it, and two phases hold what the engine does not."""
    async with simulated(kind, **{trap: True}) as simulator, backend_of(simulator) as backend:
        fingerprint = await backend.prove()
        assert fingerprint.endswith("/two_phase")
        for budget in (0, 8, 100):
            answer = await run(backend, request_of(budget))
            assert answer.completion.thinking_tokens == min(budget, THOUGHT)
            assert answer.text == "".join(ANSWER)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trap", ["ignores_budget", "ignores_zero", "uncounted"])
async def test_where_nothing_else_is_wanted_it_is_refused_or_called_a_hint(kind: str, trap: str) -> None:
    async with simulated(kind, **{trap: True}) as simulator:
        async with backend_of(simulator, "native") as backend:
            with pytest.raises(BackendError, match="no way to hold budgets"):
                await backend.prove()
            assert not await backend.ready()
            with pytest.raises(BackendUnavailable, match="not proved"):
                await run(backend, request_of(8))
        async with backend_of(simulator, "native", unenforced=True) as backend:
            assert (await backend.prove()).endswith("/hint")
            answer = await run(backend, request_of(8))
            assert answer.completion.enforcement is Enforcement.HINT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trap", ["ignores_budget", "reopens"])
async def test_an_engine_that_stops_enforcing_is_caught_at_run_time(kind: str, trap: str) -> None:
    """Past budget and slack the request is cancelled, and the answer is had behind the thought as it was allowed."""
    async with proved(kind, "native") as (simulator, backend):
        setattr(simulator.faults, trap, True)
        simulator.pause = 0.002
        answer = await run(backend, request_of(8))
        await asyncio.sleep(0.05)
        assert answer.text == "".join(ANSWER)
        assert answer.completion.enforcement is Enforcement.TWO_PHASE
        assert answer.completion.budget_violated
        assert 8 < (answer.completion.thinking_tokens or 0) < THOUGHT
        assert simulator.running == 0 and simulator.cancelled == 1


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
async def test_a_thought_that_is_opened_again_does_not_escape(kind: str, way: str) -> None:
    async with simulated(kind, reopens=True) as simulator, backend_of(simulator, way, unenforced=True) as backend:
        await backend.prove()
        answer = await run(backend, request_of(8))
        assert answer.text == "".join(ANSWER)
        assert (answer.completion.thinking_tokens or 0) <= 8 + SLACK + 5


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
@pytest.mark.parametrize("status", [500, 503])
async def test_a_broken_engine_is_worth_another_try(kind: str, way: str, status: int) -> None:
    async with proved(kind, way) as (simulator, backend):
        simulator.faults.status = status
        with pytest.raises(BackendUnavailable, match=str(status)):
            await run(backend, request_of(8))


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
async def test_an_engine_without_room_says_when_to_come_again(kind: str, way: str) -> None:
    async with proved(kind, way) as (simulator, backend):
        simulator.faults.status, simulator.faults.retry_after = 429, "7"
        with pytest.raises(BackendBusy, match="429") as caught:
            await run(backend, request_of(8))
        assert caught.value.retry_after == 7


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
@pytest.mark.parametrize("trap", ["cut_short", "breaks", "hangs", "html"])
async def test_a_stream_that_goes_wrong_is_a_typed_error(kind: str, way: str, trap: str) -> None:
    async with proved(kind, way) as (simulator, backend):
        setattr(simulator.faults, trap, True)
        with pytest.raises(BackendError):
            await asyncio.wait_for(run(backend, request_of(8)), 4)
        await asyncio.sleep(0.05)
        assert simulator.running == 0


@pytest.mark.parametrize("several_at_once", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_marker_of_several_tokens_is_held_in_two_phases(kind: str, several_at_once: bool) -> None:
    faults = {"many_token_marker": True, "several_tokens_a_delta": several_at_once}
    async with proved(kind, "two_phase", **faults) as (simulator, backend):
        for budget in (0, 1, 8, 39, 40, 41, 100, None):
            answer = await run(backend, request_of(budget))
            used = THOUGHT if budget is None else min(budget, THOUGHT)
            assert (answer.text, answer.completion.thinking_tokens) == ("".join(ANSWER), used)
            assert answer.thought == "".join(f"s{i} " for i in range(used)), "no part of the marker"
        simulator.bodies.clear()
        answer = await run(backend, request_of(80, floor=50))
        assert (answer.text, answer.completion.thinking_tokens) == ("".join(ANSWER), 50)
        assert answer.thought == "".join(f"s{i} " for i in range(THOUGHT)) + 3 * "Wait", "and the last one is cut"
        assert not [body for _, body in simulator.bodies[:-1] if body.get("logit_bias")], "no part of it is banned"
    async with proved(kind, "native", **faults) as (simulator, backend):
        simulator.faults.ignores_budget = True
        answer = await run(backend, request_of(8))
        assert (answer.text, answer.completion.enforcement) == ("".join(ANSWER), Enforcement.TWO_PHASE)


@pytest.mark.parametrize("kind", KINDS)
async def test_where_tokens_and_events_are_cut_elsewhere_the_thought_ends_at_the_right_id(kind: str) -> None:
    """The model spells the marker otherwise than the tokenizer does, and several tokens arrive together."""
    faults = {"many_token_marker": True, "several_tokens_a_delta": True}
    async with proved(kind, "two_phase", **faults) as (simulator, backend):
        simulator.spelling = [10, 11]
        for budget, used in ((100, THOUGHT), (39, 39), (None, THOUGHT)):
            simulator.bodies.clear()
            answer = await run(backend, request_of(budget))
            assert (answer.text, answer.completion.thinking_tokens) == ("".join(ANSWER), used)
            behind = [body["prompt"] for _, body in simulator.bodies if "prompt" in body][-1]
            assert [token for token in behind if 100 <= token < 300] == list(range(100, 100 + used))
            assert (used < THOUGHT) is not any("detokenize" in path for path, _ in simulator.bodies)
        simulator.statuses = {"/detokenize": 404, "/v1/detokenize": 404}
        answer = await run(backend, request_of(100))
        assert (answer.text, answer.completion.thinking_tokens) == ("".join(ANSWER), 35), "cut a little earlier"


@pytest.mark.parametrize(
    ("kind", "name"), [*((kind, "gpt-oss") for kind in KINDS[1:]), *(("vllm", family.name) for family in FAMILIES)]
)
async def test_every_known_family_is_held_in_two_phases(kind: str, name: str) -> None:
    [markers] = [family.markers for family in FAMILIES if family.name == name]
    async with simulated(kind) as simulator, backend_of(simulator, "two_phase") as backend:
        simulator.markers, simulator.template = markers, markers.start + markers.end
        await backend.prove()
        for budget, used in ((8, 8), (0, 0), (None, THOUGHT)):
            answer = await run(backend, request_of(budget))
            assert (answer.text, answer.completion.thinking_tokens) == ("".join(ANSWER), used)
        sent = [body["prompt"] for path, body in simulator.bodies if "completion" in path and "prompt" in body]
        assert (sent[-1][-1] == OPEN) is bool(markers.answer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_closing_cue_is_said_counted_apart_and_part_of_the_fingerprint(kind: str, way: str) -> None:
    names = set()
    for cue in ("", "Time is up.", None):
        async with simulated(kind) as simulator, backend_of(simulator, way, markers=Markers(cue=cue)) as backend:
            names.add(await backend.prove())
            simulator.bodies.clear()
            answer = await run(backend, request_of(8))
            sent = str(simulator.bodies)
        assert (answer.completion.thinking_tokens, answer.completion.finish) == (8, FinishReason.FORCED)
        assert answer.thought.strip() == "".join(f"s{i} " for i in range(8)).strip(), "the caller does not see it"
        said = "reasoning_budget_message" in sent or str(encode("Time is up"))[1:-1] in sent
        assert said is (cue != "" and (way, kind) not in {("native", "vllm"), ("native", "sglang")})
    assert len(names) == (1 if way == "native" and kind != "llama_cpp" else 3)


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
async def test_what_exceeds_the_window_is_refused_by_name(kind: str, way: str) -> None:
    async with proved(kind, way) as (simulator, backend):
        for budget, most, field in ((WINDOW, 64, "options.max_thinking_tokens"), (8, WINDOW, "max_answer_tokens")):
            with pytest.raises(InvalidRequest, match=f"{field}.*window of {WINDOW}"):
                await run(backend, request_of(budget, most=most))
        assert not [path for path, _ in simulator.bodies if "completion" in path and "tokenize" not in path]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_prompt_beyond_the_window_is_refused_by_name(kind: str) -> None:
    async with proved(kind, "two_phase") as (_, backend):
        with pytest.raises(InvalidRequest, match=f"messages: .*window of {WINDOW}"):
            await run(backend, replace(request_of(8), prompt=Prompt.of("x" * WINDOW)))


CALLED = Message(Role.ASSISTANT, "", (ToolCall("call-0", "add", '{"a": 2, "b"'),))
TOOL_LOOP = Prompt((Message(Role.USER, "2 + 2 ="), CALLED, Message(Role.TOOL, "4", (), "call-0")))
ADD = Tools((Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}}),))


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
async def test_tool_calls_of_a_conversation_reach_the_template_unchanged(kind: str, way: str) -> None:
    async with proved(kind, way) as (simulator, backend):
        await run(backend, replace(request_of(8), prompt=TOOL_LOOP))
        sent = [body["messages"] for _, body in simulator.bodies if "messages" in body]
    function = {"name": "add", "arguments": '{"a": 2, "b"'}
    assert sent and all(
        m[1:]
        == [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "call-0", "type": "function", "function": function}],
            },
            {"role": "tool", "content": "4", "tool_call_id": "call-0"},
        ]
        for m in sent
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("choice", ["auto", "add"])
async def test_tool_calls_stream_through_and_budgets_hold(kind: str, choice: str) -> None:
    async with proved(kind, "native") as (simulator, backend):
        answer = await run(backend, replace(request_of(8), tools=replace(ADD, choice=choice)))
        [(_, body)] = [one for one in simulator.bodies if "tools" in one[1]]
    # llama.cpp takes the name of a tool for "auto".
    by_name = "required" if kind == "llama_cpp" else {"type": "function", "function": {"name": "add"}}
    assert body["tool_choice"] == ("auto" if choice == "auto" else by_name)
    assert body["tools"][0]["function"]["parameters"] == ADD.offered[0].parameters
    assert answer.calls[0] == ToolCall("call-1", "add", ANSWER[0])
    assert [call.arguments for call in answer.calls] == list(ANSWER)
    assert (answer.text, answer.completion.thinking_tokens) == ("", 8)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_tool_that_an_engine_cannot_be_asked_for_by_name_is_the_only_one_on_offer(kind: str) -> None:
    two = replace(ADD, offered=(replace(ADD.offered[0], name="sub"), *ADD.offered), choice="add")
    async with proved(kind, "native") as (simulator, backend):
        await run(backend, replace(request_of(8), tools=two))
        [offered] = [body["tools"] for _, body in simulator.bodies if "tools" in body]
    names = [tool["function"]["name"] for tool in offered]
    assert names == (["add"] if kind == "llama_cpp" else ["sub", "add"])


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
async def test_nothing_is_cut_within_the_arguments_of_a_call(kind: str) -> None:
    """An engine that counts them as thought is past its budget there: told, and let go on."""
    async with proved(kind, "native") as (simulator, backend):
        simulator.faults.counts_everything = True
        answer = await run(backend, replace(request_of(8), tools=ADD))
    assert [call.arguments for call in answer.calls] == list(ANSWER)
    assert answer.completion.budget_violated and simulator.cancelled == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_what_two_phases_cannot_carry_is_refused_by_name(kind: str) -> None:
    shown = Prompt((Message(Role.USER, "What is this?", images=("data:image/png;base64,AA",)),))
    async with proved(kind, "two_phase") as (_, backend):
        with pytest.raises(InvalidRequest, match=r"^tools: "):
            await run(backend, replace(request_of(8), tools=ADD))
        with pytest.raises(InvalidRequest, match=r"^messages\[0\].image_urls: "):
            await run(backend, replace(request_of(8), prompt=shown))
    async with proved(kind, "native") as (_, backend):
        with pytest.raises(InvalidRequest, match=r"^options\.min_thinking_tokens: neither"):
            await run(backend, replace(request_of(8, floor=4), tools=ADD))


@pytest.mark.parametrize("kind", KINDS)
async def test_images_go_where_the_model_takes_them(kind: str) -> None:
    url = "https://example.org/cat.png"
    shown = Prompt((Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "What is this?", images=(url,))))
    request = replace(request_of(8), prompt=shown)
    async with simulated(kind) as simulator:
        async with backend_of(simulator) as backend:
            await backend.prove()
            with pytest.raises(InvalidRequest, match=r"^messages\[1\].image_urls: neither"):
                await run(backend, request)
        async with backend_of(simulator, images=True) as backend:
            await backend.prove()
            simulator.bodies.clear()
            assert (await run(backend, request)).completion.thinking_tokens == 8
    [(_, body)] = simulator.bodies
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    assert body["messages"][1]["content"] == parts


@pytest.mark.parametrize("kind", KINDS)
async def test_an_engine_that_comes_back_as_another_is_not_served(kind: str) -> None:
    async with proved(kind) as (simulator, backend):
        simulator.served = False
        assert not await backend.ready()
        simulator.served = True
        assert await backend.ready()
        simulator.served = False
        assert not await backend.ready()
        simulator.served, simulator.version = True, "2.0"
        assert not await backend.ready()
        with pytest.raises(BackendError, match=r"1\.0.*is .*2\.0"):
            await backend.prove()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fingerprint_names_engine_version_model_template_and_enforcement(kind: str) -> None:
    async with simulated(kind) as simulator, backend_of(simulator) as backend:
        one = await backend.prove()
        engine, model, template, way = one.split("/")
        assert (engine.removeprefix("llama.cpp-").split("-")[-1], model, way) == ("1.0", MODEL, "native")
    async with simulated(kind, ignores_zero=True) as simulator, backend_of(simulator) as backend:
        assert (await backend.prove()).split("/")[2] != template


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
async def test_two_hundred_cancelled_streams_leave_nothing_behind(kind: str, way: str) -> None:
    # No stream ends by itself or runs out of time, however slowly the others start.
    patient = Timeouts(first=600, idle=600, total=600, question=600)
    async with simulated(kind) as simulator, backend_of(simulator, way, patient) as backend:
        await backend.prove()
        simulator.pause = 600
        tasks = [asyncio.create_task(run(backend, request_of(None))) for _ in range(200)]
        while simulator.running < 100:
            assert not any(task.done() for task in tasks)
            await asyncio.sleep(0.01)
        before = asyncio.all_tasks() - set(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in range(200):
            if simulator.running == 0:
                break
            await asyncio.sleep(0.01)
        assert simulator.running == 0
        left = {task for task in asyncio.all_tasks() - before if not task.done() and task is not asyncio.current_task()}
        assert not {task for task in left if "router" in repr(task.get_coro())}


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
async def test_messages_reach_the_template_unchanged(kind: str, way: str) -> None:
    async with proved(kind, way) as (simulator, backend):
        await run(backend, request_of(8))
        sent = [body["messages"] for _, body in simulator.bodies if "messages" in body]
        assert sent and all(
            m == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2 ="}] for m in sent
        )


async def test_named_efforts_are_hints() -> None:
    async with simulated("vllm") as simulator, AsyncExitStack() as stack:
        backend = connect(Connection("openai_effort", simulator.url, MODEL), canary.holds_budgets, stack)
        assert (await backend.prove()) == f"hosted/{MODEL}/hint"
        request = GenerationRequest(Prompt.of("2 + 2 ="), ReasoningBudget("high", None))
        answer = await run(backend, request)
        assert simulator.bodies[-1][1]["reasoning_effort"] == "high"
        assert answer.completion.enforcement is Enforcement.HINT
        assert answer.completion.count_source is CountSource.ENGINE
        with pytest.raises(InvalidRequest, match=r"^options\.min_thinking_tokens: neither"):
            await run(backend, request_of(None, floor=3))


async def test_an_engine_of_efforts_does_as_it_likes_by_default_and_takes_no_number() -> None:
    async with simulated("vllm") as simulator, AsyncExitStack() as stack:
        backend = connect(Connection("openai_effort", simulator.url, MODEL), canary.holds_budgets, stack)
        await backend.prove()
        asked = GenerationRequest(Prompt.of("2 + 2 ="), ReasoningBudget(DEFAULT_RUNG, None))
        answer = await run(backend, asked)
        assert answer.text == "".join(ANSWER) and answer.completion.thinking_tokens == THOUGHT
        assert not {"reasoning_effort", "max_tokens", "max_completion_tokens"} & simulator.bodies[-1][1].keys()
        await run(backend, replace(asked, budget=ReasoningBudget(DEFAULT_RUNG, 0)))
        assert simulator.bodies[-1][1]["reasoning_effort"] == "none"
        with pytest.raises(InvalidRequest, match="max_thinking_tokens: this engine takes named efforts"):
            await run(backend, replace(asked, budget=ReasoningBudget(DEFAULT_RUNG, 500)))


@pytest.mark.parametrize("kind", KINDS)
async def test_no_cap_of_ours_stands_behind_the_engines_own_default(kind: str) -> None:
    async with proved(kind, "native") as (simulator, backend):
        request = replace(request_of(None), budget=ReasoningBudget(DEFAULT_RUNG, None))
        assert (await run(backend, request)).completion.thinking_tokens == THOUGHT
        ((_, body),) = [(path, body) for path, body in simulator.bodies if path == "/v1/chat/completions"]
    limits = {"thinking_token_budget", "thinking_budget_tokens", "custom_params", "max_tokens", "max_completion_tokens"}
    assert not limits & body.keys()
    assert body["chat_template_kwargs"]["enable_thinking"] is True


async def test_the_pocket_reasoner_passes_the_canary(pocket_model: PocketModel) -> None:
    backend = PocketBackend(pocket_model)
    assert await canary.holds_budgets(backend)
    backend.close()
