"""Backends: before the first token another model answers; after it the failure is told, typed and soon."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.conftest import MODELS
from tests.faults.conftest import Cell, Scene, scene
from tests.support.simulators import MODEL, Simulator, simulated

DEGRADED = 'budget_router_degraded_total{dependency="backend"}'
BROKEN = 'budget_router_broken_streams_total{cause="backend"}'
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
        ("full", {"status": 429}, DEGRADED, ()),
        ("garbage", {"html": True}, BROKEN, ()),
        ("hang", {"hangs": True}, BROKEN, STARTED),
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


async def test_refusing(tmp_path: Path) -> None:
    async with fronted(tmp_path) as (running, simulator):
        simulator.faults.status = 400
        cell = await running.under(Cell("backend", "refuses"), BROKEN, unavoidable=("FAILED_PRECONDITION",))
        assert set(cell.failed) == {grpc.StatusCode.FAILED_PRECONDITION.name}
        simulator.faults.status = 0
        await running.recovered(cell)
