"""The wall clock: what matters runs by the monotonic one; only credentials end by the calendar."""

import asyncio
import time
from itertools import count
from pathlib import Path

import pytest

from tests.faults.conftest import Cell, scene

DAY = 86_400.0


@pytest.mark.parametrize(("fault", "jump"), [("jumps ahead", DAY), ("jumps back", -DAY), ("stands still", None)])
async def test_it_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, jump: float | None) -> None:
    real = time.time
    frozen = real()
    async with scene(tmp_path, audit=0.5) as running:
        running.timeout = None  # this process is the client, too, and gRPC ends its calls by the wall clock
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: frozen if jump is None else real() + jump)
            cell = await running.under(Cell("clock", fault), "budget_router_decide_seconds_count")
        await running.recovered(cell)


async def test_it_flaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, turns = time.time, count()
    async with scene(tmp_path, audit=0.5) as running:
        running.timeout = None
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: real() + (DAY if next(turns) % 2 else -DAY))
            cell = await running.under(Cell("clock", "flapping"), "budget_router_decide_seconds_count")
            await asyncio.sleep(0.1)
        await running.recovered(cell)
