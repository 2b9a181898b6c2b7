"""Shared parts of the benchmarks: child processes pinned to cores, their CPU and memory, medians, and results."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.ports import free_port

OUTCOMES = Path("benchmarks/data/pocket_outcomes.parquet")
BUNDLE = Path("router/models/pocket-router")
RESULTS = Path("benchmarks/results")
SERVER_CORE, LOAD_CORE = 0, 1
PACKAGES = ("grpcio", "protobuf", "onnxruntime", "onnxruntime-gpu", "numpy", "tokenizers", "torch")


@dataclass(frozen=True)
class Target:
    """A target and its measured value (None = not measured). Less is better, unless `least` is set."""

    what: str
    asked: float
    measured: float | None
    least: bool = False

    @property
    def held(self) -> bool:
        """True if the measured value meets the target."""
        if self.measured is None:
            return False
        return self.measured >= self.asked if self.least else self.measured <= self.asked


@contextmanager
def child(*command: str, core: int | None = SERVER_CORE, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a Python process pinned to a core (None = any) that prints a line once it is ready; stop it at the end."""
    with pinned(core):
        process = subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def address(process: "subprocess.Popen[str]") -> str:
    """Address that a server prints once it listens."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if "listening on" in line:
            return line.split()[-1]
        said.append(line)
    raise SystemExit(f"the server did not come up: {''.join(said[-3:]).strip()}")


@contextmanager
def service(core: int | None = SERVER_CORE, **settings: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the router as its own process, with metrics, logs and outcome log on; yields (process, address)."""
    given = {"METRICS_LISTEN": f"127.0.0.1:{free_port()}", "OUTCOMES": f"var/bench-{os.getpid()}.sqlite"} | settings
    environment = {f"BUDGET_ROUTER_{name}": value for name, value in given.items()}
    with child("-m", "router", "serve", "--listen", "127.0.0.1:0", core=core, **environment) as process:
        yield process, address(process)


@contextmanager
def echo(reply_bytes: int, core: int = SERVER_CORE) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a bare grpc.aio server that answers every call with `reply_bytes` bytes; yields (process, address)."""
    with child("-m", "benchmarks.echo", str(reply_bytes), core=core) as process:
        yield process, address(process)


def load(*arguments: str, core: int | None = LOAD_CORE) -> Any:
    """Results of one run of the load generator."""
    command = [sys.executable, "-m", "benchmarks.load", *arguments]
    with pinned(core):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Pin this process, and every process that it starts meanwhile, to a core (None = do not pin)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu(pid: int) -> float:
    """Seconds of CPU that a process and its living children have used, over all threads, including ended ones."""
    clock = ~pid << 3 | 2  # the clock id of clock_getcpuclockid(3), which Python does not offer
    total = time.clock_gettime(clock)
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread or the child has ended
            total += sum(map(cpu, map(int, children.read_text().split())))
    return total


def rss(pid: int) -> int:
    """Resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def totals(metrics: str, name: str, label: str) -> dict[str, float]:
    """Values of a counter that a router exports at HOST:PORT, by one of its labels."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as reply:
        found = text_string_to_metric_families(reply.read().decode())
    return {one.labels[label]: one.value for family in found for one in family.samples if one.name == name}


def spread(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    """Median, least and greatest value."""
    return {
        "median": round(statistics.median(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
    }


def machine() -> str:
    """Processor, number of cores, and Python version."""
    model = next((s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")), ": ?")
    return f"{model.split(': ')[1]}, {os.cpu_count()} cores, Python {platform.python_version()}"


def commit() -> str:
    """The measured commit, with "+" if files other than results differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", f":!{RESULTS}")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def written(name: str, figures: dict[str, Any]) -> Path:
    """Write figures together with machine, commit and versions; returns the path."""
    path = RESULTS / f"{name}.json"
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    results = {"machine": machine(), "commit": commit(), "versions": versions} | figures
    path.write_text(json.dumps(results, indent=1) + "\n")
    return path
