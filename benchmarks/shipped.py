"""Measures the shipped bundle and its service: quality on the test split, time to start, memory."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.engine_bundle import bundle_about
from benchmarks.harness import BUNDLE, OUTCOMES, Target
from router.bundle.manifest import load
from router.client import Client
from tests.support.ports import free_port
from training import bundle_report
from training.report.text import describe

KEPT = ("prompts", "rungs", "policies", "absolute", "gap_closed")
MEGABYTES = {2_000: 150, 8_000: 160}
"""Most memory by number of calls, half of them about a prompt that was asked before."""

SECONDS = 1.0
ROUNDS = 5


def main() -> list[Target]:
    """Evaluate the bundle, start the service, measure both; print and store the figures."""
    report = bundle_report.report(BUNDLE, OUTCOMES)
    print(describe(report) + "\n")
    figures: dict[str, Any] = {"quality": {name: report[name] for name in KEPT}}
    figures["certificates"] = len(load(BUNDLE).manifest.certificates)
    embedded = [served() for _ in range(ROUNDS)]
    with engine() as url, tempfile.TemporaryDirectory() as own:
        artifact = str(asyncio.run(bundle_about(url, "tiny", Path(own) / "bundle")))
        in_front = {"BACKEND": "vllm", "BACKEND_URL": url, "BACKEND_MODEL": "tiny", "ARTIFACT": artifact}
        before = [served(**in_front) for _ in range(ROUNDS)]
    start = harness.spread([seconds for seconds, _ in embedded], 2)
    print(f"start to SERVING {start['median']} s ({start['least']} to {start['most']})")
    figures["serving_seconds"] = start
    targets = [Target("start to SERVING, s", SECONDS, start["median"])]
    for name, runs in (("the embedded model", embedded), ("an engine", before)):
        memory = {calls: harness.spread([rss[calls] for _, rss in runs]) for calls in MEGABYTES}
        print(f"with {name}: " + ", ".join(f"{rss['median']} MB after {n:,} calls" for n, rss in memory.items()))
        figures[f"rss_megabytes_with_{name.split()[-1]}"] = memory
        targets += [
            Target(f"memory with {name}, {n:,} calls, MB", most, memory[n]["median"]) for n, most in MEGABYTES.items()
        ]
    harness.written("latest", figures)
    return targets


def served(**settings: str) -> tuple[float, dict[int, int]]:
    """Seconds from start to SERVING, and memory in MB by number of calls."""
    began = time.perf_counter()
    with harness.service(harness.SERVER_CORE, **settings) as (process, address):
        with Client(address) as client:
            client.wait_until_ready()
        seconds = time.perf_counter() - began
        asked, memory = 0, {}
        for calls in MEGABYTES:
            harness.load(address, "--count", str(calls - asked), "--cached", "0.5", "--start", str(asked + 1))
            asked, memory[calls] = calls, harness.rss(process.pid)
        return seconds, memory


@contextmanager
def engine() -> Iterator[str]:
    """Run a simulated vLLM as its own process; yields its URL."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.reliability", "engine", str(port)], env=dict(os.environ)
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
