"""`make bench`: quality on the test split, start-up, memory and latency; prints tables, writes results/latest.json."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from router.artifact import load
from router.rpc.client import Client
from tests.conftest import free_port
from training import dataset
from training.cli import judged
from training.describe import describe

OUTCOMES = Path("benchmarks/data/pocket_outcomes.parquet")
BUNDLE = Path("router/models/pocket-router")
RESULTS = Path("benchmarks/results/latest.json")
ROUNDS = 5
CALLS = 400


def main() -> None:
    """Run every benchmark."""
    outcomes = dataset.splits(dataset.read(OUTCOMES))["test"]
    report = judged(BUNDLE, outcomes)
    print(describe(report) + "\n")
    kept = ("prompts", "rungs", "policies", "absolute", "gap_closed")
    figures: dict[str, Any] = {"quality": {name: report[name] for name in kept}}
    with service() as (process, server, seconds):
        figures["serving_seconds"] = round(seconds, 2)
        figures["rss_megabytes"] = rss(process)
        figures["decide_milliseconds"] = latencies(server, outcomes.prompts)
    with engine() as url, service(BUDGET_ROUTER_BACKEND="vllm", BUDGET_ROUTER_BACKEND_URL=url,
                                  BUDGET_ROUTER_BACKEND_MODEL="tiny") as (process, _, _):  # fmt: skip
        figures["rss_megabytes_without_pocket"] = rss(process)
    print(f"start to SERVING {figures['serving_seconds']} s; memory {figures['rss_megabytes']} MB, "
          f"{figures['rss_megabytes_without_pocket']} MB without the embedded model")  # fmt: skip
    for name, row in figures["decide_milliseconds"].items():
        print(f"Decide, {name}: p50 {row['p50']} ms, p99 {row['p99']} ms (one caller, its own time included)")
    figures |= {"machine": machine(), "commit": commit(), "certificates": len(load(BUNDLE).manifest.certificates)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\n{figures['machine']}, commit {figures['commit']}: {RESULTS}")


@contextmanager
def engine() -> Iterator[str]:
    """A simulated vLLM as its own process: its URL."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.reliability", "engine", str(port)])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def service(**environment: str) -> Iterator[tuple["subprocess.Popen[str]", str, float]]:
    """The service as its own process: (process, address, seconds from start to SERVING)."""
    command = [sys.executable, "-m", "router", "serve", "--listen", "127.0.0.1:0"]
    own = {"BUDGET_ROUTER_OUTCOMES": f"var/bench-{os.getpid()}.sqlite"}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=os.environ | own | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        server = process.stderr.readline().split()[-1]
        assert Client(server).serving()
        yield process, server, time.perf_counter() - started
    finally:
        process.terminate()
        process.wait(30)


def latencies(server: str, prompts: list[str]) -> dict[str, dict[str, float]]:
    """Medians over ROUNDS of p50 and p99, first calls (classifier) and repeated ones (cache) interleaved."""
    client, rounds = Client(server), []
    client.decide("warm up")
    for turn in range(ROUNDS):
        fresh = [f"{prompt} ({turn})" for prompt in prompts[:CALLS]]
        rounds.append({name: [timed(client, p, source) for p in fresh] for name, source in PASSES.items()})
    return {
        name: {
            f"p{level}": round(statistics.median(float(np.percentile(r[name], level)) for r in rounds), 2)
            for level in (50, 99)
        }
        for name in PASSES
    }


PASSES = {"miss": "DECISION_SOURCE_CLASSIFIER", "hit": "DECISION_SOURCE_CACHE"}


def timed(client: Client, prompt: str, source: str) -> float:
    """Milliseconds of one Decide whose source is as expected."""
    started = time.perf_counter()
    decision = client.decide(prompt)
    assert decision["source"] == source, decision
    return (time.perf_counter() - started) * 1000


def rss(process: "subprocess.Popen[str]") -> int:
    """Resident memory in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def machine() -> str:
    """Processor, cores, Python."""
    model = next((s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")), ": ?")
    return f"{model.split(': ')[1]}, {os.cpu_count()} cores, Python {platform.python_version()}"


def commit() -> str:
    """The commit measured."""
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
