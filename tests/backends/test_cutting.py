"""Where thoughts are cut that are had in steps: where the engine's own enforcement cuts them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from router.backends import canary
from router.backends.connect import Connection, connect
from router.backends.cutting import Steps
from router.backends.verified import VerifiedBackend
from router.domain import Completion, GenerationRequest, Prompt, ReasoningBudget, Sampling
from tests.support.simulators import MODEL, Simulator, simulated

BUDGETS = (1, 8, 16)


@asynccontextmanager
async def proved(
    kind: str, shorter: int = 0, enforcement: str = "native", **faults: Any
) -> AsyncIterator[tuple[Simulator, VerifiedBackend]]:
    """A simulated engine that cuts some tokens early, and its backend, which has been proved."""
    async with simulated(kind, **faults) as simulator, AsyncExitStack() as stack:
        simulator.shorter = shorter
        connection = Connection(kind, simulator.url, MODEL, enforcement=enforcement)
        backend = connect(connection, canary.holds_budgets, stack)
        await backend.prove()
        yield simulator, backend


def request_of(budget: int) -> GenerationRequest:
    return GenerationRequest(Prompt.of("2 + 2 ="), ReasoningBudget("r", budget), sampling=Sampling(0.0, 16))


async def served(backend: VerifiedBackend, budget: int) -> int | None:
    """Thinking tokens in one go."""
    events = [event async for event in backend.stream(request_of(budget))]
    assert isinstance(events[-1], Completion)
    return events[-1].thinking_tokens


async def stepped(backend: VerifiedBackend, budget: int) -> int:
    """Thinking tokens in steps."""
    climb = backend.climb(request_of(64))
    assert climb is not None
    async for _ in climb.think(budget):
        pass
    return climb.tokens


@pytest.mark.parametrize(("kind", "shorter"), [("vllm", 0), ("sglang", 0), ("llama_cpp", 0), ("llama_cpp", 1)])
async def test_a_step_ends_where_the_engine_itself_ends_a_thought(kind: str, shorter: int) -> None:
    async with proved(kind, shorter) as (_, backend):
        assert backend.steps == Steps(shorter)
        for budget in BUDGETS[1:]:
            assert await stepped(backend, budget) == await served(backend, budget) == budget - shorter
        assert await stepped(backend, 1) == 1, "none at all is another prompt"


async def test_in_two_phases_the_router_cuts_and_nothing_is_compared() -> None:
    async with proved("llama_cpp", 1, "two_phase") as (simulator, backend):
        assert backend.steps == Steps()
        assert await stepped(backend, 8) == await served(backend, 8) == 8
        assert all(path != "/v1/chat/completions" for path, _ in simulator.bodies)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"shorter": 2}, "with a budget of 8 tokens the engine itself thinks 6 and answers 'The answer is 4.'"),
        ({"no_tokens": True}, "the engine continues no token ids: "),
    ],
)
async def test_where_no_cut_is_what_is_served_there_are_no_steps(change: dict[str, Any], why: str) -> None:
    async with proved("vllm", **change) as (_, backend):
        assert not backend.climbs and backend.climb(request_of(8)) is None
        assert backend.steps.obstacle.startswith(why)
        assert await served(backend, 16) == 16 - change.get("shorter", 0), "all the same, it serves"


async def test_another_engine_in_its_place_is_looked_at_anew() -> None:
    async with proved("llama_cpp", 0) as (simulator, backend):
        simulator.shorter = 1
        await backend.prove()
        assert backend.steps == Steps(1)
