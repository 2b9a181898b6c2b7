"""Thoughts that are had step by step: what engines are asked for, and that a probe leaves no trace."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from router.backends import canary
from router.backends.climbing import TwoPhaseClimb
from router.backends.completions import TokenCompletionAPI
from router.backends.connect import Connection, connect
from router.backends.http import EngineClient, Timeouts
from router.backends.markers import Markers
from router.backends.pocket import PocketBackend
from router.backends.pocket_model import PocketModel
from router.backends.replica import Replica
from router.backends.replicas import Replicas
from router.backends.token_client import TokenClient
from router.backends.token_engines import LLAMA_CPP, SGLANG, VLLM
from router.backends.two_phase import TwoPhase
from router.domain import (
    Completion,
    ContentDelta,
    FinishReason,
    GenerationEvent,
    GenerationRequest,
    Prompt,
    ReasoningBudget,
    Sampling,
    Tool,
    Tools,
)
from router.errors import BackendBusy, BackendUnavailable, InvalidRequest
from router.ports import Climb, Climber
from router.stopping.evidence import LEAST_LOGPROB, Probe
from tests.support.fakes import RecordingObserver, until
from tests.support.simulators import END, MODEL, START, STEP, THOUGHT, USER, WORD, Simulator, encode, simulated

PROMPT = [USER, *encode("user:2 + 2 ="), START]
PATHS = {"vllm": "/v1/completions", "sglang": "/v1/completions", "llama_cpp": "/completion"}
APIS: dict[str, TokenCompletionAPI] = {"vllm": VLLM, "sglang": SGLANG, "llama_cpp": LLAMA_CPP}


@asynccontextmanager
async def phases_on(
    kind: str = "vllm", cue: str | None = None, **faults: Any
) -> AsyncIterator[tuple[Simulator, TwoPhase]]:
    async with simulated(kind, **faults) as simulator:
        client = EngineClient(simulator.url, Timeouts(first=5, idle=5, total=5, question=5), connections=5)
        try:
            yield simulator, TwoPhase(TokenClient(client, MODEL, APIS[kind]), Markers(cue=cue))
        finally:
            await client.close()


def request_of(budget: int | None = 64, floor: int = 0, most: int = 64) -> GenerationRequest:
    rung = ReasoningBudget(str(budget), budget)
    return GenerationRequest(Prompt.of("2 + 2 ="), rung, floor, Sampling(max_answer_tokens=most))


async def thought(climb: Climb, upto: int | None) -> str:
    return "".join([delta.text async for delta in climb.think(upto)])


async def answered(climb: Climb) -> tuple[str, Completion]:
    *deltas, end = [event async for event in climb.answer()]
    assert isinstance(end, Completion)
    return "".join(delta.text for delta in deltas if isinstance(delta, ContentDelta)), end


async def streamed(events: Any) -> list[GenerationEvent]:
    return [event async for event in events]


@pytest.mark.parametrize("kind", PATHS)
async def test_a_thought_goes_on_from_its_cut_as_if_it_had_not_been_probed(kind: str) -> None:
    async with phases_on(kind) as (simulator, phases):
        simulator.sure = {WORD + 3: -1.25}
        climb = TwoPhaseClimb(phases, request_of())
        said = await thought(climb, 8)
        probe = await climb.probe(32, end=False)
        said += await thought(climb, 20)
        asked = [body["prompt"] for path, body in simulator.bodies if path == PATHS[kind]]
        answer, end = await answered(climb)
    cut = [STEP + i for i in range(8)]
    assert asked == [PROMPT, [*PROMPT, *cut, END], [*PROMPT, *cut]]
    assert said == "".join(f"s{i} " for i in range(20))
    assert answer == probe.text == "The answer is 4."
    assert (probe.whole, probe.tokens, climb.tokens, climb.ended) == (True, 5, 20, False)
    assert probe.mean_logprob == pytest.approx((4 * -0.25 - 1.25) / 5)
    assert (probe.min_logprob, probe.end_logprob) == (-1.25, None)
    assert (end.finish, end.thinking_tokens, end.budget.tokens) == (FinishReason.FORCED, 20, 64)


async def test_a_probe_is_greedy_short_and_behind_the_closing_cue() -> None:
    async with phases_on(cue="Time is up.") as (simulator, phases):
        warm = replace(request_of(), sampling=Sampling(temperature=0.7, max_answer_tokens=50, seed=3))
        climb = TwoPhaseClimb(phases, warm)
        await thought(climb, 2)
        probe = await climb.probe(3, end=False)
        [_, body] = [body for path, body in simulator.bodies if path == PATHS["vllm"]]
    assert (body["temperature"], body["max_tokens"], body["logprobs"]) == (0.0, 3, 1)
    assert body["prompt"] == [*PROMPT, STEP, STEP + 1, *encode("\nTime is up.\n"), END]
    assert (probe.text, probe.whole, probe.tokens) == ("The answer is ", False, 3)


async def test_a_probe_ends_where_the_answer_would() -> None:
    async with phases_on() as (simulator, phases):
        stopped = Sampling(stop=("s3 ", "is"), min_p=0.5, logprobs=True, top_logprobs=5)
        climb = TwoPhaseClimb(phases, replace(request_of(), sampling=stopped))
        await thought(climb, 8)
        probe = await climb.probe(32, end=False)
        answer, end = await answered(climb)
        bodies = [body for path, body in simulator.bodies if path == PATHS["vllm"]]
    assert probe.text == answer == "The answer " and probe.whole and probe.mean_logprob == -0.25
    assert climb.taken(probe).stop == end.stop == probe.stop == "is"
    assert [(body["min_p"], "stop" in body, body.get("logprobs")) for body in bodies] == [
        (0.5, False, None),
        (0.5, False, 1),
        (0.5, False, 5),
    ]


async def test_a_thought_that_ends_by_itself_goes_no_further() -> None:
    async with phases_on() as (simulator, phases):
        climb = TwoPhaseClimb(phases, request_of())
        await thought(climb, THOUGHT + 10)
        assert (climb.ended, climb.tokens) == (True, THOUGHT)
        asked = len(simulator.bodies)
        assert await thought(climb, 64) == ""
        assert len(simulator.bodies) == asked
        _, end = await answered(climb)
    assert (end.finish, end.thinking_tokens) == (FinishReason.NATURAL, THOUGHT)


async def test_before_the_first_token_it_is_answered_as_a_budget_of_0_is() -> None:
    async with phases_on() as (simulator, phases):
        climb = TwoPhaseClimb(phases, request_of())
        probe = await climb.probe(32)
        await streamed(phases.stream(request_of(0)))
        bodies = [body["prompt"] for path, body in simulator.bodies if path == PATHS["vllm"]]
        await thought(climb, 4)
    assert probe.whole
    assert bodies[0] == bodies[1] == [*PROMPT, END]
    assert climb.tokens == 4


async def test_a_thought_may_be_cut_some_tokens_early_but_not_before_its_first() -> None:
    async with phases_on() as (_, phases):
        climb = TwoPhaseClimb(phases, request_of(8), early=1)
        seen = []
        for upto in (0, 1, 4, 8, None):
            await thought(climb, upto)
            seen.append(climb.tokens)
    assert seen == [0, 1, 3, 7, 7]


async def test_a_floor_holds_across_steps() -> None:
    async with phases_on() as (simulator, phases):
        climb = TwoPhaseClimb(phases, request_of(floor=12))
        await thought(climb, 8)
        await thought(climb, 16)
        bodies = [body for path, body in simulator.bodies if path == PATHS["vllm"]]
    assert [(body["max_tokens"], bool(body.get("logit_bias"))) for body in bodies] == [(8, True), (4, True), (4, False)]
    assert climb.tokens == 16


async def test_an_engine_that_sends_no_probabilities_leaves_them_unknown() -> None:
    async with phases_on() as (_, phases):
        phases.client.api = replace(VLLM, logprobs="unheard_of")
        probe = await TwoPhaseClimb(phases, request_of()).probe(32)
    assert probe == Probe("The answer is 4.", 5, True)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ([-0.5, None, -1], [-0.5, -1.0]),
        ([float("nan"), -9999.0, 10**400], [LEAST_LOGPROB, 0.0]),
        (None, []),
    ],
)
def test_log_probabilities_are_bounded_numbers(sent: Any, read: list[float]) -> None:
    chunk = {"choices": [{"text": "a", "logprobs": {"token_logprobs": sent}}]}
    assert [one.logprob for one in VLLM.piece(chunk).logprobs] == read
    probabilities = {"completion_probabilities": None if sent is None else [{"logprob": one} for one in sent]}
    assert [one.logprob for one in LLAMA_CPP.piece({"content": "a", **probabilities}).logprobs] == read


@pytest.mark.parametrize("sent", [["-0.5"], "-0.5", [True], {"a": 1}])
def test_what_is_no_number_is_no_log_probability(sent: Any) -> None:
    with pytest.raises(TypeError):
        VLLM.piece({"choices": [{"text": "a", "logprobs": {"token_logprobs": sent}}]})


async def run(climb: Climb, stage: str) -> None:
    if stage == "think":
        await thought(climb, 64)
    elif stage == "probe":
        await climb.probe(32, end=False)
    else:
        await answered(climb)


@pytest.mark.parametrize("kind", PATHS)
async def test_how_likely_the_thought_would_end_is_asked_where_it_is_wanted(kind: str) -> None:
    async with phases_on(kind) as (simulator, phases):
        climb = TwoPhaseClimb(phases, request_of())
        await thought(climb, 8)
        plain, whole = await climb.probe(32, end=False), await climb.probe(32)
        asked = sum(path == PATHS[kind] for path, _ in simulator.bodies)
    assert plain.end_logprob is None and whole.end_logprob is not None and whole.end_logprob < 0
    assert replace(whole, end_logprob=None) == plain
    assert asked == 1 + 1 + 2


async def test_a_fork_is_the_thought_as_it_was(pocket: PocketBackend) -> None:
    async with phases_on() as (_, phases):
        sampling = Sampling(1.0, 16, seed=5)
        asked = GenerationRequest(SUM, ReasoningBudget("64", 64), 8, sampling)
        for climb in (TwoPhaseClimb(phases, request_of()), pocket.climb(asked)):
            await thought(climb, 12)
            fork, probe = climb.fork(), await climb.probe(16)
            said = await answered(climb.fork())
            await thought(climb, 20)
            assert (climb.tokens, fork.tokens) == (20, 12)
            assert await fork.probe(16) == probe
            assert await answered(fork) == said
            await thought(fork, 14)
            assert (climb.tokens, fork.tokens) == (20, 14)


@pytest.mark.parametrize("stage", ["think", "probe", "answer"])
async def test_a_step_that_is_cancelled_leaves_nothing_on_the_engine(stage: str) -> None:
    async with phases_on() as (simulator, phases):
        climb = TwoPhaseClimb(phases, request_of())
        await thought(climb, 4)
        simulator.pause = 0.05
        step = asyncio.create_task(run(climb, stage))
        await until(lambda: simulator.running)
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        await until(lambda: not simulator.running)
        assert simulator.cancelled == 1


@asynccontextmanager
async def replicas_on(*kinds: str) -> AsyncIterator[tuple[list[Simulator], Replicas]]:
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(simulated(kind)) for kind in kinds]
        members = [
            Replica(f"r{i}", connect(Connection(one.kind, one.url, MODEL), canary.holds_budgets, stack))
            for i, one in enumerate(engines)
        ]
        replicas = Replicas(members, RecordingObserver())
        await replicas.prove()
        for one in engines:
            one.bodies.clear()
        yield engines, replicas


def steps_of(simulator: Simulator) -> int:
    return sum(path == PATHS[simulator.kind] for path, _ in simulator.bodies)


@pytest.mark.parametrize("kind", PATHS)
async def test_engines_that_complete_token_ids_can_be_climbed(kind: str) -> None:
    async with replicas_on(kind) as (_, replicas):
        assert isinstance(replicas, Climber)
        assert replicas.climb(request_of()) is not None
        tools = Tools((Tool("add", "", {}),))
        assert replicas.climb(replace(request_of(), tools=tools)) is None


async def test_all_steps_of_a_thought_run_at_one_replica() -> None:
    async with replicas_on("vllm", "vllm", "vllm") as (engines, replicas):
        for _ in range(5):
            for one in engines:
                one.bodies.clear()
            climb = replicas.climb(request_of())
            assert climb is not None
            for upto in (8, 16, 24):
                await thought(climb, upto)
                await climb.probe(8, end=False)
            await answered(climb)
            assert sorted(map(steps_of, engines)) == [0, 0, 7]
        assert all((r.tokens, r.streams) == (0, 0) for r in replicas._replicas)


async def test_a_probe_counts_as_load_what_a_probe_takes() -> None:
    async with replicas_on("vllm") as (engines, replicas):
        [replica], engines[0].pause = replicas._replicas, 0.01
        climb = replicas.climb(replace(request_of(), expected_tokens=500.0))
        assert climb is not None
        thinking = asyncio.create_task(thought(climb, 8))
        await until(lambda: replica.streams == 1)
        assert replica.tokens == 500
        await thinking
        probing = asyncio.create_task(climb.probe(8, end=False))
        await until(lambda: replica.streams == 1)
        assert replica.tokens == 8
        await probing
        assert (replica.tokens, replica.streams) == (0, 0)


async def test_before_anything_is_thought_another_replica_takes_over() -> None:
    async with replicas_on("vllm", "vllm") as (engines, replicas):
        for one in engines:
            one.faults.status = 503
            climb = replicas.climb(request_of())
            assert climb is not None
            assert await thought(climb, 4)
            one.faults.status = 0


async def test_afterwards_it_is_tried_again_where_it_is_and_nowhere_else() -> None:
    async with replicas_on("vllm", "vllm") as (engines, replicas):
        climb = replicas.climb(request_of())
        assert climb is not None
        await thought(climb, 4)
        [here] = [one for one in engines if steps_of(one)]
        here.failing_every, before = 2, steps_of(here)
        if len(here.bodies) % 2 == 0:
            here.bodies.append(("", {}))
        assert (await climb.probe(8, end=False)).whole
        here.faults.status = 503
        with pytest.raises((BackendBusy, BackendUnavailable)):
            await thought(climb, 8)
        assert steps_of(here) > before + 2
        assert sum(map(steps_of, engines)) == steps_of(here)


async def test_where_texts_are_not_tokenised_there_are_no_steps() -> None:
    async with simulated("vllm", no_tokens=True) as simulator, AsyncExitStack() as stack:
        backend = connect(Connection("vllm", simulator.url, MODEL), canary.holds_budgets, stack)
        assert (await backend.prove()).endswith("/native")
        assert backend.climb(request_of()) is None


@pytest.fixture
def pocket(pocket_model: PocketModel) -> Iterator[PocketBackend]:
    backend = PocketBackend(pocket_model)
    yield backend
    backend.close()


SUM = Prompt.of("State the final answer to the following arithmetic problem: 57 + 87 - 70 + 15 - 8 =")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_the_pocket_reasoner_thinks_the_same_with_probes_and_without(
    pocket: PocketBackend, temperature: float
) -> None:
    asked = GenerationRequest(SUM, ReasoningBudget("64", 64), 8, Sampling(temperature, 16, seed=5))
    assert isinstance(pocket, Climber)
    climb = pocket.climb(asked)
    events: list[Any] = []
    for upto in (0, 4, 16, 64):
        events += [delta async for delta in climb.think(upto)]
        await climb.probe(16)
    events += [event async for event in climb.answer()]
    assert events == await streamed(pocket.stream(asked))


async def test_a_pocket_probe_is_what_a_cap_at_the_cut_answers(pocket: PocketBackend) -> None:
    climb = pocket.climb(GenerationRequest(SUM, ReasoningBudget("64", 64), 0, Sampling(max_answer_tokens=16)))
    for upto in (0, 8, 16):
        await thought(climb, upto)
        probe = await climb.probe(16)
        capped = replace(request_of(upto, most=16), prompt=SUM)
        events = await streamed(pocket.stream(capped))
        assert probe.text == "".join(event.text for event in events if isinstance(event, ContentDelta))
        assert probe.mean_logprob is not None and probe.min_logprob is not None and probe.end_logprob is not None
        assert probe.min_logprob <= probe.mean_logprob <= 0 and probe.end_logprob < 0
    await thought(climb, None)
    assert climb.ended and (await climb.probe(16)).end_logprob is None


async def test_the_pocket_reasoner_refuses_tools_in_steps(pocket: PocketBackend) -> None:
    with pytest.raises(InvalidRequest):
        pocket.climb(replace(request_of(), tools=Tools((Tool("add", "", {}),))))
