"""Clients: what one of them does, the others do not notice."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from tests.faults.conftest import Cell, Scene, scene
from tests.rpc.conftest import ROUTING, generate

LONG = pb.RoutingOptions(rung="256", min_thinking_tokens=200)
CALLS = "budget_router_calls_total"
OWN = (("grpc.use_local_subchannel_pool", 1),)
"""A connection of its own, as another process has: channels of one process to one address share theirs."""


async def leaves(running: Scene) -> None:
    """Goes away in the middle of a stream."""
    call = running.routing.Generate(generate(options=LONG))
    await call.read()
    call.cancel()


async def hangs(running: Scene) -> None:
    """Asks, and never reads."""
    call = running.routing.Generate(generate(options=LONG), timeout=1.0)
    await asyncio.sleep(1.5)
    call.cancel()


async def reads_slowly(running: Scene) -> None:
    async for _ in running.routing.Generate(generate(options=pb.RoutingOptions(rung="16"))):
        await asyncio.sleep(0.02)


async def sends_garbage(running: Scene) -> None:
    async with grpc.aio.insecure_channel(running.address, OWN) as channel:
        for method in ("Decide", "Generate", "Explain", "Nothing"):
            data = random.randbytes(random.randrange(1, 2_000))
            path, untyped = f"{ROUTING}/{method}", cast(Any, channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                if method == "Generate":
                    _ = [reply async for reply in untyped.unary_stream(path)(data)]
                else:
                    await untyped.unary_unary(path)(data)
            assert caught.value.code().name in ("INVALID_ARGUMENT", "UNIMPLEMENTED")


async def speaks_no_grpc(running: Scene) -> None:
    host, port = running.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" + random.randbytes(1_000))
    writer.close()


async def comes_and_goes(running: Scene) -> None:
    for _ in range(10):
        async with grpc.aio.insecure_channel(running.address, OWN) as channel:
            call = cast(Any, pb_grpc.BudgetRouterServiceStub(channel)).Generate(generate(options=LONG))
            await asyncio.sleep(0.005)
            call.cancel()


@pytest.mark.parametrize(
    ("fault", "counter"),
    [
        (leaves, 'budget_router_broken_streams_total{cause="caller"}'),
        (hangs, CALLS),
        (reads_slowly, CALLS),
        (sends_garbage, 'budget_router_calls_total{code="INVALID_ARGUMENT",method="Decide"}'),
        (speaks_no_grpc, CALLS),
        (comes_and_goes, CALLS),
    ],
)
async def test_others_do_not_notice(tmp_path: Path, fault: Callable[[Scene], Awaitable[None]], counter: str) -> None:
    async with scene(tmp_path) as running:
        before = await running.scraped(counter)
        bad = [asyncio.create_task(_again(fault, running)) for _ in range(4)]
        cell = await running.under(Cell("client", fault.__name__.replace("_", " ")), counter)
        await asyncio.sleep(0.3)
        for task in bad:
            task.cancel()
        ends = await asyncio.gather(*bad, return_exceptions=True)
        assert not [end for end in ends if isinstance(end, Exception)], ends
        cell.moved = await running.scraped(counter) - before
        await running.recovered(cell, lambda: _idle(running))


async def test_a_flood_is_shed_and_others_are_served(tmp_path: Path) -> None:
    tenants = tmp_path / "tenants.toml"
    tenants.write_text("[default]\n[flood]\nstreams = 2\n")
    counter = 'budget_router_shed_total{cause="quota",tenant="flood"}'
    async with scene(tmp_path, tenants=tenants) as running:

        async def floods() -> None:
            try:
                _ = [event async for event in running.routing.Generate(generate(tenant="flood", options=LONG))]
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                await asyncio.sleep(0.01)

        flood = [asyncio.create_task(_again(lambda _: floods(), running)) for _ in range(20)]
        await asyncio.sleep(0.2)
        cell = await running.under(Cell("client", "floods"), counter)
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        cell.moved = await running.scraped(counter)
        await running.recovered(cell, lambda: _idle(running))


async def _again(fault: Callable[[Scene], Awaitable[None]], running: Scene) -> None:
    while True:
        await fault(running)
        await asyncio.sleep(0.05)


async def _idle(running: Scene) -> bool:
    """Nothing runs any more for those who left."""
    return await running.scraped("budget_router_token_backlog") == 0
