"""Replicas: clients with the documented options see no more than the streams that were under way fail."""

import asyncio
import os
import resource
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.client.channel import CHANNEL_OPTIONS
from tests.conftest import MODELS
from tests.faults.conftest import PATIENCE, Cell, Scene
from tests.faults.test_disk import process
from tests.rpc.conftest import decide, generate
from tests.serving.test_serve import refused_as_process

CALLS = "budget_router_calls_total"
REPLACED = "budget_router_workers_replaced_total"


@asynccontextmanager
async def two(directory: Path) -> AsyncIterator[tuple[list[tuple[Scene, Any]], Any]]:
    """Two replicas, and a stub that knows both."""
    async with AsyncExitStack() as stack:
        replicas = []
        for name in ("first", "second"):
            (directory / name).mkdir()
            replicas.append(await stack.enter_async_context(process(directory / name)))
        addresses = ",".join(scene.address for scene, _ in replicas)
        channel = grpc.aio.insecure_channel(f"ipv4:{addresses}", CHANNEL_OPTIONS)
        stub = pb_grpc.BudgetRouterServiceStub(await stack.enter_async_context(channel))
        for _ in range(20):  # until both are connected
            await stub.Decide(decide(), timeout=30)
        yield replicas, stub


PAUSE = 0.05
"""Seconds between two streams of a caller: the load must leave room for whatever else this machine does."""


async def streams(stub: Any, failed: Counter[str], begun: set[int], stop: asyncio.Event) -> None:
    """Callers that keep asking; `begun` are those whose stream is under way."""

    async def caller(who: int) -> None:
        while not stop.is_set():
            try:
                options = pb.RoutingOptions(rung="64")
                async for _ in stub.Generate(generate(f"{who} + 1 =", options=options), timeout=60):
                    begun.add(who)
            except grpc.aio.AioRpcError as error:
                failed[error.code().name] += 1
            begun.discard(who)
            await asyncio.sleep(PAUSE)

    await asyncio.gather(*(caller(who) for who in range(8)))


async def test_down(tmp_path: Path) -> None:
    """SIGKILL of one of two."""
    async with two(tmp_path) as ([(_, victim), (other, _)], stub):
        cell, begun, stop = Cell("process", "down"), set[int](), asyncio.Event()
        before = await other.scraped(CALLS)
        load = asyncio.create_task(streams(stub, cell.failed, begun, stop))
        await asyncio.sleep(0.5)
        victim.kill()
        under_way = len(begun)
        await asyncio.sleep(1.5)
        stop.set()
        await load
        cell.needless = max(sum(cell.failed.values()) - under_way, 0)
        cell.counter, cell.moved = CALLS, await other.scraped(CALLS) - before
        await other.recovered(cell)


@pytest.mark.slow
async def test_flapping(tmp_path: Path) -> None:
    """One of two is stopped by SIGTERM again and again: nobody notices."""
    async with two(tmp_path) as ([(_, victim), (other, _)], stub):
        cell, stop = Cell("process", "flapping"), asyncio.Event()
        load = asyncio.create_task(streams(stub, cell.failed, set(), stop))
        await asyncio.sleep(0.3)
        victim.send_signal(signal.SIGTERM)
        for number in range(2):
            (tmp_path / str(number)).mkdir()
            async with process(tmp_path / str(number)):
                await asyncio.sleep(0.2)
        assert await asyncio.to_thread(victim.wait, 30) == 0
        stop.set()
        await load
        cell.needless = sum(cell.failed.values())
        cell.counter, cell.moved = CALLS, await other.scraped(CALLS)
        await other.recovered(cell)


async def test_hang(tmp_path: Path) -> None:
    """SIGSTOP of one of two: its calls end by their deadline, and keepalive takes it out."""
    async with two(tmp_path) as ([(_, victim), (other, _)], stub):
        cell = Cell("process", "hang")
        os.kill(victim.pid, signal.SIGSTOP)

        async def ask() -> str:
            try:
                await stub.Decide(decide(), timeout=1)
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"

        calls = asyncio.create_task(_held(stub))
        began = asyncio.get_running_loop().time()
        streak = 0
        while streak < 10:
            told = await ask()
            streak = streak + 1 if told == "OK" else 0
            if told != "OK":
                cell.failed[told] += 1
        cell.recovery = asyncio.get_running_loop().time() - began
        assert set(cell.failed) <= {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
        os.kill(victim.pid, signal.SIGCONT)
        calls.cancel()
        await asyncio.gather(calls, return_exceptions=True)
        cell.counter, cell.moved = CALLS, await other.scraped(CALLS)
        await other.recovered(cell)


@pytest.mark.slow
async def test_worker_stopped(tmp_path: Path) -> None:
    """SIGSTOP of one of two workers: it is replaced, and calls on new connections wait, but do not fail."""
    async with process(tmp_path, "--workers", "2") as (running, server), AsyncExitStack() as stack:
        cell = Cell("worker", "stopped (SIGSTOP)")
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        victim = int(children.read_text().split()[0])  # noqa: ASYNC240
        before = await running.scraped(REPLACED)
        os.kill(victim, signal.SIGSTOP)

        async def ask() -> None:
            options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(running.address, options))
            try:
                await pb_grpc.BudgetRouterServiceStub(channel).Decide(decide(), timeout=120)
                cell.answered += 1
            except grpc.aio.AioRpcError as error:
                cell.failed[error.code().name] += 1
                cell.needless += 1

        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(ask() for _ in range(16)))
        cell.counter, cell.moved = REPLACED, await running.moves(REPLACED, before)
        assert await running.moves("budget_router_workers", 1), "there are two again"
        cell.recovery = round(asyncio.get_running_loop().time() - began, 3)
        cell.verdict(seconds=2 * PATIENCE)


async def _held(stub: Any) -> None:
    """A call on each connection, so that both are watched."""
    await asyncio.gather(*(stub.Decide(decide(f"{i}")) for i in range(4)), return_exceptions=True)


async def test_slow(tmp_path: Path) -> None:
    """Stopped and resumed ten times a second: slower, and nothing fails."""
    async with process(tmp_path) as (running, server):

        async def pulse() -> None:
            try:
                while True:
                    os.kill(server.pid, signal.SIGSTOP)
                    await asyncio.sleep(0.05)
                    os.kill(server.pid, signal.SIGCONT)
                    await asyncio.sleep(0.05)
            finally:
                os.kill(server.pid, signal.SIGCONT)

        pulsing = asyncio.create_task(pulse())
        cell = await running.under(Cell("process", "slow"), "budget_router_decide_seconds_count")
        pulsing.cancel()
        await asyncio.gather(pulsing, return_exceptions=True)
        await running.recovered(cell)


async def test_full(tmp_path: Path) -> None:
    """It may open no more files: who is connected goes on, new connections wait."""
    async with process(tmp_path) as (running, server):
        await running.generated()
        used = await asyncio.to_thread(lambda: len(list(Path(f"/proc/{server.pid}/fd").iterdir())))
        hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[1]
        counter = "budget_router_decide_seconds_count"
        before = await running.scraped(counter)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used, hard))
        cell = Cell("process", "full")
        for number in range(24):
            try:
                await running.decided(number)
                cell.answered += 1
            except grpc.aio.AioRpcError as error:
                cell.failed[error.code().name] += 1
                cell.needless += 1
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (hard, hard))
        cell.counter, cell.moved = counter, await running.scraped(counter) - before
        await running.recovered(cell)


async def test_garbage(tmp_path: Path) -> None:
    """A replica that is started with a spoilt bundle refuses to; the other one goes on."""
    spoilt = tmp_path / "bundle"
    spoilt.mkdir()
    for file in (MODELS / "pocket-router").iterdir():
        (spoilt / file.name).write_bytes(file.read_bytes()[:-1])
    async with process(tmp_path) as (running, _):
        told = asyncio.to_thread(refused_as_process, tmp_path, "--listen", "127.0.0.1:0", artifact=str(spoilt))
        starting = asyncio.create_task(told)
        cell = await running.under(Cell("process", "garbage"), "budget_router_decide_seconds_count")
        assert "manifest.json" in await starting
        await running.recovered(cell)
