"""SIGTERM ends the real process in time, whatever it depends on hangs, and its exit code says what was lost."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from router.client import Decision, RoutingOptions
from tests.serving.test_serve import Process, commanded, connected, environment, refused
from tests.support.valkey import Valkey

SOON = {"drain_seconds": "1"}
PATIENCE = 60
"""Seconds for a process to end; a service that waits for what hangs would take for ever."""


def ended(process: Process) -> tuple[int, str]:
    """SIGTERM; the exit code, and what a person is told."""
    assert process.stderr is not None
    process.terminate()
    return process.wait(PATIENCE), process.stderr.read()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process would hold the file so."""
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def test_records_that_are_lost_at_the_end_are_counted_in_one_line_and_the_exit_code(tmp_path: Path) -> None:
    with commanded(tmp_path, **SOON) as server, connected(server) as client, locked(tmp_path / "var/outcomes.sqlite"):
        for number in range(3):
            client.decide(f"{number} + 1 =")
        code, errors = ended(server.process)
    assert code == 1
    assert errors == "budget-router: the outcome log could not be written at the end; records lost: 3\n"


@pytest.mark.slow
def test_a_worker_that_loses_records_makes_its_supervisor_say_so(tmp_path: Path) -> None:
    log = tmp_path / "var/outcomes.sqlite"
    with commanded(tmp_path, "--workers", "2", **SOON) as server, connected(server) as client, locked(log):
        client.decide("1 + 1 =")
        code, errors = ended(server.process)
    assert code == 1
    assert "records lost: 1" in errors and "a worker ended with exit code 1" in errors


def test_a_stream_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    with commanded(tmp_path, **SOON | {"drain_seconds": "0"}) as server, connected(server) as client:
        events = client.generate("2 + 2 =", options=RoutingOptions(rung="256", min_thinking_tokens=250))
        assert isinstance(next(events), Decision)
        code, errors = ended(server.process)
        assert (code, errors) == (0, "")


def test_a_redis_that_hangs_holds_up_nobody(tmp_path: Path, valkey: Valkey) -> None:
    (tmp_path / "serve").mkdir()
    redis = {"redis_url": valkey.url, "outcomes_url": valkey.url, "cache_secret": "s", "redis_timeout": "0.5"}
    with commanded(tmp_path / "serve", **SOON | redis) as server, connected(server) as client:
        client.decide("2 + 2 =")
        valkey.pause()
        try:
            client.decide("1 + 1 =")
            code, errors = ended(server.process)
        finally:
            valkey.resume()
    assert code == 1
    assert "budget-router: the outcome log could not be written at the end; records lost:" in errors


def test_a_fifo_in_place_of_a_file_is_refused_at_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for setting in ("tenants", "audit_file", "outcomes"):
        line = refused(tmp_path, **{setting: "fifo"})
        assert "fifo" in line and "not a regular file" in line


def test_a_fifo_that_takes_the_place_of_a_file_holds_up_nobody(tmp_path: Path) -> None:
    (path := tmp_path / "tenants.toml").write_text("[default]\n")
    with commanded(tmp_path, **SOON | {"tenants": str(path)}) as server, connected(server) as client:
        path.unlink()
        os.mkfifo(path)
        (tmp_path / "var/audit.json").unlink(missing_ok=True)
        os.mkfifo(tmp_path / "var/audit.json")
        refused = threading.Event()
        while not refused.wait(0.05):
            if any(line.get("dependency") == "tenants" for line in server.lines()):
                refused.set()
        client.decide("2 + 2 =")
        assert ended(server.process) == (0, "")


HANGING = """
import asyncio, time
from router.serving import app, assembly

build = assembly.build

async def build_with_a_hanging_task(settings, defer, stack):
    parts = await build(settings, defer, stack)
    parts.background["endless graph"] = lambda: asyncio.to_thread(time.sleep, 100_000)
    return parts

assembly.build = build_with_a_hanging_task
from router.cli import main
main()
"""


@pytest.mark.slow
def test_a_thread_that_never_ends_is_named_and_ended(tmp_path: Path) -> None:
    """As a graph with an endless loop would be."""
    (tmp_path / "hanging.py").write_text(HANGING)
    command = [sys.executable, "-P", "hanging.py", "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(**SOON),
    ) as process:
        try:
            assert process.stderr is not None and "listening on" in process.stderr.readline()
            code, errors = ended(process)
            assert code == 1
            assert "ended by force" in errors and "thread" in errors
        finally:
            process.kill()


@pytest.mark.parametrize("number", [1, 2])
def test_a_service_that_has_nothing_to_lose_ends_with_exit_code_0(tmp_path: Path, number: int) -> None:
    with commanded(tmp_path, "--workers", str(number), **SOON) as server, connected(server) as client:
        client.decide("2 + 2 =")
        assert ended(server.process) == (0, "")
