"""Calls of a service that stops or dies: each ends by itself, whatever gRPC tries again meanwhile."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from router.client import AsyncClient, ClientError, Completion, RoutingOptions
from tests.client.conftest import CLIENTS, connected, streamed
from tests.serving.test_serve import Server, running
from tests.support.in_time import in_time

LONG = RoutingOptions(rung="256", min_thinking_tokens=200)
SECONDS, RETRIES = 1.0, 8.0
"""The timeout of calls of a service that is stopped; more than all retries of a call take together."""


@asynccontextmanager
async def clients(server: Server) -> AsyncIterator[list[Any]]:
    """A client of each kind, both connected."""
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(connected(kind, server.address)) for kind in CLIENTS]
        for client in both:
            await client.wait_until_ready(60)
        yield both


async def errors(calls: Sequence[Awaitable[Any]], limit: float) -> list[ClientError]:
    """The errors of calls that must all end in time."""

    async def error(call: Awaitable[Any]) -> ClientError | None:
        try:
            await in_time(call, limit)
        except ClientError as failed:
            return failed
        return None

    return [one for one in await asyncio.gather(*map(error, calls)) if one is not None]


def streaming(client: Any) -> Any:
    """Its `generate`, to be awaited."""
    return partial(streamed, client)


def begun(client: Any) -> tuple[Awaitable[Any], Awaitable[None]]:
    """A long stream, and its first event."""
    first, loop = asyncio.Event(), asyncio.get_running_loop()

    async def read() -> None:
        async for _ in client.generate("1 + 1 =", options=LONG):
            first.set()

    def read_blocking() -> None:
        for _ in client.client.generate("1 + 1 =", options=LONG):
            loop.call_soon_threadsafe(first.set)

    reading = read() if isinstance(client, AsyncClient) else asyncio.to_thread(read_blocking)
    return asyncio.create_task(reading), first.wait()  # type: ignore[return-value]


async def test_a_deadline_holds_though_the_service_is_stopped(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with clients(server) as both:
            os.kill(server.process.pid, signal.SIGSTOP)
            calls = [call("1", timeout=SECONDS) for one in both for call in (one.decide, streaming(one))]
            assert [one.code for one in await errors(calls, SECONDS)] == ["DEADLINE_EXCEEDED"] * 4
            os.kill(server.process.pid, signal.SIGCONT)
            for client in both:
                assert isinstance((await streamed(client, "1 + 1 ="))[-1], Completion)


async def test_no_call_hangs_though_the_service_is_killed(tmp_path: Path) -> None:
    """Those that nothing was answered to are tried again, and find nobody; those in their middle are not."""
    with running(tmp_path) as server:
        async with clients(server) as both:
            streams, firsts = zip(*(begun(client) for client in both * 2), strict=True)
            await in_time(asyncio.gather(*firsts), RETRIES)
            os.kill(server.process.pid, signal.SIGSTOP)
            calls = [asyncio.create_task(call("1")) for one in both for call in (one.decide, streaming(one))]
            await asyncio.sleep(0.2)  # so that they are sent
            server.process.kill()
            cut_off = f"{server.address} closed the connection in the middle of the call"
            assert {str(one) for one in await errors(streams, RETRIES)} <= {cut_off}
            assert [one.code for one in await errors(calls, RETRIES)] == ["UNAVAILABLE"] * 4
