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
CALLS = 2_000
ROUNDS = 5


def main() -> list[Target]:
    """Evaluate the bundle, start the service, measure both; print and store the figures."""
    report = bundle_report.report(BUNDLE, OUTCOMES)
    print(describe(report) + "\n")
    figures: dict[str, Any] = {"quality": {name: report[name] for name in KEPT}}
    figures["certificates"] = len(load(BUNDLE).manifest.certificates)
    seconds, rss = zip(*(served() for _ in range(ROUNDS)), strict=True)
    with engine() as url, tempfile.TemporaryDirectory() as own:
        artifact = str(asyncio.run(bundle_about(url, "tiny", Path(own) / "bundle")))
        in_front = {"BACKEND": "vllm", "BACKEND_URL": url, "BACKEND_MODEL": "tiny", "ARTIFACT": artifact}
        without = [served(**in_front)[1] for _ in range(ROUNDS)]
    start, most, least = harness.spread(seconds, 2), harness.spread(rss), harness.spread(without)
    print(
        f"start to SERVING {start['median']} s ({start['least']} to {start['most']}); memory after {CALLS} calls "
        f"{most['median']} MB, {least['median']} MB without the embedded model"
    )
    memory = {"rss_megabytes": most, "rss_megabytes_without_pocket": least}
    harness.written("latest", figures | memory | {"serving_seconds": start})
    return [Target("start to SERVING, s", 1.5, start["median"]), Target("memory, MB", 150, least["median"])]


def served(**settings: str) -> tuple[float, int]:
    """Seconds from start to SERVING, and memory in MB after the calls."""
    began = time.perf_counter()
    with harness.service(harness.SERVER_CORE, **settings) as (process, address):
        with Client(address) as client:
            client.wait_until_ready()
        seconds = time.perf_counter() - began
        harness.load(address, "--count", str(CALLS), "--cached", "0.5")
        return seconds, harness.rss(process.pid)


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
