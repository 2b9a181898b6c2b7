"""`make forwarding`: measures a stream through the router beside a bare pass-through of the same stream, in one run.

Five ways take turns in front of a simulated engine: the router by gRPC and by its OpenAI-compatible API, another router
by gRPC that joins the deltas of WINDOW milliseconds, an aiohttp server that copies bytes, and a bare gRPC server that
forwards what it reads, which shows the share of gRPC itself. Rounds are short, so that all meet the same machine. All
servers run on uvloop. CPU is the process's own, from /proc. A stream has 46 events, which arrive in a burst as fast as
they are read, or a few milliseconds apart, as tokens do. What comes before the first event is measured of streams that
come one after another, at an engine whose first token takes a while: streams that share one core wait for one another.
"""

import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import uvloop
from aiohttp import web

from benchmarks import harness
from benchmarks.engine_bundle import bundle_about
from benchmarks.harness import LOAD_CORE, SERVER_CORE, Target
from benchmarks.load import SERVICE
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from tests.support.ports import free_port
from tests.support.simulators import ANSWER, ENGINES, MODEL, Simulator

STREAMS, AT_ONCE, ROUNDS = 60, 8, 15
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "2 + 2 ="}], "stream": True, "max_tokens": 1000}
PAUSES = {"in a burst": 0.0, "5 ms apart": 0.005}
"""Seconds between events, by name."""

WINDOW = 10
"""Milliseconds."""

RATIOS = {"ratio": "router", "window_ratio": "window", "http_ratio": "http", "grpc_ratio": "bare_grpc"}
"""The figures that compare a way with the pass-through."""

TARGETS = {
    ("in a burst", "ratio"): 2.1,
    ("5 ms apart", "ratio"): 3.3,
    ("5 ms apart", "window_ratio"): 2.7,
    ("in a burst", "http_ratio"): 2.5,
    ("5 ms apart", "http_ratio"): 2.5,
}
"""Times the CPU of a pass-through, by pace and way."""

FIRST_SECONDS, ONE_BY_ONE = 0.05, 60
"""Seconds before the first event of an engine, and streams one after another that are measured up to theirs."""

Clock = Callable[[], float]
Way = tuple[int, Callable[[Clock], Awaitable[float]]]
"""The process that is measured, and one stream, which gives the seconds up to its first event by a clock."""

_numbers = itertools.count()


def engine(port: int, pause: float, first: float) -> None:
    """The simulated vLLM, with `first` seconds before its events and `pause` seconds between them."""
    simulator = Simulator("vllm", pause=pause, first=first)
    web.run_app(ENGINES["vllm"](simulator), host="127.0.0.1", port=port, print=None)


def bare(port: int, url: str) -> None:
    """A server that copies bytes."""

    session = web.AppKey("session", aiohttp.ClientSession)

    async def chat(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        body = await request.read()
        headers = {"Content-Type": "application/json"}
        async with request.app[session].post(url + request.path, data=body, headers=headers) as given:
            await answer.prepare(request)
            async for chunk in given.content.iter_any():
                await answer.write(chunk)
        return answer

    async def start(app: web.Application) -> AsyncIterator[None]:
        app[session] = aiohttp.ClientSession()
        yield
        await app[session].close()

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    app.cleanup_ctx.append(start)
    web.run_app(app, host="127.0.0.1", port=port, print=None, loop=uvloop.new_event_loop())


async def bare_grpc(port: int, url: str) -> None:
    """A gRPC server that forwards what it reads as messages, without parsing it."""
    headers = {"Content-Type": "application/json"}
    body = json.dumps(BODY).encode()
    async with aiohttp.ClientSession() as session:

        async def generate(request: bytes, context: Any) -> AsyncIterator[bytes]:
            async with session.post(f"{url}/v1/chat/completions", data=body, headers=headers) as given:
                async for chunk in given.content.iter_any():
                    yield pb.GenerateResponse(content=chunk.decode()).SerializeToString()

        server = grpc.aio.server()
        method: Any = grpc.unary_stream_rpc_method_handler(generate)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Generate": method})])
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await server.wait_for_termination()


async def many(one: Callable[[], Awaitable[float]]) -> list[float]:
    """Run STREAMS streams, AT_ONCE at a time; returns seconds to the first event of each."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def gated() -> float:
        async with gate:
            return await one()

    return await asyncio.gather(*(gated() for _ in range(STREAMS)))


async def through_grpc(channel: grpc.aio.Channel, last: str, clock: Clock) -> float:
    """Run one stream through router or bare gRPC server up to its `last` event; returns seconds to the first delta."""
    stub = pb_grpc.BudgetRouterServiceStub(channel)
    began, first, said = clock(), 0.0, ""
    request = pb.GenerateRequest(messages=[pb.Message(role=pb.ROLE_USER, content="2 + 2 =")])
    request.options.max_loss = 0.0  # no certificate covers this target, so the policy takes the top rung
    async for event in stub.Generate(request):
        if not first and event.WhichOneof("event") in ("reasoning", "content"):
            first = clock() - began
        said += event.content
    assert event.WhichOneof("event") == last and all(word in said for word in ANSWER), event
    return first


async def through_http(
    session: aiohttp.ClientSession, url: str, clock: Clock, prompt: str = "2 + 2 =", **wishes: Any
) -> float:
    """Run one stream through the pass-through or the router's OpenAI API; returns seconds to the first event."""
    asked = BODY | {"messages": [{"role": "user", "content": prompt}]} | wishes
    began, first, last = clock(), 0.0, b""
    async with session.post(f"{url}/v1/chat/completions", json=asked) as response:
        async for line in response.content:
            first = first or clock() - began
            last = line.strip() or last
    assert last == b"data: [DONE]", last
    return first


@asynccontextmanager
async def started(core: int, *command: str, **environment: str) -> AsyncIterator[int]:
    """Run a child process on a core, yield its pid, and stop it by that pid."""
    quiet = asyncio.subprocess.DEVNULL
    with harness.pinned(core):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *command, env=os.environ | environment, stdout=quiet, stderr=quiet
        )
    try:
        yield process.pid
    finally:
        with suppress(ProcessLookupError):  # a benchmark may have killed it
            process.terminate()
        await process.wait()


async def until_up(url: str) -> None:
    """Wait until a port accepts connections."""
    for _ in range(200):
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
            writer.close()
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"{url} does not come up")


@asynccontextmanager
async def ways(pause: float, first: float) -> AsyncIterator[dict[str, Way]]:
    """The ways through running servers, by name, to an engine of that pace."""
    urls = upstream, passing, routing, joining, fronting, copying = [
        f"http://127.0.0.1:{free_port()}" for _ in "123456"
    ]
    port = {url: url.rsplit(":", 1)[1] for url in urls}

    def router(listen: str, **more: str) -> AbstractAsyncContextManager[int]:
        given = {"BACKEND": "vllm", "BACKEND_URL": upstream, "BACKEND_MODEL": MODEL, "ARTIFACT": bundle}
        given |= {"LISTEN": f"127.0.0.1:{port[listen]}", "OUTCOMES": f"{own}/{port[listen]}.sqlite", **more}
        environment = {f"BUDGET_ROUTER_{name}": value for name, value in given.items()}
        return started(SERVER_CORE, "router", "serve", **environment)

    async with (
        AsyncExitStack() as stack,
        started(LOAD_CORE, "benchmarks.forwarding", "engine", port[upstream], str(pause), str(first)),
        started(SERVER_CORE, "benchmarks.forwarding", "bare", port[passing], upstream) as bare_pid,
    ):
        await until_up(upstream)
        own = stack.enter_context(tempfile.TemporaryDirectory())
        bundle = str(await bundle_about(upstream, MODEL, Path(own) / "bundle"))
        async with (
            router(routing, HTTP_LISTEN=f"127.0.0.1:{port[fronting]}") as router_pid,
            router(joining, STREAM_WINDOW_MS=str(WINDOW)) as joining_pid,
            started(SERVER_CORE, "benchmarks.forwarding", "grpc", port[copying], upstream) as grpc_pid,
            grpc.aio.insecure_channel(f"127.0.0.1:{port[routing]}") as routed,
            grpc.aio.insecure_channel(f"127.0.0.1:{port[joining]}") as joined,
            grpc.aio.insecure_channel(f"127.0.0.1:{port[copying]}") as copied,
            aiohttp.ClientSession() as session,
        ):
            for url in (passing, routing, joining, fronting, copying):
                await until_up(url)
            front = partial(through_http, session, fronting, budget_router={"max_loss": 0})
            yield {
                "router": (router_pid, partial(through_grpc, routed, "completion")),
                "window": (joining_pid, partial(through_grpc, joined, "completion")),
                "http": (router_pid, front),
                "http_new": (router_pid, lambda clock: front(clock, prompt=_new())),
                "bare": (bare_pid, partial(through_http, session, passing)),
                "bare_grpc": (grpc_pid, partial(through_grpc, copied, "content")),
            }


def _new() -> str:
    """A prompt whose score is in no cache."""
    return f"What is {next(_numbers)} times {next(_numbers)}?"


async def measure(pause: float) -> dict[str, Any]:
    """CPU milliseconds per stream of all ways, interleaved by round; ratios; time to the first event."""
    found: dict[str, list[float]] = defaultdict(list)
    async with ways(pause, 0.0) as running:
        del running["http_new"]
        for _ in range(ROUNDS + 1):
            for name, (pid, one) in running.items():
                before = harness.cpu(pid)
                firsts = await many(partial(one, time.perf_counter))
                found[name].append(1000 * (harness.cpu(pid) - before) / STREAMS)
                found[f"{name}_first"].append(1000 * statistics.median(firsts))
    results: dict[str, Any] = {f"{name}_ms": harness.spread(values[1:], 2) for name, values in found.items()}
    for name, way in RATIOS.items():
        ratios = [one / bare for one, bare in zip(found[way], found["bare"], strict=True)]
        results[name] = harness.spread(ratios[1:], 2)
    return results


async def first_events() -> dict[str, Any]:
    """Milliseconds that pass up to the first event of streams one after another, and those of the server's CPU."""
    found: dict[str, list[float]] = defaultdict(list)
    async with ways(0.0, FIRST_SECONDS) as running:
        for turn in range(ONE_BY_ONE + 5):
            for name, (pid, one) in running.items():
                passed, used = await one(time.perf_counter), await one(partial(harness.cpu, pid))
                if turn >= 5:  # the first ones warm up
                    found[f"{name}_ms"].append(1000 * passed)
                    found[f"{name}_cpu_ms"].append(1000 * used)
    return {name: round(statistics.median(values), 2) for name, values in found.items()}


def main() -> list[Target]:
    """Measure, print and store the figures; or run as one of the servers."""
    match sys.argv[1:]:
        case ["engine", port, pause, first]:
            engine(int(port), float(pause), float(first))
        case ["bare", port, url]:
            bare(int(port), url)
        case ["grpc", port, url]:
            uvloop.run(bare_grpc(int(port), url))
        case _:
            return report()
    return []


def report() -> list[Target]:
    """Measure both paces of the engine; returns the targets."""
    results: dict[str, Any] = {}
    print(f"CPU per stream of 46 events, {AT_ONCE} streams at once, {ROUNDS} rounds of {STREAMS}")
    for name, pause in PAUSES.items():
        with harness.pinned(LOAD_CORE):
            results[name] = found = asyncio.run(measure(pause))
        middle = {figure: each["median"] for figure, each in found.items()}
        print(
            f"{name}: first event {middle['router_first_ms']} and by HTTP {middle['http_first_ms']} against "
            f"{middle['bare_first_ms']} ms; pass-through {middle['bare_ms']} ms of CPU"
        )
        for figure, way in RATIOS.items():
            ratio = found[figure]
            print(f"  {way}: {middle[f'{way}_ms']} ms, {ratio['median']} times ({ratio['least']} to {ratio['most']})")
    with harness.pinned(LOAD_CORE):
        firsts = asyncio.run(first_events())
    for name in ("router", "http", "http_new", "bare_grpc", "bare"):
        print(f"first event, {name}: {firsts[f'{name}_ms']} ms, CPU until then {firsts[f'{name}_cpu_ms']} ms")
    harness.written("forwarding", results | {"first event": firsts})
    added = firsts["http_new_ms"] - firsts["bare_ms"]
    return [
        *(
            Target(f"stream, {figure}, events {name}, x pass-through", asked, results[name][figure]["median"])
            for (name, figure), asked in TARGETS.items()
        ),
        Target("first event by HTTP, ms beside a pass-through", 5, round(added, 2)),
    ]


if __name__ == "__main__":
    main()
