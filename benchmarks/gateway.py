"""`make envoy-bench`: measures a decision through a real Envoy beside a bare Decide, and what Envoy adds, in one run.

Requests take turns, round by round: chat requests through Envoy that asks the router; a Decide by gRPC and then the
same request through Envoy that does not ask; that request alone; and straight to the engine, which is simulated. So
both ways decide at the same pace. At a higher one several calls share the work of gRPC: a Decide, and Envoy's message
without an Envoy, are measured so as well. CPU is the router's own, from /proc. A stream has 46 events. Prompts are
new, so that each is scored, or always the same one, whose score is cached.

Then the router is slow, hangs or is killed while requests pass.
"""

import asyncio
import itertools
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import grpc

from benchmarks import gateway_faults, harness
from benchmarks.gateway_chain import UNHURRIED, chain
from benchmarks.harness import LOAD_CORE, Target
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router._gen import external_processor_pb2 as ext_proc
from router.envoy.processor import METHOD, SERVICE
from tests.support.envoy import Envoy
from tests.support.ext_proc import told_message
from tests.support.simulators import MODEL

REQUESTS, AT_ONCE, ROUNDS = 100, 8, 7
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


async def message(channel: grpc.aio.Channel, prompt: Callable[[], str]) -> float:
    """What Envoy sends about one request, and nothing else; returns the seconds."""
    began, body = time.perf_counter(), json.dumps(body_of(prompt())).encode()
    call: Any = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
    await call.write(told_message(body).SerializeToString())
    answer = ext_proc.ProcessingResponse.FromString(await call.read())
    assert answer.request_body.response.body_mutation.body, answer
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    return time.perf_counter() - began


def body_of(prompt: str) -> dict[str, Any]:
    """The body of a chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "stream": True}


async def chat(session: aiohttp.ClientSession, url: str, prompt: Callable[[], str], *, decided: bool) -> float:
    """One chat request, read to its end; returns seconds to the first event."""
    began, first, last = time.perf_counter(), 0.0, b""
    async with session.post(f"{url}/v1/chat/completions", json=body_of(prompt())) as response:
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
    async with chain(UNHURRIED, ENVOY_SECONDS="20") as at, grpc.aio.insecure_channel(at.routing) as channel:
        stub = pb_grpc.BudgetRouterServiceStub(channel)

        async def asked_before() -> float:
            """The caller asks for the budget by itself, and then sends its request past the router."""
            await decide(stub, prompt)
            return await chat(at.session, at.bare.url, prompt, decided=False)

        ways: dict[str, Callable[[], Awaitable[float]]] = {
            "decide": asked_before,
            "envoy": lambda: chat(at.session, at.asking.url, prompt, decided=True),
            "shown": lambda: chat(at.session, at.showing.url, prompt, decided=True),
            "bare_envoy": lambda: chat(at.session, at.bare.url, prompt, decided=False),
            "engine": lambda: chat(at.session, at.engine, prompt, decided=False),
            "decide_alone": lambda: decide(stub, prompt),
            "message_alone": lambda: message(channel, prompt),
        }
        return await _rounds(ways, at.pid, at.asking)


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
    for name, asked, bare in (("ratio", "envoy", "decide"), ("ratio_alone", "message_alone", "decide_alone")):
        pairs = zip(found[f"{asked}_cpu_us"], found[f"{bare}_cpu_us"], strict=True)
        results[name] = harness.spread([through / direct for through, direct in pairs][1:], 2)
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
    with harness.pinned(LOAD_CORE):
        results["faults"] = asyncio.run(gateway_faults.measure())
    harness.written("gateway", results)
    ratios = {prompt.__name__: results[prompt.__name__]["ratio"]["median"] for prompt in (new, same)}
    return [Target(f"CPU through Envoy, {name} prompts, x Decide", 1.3, ratio) for name, ratio in ratios.items()]


def _told(found: Mapping[str, Any]) -> str:
    """The figures in words."""
    middle = {figure: each["median"] for figure, each in found.items()}
    ratio, alone = found["ratio"], found["ratio_alone"]
    return (
        f"router's CPU {middle['envoy_cpu_us']:.0f} us a request through Envoy, {middle['decide_cpu_us']:.0f} us a "
        f"Decide at that pace, ratio {ratio['median']} ({ratio['least']} to {ratio['most']}); without pause "
        f"{middle['message_alone_cpu_us']:.0f} us a message of Envoy, {middle['decide_alone_cpu_us']:.0f} us a Decide, "
        f"ratio {alone['median']} ({alone['least']} to {alone['most']}); {middle['shown_cpu_us']:.0f} us where "
        f"responses are shown; first event after {middle['envoy_first_ms']} ms, {middle['bare_envoy_first_ms']} "
        f"without the router, {middle['engine_first_ms']} without Envoy; {middle['envoy_a_second']:.0f}, "
        f"{middle['bare_envoy_a_second']:.0f}, {middle['engine_a_second']:.0f} streams a second"
    )


if __name__ == "__main__":
    main()
