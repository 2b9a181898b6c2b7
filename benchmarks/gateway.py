"""`make envoy-bench`: measures a decision through a real Envoy beside a bare Decide, and what Envoy adds, in one run.

Requests take turns, round by round: Decide by gRPC, and chat requests through Envoy that asks the router, through Envoy
that does not ask, and straight to the engine, which is simulated. CPU is the router's own, from /proc. A stream has 46
events. Prompts are new, so that each is scored, or always the same one, whose score is cached.
"""

import asyncio
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from benchmarks import harness
from benchmarks.engine_bundle import bundle_about
from benchmarks.forwarding import started, until_up
from benchmarks.harness import LOAD_CORE, SERVER_CORE, Target
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from tests.support.envoy import Envoy, envoy_program, gateway
from tests.support.ports import free_port
from tests.support.simulators import MODEL

REQUESTS, AT_ONCE, ROUNDS = 100, 8, 7
NAME = "- name: envoy.filters.http.ext_proc\n                    typed_config"
NO_ROUTER = {NAME: NAME.replace("typed", "disabled: true\n                    typed")}
"""An Envoy that does not ask, in the words of its configuration."""

UNHURRIED = {"message_timeout: 0.2s": "message_timeout: 20s", "connect_timeout: 1s": "connect_timeout: 20s"}
"""One that waits on a busy machine, too: each request must be decided about."""

_numbers = itertools.count()


def new() -> str:
    """A prompt that nobody has asked before."""
    return f"What is {next(_numbers)} times {next(_numbers)}?"


def same() -> str:
    """A prompt that everybody asks."""
    return "2 + 2 ="


async def decide(stub: Any, prompt: Callable[[], str]) -> float:
    """One Decide; returns its seconds."""
    began = time.perf_counter()
    await stub.Decide(pb.DecideRequest(messages=[pb.Message(role=pb.ROLE_USER, content=prompt())]))
    return time.perf_counter() - began


async def chat(session: aiohttp.ClientSession, url: str, prompt: Callable[[], str], *, decided: bool) -> float:
    """One chat request, read to its end; returns seconds to the first event."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": prompt()}], "stream": True}
    began, first, last = time.perf_counter(), 0.0, b""
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        assert ("x-budget-router-rung" in response.headers) == decided, dict(response.headers)
        async for line in response.content:
            first = first or time.perf_counter() - began
            last = line.strip() or last
    assert last == b"data: [DONE]", last
    return first


async def many(one: Callable[[], Awaitable[float]]) -> tuple[list[float], float]:
    """Run REQUESTS requests, AT_ONCE at a time; returns what each gives, and the seconds of all."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def gated() -> float:
        async with gate:
            return await one()

    began = time.perf_counter()
    return await asyncio.gather(*(gated() for _ in range(REQUESTS))), time.perf_counter() - began


async def measure(prompt: Callable[[], str]) -> dict[str, Any]:
    """Microseconds of the router's CPU a request, milliseconds to the first event, requests a second; by way."""
    engine_url, routing = f"http://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = {"BACKEND": "vllm", "BACKEND_URL": engine_url, "BACKEND_MODEL": MODEL, "LISTEN": routing}
    settings |= {"ENVOY": "true", "ENVOY_SECONDS": "20"}
    async with AsyncExitStack() as stack:
        port = engine_url.rpartition(":")[2]
        await stack.enter_async_context(started(LOAD_CORE, "benchmarks.forwarding", "engine", port, "0"))
        await until_up(engine_url)
        own = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings["ARTIFACT"] = str(await bundle_about(engine_url, MODEL, own / "bundle"))
        settings["OUTCOMES"] = str(own / "outcomes.sqlite")
        environment = {f"BUDGET_ROUTER_{name}": value for name, value in settings.items()}
        pid = await stack.enter_async_context(started(SERVER_CORE, "router", "serve", **environment))
        await until_up(f"http://{routing}")
        asking, bare = [
            await stack.enter_async_context(gateway(envoy_program(), routing, engine_url, changes))
            for changes in (UNHURRIED, NO_ROUTER)
        ]
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(routing))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        stub = pb_grpc.BudgetRouterServiceStub(channel)
        ways: dict[str, Callable[[], Awaitable[float]]] = {
            "decide": lambda: decide(stub, prompt),
            "envoy": lambda: chat(session, asking.url, prompt, decided=True),
            "bare_envoy": lambda: chat(session, bare.url, prompt, decided=False),
            "engine": lambda: chat(session, engine_url, prompt, decided=False),
        }
        return await _rounds(ways, pid, asking)


async def _rounds(ways: dict[str, Callable[[], Awaitable[float]]], pid: int, asking: Envoy) -> dict[str, Any]:
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS + 1):
        for name, one in ways.items():
            before = harness.cpu(pid)
            try:
                firsts, seconds = await many(one)
            except AssertionError as error:
                raise SystemExit(f"{name}: {error}; {await asking.counts()}") from error
            found[f"{name}_cpu_us"].append(1e6 * (harness.cpu(pid) - before) / REQUESTS)
            found[f"{name}_first_ms"].append(1000 * statistics.median(firsts))
            found[f"{name}_a_second"].append(REQUESTS / seconds)
    results = {name: harness.spread(values[1:], 2) for name, values in found.items()}
    pairs = zip(found["envoy_cpu_us"], found["decide_cpu_us"], strict=True)
    results["ratio"] = harness.spread([one / bare for one, bare in pairs][1:], 2)
    print(await asking.counts())
    return results


def main() -> list[Target]:
    """Measure, print and store the figures; returns the targets."""
    results: dict[str, Any] = {}
    print(f"{AT_ONCE} at once, {ROUNDS} rounds of {REQUESTS}; streams of 46 events")
    for prompt in (new, same):
        with harness.pinned(LOAD_CORE):
            results[prompt.__name__] = found = asyncio.run(measure(prompt))
        print(f"{prompt.__name__} prompts: {_told(found)}")
    harness.written("gateway", results)
    ratios = {name: found["ratio"]["median"] for name, found in results.items()}
    return [Target(f"CPU through Envoy, {name} prompts, x Decide", 1.3, ratio) for name, ratio in ratios.items()]


def _told(found: Mapping[str, Any]) -> str:
    """The figures in words."""
    middle = {figure: each["median"] for figure, each in found.items()}
    return (
        f"router's CPU {middle['envoy_cpu_us']:.0f} us a request through Envoy, {middle['decide_cpu_us']:.0f} us a "
        f"Decide, ratio {middle['ratio']} ({found['ratio']['least']} to {found['ratio']['most']}); first event after "
        f"{middle['envoy_first_ms']} ms, {middle['bare_envoy_first_ms']} without the router, "
        f"{middle['engine_first_ms']} without Envoy; {middle['envoy_a_second']:.0f}, "
        f"{middle['bare_envoy_a_second']:.0f}, {middle['engine_a_second']:.0f} streams a second"
    )


if __name__ == "__main__":
    main()
