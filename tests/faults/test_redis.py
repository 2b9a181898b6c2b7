"""Redis: what goes wrong with it costs misses and counts by each replica, never a request."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.faults.conftest import Cell, Proxy, Scene, scene
from tests.support.valkey import Valkey

CACHE = 'budget_router_degraded_total{dependency="cache"}'


@asynccontextmanager
async def shared(directory: Path, port: int) -> AsyncIterator[Scene]:
    """A service whose cache and quotas are in Redis; the near cache is too small to hide it."""
    tenants = directory / "tenants.toml"
    tenants.write_text("[default]\nstreams = 1000\n")
    url = f"redis://127.0.0.1:{port}"
    given: dict[str, Any] = {"redis_url": url, "cache_secret": "s", "redis_timeout": 0.05, "tenants": tenants}
    async with scene(directory, cache_entries=1, **given) as running:
        yield running


@pytest.mark.parametrize(
    ("fault", "spoil", "mend"), [("down", Valkey.kill, Valkey.start), ("hang", Valkey.pause, Valkey.resume)]
)
async def test_the_server(
    tmp_path: Path, valkey: Valkey, fault: str, spoil: Callable[[Valkey], None], mend: Callable[[Valkey], None]
) -> None:
    async with shared(tmp_path, valkey.port) as running:
        spoil(valkey)
        cell = await running.under(Cell("Redis", fault), CACHE)
        mend(valkey)
        await running.recovered(cell, lambda: _no_more(running))


@pytest.mark.parametrize("mode", ["slow", "garbage"])
async def test_spoilt(tmp_path: Path, valkey: Valkey, mode: str) -> None:
    proxy = Proxy(valkey.port)
    await proxy.start()
    async with shared(tmp_path, proxy.port) as running:
        proxy.mode = mode
        cell = await running.under(Cell("Redis", mode), CACHE)
        proxy.mode = "pass"
        proxy.cut()
        await running.recovered(cell, lambda: _no_more(running))
    await proxy.stop()


async def test_flapping(tmp_path: Path, valkey: Valkey) -> None:
    proxy = Proxy(valkey.port)
    await proxy.start()

    async def flap() -> None:
        while True:
            proxy.mode = "refuse" if proxy.mode == "pass" else "pass"
            proxy.cut()
            await asyncio.sleep(0.05)

    async with shared(tmp_path, proxy.port) as running:
        flapping = asyncio.create_task(flap())
        cell = await running.under(Cell("Redis", "flapping"), CACHE, requests=60)
        flapping.cancel()
        proxy.mode = "pass"
        await running.recovered(cell, lambda: _no_more(running))
    await proxy.stop()


async def test_full(tmp_path: Path, valkey: Valkey) -> None:
    redis = Redis(port=valkey.port)
    async with shared(tmp_path, valkey.port) as running:
        await redis.config_set("maxmemory", "1")
        cell = await running.under(Cell("Redis", "full"), CACHE)
        await redis.config_set("maxmemory", "0")
        await running.recovered(cell, lambda: _no_more(running))
    await redis.aclose()


async def _no_more(running: Scene) -> bool:
    """Requests go on without a word about Redis."""
    before = await running.scraped("budget_router_degraded_total")
    await running.decided()
    await running.generated()
    return await running.scraped("budget_router_degraded_total") == before
