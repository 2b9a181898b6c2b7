"""What requests through Envoy cost while the router is slow, hangs or is gone; a part of `make envoy-bench`.

Envoy waits .2 s for the router, as deploy/envoy has it. A slow router is stopped for 150 of every 200 ms.
"""

import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from benchmarks.gateway_chain import Chain, chain
from tests.support.simulators import MODEL

REQUESTS, AT_ONCE = 200, 8
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "2 + 2 ="}], "stream": True}
STOPPED, RUNNING = 0.15, 0.05
State = Callable[[int], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def _slow(pid: int) -> AsyncIterator[None]:
    async def stop_and_go() -> None:
        while True:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(STOPPED)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(RUNNING)

    task = asyncio.create_task(stop_and_go())
    try:
        yield
    finally:
        task.cancel()
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def _hung(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def _killed(pid: int) -> AsyncIterator[None]:
    os.kill(pid, signal.SIGKILL)
    yield


STATES: Mapping[str, State] = {"up": lambda pid: nullcontext(), "slow": _slow, "hung": _hung, "killed": _killed}
"""What becomes of the router, the worst at the end."""


async def measure() -> dict[str, dict[str, float]]:
    """For each state: requests a second, milliseconds to the first event, and what Envoy counted. All requests end."""
    async with chain({}) as at:
        found = {"no_router": await _passed(at, at.bare.url)}
        for name, state in STATES.items():
            before = await at.asking.counts()
            async with state(at.pid):
                found[name] = await _passed(at, at.asking.url)
            after = await at.asking.counts()
            for count in ("failure_mode_allowed", "message_timeouts"):
                found[name][count] = after.get(count, 0) - before.get(count, 0)
            print(f"router {name}: {found[name]}")
            await asyncio.sleep(1)  # for a router that goes on
    return found


async def _passed(at: Chain, url: str) -> dict[str, float]:
    """Send requests AT_ONCE at a time; each must be answered to its end."""
    gate, firsts, decided = asyncio.Semaphore(AT_ONCE), [], 0

    async def one() -> None:
        nonlocal decided
        async with gate:
            began = time.perf_counter()
            async with at.session.post(f"{url}/v1/chat/completions", json=CHAT) as response:
                decided += "x-budget-router-rung" in response.headers
                await response.content.readline()
                firsts.append(1000 * (time.perf_counter() - began))
                assert response.status == 200 and (await response.text()).endswith("data: [DONE]\n\n")

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(REQUESTS)))
    return {
        "a_second": round(REQUESTS / (time.perf_counter() - began)),
        "first_ms": round(statistics.median(firsts), 1),
        "first_ms_p99": round(statistics.quantiles(firsts, n=100)[98], 1),
        "decided": decided,
    }
