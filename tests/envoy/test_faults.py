"""A router that is late, hangs or is gone: requests go on at the engine's default, and Envoy counts them."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from benchmarks.engine_bundle import bundle_about
from tests.serving.test_serve import Server
from tests.support.envoy import Envoy, gateway
from tests.support.simulators import MODEL, Simulator, simulated

pytestmark = pytest.mark.slow  # a router as a process of its own, which is stopped and killed

AT_ONCE, SECONDS = 8, 10.0
"""Requests under load, and how long one may take on busy cores: a tenth is what Envoy waits for."""

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "2 + 2 ="}], "stream": True}


@asynccontextmanager
async def chain(program: str, own: Path, **given: str) -> AsyncIterator[tuple[Server, Envoy, Simulator]]:
    """A router as a process, Envoy that waits a second for it, and an engine."""
    async with simulated("vllm") as engine:
        bundle = await bundle_about(engine.url, MODEL, own / "bundle")
        settings = {"BACKEND": "vllm", "BACKEND_URL": engine.url, "BACKEND_MODEL": MODEL, "ENVOY": "true"}
        settings |= {"ARTIFACT": str(bundle), "ENVOY_SECONDS": "5"} | given
        router = await asyncio.to_thread(lambda: Server(own, **settings))
        try:
            changes = {"message_timeout: 0.2s": "message_timeout: 1s"}
            async with gateway(program, router.address, engine.url, changes) as envoy:
                yield router, envoy, engine
        finally:
            router.close()


async def under_load(envoy: Envoy) -> int:
    """Send requests at once; how many of them were decided about. All of them are answered, and none is late."""

    async def one(session: aiohttp.ClientSession) -> bool:
        began = time.perf_counter()
        async with session.post(f"{envoy.url}/v1/chat/completions", json=CHAT) as response:
            assert response.status == 200 and (await response.text()).endswith("data: [DONE]\n\n")
        assert time.perf_counter() - began < SECONDS
        return "x-budget-router-rung" in response.headers

    async with aiohttp.ClientSession() as session:
        return sum(await asyncio.gather(*(one(session) for _ in range(AT_ONCE))))


async def test_requests_go_on_whatever_becomes_of_the_router(envoy_binary: str, tmp_path: Path) -> None:
    async with chain(envoy_binary, tmp_path) as (router, envoy, engine):
        assert await under_load(envoy) == AT_ONCE
        router.process.send_signal(signal.SIGSTOP)
        assert await under_load(envoy) == 0
        counts = await envoy.counts()
        assert counts["message_timeouts"] == counts["failure_mode_allowed"] == AT_ONCE
        router.process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            while not await under_load(envoy):
                pass
        router.process.kill()
        router.process.wait()
        before = (await envoy.counts())["failure_mode_allowed"]
        assert await under_load(envoy) == 0
        assert (await envoy.counts())["failure_mode_allowed"] == before + AT_ONCE
        assert "thinking_token_budget" not in engine.bodies[-1][1]
