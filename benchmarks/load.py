"""The load generator, a process of its own: `python -m benchmarks.load ADDRESS OPTIONS` prints its results as JSON.

It stores replies as they arrive and checks every one after the clock has stopped. With `--rate`, calls start on a
schedule regardless of earlier calls, and latency counts from the scheduled time: a caller that waits for a slow reply
before it asks again would hide the delay from the figures (coordinated omission).
"""

import asyncio
import itertools
import json
import random
import time
from functools import cache
from pathlib import Path
from typing import Any

import click
import grpc
import uvloop
from hdrh.histogram import HdrHistogram

from benchmarks import light
from router._gen import budget_router_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["BudgetRouterService"].full_name
LONGEST_MICROSECONDS = 60_000_000


def prompt(tokens: int, number: int) -> str:
    """A prompt of about `tokens` tokens, made of words from docs/; each number gives another prompt."""
    drawn = random.Random(number).choices(words(), k=max(tokens // 2, 1))
    return f"{' '.join(drawn)} {number}?"


@cache
def words() -> list[str]:
    """Words, each as often as in the documents."""
    return " ".join(path.read_text() for path in sorted(Path("docs").glob("*.md"))).split()


def requests(count: int, tokens: int, batch: int, cached: float, start: int, tenants: int) -> list[bytes]:
    """Serialised requests. A share of them repeats earlier prompts, in the same order in every run."""
    bodies, fresh = [], itertools.count(start)
    for number in range(count):
        known = (number % 100) < round(cached * 100)
        tenant = f"tenant-{number % tenants}" if tenants else ""
        many = [
            pb.DecideRequest(
                tenant=tenant,
                messages=[pb.Message(role=pb.ROLE_USER, content=prompt(tokens, 0 if known else next(fresh)))],
            )
            for _ in range(batch or 1)
        ]
        bodies.append((pb.DecideBatchRequest(requests=many) if batch else many[0]).SerializeToString())
    return bodies


def checked(replies: list[bytes], batch: int, echo: bool, source: str) -> None:
    """Check that every reply has plausible decisions. Raises AssertionError."""
    if echo:
        assert all(set(reply) == {0} for reply in replies)
        return
    for reply in replies:
        if batch:
            decisions = list(pb.DecideBatchResponse.FromString(reply).decisions)
            assert len(decisions) == batch
        else:
            decisions = [pb.DecideResponse.FromString(reply).decision]
        for decision in decisions:
            assert decision.rung in {f.rung for f in decision.forecasts}, decision
            assert all(0 <= f.quality <= 1 for f in decision.forecasts), decision
            assert not source or pb.DecisionSource.Name(decision.source).endswith(source), decision


async def closed(calls: list[Any], bodies: list[bytes], at_once: int) -> list[bytes]:
    """Run `at_once` callers that each ask again once they are answered."""
    replies: list[bytes] = [b""] * len(bodies)
    numbered = iter(enumerate(bodies))

    async def caller(call: Any) -> None:
        for number, body in numbered:
            replies[number] = await call(body)

    await asyncio.gather(*(caller(calls[i % len(calls)]) for i in range(at_once)))
    return replies


def scheduled(call: Any, bodies: list[bytes], rate: float, histogram: HdrHistogram) -> list[bytes]:
    """Run one blocking caller on a schedule; the latency of a late call counts from its scheduled time."""
    replies = []
    began = time.perf_counter()
    for number, body in enumerate(bodies):
        due = began + number / rate
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left if left > 0.0005 else 0)
        replies.append(call(body))
        histogram.record_value(round((time.perf_counter() - due) * 1e6))
    return replies


@click.command()
@click.argument("server")
@click.option("--count", default=2000, help="Calls.")
@click.option("--tokens", default=40, help="Tokens of a prompt.")
@click.option("--batch", default=0, help="Prompts of a DecideBatch; 0 = Decide.")
@click.option("--cached", default=0.0, help="Share of prompts asked before.")
@click.option("--start", default=1, help="Number of the first fresh prompt.")
@click.option("--tenants", default=0, help="Tenants that take turns; 0 = none named.")
@click.option("--at-once", default=8, help="Callers.")
@click.option("--connections", default=1)
@click.option("--rate", default=0.0, help="Calls a second, on a schedule, one at a time; 0 = as fast as answered.")
@click.option("--echo", is_flag=True, help="The server is the bare echo.")
@click.option("--source", default="", help="What every decision comes from, such as CACHE.")
@click.option("--light", "is_light", is_flag=True, help="Without a gRPC client, which takes as much CPU as a server.")
def main(
    server: str, count: int, tokens: int, batch: int, cached: float, start: int, tenants: int, at_once: int,
    connections: int, rate: float, echo: bool, source: str, is_light: bool,
) -> None:  # fmt: skip
    """Send load to SERVER."""
    bodies = requests(count, tokens, batch, cached, start, tenants)
    method = f"/{SERVICE}/{'DecideBatch' if batch else 'Decide'}"
    results: dict[str, Any] = {"request_bytes": len(bodies[0])}
    if rate:
        histogram = HdrHistogram(1, LONGEST_MICROSECONDS, 3)
        with grpc.insecure_channel(server) as channel:
            replies = scheduled(channel.unary_unary(method), bodies, rate, histogram)
        results |= {f"p{p:g}": histogram.get_value_at_percentile(p) / 1000 for p in (50, 90, 99, 99.9)}
    else:
        ask = light.closed if is_light else opened
        began, used = time.perf_counter(), time.process_time()
        replies = (uvloop if is_light else asyncio).run(ask(server, method, bodies, at_once, connections))
        results |= {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}
    checked(replies, batch, echo, source)
    click.echo(json.dumps(results | {"calls": len(replies), "reply_bytes": len(replies[-1])}))


async def opened(server: str, method: str, bodies: list[bytes], at_once: int, connections: int) -> list[bytes]:
    """As `closed`, over several connections."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    channels = [grpc.aio.insecure_channel(server, options) for _ in range(connections)]
    try:
        return await closed([channel.unary_unary(method) for channel in channels], bodies, at_once)
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


if __name__ == "__main__":
    main()
