"""`make forwarding`: what a stream costs in the router, beside a bare pass-through of the same stream in the same run.

A simulated engine, and in front of it in turn: the router, an aiohttp server that copies bytes, and a bare gRPC server
that sends on what it reads, which is what gRPC itself makes of a stream. All three run on uvloop. CPU is the process's
own, from /proc; streams have 46 events, which come in a burst as fast as they are read, or a few milliseconds apart, as
tokens do.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import grpc
import uvloop
from aiohttp import web

from benchmarks import harness
from benchmarks.harness import Target
from benchmarks.load import SERVICE
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from tests.conftest import free_port
from tests.simulators import ENGINES, MODEL, Simulator

STREAMS, AT_ONCE, ROUNDS = 300, 8, 5
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "2 + 2 ="}], "stream": True, "max_tokens": 1000}
PAUSES = {"in a burst": 0.0, "5 ms apart": 0.005}
"""Seconds between events, by name."""


def engine(port: int, pause: float) -> None:
    """The simulated vLLM, with `pause` seconds between events."""
    web.run_app(ENGINES["vllm"](Simulator("vllm", pause=pause)), host="127.0.0.1", port=port, print=None)


def bare(port: int, url: str) -> None:
    """Copies bytes."""

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
    """Sends on what it reads, unread, as messages."""
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
    """STREAMS streams, AT_ONCE at once; seconds to the first event of each."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def gated() -> float:
        async with gate:
            return await one()

    return await asyncio.gather(*(gated() for _ in range(STREAMS)))


async def through_grpc(channel: grpc.aio.Channel) -> float:
    """One stream through the router or the bare gRPC server: seconds to the first delta."""
    stub = pb_grpc.BudgetRouterServiceStub(channel)
    started, first = time.perf_counter(), 0.0
    request = pb.GenerateRequest(messages=[pb.Message(role=pb.ROLE_USER, content="2 + 2 =")])
    request.options.rung = "256"
    async for event in stub.Generate(request):
        if not first and event.WhichOneof("event") in ("reasoning", "content"):
            first = time.perf_counter() - started
    return first


async def through_bytes(session: aiohttp.ClientSession, url: str) -> float:
    """One stream through the pass-through: seconds to the first event."""
    started, first = time.perf_counter(), 0.0
    async with session.post(f"{url}/v1/chat/completions", json=BODY) as response:
        async for _ in response.content:
            first = first or time.perf_counter() - started
    return first


@asynccontextmanager
async def started(*command: str, **environment: str) -> AsyncIterator[int]:
    """A child process's pid; stopped by it."""
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, env=os.environ | environment, stdout=quiet, stderr=quiet
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


async def until_up(url: str) -> None:
    """Wait for a port to accept."""
    for _ in range(200):
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
            writer.close()
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"{url} does not come up")


async def measure(pause: float) -> dict[str, float]:
    """Milliseconds of CPU per stream in both, interleaved round by round, and of the first event."""
    upstream, passing, routing, copying = (f"http://127.0.0.1:{free_port()}" for _ in range(4))
    port = {url: url.rsplit(":", 1)[1] for url in (upstream, passing, routing, copying)}
    ours = {"BACKEND": "vllm", "BACKEND_URL": upstream, "BACKEND_MODEL": MODEL, "LISTEN": f"127.0.0.1:{port[routing]}"}
    settings = {f"BUDGET_ROUTER_{name}": value for name, value in ours.items()}
    async with (
        started("benchmarks.forwarding", "engine", port[upstream], str(pause)),
        started("benchmarks.forwarding", "bare", port[passing], upstream) as bare_pid,
    ):
        await until_up(upstream)
        async with (
            started("router", "serve", **settings) as router_pid,
            started("benchmarks.forwarding", "grpc", port[copying], upstream) as grpc_pid,
            grpc.aio.insecure_channel(f"127.0.0.1:{port[routing]}") as routed,
            grpc.aio.insecure_channel(f"127.0.0.1:{port[copying]}") as copied,
            aiohttp.ClientSession() as session,
        ):
            for url in (passing, routing, copying):
                await until_up(url)
            found: dict[str, list[float]] = defaultdict(list)
            for _ in range(ROUNDS + 1):
                for name, pid, one in (
                    ("router", router_pid, lambda: through_grpc(routed)),
                    ("bare", bare_pid, lambda: through_bytes(session, passing)),
                    ("bare_grpc", grpc_pid, lambda: through_grpc(copied)),
                ):
                    before = harness.cpu(pid)
                    firsts = await many(one)
                    found[name].append(1000 * (harness.cpu(pid) - before) / STREAMS)
                    found[f"{name}_first"].append(1000 * statistics.median(firsts))
    return {f"{name}_ms": round(statistics.median(values[1:]), 2) for name, values in found.items()}


def main() -> list[Target]:
    """Measure, print and keep; or be one of the servers."""
    match sys.argv[1:]:
        case ["engine", port, pause]:
            engine(int(port), float(pause))
        case ["bare", port, url]:
            bare(int(port), url)
        case ["grpc", port, url]:
            uvloop.run(bare_grpc(int(port), url))
        case _:
            return report()
    return []


def report() -> list[Target]:
    """Both paces of the engine."""
    told: dict[str, Any] = {}
    print(f"CPU per stream of 46 events, {AT_ONCE} streams at once, {ROUNDS} rounds of {STREAMS}")
    for name, pause in PAUSES.items():
        found = asyncio.run(measure(pause))
        found["ratio"] = round(found["router_ms"] / found["bare_ms"], 2)
        found["grpc_ratio"] = round(found["bare_grpc_ms"] / found["bare_ms"], 2)
        told[name] = found
        print(
            f"{name}: router {found['router_ms']} ms, pass-through {found['bare_ms']} ms, ratio {found['ratio']} "
            f"(bare gRPC {found['grpc_ratio']}); first event {found['router_first_ms']} against "
            f"{found['bare_first_ms']} ms"
        )
    harness.written("forwarding", told)
    return [Target(f"stream, events {name}, x pass-through", 2.5, found["ratio"]) for name, found in told.items()]


if __name__ == "__main__":
    main()
