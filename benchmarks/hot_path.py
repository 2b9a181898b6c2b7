"""`make hot-path`: measures CPU of the whole server process per decision, beside a bare echo in the same run.

Server and load generator are processes pinned to a core each. Rounds of echo, cache hit and miss are interleaved, and
every reply is checked. The echo answers as many bytes as a decision has. Logging, metrics and the outcome log are on.
"""

import itertools
import statistics
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from benchmarks import harness
from benchmarks.harness import Target

ROUNDS, CALLS = 5, 1000
AT_ONCE = (1, 8, 64)
BATCHES = ((1, 40), (4, 40), (16, 40), (64, 40), (256, 40), (1024, 40), (64, 10), (64, 200), (64, 1000))
"""Prompts per call, and tokens per prompt."""

RATE = 200
"""Calls per second of the schedule for the latency measurement."""

TARGETS = {"hit": 1.4, "miss": 3.0}
ADDED = {"p50": 0.5, "p99": 2.0}
BATCH = {(64, 40): 20_000, (64, 200): 6_000}


class Server:
    """A server under load, and its CPU per call."""

    def __init__(self, pid: int, address: str) -> None:
        self.pid = pid
        self.address = address
        self._fresh = itertools.count(1_000_000, 500_000)

    def cost(self, *options: str, calls: int = CALLS) -> float:
        """CPU microseconds per call."""
        before = harness.cpu(self.pid)
        harness.load(self.address, "--count", str(calls), "--start", str(next(self._fresh)), *options)
        return (harness.cpu(self.pid) - before) / calls * 1e6

    def latency(self, *options: str) -> dict[str, float]:
        """Milliseconds from the scheduled time, by percentile."""
        found = harness.load(
            self.address, "--count", str(CALLS), "--start", str(next(self._fresh)), "--rate", str(RATE), *options
        )
        return {name: value for name, value in found.items() if name.startswith("p")}


KINDS = {"echo": ("--echo",), "hit": ("--cached", "1", "--source", "CACHE"), "miss": ("--source", "CLASSIFIER")}


def main() -> list[Target]:
    """Run all measurements; print and store the figures."""
    with harness.service() as (process, address), harness.echo(reply_bytes(address)) as (bare, bare_address):
        router = Server(process.pid, address)
        servers = {"echo": Server(bare.pid, bare_address), "hit": router, "miss": router}
        figures: dict[str, Any] = {"ratios": ratios(servers), "latency_ms": latencies(servers)}
        figures["batches"] = list(batches(router))
    harness.written("hot_path", figures)
    return targets(figures)


def targets(figures: dict[str, Any]) -> list[Target]:
    """The targets for a decision, with measured values."""
    results = []
    for row in figures["ratios"]:
        for kind, asked in TARGETS.items():
            results.append(Target(f"{kind}, {row['at_once']} at once, x echo", asked, row[f"{kind}_ratio"]["median"]))
    latency = figures["latency_ms"]
    for level, most in ADDED.items():
        for kind in TARGETS:
            added = round(latency[kind][level]["median"] - latency["echo"][level]["median"], 2)
            results.append(Target(f"{kind}, added at {level}, ms", most, added))
    speed = {(row["prompts"], row["tokens"]): row["decisions_per_second_and_core"] for row in figures["batches"]}
    results += [
        Target(f"DecideBatch {n} x {t}, decisions/s a core", least, speed[n, t], True)
        for (n, t), least in BATCH.items()
    ]
    return results


def reply_bytes(address: str) -> int:
    """Size of a decision's reply; also warms up both paths."""
    harness.load(address, "--count", "300", "--start", "900000000")
    found: int = harness.load(address, "--count", "300", "--cached", "1")["reply_bytes"]
    return found


def ratios(servers: dict[str, Server]) -> list[dict[str, Any]]:
    """CPU of a hit and a miss relative to the echo, by number of callers."""
    rows = []
    for at_once in AT_ONCE:
        costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in tqdm(range(ROUNDS), f"{at_once} at once", leave=False):
            for kind, options in KINDS.items():
                costs[kind].append(servers[kind].cost("--at-once", str(at_once), *options))
        row: dict[str, Any] = {"at_once": at_once}
        for kind in KINDS:
            row[f"{kind}_us"] = harness.spread(costs[kind])
        for kind, target in TARGETS.items():
            each = [one / echo for one, echo in zip(costs[kind], costs["echo"], strict=True)]
            row[f"{kind}_ratio"] = harness.spread(each, 2) | {"target": target}
        rows.append(row)
        print(
            f"{at_once:3d} at once: echo {row['echo_us']['median']} us, "
            + ", ".join(
                f"{kind} {row[f'{kind}_us']['median']} us = {row[f'{kind}_ratio']['median']} x "
                f"({row[f'{kind}_ratio']['least']} to {row[f'{kind}_ratio']['most']}, target {target})"
                for kind, target in TARGETS.items()
            )
        )
    return rows


def latencies(servers: dict[str, Server]) -> dict[str, dict[str, dict[str, float]]]:
    """Latencies over the rounds, one call at a time on a schedule, counted from the scheduled time."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in tqdm(range(ROUNDS), "latency", leave=False):
        for kind, options in KINDS.items():
            found[kind].append(servers[kind].latency(*options))
    results = {
        kind: {level: harness.spread([r[level] for r in rounds], 3) for level in rounds[0]}
        for kind, rounds in found.items()
    }
    for kind, row in results.items():
        print(
            f"latency, {kind}, {RATE} calls a second: "
            + ", ".join(f"{level} {ms['median']} ms" for level, ms in row.items())
        )
    return results


def batches(router: Server) -> Iterator[dict[str, Any]]:
    """Decisions per second and core in DecideBatch."""
    found: dict[tuple[int, int], list[float]] = {batch: [] for batch in BATCHES}
    for _ in tqdm(range(ROUNDS), "batches", leave=False):
        for (size, tokens), costs in found.items():
            calls = max(2, min(200, 40_000 // (size * tokens)))
            options = ("--batch", str(size), "--tokens", str(tokens), "--at-once", "2")
            costs.append(router.cost(*options, calls=calls) / size)
    for (size, tokens), costs in found.items():
        row: dict[str, Any] = {"prompts": size, "tokens": tokens, "us_per_decision": harness.spread(costs)}
        row["decisions_per_second_and_core"] = round(1e6 / statistics.median(costs))
        print(f"DecideBatch of {size} x {tokens} tokens: {row['decisions_per_second_and_core']} decisions/s a core")
        yield row


if __name__ == "__main__":
    main()
