"""Disks, files and standard output: what is on them is kept as long as it is good; nobody waits for them."""

import asyncio
import fcntl
import json
import os
import resource
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from select import PIPE_BUF
from typing import Any

import grpc
import pytest

from router._gen import budget_router_pb2_grpc as pb_grpc
from router.admission.tenants import digest
from router.bundle import registry
from router.outcomes.sqlite import read_rows
from tests.conftest import MODELS
from tests.faults.conftest import PATIENCE, TABLE, Cell, Scene, scene
from tests.rpc.conftest import decide, generate
from tests.serving.test_app import CHEAP
from tests.serving.test_serve import environment
from tests.support.forked import Forked
from tests.support.ports import free_port

DEGRADED = "budget_router_degraded_total"


@asynccontextmanager
async def process(directory: Path, *arguments: str) -> AsyncIterator[tuple[Scene, Forked]]:
    """The service as a process of its own, which logs into the file `log`."""
    metrics = f"127.0.0.1:{free_port()}"
    arguments = ("serve", "--listen", "127.0.0.1:0", "--metrics-listen", metrics, *arguments)
    started = Forked(arguments, out=directory / "log", cwd=directory, env=environment())
    try:
        address = (await asyncio.to_thread(started.stderr.readline)).split()[-1]
        async with grpc.aio.insecure_channel(address) as channel:
            yield Scene(address, metrics, pb_grpc.BudgetRouterServiceStub(channel)), started
    finally:
        started.kill()
        await asyncio.to_thread(started.wait)
        started.stderr.close()


async def test_full(tmp_path: Path) -> None:
    """No file of the process may grow: neither the log of outcomes nor that of lines."""
    async with process(tmp_path) as (running, server):
        await running.generated()
        largest = _largest(tmp_path)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
        counter = f'{DEGRADED}{{dependency="outcomes"}}'
        before = await running.scraped(counter)
        cell = await running.under(Cell("disk", "full"), counter, requests=200, before=before)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await running.recovered(cell)
        server.terminate()
        assert await asyncio.to_thread(server.wait, 30) == 0
    kept = list(read_rows(tmp_path / "var/outcomes.sqlite"))
    assert len(kept) >= cell.answered, "what waited was written once there was room"


async def test_hang(tmp_path: Path) -> None:
    """Nobody reads the log: its pipe is soon full, then a write to it hangs."""
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(reader) as pipe:
        async with process(tmp_path) as (running, _):
            size = fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
            counter = "budget_router_decide_seconds_count"
            cell = await running.under(Cell("disk", "hang"), counter, requests=100)
            held = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
            assert int.from_bytes(held, sys.byteorder) > size - PIPE_BUF, "the pipe is full"
            await running.recovered(cell)


def nonsense(models: Path) -> Callable[[], object]:
    """The registry names nonsense."""
    current = models / "current.json"
    good = current.read_text()
    current.write_text("nonsense")
    return lambda: current.write_text(good)


def gone(models: Path) -> Callable[[], object]:
    """The registry is not there any more."""
    away = models.rename(models.with_name("away"))
    return lambda: away.rename(models)


@pytest.mark.parametrize(("name", "spoil"), [("garbage", nonsense), ("down", gone)])
async def test_the_registry(tmp_path: Path, name: str, spoil: Callable[[Path], Callable[[], object]]) -> None:
    """The bundle that serves goes on."""
    models = tmp_path / "models"
    registry.promote(models, MODELS / "pocket-router")
    async with scene(tmp_path, artifact=models) as running:
        counter = f'{DEGRADED}{{dependency="artifact"}}'
        before = await running.scraped(counter)
        mend = spoil(models)
        await running.moves(counter, before)
        cell = await running.under(Cell("disk", name), counter, before=before)
        mend()
        await running.recovered(cell)


async def test_flapping(tmp_path: Path) -> None:
    """The tenants' file is good, then nonsense, then good again."""
    path = tmp_path / "tenants.toml"
    path.write_text("[default]\n")

    async def flap() -> None:
        for number in range(1_000):
            path.write_text("nonsense" if number % 2 else f"[default]\nweight = {number + 1}\n")
            await asyncio.sleep(0.05)

    async with scene(tmp_path, tenants=path) as running:
        flapping = asyncio.create_task(flap())
        counter = f'{DEGRADED}{{dependency="tenants"}}'
        await running.moves(counter, 0)
        cell = await running.under(Cell("disk", "flapping"), counter, requests=100, before=0)
        flapping.cancel()
        path.write_text("[default]\n")
        await running.recovered(cell)


async def test_tenants(tmp_path: Path) -> None:
    """The tenants' file is broken, then emptied, then without keys, then restored: it stays closed, and known."""
    good = f'[default]\nkeys = [{{ sha256 = "{digest("a key")}" }}]\n'
    (path := tmp_path / "tenants.toml").write_text(good)
    async with scene(tmp_path, key="a key", tenants=path) as running:
        counter = f'{DEGRADED}{{dependency="tenants"}}'
        first = await running.scraped(counter)
        cell = Cell("tenants file", "broken, emptied, restored")
        for text in (good[:20], "", "[default]\n"):
            before = await running.scraped(counter)
            path.write_text(text)
            assert await running.moves(counter, before)
            await running.under(cell, counter, before=first)
            async with grpc.aio.insecure_channel(running.address) as channel:
                anyone: Any = pb_grpc.BudgetRouterServiceStub(channel)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await anyone.Decide(decide(), timeout=PATIENCE)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        path.write_text(good)
        await running.recovered(cell)


async def test_unwritable(tmp_path: Path) -> None:
    """The audit's file cannot be written: the verdicts stay in memory."""
    audit = tmp_path / "audit.json"
    async with scene(tmp_path, audit=1.0, audit_file=audit) as running:
        audit.unlink(missing_ok=True)
        audit.mkdir()
        counter = f'{DEGRADED}{{dependency="audit"}}'
        before = await running.scraped(counter)
        async with asyncio.timeout(PATIENCE):
            while await running.scraped(counter) == before:
                _ = [event async for event in running.routing.Generate(generate(CHEAP))]
        cell = await running.under(Cell("disk", "unwritable"), counter, before=before)
        audit.rmdir()
        await running.recovered(cell)


def _largest(directory: Path) -> int:
    return max(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def test_the_table_can_be_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One JSON line a cell."""
    monkeypatch.setenv(TABLE, str(tmp_path / "table"))
    Cell("a", "b", moved=1).verdict()
    Cell("c", "d", moved=1).verdict()
    cells = [json.loads(line) for line in (tmp_path / "table").read_text().splitlines()]
    assert [cell["dependency"] for cell in cells] == ["a", "c"]
