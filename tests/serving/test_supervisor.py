"""`serve --workers`: real processes behind one port, killed, renewed under load, and told of as one."""

import asyncio
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import trustme
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from router import settings
from router._gen import budget_router_pb2 as pb
from router._gen import budget_router_pb2_grpc as pb_grpc
from router.admission.tenants import digest
from router.client import Client, ClientError, Completion, Credentials, Decision, RoutingOptions
from router.errors import DrainError, WorkerError
from router.outcomes.e_process import DELTA, Ledger
from router.outcomes.sqlite import read_rows as outcomes
from router.serving.backoff import Backoff
from router.serving.worker import CLOSED, OPEN, Worker
from router.serving.workers import Workers
from router.telemetry import multiprocess
from tests.serving.test_serve import command, environment, refused
from tests.support.ports import free_port
from tests.support.valkey import Valkey

Figures = dict[str, float]


class Pool:
    """A supervisor with two workers, as processes of their own, in a directory of their own."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.metrics = f"127.0.0.1:{free_port()}"
        arguments = ("--listen", "127.0.0.1:0", "--workers", "2", "--metrics-listen", self.metrics)
        with (directory / "stdout").open("w") as out, (directory / "stderr").open("w") as errors:
            self.process = subprocess.Popen(
                command(*arguments),
                stdout=out,
                stderr=errors,
                cwd=directory,
                env=environment(**settings) | {"TMPDIR": str(directory)},
                start_new_session=True,
            )
        until(lambda: "listening on" in self.errors or self.process.poll() is not None)
        assert self.process.poll() is None, self.errors
        self.address = self.errors.split()[-1]

    @property
    def errors(self) -> str:
        """What it told a person."""
        return (self.directory / "stderr").read_text()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it and its workers logged of a kind."""
        whole = (self.directory / "stdout").read_text().rpartition("\n")[0]  # the last may be half written yet
        return [line for line in map(json.loads, whole.splitlines()) if line["event"] == event]

    def figures(self) -> Figures:
        """Every sample that is scraped."""
        text = urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10).read().decode()
        told: Figures = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                told[sample.name + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items()))] = sample.value
        return told

    def decided(self, source: str = "") -> float:
        """Decisions so far, those of a source where it is named."""
        return sum(
            value
            for name, value in self.figures().items()
            if name.startswith("budget_router_decisions_total,") and name.endswith(source)
        )

    def pids(self) -> set[int]:
        """The workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    def decide(self, prompt: str, calls: int, credentials: Credentials | None = None) -> list[str]:
        """Ids of decisions, each on a connection of its own, so that all workers make some."""
        ids = []
        for _ in range(calls):
            with Client(self.address, timeout=30, credentials=credentials or Credentials()) as client:
                ids.append(client.decide(prompt).decision_id)
        return ids

    def close(self) -> None:
        """Make sure that it is gone; its workers follow."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One pool for the tests that do not end it."""
    with running(tmp_path_factory.mktemp("pool")) as pool:
        yield pool


@contextmanager
def running(directory: Path, **settings: str) -> Iterator[Pool]:
    pool = Pool(directory, **settings)
    try:
        yield pool
    finally:
        pool.close()


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_that_workers_share_the_port_and_are_reported_as_one(pool: Pool) -> None:
    before = pool.decided()
    ids = pool.decide("What is 2+2?", 40)
    figures = pool.figures()
    assert pool.decided() - before == 40
    assert figures["budget_router_decide_seconds_count"] == pool.decided()
    assert figures["budget_router_calls_total,code=OK,method=Decide"] == pool.decided()
    assert pool.decided("source=classifier") == 2, "each worker scored the prompt once: both were asked"
    assert figures["budget_router_workers"] == 2
    assert {"process_resident_memory_bytes,worker=0", "process_resident_memory_bytes,worker=1"} < figures.keys()
    until(lambda: pool.figures().get("budget_router_certified,alpha=0.02,model=pocket") == 1)
    assert pool.figures()["budget_router_pressure"] == 0
    for decision_id in ids:
        with Client(pool.address, timeout=10) as client:
            client.report_outcome(decision_id, correct=1.0, label_source="verifier")
    kept = {row["decision_id"] for row in outcomes(pool.directory / "var/outcomes.sqlite") if row["correct"] == 1.0}
    assert kept == set(ids), "one log, whoever decided and whoever was told"


def test_that_a_worker_that_dies_is_replaced_and_its_counts_stay(pool: Pool) -> None:
    pool.decide("What is 3+3?", 10)
    before, decided = pool.pids(), pool.decided()
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(pool.pids() - before) == 1 and pool.figures()["budget_router_workers"] == 2)
    pool.decide("What is 3+3?", 10)
    assert pool.decided() - decided == 10
    assert pool.figures()["budget_router_workers_replaced_total"] == 1
    assert [line["exit_code"] for line in pool.lines("worker ended")] == [-9]


def test_that_a_renewal_under_load_fails_no_call(pool: Pool) -> None:
    stop, failed, answered = threading.Event(), [], [0, 0, 0]
    replaced, decided = pool.figures()["budget_router_workers_replaced_total"], pool.decided()

    def ask(number: int) -> None:
        with Client(pool.address, timeout=30) as client:
            while not stop.is_set():
                try:
                    client.decide(f"What is 2+{number}?")
                    answered[number] += 1
                except ClientError as error:
                    failed.append(str(error))
                stop.wait(0.01)  # the load must leave room for the workers that start

    callers = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for caller in callers:
        caller.start()
    before, renewals = pool.pids(), len(pool.lines("renewed"))
    pool.process.send_signal(signal.SIGHUP)
    until(lambda: len(pool.lines("renewed")) > renewals)
    between = list(answered)
    until(lambda: all(now > then for now, then in zip(answered, between, strict=True)))
    stop.set()
    for caller in callers:
        caller.join()
    assert failed == []
    assert len(pool.pids()) == 2 and not pool.pids() & before
    assert pool.decided() - decided >= sum(answered)
    assert pool.figures()["budget_router_workers_replaced_total"] == replaced


def test_that_a_connection_that_is_reset_before_it_is_accepted_finds_another_worker(pool: Pool) -> None:
    """As where a worker ends in the moment between the handshake, which is the kernel's, and accept."""
    host, port = pool.address.split(":")
    with ExitStack() as stack, socket.socket() as leaving:
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        leaving.bind((host, int(port)))
        leaving.listen(64)
        answers: list[Decision] = []

        def ask(client: Client) -> None:
            answers.append(client.decide("What is 4+4?"))

        clients = [stack.enter_context(Client(pool.address, timeout=30)) for _ in range(16)]
        callers = [threading.Thread(target=ask, args=(client,)) for client in clients]
        for caller in callers:
            caller.start()
        assert select.select([leaving], [], [], 30)[0], "somebody waits to be accepted"
        leaving.close()
        for caller in callers:
            caller.join()
    assert len(answers) == len(callers)


def test_that_a_port_of_others_is_not_shared(pool: Pool, tmp_path: Path) -> None:
    said = refused(tmp_path, "--workers", "2", "--listen", pool.address)
    assert "port in use, or not an address of this machine; stop what holds it (make run?)" in said


def test_that_the_supervisor_is_small(pool: Pool) -> None:
    loaded = Path(f"/proc/{pool.process.pid}/maps").read_text()
    assert "onnxruntime" not in loaded and "numpy" not in loaded


def test_that_ctrl_c_drains_them_all(tmp_path: Path) -> None:
    with running(tmp_path) as pool:
        pids = pool.pids()
        with Client(pool.address, timeout=30) as client:
            events = client.generate("2 + 2 =", options=RoutingOptions(rung="256", min_thinking_tokens=200))
            assert isinstance(next(events), Decision)
            os.killpg(pool.process.pid, signal.SIGINT)
            *_, end = events
            assert isinstance(end, Completion) and (end.thinking_tokens or 0) >= 200
        assert pool.process.wait(30) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert pool.errors.count("\n") == 1, pool.errors


async def test_that_a_worker_that_never_comes_up_is_killed(tmp_path: Path) -> None:
    environment = {multiprocess.FOLDER: str(tmp_path)}
    with pytest.raises(WorkerError, match="did not come up within 0 s"):
        await Worker.started("work", "0", "--listen", "127.0.0.1:0", environment=environment, seconds=0)


def test_a_pool_whose_connections_age_and_which_audits_until_its_supervisor_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, CONNECTION_SECONDS="0.1", AUDIT="1") as pool:
        # A client that connects anew finds the other worker, and loses no call.
        with Client(pool.address, timeout=30) as client:
            until(lambda: bool(client.decide("2 + 2 =")) and pool.decided("source=classifier") == 2)
            version = client.decide("2 + 2 =").model_version
        # One worker audits, and all heed the alarm.
        ledger = Ledger(tmp_path / "var" / "audit.json")
        while not ledger.alarmed(version):
            ledger.bet(version, 0.02, 1.0)
        asyncio.run(ledger.save())
        assert ledger.process(version, 0.02).wealth >= 1 / DELTA
        until(lambda: pool.figures().get("budget_router_certified,alpha=0.02,model=pocket") == 0)
        # Workers end with their supervisor.
        pids = pool.pids()
        pool.process.kill()
        until(lambda: not any(alive(pid) for pid in pids))


def test_that_workers_share_scores_and_flushes_through_redis_and_use_tls(tmp_path: Path, valkey: Valkey) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    made.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    made.private_key_pem.write_to_path(tmp_path / "server.key")
    ca = authority.cert_pem.bytes()
    tls = {"TLS_CERTIFICATE": "server.pem", "TLS_KEY": "server.key"}
    admin = {"ADMIN_TOKEN": "t", "ADMIN_LISTEN": "127.0.0.1:0"}
    redis = {"REDIS_URL": valkey.url, "REDIS_TIMEOUT": "1", "CACHE_SECRET": "s"}
    with running(tmp_path, **tls, **admin, **redis) as pool:
        pool.decide("What is 2+2?", 10, Credentials(ca=ca))
        assert pool.decided("source=classifier") == 1, "the second worker found the score in Redis"
        address = pool.errors.splitlines()[0].split()[-1]
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca)) as channel:
            stub: Any = pb_grpc.BudgetRouterAdminServiceStub(channel)
            stub.FlushCache(pb.FlushCacheRequest(), metadata=[("authorization", "Bearer t")], timeout=10)

        def scored_anew() -> bool:
            pool.decide("What is 2+2?", 4, Credentials(ca=ca))
            return pool.decided("source=classifier") > 1

        until(scored_anew)


@pytest.mark.slow
def test_that_no_worker_opens_what_was_closed(tmp_path: Path, valkey: Valkey) -> None:
    """Nobody but this machine can connect, so that the start would accept a file without keys."""
    (tenants := tmp_path / "tenants.toml").write_text("[default]\n")
    keys = f'[default]\nkeys = [{{ sha256 = "{digest("a key")}" }}]\n'
    redis = {"REDIS_URL": valkey.url, "REDIS_TIMEOUT": "1", "CACHE_SECRET": "s"}
    with running(tmp_path, TENANTS=str(tenants), **redis) as pool:
        assert pool.decide("What is 2+2?", 4), "open as it starts"
        tenants.write_text(keys)
        until(lambda: not is_open(pool))
        time.sleep(3)  # until each worker has said so
        tenants.write_text("[default]\n")
        for worker in sorted(pool.pids()):
            refused = len(pool.lines("worker not replaced"))
            os.kill(worker, signal.SIGKILL)
            until(lambda: len(pool.lines("worker not replaced")) > refused)  # noqa: B023
            assert not is_open(pool)
        assert "let everyone in" in pool.errors
        pool.process.send_signal(signal.SIGHUP)
        until(lambda: bool(pool.lines("not renewed")))
        assert not is_open(pool)
        tenants.write_text(keys)
        until(lambda: pool.figures()["budget_router_workers"] == 2)
        assert pool.decide("What is 2+2?", 8, Credentials(key="a key")) and not is_open(pool)


def is_open(pool: Pool) -> bool:
    """True if anyone gets an answer, on one of several connections."""
    for _ in range(6):
        with Client(pool.address, timeout=5) as client, suppress(ClientError):
            client.decide("What is 2+2?")
            return True
    return False


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ADMIN_TOKEN": "t"}, "REDIS_URL: needed for several workers"),
        ({"LISTEN": "127.0.0.1:nonsense"}, "BUDGET_ROUTER_LISTEN: HOST:PORT is expected"),
    ],
)
def test_that_what_cannot_start_says_why(tmp_path: Path, settings: dict[str, str], told: str) -> None:
    assert told in refused(tmp_path, "--workers", "2", **settings)


def test_that_a_worker_that_cannot_start_says_why_and_ends_its_supervisor(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--workers", "2"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(listen="127.0.0.1:0", artifact="nowhere"),
        timeout=60,
    )
    assert (done.returncode, "a worker did not come up: exit code 2" in done.stderr) == (2, True), done.stderr


def test_what_a_worker_is_given_of_what_is_limited() -> None:
    whole = settings.load(workers=3, capacity=900, max_streams=10, audit=0.2)
    shares = [whole.of_worker(place) for place in range(3)]
    assert [share.capacity for share in shares] == [300] * 3
    assert [share.max_streams for share in shares] == [4] * 3
    assert [share.audit for share in shares] == [pytest.approx(0.6), 0, 0]


class Fake:
    """A worker's process and control socket. It ends with `leaves` when it is asked to, and with -9 when it is killed.

    Attributes:
        code: its exit code; None while it runs.
    """

    def __init__(self, leaves: int = 0) -> None:
        self.pid, self.returncode = 1, None
        self.code: int | None = None
        self._leaves = leaves
        self._ended = asyncio.Event()

    def terminate(self) -> None:
        self._end(self._leaves)

    def kill(self) -> None:
        self._end(-9)

    def close(self) -> None:
        pass

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.code is not None
        return self.code

    def _end(self, code: int) -> None:
        self.code = code if self.code is None else self.code
        self._ended.set()


def fake(leaves: int = 0) -> Worker:
    return Worker(cast(Any, one := Fake(leaves)), cast(Any, one), asyncio.StreamReader())


async def test_that_pauses_before_a_worker_that_dies_again_and_again_grow() -> None:
    began: list[float] = []
    enough = asyncio.Event()

    async def start(place: int, closed: bool) -> Worker:
        began.append(time.monotonic())
        if len(began) == 3:
            raise WorkerError("does not come up")
        worker = fake()
        if len(began) < 6:
            worker.process.kill()
        else:
            enough.set()
        return worker

    workers = Workers(1, start, 0, partial(Backoff, 0.05, 0.2))
    async with asyncio.timeout(30), workers.running():
        await enough.wait()
    pauses = [then - now for now, then in itertools.pairwise(began)]
    assert all(pause >= least for pause, least in zip(pauses, (0.05, 0.1, 0.2, 0.2, 0.2), strict=True)), pauses
    assert workers.replaced == 4


async def test_that_a_renewal_that_fails_leaves_who_works() -> None:
    started: list[Worker] = []

    async def start(place: int, closed: bool) -> Worker:
        if len(started) == 3:
            raise WorkerError("does not come up")
        started.append(fake())
        return started[-1]

    workers = Workers(2, start, 0)
    async with asyncio.timeout(30), workers.running():
        workers.rolling_restart()
        workers.rolling_restart()
        await asyncio.sleep(0.1)
        working = [worker for worker in started if worker.process.code is None]  # type: ignore[attr-defined]
        assert working == started[1:], "the first was renewed, the second goes on"
        assert len(workers.working) == 2 and workers.replaced == 0
    assert all(worker.process.code == 0 for worker in started)  # type: ignore[attr-defined]


async def test_that_a_worker_that_ends_badly_when_it_is_asked_to_is_an_error_at_the_end() -> None:
    async def start(place: int, closed: bool) -> Worker:
        return fake(leaves=place)

    with pytest.raises(DrainError, match="exit code 1"):
        async with Workers(2, start, 0).running():
            pass


@pytest.mark.parametrize("ends", [WorkerError("it does not come up"), asyncio.CancelledError()])
async def test_that_a_worker_that_ends_badly_is_an_error_while_others_start(ends: BaseException) -> None:
    async def start(place: int, closed: bool) -> Worker:
        if place:
            raise ends
        return fake(leaves=1)

    with pytest.raises(DrainError, match="exit code 1"):
        async with Workers(2, start, 0).running():
            pass


async def test_that_a_place_is_filled_whatever_goes_wrong_with_a_start() -> None:
    tries = 0
    filled = asyncio.Event()

    async def start(place: int, closed: bool) -> Worker:
        nonlocal tries
        tries += 1
        if tries in (2, 3):
            raise OSError("too many open files")
        worker = fake()
        if tries == 1:
            worker.process.kill()
        else:
            filled.set()
        return worker

    workers = Workers(1, start, 0, partial(Backoff, 0.01, 0.02))
    async with asyncio.timeout(30), workers.running():
        await filled.wait()
    assert workers.failures == 2


async def beating(worker: Worker, *beats: bytes) -> int:
    """Feed beats, one a moment, and then none; returns after how many the worker counted as hanging."""
    fed = 0
    said: list[None] = []
    hanging = asyncio.create_task(worker.hangs(lambda: said.append(None), 0.02, 3))
    for beat in beats:
        worker.beats.feed_data(beat)
        fed += 1
        await asyncio.sleep(0)
        assert not hanging.done()
    await asyncio.wait_for(hanging, 30)
    assert len(said) <= sum(beat == CLOSED for beat in beats)
    return fed


async def test_that_silence_alone_is_hanging() -> None:
    assert await beating(fake(), *[OPEN] * 20) == 20
    ended = fake()
    ended.beats.feed_eof()
    await asyncio.wait_for(ended.hangs(lambda: None, 0.01, 2), 30)


async def test_that_no_successor_opens_what_a_worker_has_closed() -> None:
    asked: list[bool] = []
    enough = asyncio.Event()

    async def start(place: int, closed: bool) -> Worker:
        asked.append(closed)
        worker = fake()
        worker.beats.feed_data(OPEN if len(asked) == 1 else CLOSED)
        if len(asked) == 4:
            enough.set()
        else:
            asyncio.get_running_loop().call_later(0.05, worker.process.kill)
        return worker

    async with asyncio.timeout(30), Workers(1, start, 0, partial(Backoff, 0.01, 0.02)).running():
        await enough.wait()
    assert asked == [False, False, True, True]


COUNTS = """
from prometheus_client import Counter, Gauge, Histogram
Counter("calls", "Calls", ["code"]).labels("OK").inc(3)
Histogram("seconds", "Seconds", buckets=(1, 2)).observe(1.5)
Gauge("backlog", "Backlog", multiprocess_mode="livesum").set(7)
"""


def test_that_the_files_of_workers_that_are_gone_do_not_pile_up(tmp_path: Path) -> None:
    for _ in range(3):
        told = {multiprocess.FOLDER: str(tmp_path)}
        subprocess.run([sys.executable, "-c", COUNTS], check=True, env=os.environ | told, timeout=30)
        multiprocess.fold(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["counter_gone.db", "histogram_gone.db"]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(tmp_path))
    assert registry.get_sample_value("calls_total", {"code": "OK"}) == 9
    assert registry.get_sample_value("seconds_bucket", {"le": "2.0"}) == 3
    assert registry.get_sample_value("seconds_bucket", {"le": "1.0"}) == 0
    assert registry.get_sample_value("backlog") is None
