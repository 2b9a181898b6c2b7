"""`make reliability`: runs overload, kills and a long run against the real service, in front of a simulated engine.

The engine runs as its own process with SLOTS slots, and queues further requests, as real engines do. Every request
names rung 64, so its cost is known. Loads are open loops with Poisson arrivals, unless a run states that it uses closed
loops. All traffic stays on the loopback interface.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from benchmarks.harness import commit, machine
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.client.channel import CHANNEL_OPTIONS
from tests.support.ports import free_port
from tests.support.simulators import ENGINES, MODEL, Faults, Simulator

RESULTS = Path("benchmarks/results/reliability.json")
SLOTS, PAUSE, PREFILL = 8, 0.03, 0.3
"""Slots of the engine; seconds between events (a request has ten); most seconds before the first event."""

TOKENS = 64 + 8
"""Predicted tokens of a request at rung 64, including a usual answer."""

WARM, CALM, FLOOD = "warm", "calm", "flood"
"""Tenants: one for the runs that find the capacity, one that asks for less than its share, one that floods."""

Figures = dict[str, Any]


def engine(port: int) -> None:
    """A simulated vLLM with SLOTS slots."""
    slots = asyncio.Semaphore(SLOTS)

    @web.middleware
    async def queued(request: web.Request, handler: Any) -> Any:
        if "completions" not in request.path:
            return await handler(request)
        async with slots:
            await asyncio.sleep(random.uniform(0, PREFILL))  # so that slots do not become free all at once
            return await handler(request)

    simulator = Simulator("vllm", Faults(several_tokens_a_delta=True), pause=PAUSE)
    app = ENGINES["vllm"](simulator)
    app.middlewares.append(queued)
    web.run_app(app, host="127.0.0.1", port=port, print=None, handler_cancellation=True)


@dataclass
class Replica:
    """A running service and its addresses."""

    process: asyncio.subprocess.Process
    address: str
    metrics: str

    @property
    def rss(self) -> float:
        """Resident memory in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    @property
    def files(self) -> int:
        """Number of open files and sockets."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def scraped(self, name: str) -> float:
        """Sum of a metric's samples."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as response:
            text = response.read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


@asynccontextmanager
async def child(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process; kill it by its pid at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        env=os.environ | environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def engines() -> AsyncIterator[str]:
    """Run the engine; yields its URL."""
    port = free_port()
    async with child("benchmarks.reliability", "engine", str(port)):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def replica(url: str, directory: Path, **settings: str) -> AsyncIterator[Replica]:
    """Run the service in front of the engine."""
    tenants = directory / "tenants.toml"
    tenants.write_text(f"[{WARM}]\n[{CALM}]\n[{FLOOD}]\n")
    metrics = f"127.0.0.1:{free_port()}"
    given = {
        "listen": "127.0.0.1:0",
        "metrics_listen": metrics,
        "tenants": str(tenants),
        "backend": "vllm",
        "backend_url": url,
        "backend_model": MODEL,
        "outcomes": str(directory / f"{free_port()}.sqlite"),
        "capacity": str(SLOTS * TOKENS),
        "queue_seconds": "0.35",
    }
    environment = {f"BUDGET_ROUTER_{name.upper()}": value for name, value in (given | settings).items()}
    async with child("router", "serve", **environment) as process:
        assert process.stderr is not None
        line = (await process.stderr.readline()).decode()
        assert "listening" in line, line + (await process.stderr.read()).decode()
        yield Replica(process, line.split()[-1], metrics)


@dataclass
class Seen:
    """Endings of calls; times in seconds."""

    served: list[float] = field(default_factory=list)
    shed: list[float] = field(default_factory=list)
    without_retry_info: int = 0
    others: Counter[str] = field(default_factory=Counter)

    @property
    def asked(self) -> int:
        """Number of calls."""
        return len(self.served) + len(self.shed) + sum(self.others.values())


def question(number: int, tenant: str = WARM) -> pb.GenerateRequest:
    """A fresh prompt at rung 64."""
    message = pb.Message(role=pb.ROLE_USER, content=f"{number} + {random.random()} =")
    return pb.GenerateRequest(messages=[message], options=pb.RoutingOptions(rung="64"), tenant=tenant)


async def one(stub: Any, number: int, seen: Seen, tenant: str = WARM) -> None:
    """Run one generation and record how it ended."""
    began = time.perf_counter()
    try:
        ended = False
        async for event in stub.Generate(question(number, tenant), timeout=60):
            ended = event.WhichOneof("event") == "completion"
        if ended:
            seen.served.append(time.perf_counter() - began)
        else:
            seen.others["no completion"] += 1
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            seen.others[error.code().name] += 1
            return
        seen.shed.append(time.perf_counter() - began)
        seen.without_retry_info += not has_retry_info(error)


def has_retry_info(error: grpc.aio.AioRpcError) -> bool:
    """True if the status carries RetryInfo."""
    status = Status()
    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    return any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)


async def closed_loop(stub: Any, callers: int, seconds: float) -> Seen:
    """Run callers that ask again as soon as they are answered."""
    seen, stop = Seen(), time.monotonic() + seconds

    async def caller() -> None:
        number = 0
        while time.monotonic() < stop:
            await one(stub, number, seen)
            number += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    return seen


async def open_loop(stubs: Sequence[Any], rate: float, seconds: float, seen: Seen, tenant: str) -> None:
    """Send calls at Poisson arrivals, regardless of answers."""
    tasks: set[asyncio.Task[None]] = set()
    arrival, end, number = time.monotonic(), time.monotonic() + seconds, 0
    while (arrival := arrival + random.expovariate(rate)) < end:
        await asyncio.sleep(max(arrival - time.monotonic(), 0))
        task = asyncio.create_task(one(stubs[number % len(stubs)], number, seen, tenant))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    await asyncio.gather(*tasks)


async def overload(seconds: int) -> Figures:
    """Send five times the capacity; a flooding tenant sends most of it."""
    with tempfile.TemporaryDirectory() as directory:
        async with engines() as url, replica(url, Path(directory)) as service, channel(service.address) as stub:
            alone = await closed_loop(stub, 1, 8)
            full = await closed_loop(stub, SLOTS, 12)
            capacity, memory = len(full.served) / 12, service.rss
            calm, flood = Seen(), Seen()
            await asyncio.gather(
                open_loop([stub], 0.4 * capacity, seconds, calm, CALM),
                open_loop([stub], 4.6 * capacity, seconds, flood, FLOOD),
            )
            grown = service.rss - memory
            served, shed = calm.served + flood.served, calm.shed + flood.shed
            return {
                "capacity_per_second": round(capacity, 1),
                "offered_per_second": round((calm.asked + flood.asked) / seconds, 1),
                "goodput_share_of_capacity": round(len(served) / seconds / capacity, 3),
                "unloaded_p99_seconds": percentile(alone.served, 99),
                "admitted_p50_seconds": percentile(served, 50),
                "admitted_p99_seconds": percentile(served, 99),
                "shed": len(shed),
                "shed_p50_milliseconds": round(percentile(shed, 50) * 1e3, 2),
                "shed_p99_milliseconds": round(percentile(shed, 99) * 1e3, 2),
                "shed_within_10_milliseconds": round(sum(s <= 0.01 for s in shed) / len(shed), 4),
                "shed_without_retry_info": calm.without_retry_info + flood.without_retry_info,
                "other_statuses": dict(calm.others + flood.others),
                "calm_served_share": round(len(calm.served) / calm.asked, 4),
                "rss_megabytes_before": round(memory, 1),
                "rss_megabytes_grown": round(grown, 1),
            }


async def soak(seconds: int) -> Figures:
    """Send half the load for a long time; measures what grows."""
    with tempfile.TemporaryDirectory() as directory:
        async with engines() as url, replica(url, Path(directory)) as service, channel(service.address) as stub:
            full = await closed_loop(stub, SLOTS, 20)
            rate, seen, samples = len(full.served) / 20 / 2, Seen(), []
            load = asyncio.create_task(open_loop([stub], rate, seconds, seen, CALM))
            while not load.done():
                tasks = await asyncio.to_thread(service.scraped, "budget_router_tasks")
                samples.append((seen.asked, service.rss, service.files, tasks))
                await asyncio.wait([load], timeout=max(seconds / 120, 1))
            settled = samples[len(samples) // 6 :]
            slope = statistics.linear_regression([s[0] for s in settled], [s[1] for s in settled]).slope
            await asyncio.sleep(5)
            return {
                "seconds": seconds,
                "requests": seen.asked,
                "failed": sum(seen.others.values()),
                "shed": len(seen.shed),
                "rss_megabytes_first_and_last": [round(settled[0][1], 1), round(settled[-1][1], 1)],
                "rss_megabytes_per_10000_requests": round(slope * 10_000, 3),
                "files_before_and_after": [samples[0][2], service.files],
                "tasks_before_and_after": [
                    samples[0][3],
                    await asyncio.to_thread(service.scraped, "budget_router_tasks"),
                ],
            }


async def sigterms(times: int) -> Figures:
    """Send SIGTERM under load; measures whether streams under way complete."""
    ended: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        async with engines() as url:
            for _ in range(times):
                async with replica(url, Path(directory)) as service, channel(service.address, retries=False) as stub:
                    await _terminated(service, stub, ended)
                    codes[service.process.returncode or 0] += 1
    return {"times": times, "streams_under_way": dict(ended), "exit_codes": dict(codes)}


async def _terminated(service: Replica, stub: Any, ended: Counter[str]) -> None:
    under_way: set[int] = set()
    stopped = asyncio.Event()

    async def caller(who: int) -> None:
        while not stopped.is_set():
            try:
                async for event in stub.Generate(question(who), timeout=30):
                    under_way.add(who)
                    if event.WhichOneof("event") == "completion":
                        ended["completed" if stopped.is_set() else "before"] += 1
                        under_way.discard(who)
            except grpc.aio.AioRpcError as error:
                kind = "broken" if who in under_way else "refused"
                ended[f"{kind}: {error.code().name}" if kind == "broken" else error.code().name] += 1
                await asyncio.sleep(0.02)

    callers = [asyncio.create_task(caller(who)) for who in range(SLOTS)]
    await asyncio.sleep(random.uniform(0.6, 1.2))
    stopped.set()
    service.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*callers)
    await asyncio.wait_for(service.process.wait(), 30)


async def sigkills(times: int) -> Figures:
    """Kill one of two replicas; measures what clients with the documented options see."""
    lost: list[int] = []
    under_way_at_kill: list[int] = []
    others: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        async with engines() as url:
            for _ in range(times):
                async with replica(url, Path(directory)) as first, replica(url, Path(directory)) as second:
                    addresses = f"ipv4:{first.address},{second.address}"
                    async with channel(addresses) as stub:
                        seen, under_way = await _killed(first, stub)
                        lost.append(sum(seen.values()))
                        under_way_at_kill.append(under_way)
                        others.update(seen)
    return {
        "times": times,
        "streams_under_way_at_the_kill": under_way_at_kill,
        "calls_that_failed": lost,
        "statuses": dict(others),
    }


async def _killed(victim: Replica, stub: Any) -> tuple[Counter[str], int]:
    failed: Counter[str] = Counter()
    under_way: set[int] = set()
    stop = asyncio.Event()

    async def caller(who: int) -> None:
        while not stop.is_set():
            try:
                async for _ in stub.Generate(question(who), timeout=30):
                    under_way.add(who)
            except grpc.aio.AioRpcError as error:
                failed[error.code().name] += 1
            under_way.discard(who)

    callers = [asyncio.create_task(caller(who)) for who in range(SLOTS)]
    await asyncio.sleep(1.5)
    mine = int(await asyncio.to_thread(victim.scraped, "budget_router_token_backlog")) // TOKENS
    victim.process.kill()
    await asyncio.sleep(3)
    stop.set()
    await asyncio.gather(*callers)
    return failed, mine


@asynccontextmanager
async def channel(address: str, retries: bool = True) -> AsyncIterator[Any]:
    """A stub with the documented channel options."""
    async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS if retries else ()) as opened:
        yield pb_grpc.BudgetRouterServiceStub(opened)


def percentile(values: Sequence[float], which: int) -> float:
    """A percentile in milliseconds, rounded to a tenth."""
    return round(statistics.quantiles(values, n=100, method="inclusive")[which - 1], 4)


RUNS: Mapping[str, tuple[Callable[[int], Coroutine[Any, Any, Figures]], int]] = {
    "overload": (overload, 60),
    "sigterm": (sigterms, 50),
    "sigkill": (sigkills, 10),
    "soak": (soak, 1_800),
}
"""Runs by name, with their length in seconds or their number of repetitions."""


def main() -> None:
    """Run the named runs, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", default=[*RUNS], help=", ".join(RUNS))
    parser.add_argument("--size", type=int, help="seconds or times, in place of the usual")
    given = parser.parse_args()
    if given.runs[0] == "engine":
        engine(int(given.runs[1]))
        return
    figures = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in given.runs:
        run, usual = RUNS[name]
        size = given.size or usual
        print(f"{name}: {size}", file=sys.stderr)
        result = asyncio.run(run(int(size)))
        figures[name] = result | {"machine": machine(), "commit": commit()}
        print(json.dumps({name: result}, indent=2))
        RESULTS.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
