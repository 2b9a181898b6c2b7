"""The bundle that is shipped, and the service around it: quality on the test split, time to start, memory."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import harness
from benchmarks.harness import BUNDLE, OUTCOMES, Target
from router.artifact import load
from router.rpc.client import Client
from tests.conftest import free_port
from training import dataset
from training.cli import judged
from training.describe import describe

KEPT = ("prompts", "rungs", "policies", "absolute", "gap_closed")
CALLS = 2_000


def main() -> list[Target]:
    """Judge, start, measure, print, and keep."""
    report = judged(BUNDLE, dataset.splits(dataset.read(OUTCOMES))["test"])
    print(describe(report) + "\n")
    figures: dict[str, Any] = {"quality": {name: report[name] for name in KEPT}}
    figures["certificates"] = len(load(BUNDLE).manifest.certificates)
    seconds, figures["rss_megabytes"] = served()
    with engine() as url:
        _, figures["rss_megabytes_without_pocket"] = served(BACKEND="vllm", BACKEND_URL=url, BACKEND_MODEL="tiny")
    print(
        f"start to SERVING {seconds:.2f} s; memory after {CALLS} calls {figures['rss_megabytes']} MB, "
        f"{figures['rss_megabytes_without_pocket']} MB without the embedded model"
    )
    harness.written("latest", figures | {"serving_seconds": round(seconds, 2)})
    return [
        Target("start to SERVING, s", 1.5, round(seconds, 2)),
        Target("memory, MB", 150, figures["rss_megabytes_without_pocket"]),
    ]


def served(**settings: str) -> tuple[float, int]:
    """Seconds from start to SERVING, and MB of memory once it has answered."""
    began = time.perf_counter()
    with harness.service(harness.SERVER_CORE, **settings) as (process, address):
        with Client(address) as client:
            assert client.serving()
        seconds = time.perf_counter() - began
        harness.load(address, "--count", str(CALLS), "--cached", "0.5")
        return seconds, harness.rss(process.pid)


@contextmanager
def engine() -> Iterator[str]:
    """A simulated vLLM as its own process: its URL."""
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
