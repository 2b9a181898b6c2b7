"""Backends: before the first token another model answers; after it the failure is told, typed and soon."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from router.circuit_breaker import FAILURES
from tests.conftest import MODELS
from tests.faults.conftest import PATIENCE, Cell, Scene, scene
from tests.rpc.conftest import generate, refusal
from tests.support.ports import free_port
from tests.support.simulators import MODEL, Simulator, simulated

DEGRADED = 'budget_router_degraded_total{dependency="backend"}'
BROKEN = 'budget_router_broken_streams_total{cause="backend"}'
POISON = "a prompt that it cannot bear"
STARTED = ("UNAVAILABLE",)
"""Streams that have begun cannot be taken over by anyone."""


@asynccontextmanager
async def fronted(directory: Path, failover: bool = True) -> AsyncIterator[tuple[Scene, Simulator]]:
    """A service in front of a simulated vLLM; the embedded model may take over."""
    second = {"failover_backend": "pocket", "failover_artifact": MODELS / "pocket-router"} if failover else {}
    async with simulated("vllm") as simulator:
        given: dict[str, Any] = {"backend": "vllm", "backend_url": simulator.url, "backend_model": MODEL}
        timeouts = {"backend_idle_timeout": 0.3, "backend_first_timeout": 1.0}
        async with scene(directory, **given, **timeouts, **second) as running:
            yield running, simulator


@pytest.mark.parametrize(
    ("name", "fault", "counter", "unavoidable"),
    [
        ("down", {"status": 503}, DEGRADED, ()),
        ("full", {"status": 429, "retry_after": "7"}, BROKEN, ()),
        ("redirects", {"redirects_to": "http://127.0.0.1:9/v1/chat/completions"}, DEGRADED, ()),
        ("garbage", {"html": True}, BROKEN, ()),
        ("hang", {"hangs": True}, BROKEN, STARTED),
        ("sends bytes without events", {"drips": 0.02}, BROKEN, STARTED),
        ("dies in a stream", {"cut_short": True}, BROKEN, STARTED),
        ("error in a stream", {"breaks": True}, BROKEN, STARTED),
    ],
)
async def test_with_another_model_to_take_over(
    tmp_path: Path, name: str, fault: dict[str, Any], counter: str, unavoidable: tuple[str, ...]
) -> None:
    async with fronted(tmp_path) as (running, simulator):
        for switch, value in fault.items():
            setattr(simulator.faults, switch, value)
        cell = await running.under(Cell("backend", name), counter, unavoidable=unavoidable)
        for switch in fault:
            setattr(simulator.faults, switch, type(fault[switch])())
        await running.recovered(cell)


async def test_slow(tmp_path: Path) -> None:
    async with fronted(tmp_path) as (running, simulator):
        simulator.pause = 0.02
        cell = await running.under(Cell("backend", "slow"), "budget_router_generate_seconds_sum")
        assert cell.moved > 2, "it is seen in the latency"
        simulator.pause = 0.0
        await running.recovered(cell)


async def test_flapping(tmp_path: Path) -> None:
    async with fronted(tmp_path) as (running, simulator):
        simulator.failing_every = 2
        cell = await running.under(Cell("backend", "flapping"), DEGRADED, requests=40)
        simulator.failing_every = 0
        await running.recovered(cell)


async def test_down_with_nobody_to_take_over(tmp_path: Path) -> None:
    async with fronted(tmp_path, failover=False) as (running, simulator):
        simulator.faults.status = 503
        cell = await running.under(Cell("backend", "down, alone"), BROKEN, unavoidable=STARTED)
        assert cell.failed == {"UNAVAILABLE": 12} and cell.answered == 12, "decisions go on"
        simulator.faults.status = 0
        await running.recovered(cell)


@pytest.mark.parametrize("status", [500, 503])
async def test_one_prompt_that_it_cannot_bear(tmp_path: Path, status: int) -> None:
    """One replica, and nobody to take over: whoever sends that prompt again and again costs nobody else anything."""
    async with fronted(tmp_path, failover=False) as (running, simulator):
        before = await running.scraped(DEGRADED)
        simulator.fails, simulator.fault_status = {POISON: 1_000_000}, status
        await asyncio.gather(*(_poisoned(running) for _ in range(2 * FAILURES)))
        again = asyncio.create_task(_poisoned(running))
        cell = await running.under(Cell("backend", f"answers {status} to one prompt"), DEGRADED, before=before)
        await again
        simulator.fails.clear()
        await running.recovered(cell)


async def test_killed_and_back(tmp_path: Path) -> None:
    """While it is away everyone is refused soon; from the moment at which the health check says so, calls succeed."""
    port = free_port()
    given: dict[str, Any] = {"backend": "vllm", "backend_url": f"http://127.0.0.1:{port}/v1", "backend_model": MODEL}
    async with AsyncExitStack() as stack:
        doomed = await stack.enter_async_context(AsyncExitStack())
        await doomed.enter_async_context(simulated("vllm", port))
        running = await stack.enter_async_context(scene(tmp_path, **given))
        await doomed.aclose()
        cell = await running.under(Cell("backend", "killed and back"), BROKEN, unavoidable=STARTED)
        await running.healthy(False, f"backend/{MODEL}")
        await stack.enter_async_context(simulated("vllm", port))
        await running.healthy(True, f"backend/{MODEL}")
        for number in range(8):
            await running.generated(number)
        await running.recovered(cell)
        await stack.aclose()


async def test_full_with_nobody_to_take_over(tmp_path: Path) -> None:
    async with fronted(tmp_path, failover=False) as (running, simulator):
        simulator.faults.status, simulator.faults.retry_after = 429, "7"
        cell = await running.under(Cell("backend", "429"), BROKEN, unavoidable=("RESOURCE_EXHAUSTED",))
        assert cell.failed == {"RESOURCE_EXHAUSTED": 12} and cell.answered == 12, "decisions go on"
        asked = len(simulator.bodies)
        seen = await refusal(running.routing.Generate(generate()))
        assert (seen.reason, seen.retry_seconds) == ("BackendBusy", 7)
        assert len(simulator.bodies) == asked + 1, "it is not tried again before its time"
        simulator.faults.status, simulator.faults.retry_after = 0, ""
        await running.generated()  # at once: nothing was left out
        await running.recovered(cell)


async def test_redirecting_with_nobody_to_take_over(tmp_path: Path) -> None:
    """Nothing is sent where the engine points to, and the caller learns who redirects."""
    async with simulated("vllm") as other, fronted(tmp_path, failover=False) as (running, simulator):
        simulator.faults.redirects_to = f"{other.url}/v1/chat/completions"
        cell = await running.under(Cell("backend", "redirects, alone"), BROKEN, unavoidable=STARTED)
        assert other.bodies == []
        simulator.faults.redirects_to = ""
        await running.recovered(cell)


async def _poisoned(running: Scene) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in running.routing.Generate(generate(POISON), timeout=PATIENCE):
            pass


async def test_refusing(tmp_path: Path) -> None:
    async with fronted(tmp_path) as (running, simulator):
        simulator.faults.status = 400
        cell = await running.under(Cell("backend", "refuses"), BROKEN, unavoidable=("FAILED_PRECONDITION",))
        assert set(cell.failed) == {grpc.StatusCode.FAILED_PRECONDITION.name}
        simulator.faults.status = 0
        await running.recovered(cell)
