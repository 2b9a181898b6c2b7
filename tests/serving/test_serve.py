"""The real process: `python -m router serve`, its signals, its exit codes, and what it writes."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Union

import pytest
import structlog

from router.cli import main
from router.client import Client, ClientError, Completion, Content, Decision, Reasoning, RoutingOptions
from router.outcomes.sqlite import read_rows as outcomes
from router.serving import listening, supervisor
from tests.conftest import MODELS
from tests.support.forked import Forked
from tests.support.ports import free_port
from tests.support.valkey import Valkey

Process = Union[Forked, "subprocess.Popen[str]"]

SECRET = "Solve the following multiplication: 987654321 * 3."


class Server:
    """A service as a process of its own, on free ports, in a directory of its own; `admin` is of the admin service."""

    def __init__(self, directory: Path, *arguments: str, **settings: str) -> None:
        self.log = directory / "stdout"
        arguments = ("serve", "--listen", "127.0.0.1:0", *arguments)
        self.process = self._started(arguments, self.log, directory, environment(**settings))
        assert self.process.stderr is not None
        self.admin = line = ""
        for line in self.process.stderr:
            if "admin service on" in line:
                self.admin = line.split()[-1]
            elif "OpenAI API on" not in line:
                break
        assert "listening on" in line, line + self.process.stderr.read()
        self.address = line.split()[-1]

    def _started(self, arguments: Sequence[str], out: Path, cwd: Path, env: Mapping[str, str]) -> Process:
        return Forked(arguments, out=out, cwd=cwd, env=env)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(30)

    def close(self) -> None:
        """Make sure that it is gone."""
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def told_of(self, decision_id: str, lines: int) -> list[dict[str, Any]]:
        """The log lines about a decision, which are written a moment later."""
        until = time.monotonic() + 60
        while True:
            told = [line for line in self.lines() if line.get("decision_id") == decision_id]
            if len(told) >= lines or time.monotonic() > until:
                return told
            time.sleep(0.02)

    def lines(self) -> list[dict[str, Any]]:
        """What it logged; every line is JSON. The last may be half written yet."""
        return [json.loads(line) for line in self.log.read_text().rpartition("\n")[0].splitlines()]


class CommandedServer(Server):
    """The same as a command starts it, for tests of its end."""

    def _started(self, arguments: Sequence[str], out: Path, cwd: Path, env: Mapping[str, str]) -> Process:
        with out.open("w") as file:
            command = [sys.executable, "-m", "router", *arguments]
            return subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True, cwd=cwd, env=env)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "router", "serve", *arguments]


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with these settings and no others, and gRPC as talkative as it is."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(("BUDGET_ROUTER_", "GRPC_"))}
    root = str(Path(__file__).parents[2])
    return kept | {"PYTHONPATH": root} | {f"BUDGET_ROUTER_{k.upper()}": v for k, v in settings.items()}


ANYWHERE = {"listen": "127.0.0.1:0"}
"""Whoever has just typed `make run` holds the port that a service takes by itself."""


def refused(directory: Path, *arguments: str, **settings: str) -> str:
    """The one line of a service that must not start, and must say why with exit code 2; it runs in this process."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as errors:
        patch.chdir(directory)
        patch.setattr(os, "environ", environment(**ANYWHERE | settings))
        patch.setattr(sys, "argv", ["budget-router", "serve", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    structlog.reset_defaults()
    return the_line(ended.value.code, errors.getvalue())


def refused_as_process(directory: Path, *arguments: str, **settings: str) -> str:
    """The same of a process of its own."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        cwd=directory,
        env=environment(**ANYWHERE | settings),
        timeout=60,
    )
    return the_line(done.returncode, done.stderr)


def the_line(code: object, errors: str) -> str:
    assert code == 2, errors
    (line,) = errors.splitlines()
    assert line.startswith("budget-router: ")
    return line


@contextmanager
def running(directory: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    with closing(Server(directory, *arguments, **settings)) as server:
        yield server


@contextmanager
def commanded(directory: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    """For tests of the end: as a command starts it."""
    with closing(CommandedServer(directory, *arguments, **settings)) as server:
        yield server


@contextmanager
def connected(server: Server) -> Iterator[Client]:
    with Client(server.address, timeout=30) as client:
        yield client


def completed(client: Client, prompt: str, options: RoutingOptions) -> Completion:
    """The end of a whole stream."""
    *_, end = client.generate(prompt, options=options)
    assert isinstance(end, Completion)
    return end


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One service for the tests that do not stop it."""
    with running(tmp_path_factory.mktemp("serve")) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of `server`."""
    with connected(server) as client:
        yield client


def test_it_serves_on_embedded_defaults(server: Server, client: Client) -> None:
    assert client.is_ready()
    assert client.decide("2 + 2 =").forecasts
    assert completed(client, "2 + 2 =", RoutingOptions(rung="0")).thinking_tokens == 0


def test_an_outcome_survives_in_the_log(server: Server, client: Client) -> None:
    decision = client.decide("3 + 3 =")
    client.report_outcome(decision.decision_id, correct=1.0, label_source="verifier")
    client.report_outcome(decision.decision_id, correct=0.0, label_source="judge")


def test_log_lines_are_json_and_hold_no_prompt(server: Server, client: Client) -> None:
    decision = client.decide(SECRET)
    first, *pieces = client.generate(SECRET, options=RoutingOptions(rung=decision.rung))
    with pytest.raises(ClientError):
        client.decide(SECRET, options=RoutingOptions(rung=SECRET))
    [decided] = server.told_of(decision.decision_id, 1)
    assert (decided["event"], decided["rung"]) == ("decided", decision.rung)
    assert isinstance(first, Decision)
    about_the_stream = server.told_of(first.decision_id, 2)
    assert [line["event"] for line in about_the_stream] == ["decided", "generated"]
    written = server.log.read_text()
    assert "987654321" not in written and "multiplication" not in written
    thought = "".join(piece.text for piece in pieces if isinstance(piece, Reasoning | Content))
    assert len(thought) < 8 or thought not in written


def test_a_second_server_on_its_port_is_refused(server: Server, tmp_path: Path) -> None:
    line = refused(tmp_path, "--listen", server.address)
    assert server.address in line and "stop what holds it (make run?), or choose another with --listen" in line


def test_sigterm_drains_a_stream_under_way(tmp_path: Path) -> None:
    with commanded(tmp_path) as server, connected(server) as client:
        events = client.generate("2 + 2 =", options=RoutingOptions(rung="256", min_thinking_tokens=200))
        assert isinstance(next(events), Decision)
        server.process.terminate()
        *_, end = events
        assert isinstance(end, Completion) and (end.thinking_tokens or 0) >= 200
        assert server.process.wait(30) == 0
        with pytest.raises(ClientError) as caught:
            client.decide("2 + 2 =")
        assert caught.value.code == "UNAVAILABLE"
        assert server.lines()[-1]["event"] == "draining" or any(line["event"] == "draining" for line in server.lines())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_start_that_waits_for_its_engine(tmp_path: Path, number: signal.Signals) -> None:
    """Kubernetes sends SIGTERM to a pod whose engine has not come up; it must not have to kill it."""
    nobody = f"http://127.0.0.1:{free_port()}"
    settings = environment(backend="vllm", backend_url=nobody, backend_model="m", backend_wait="600")
    with subprocess.Popen(
        command("--listen", "127.0.0.1:0"),
        cwd=tmp_path,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert b"waiting" in process.stdout.readline()
        # PID 1 of a container gets only signals that it handles, so the default action does not count.
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
        assert caught is not None and int(caught[1], 16) >> (number - 1) & 1
        process.send_signal(number)
        assert process.wait(60) == 0


def test_new_calls_are_refused_while_draining(tmp_path: Path) -> None:
    with commanded(tmp_path) as server, connected(server) as client:
        events = client.generate("2 + 2 =", options=RoutingOptions(rung="256", min_thinking_tokens=250))
        assert isinstance(next(events), Decision)
        ended = threading.Thread(target=list, args=(events,))
        ended.start()
        server.process.terminate()
        codes = set()
        while server.process.poll() is None:
            with connected(server) as late:
                try:
                    late.decide("2 + 2 =")
                except ClientError as error:
                    codes.add(error.code)
        ended.join()
        assert {"UNAVAILABLE"} <= codes <= {"UNAVAILABLE", "CANCELLED"}  # a call that came in as the server closed
        assert server.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_an_idle_server_ends_at_once_with_exit_code_0(tmp_path: Path, number: signal.Signals) -> None:
    with commanded(tmp_path) as server:
        started = time.monotonic()
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert time.monotonic() - started < 10
        assert server.process.stderr is not None and server.process.stderr.read() == ""


def test_decisions_survive_a_restart(tmp_path: Path) -> None:
    with running(tmp_path) as server, connected(server) as client:
        decision = client.decide("2 + 2 =")
        assert server.stop() == 0
    with running(tmp_path) as server, connected(server) as client:
        client.report_outcome(decision.decision_id, correct=1.0, label_source="user")


def test_the_prometheus_endpoint_counts_decisions(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with running(tmp_path, "--metrics-listen", address) as server, connected(server) as client:
        for _ in range(3):
            rung = client.decide("2 + 2 =").rung
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as response:
            text = response.read().decode()
    assert f'budget_router_decisions_total{{model="pocket",rung="{rung}",source="classifier"}} 1.0' in text
    assert f'budget_router_decisions_total{{model="pocket",rung="{rung}",source="cache"}} 2.0' in text


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("name", ["LISTEN", "ADMIN_LISTEN", "HEALTH_LISTEN", "METRICS_LISTEN"])
def test_a_port_in_use_is_refused_before_anything_slow(tmp_path: Path, name: str, workers: str) -> None:
    """The engine is not up, for which the start would wait; nothing is logged of it, or of anything else."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free = dict.fromkeys(("LISTEN", "ADMIN_LISTEN"), "127.0.0.1:0")
        addresses = free | {name: f"127.0.0.1:{taken.getsockname()[1]}"}
        engine = {"BACKEND": "vllm", "BACKEND_URL": f"http://127.0.0.1:{free_port()}", "BACKEND_MODEL": "m"}
        with contextlib.redirect_stdout(io.StringIO()) as logged:
            shared = {"ADMIN_TOKEN": "a" * 32, "REDIS_URL": "redis://127.0.0.1:1", "CACHE_SECRET": "s" * 32}
            line = refused(tmp_path, "--workers", workers, **addresses, **engine, **shared)
    assert f"BUDGET_ROUTER_{name}: cannot listen on {addresses[name]}: port in use" in line
    assert "stop what holds it (make run?)" in line and not logged.getvalue()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_engine_that_does_not_come_up_is_no_wrong_input(tmp_path: Path, workers: str) -> None:
    engine = {"BACKEND": "vllm", "BACKEND_URL": f"http://127.0.0.1:{free_port()}", "BACKEND_MODEL": "m"}
    arguments = command("--listen", "127.0.0.1:0", "--workers", workers)
    variables = environment(BACKEND_WAIT="0", **engine)
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env=variables, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "backend: it cannot be reached: nothing listens at its port" in done.stderr


def test_a_port_that_was_just_left_is_free() -> None:
    """Connections of the service before linger in TIME_WAIT."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as caller:
        address = server.getsockname()
        accepted, _ = server.accept()
        accepted.close()  # whoever closes first lingers
        caller.recv(1)
    assert listening.bindable(f"127.0.0.1:{address[1]}")[1] == address
    with supervisor.reserved(f"127.0.0.1:{address[1]}") as held:  # for several workers, after one that shared no port
        assert held == f"127.0.0.1:{address[1]}"


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, listen: str) -> None:
    line = refused(tmp_path, "--listen", listen)
    assert "BUDGET_ROUTER_LISTEN: HOST:PORT is expected" in line and listen in line


def copied(directory: Path) -> Path:
    """A copy of the shipped bundle to spoil."""
    bundle = directory / "bundle"
    bundle.mkdir()
    for file in (MODELS / "pocket-router").iterdir():
        (bundle / file.name).write_bytes(file.read_bytes())
    return bundle


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_a_malformed_bundle_is_refused(tmp_path: Path, name: str) -> None:
    bundle = copied(tmp_path)
    (bundle / name).write_bytes((bundle / name).read_bytes()[:-9])
    assert name in refused(tmp_path, artifact=str(bundle))


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    assert "manifest.json" in refused_as_process(tmp_path, artifact=str(tmp_path / "nowhere"))


def test_a_malformed_embedded_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "pocket"
    model.mkdir()
    for file in (MODELS / "pocket").iterdir():
        (model / file.name).write_bytes(b"nonsense" if file.name == "model.onnx" else file.read_bytes())
    assert "pocket reasoner" in refused(tmp_path, pocket_model=str(model))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"LISTNE": "127.0.0.1:0"}, "BUDGET_ROUTER_LISTEN"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "BUDGET_ROUTER_CACHE_SECRET"),
        ({"REDIS_URL": "http://127.0.0.1:1", "CACHE_SECRET": "x"}, "Redis URL"),
        ({"PUBLIC": "plaintext"}, "BUDGET_ROUTER_PUBLIC"),
        ({"TENANTS": "/nowhere/tenants.toml"}, "/nowhere/tenants.toml"),
        ({"OUTCOMES": "/proc/nowhere/outcomes.sqlite"}, "/proc/nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_wrong_settings_are_refused_by_name(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    assert said in refused(tmp_path, "--listen", "127.0.0.1:0", **settings)


def test_a_service_loads_no_more_than_it_needs() -> None:
    """Neither training, nor what draws tables, nor clients that are not asked for: it ends where all is loaded."""
    code = (
        "import atexit, sys; from router.cli import main; atexit.register(lambda: print(*sys.modules)); "
        "sys.argv = ['budget-router', 'serve', '--listen', '127.0.0.1:0']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(outcomes="/proc/nowhere/outcomes.sqlite"),
        timeout=60,
    )
    loaded = done.stdout.split()
    assert done.returncode == 2 and "router.serving.app" in loaded, done.stderr
    unwanted = {"sklearn", "torch", "reasoning_gym", "onnx", "scipy", "training"}
    unwanted |= {"rich.console", "google.protobuf.json_format", "aiohttp", "redis", "router.http"}
    assert not {name for name in loaded if unwanted & {name, name.partition(".")[0]}}


def test_a_second_process_answers_from_the_first_ones_cache(tmp_path: Path, valkey: Valkey) -> None:
    shared = {"redis_url": valkey.url, "cache_secret": "shared", "redis_timeout": "1"}
    directories = [tmp_path / name for name in ("first", "second", "other secret")]
    for directory in directories:
        directory.mkdir()
    with running(directories[0], **shared) as server, connected(server) as client:
        scored = client.decide(SECRET)
        assert server.stop() == 0
    with running(directories[1], **shared) as server, connected(server) as client:
        remembered = client.decide(SECRET)
    with running(directories[2], **shared | {"cache_secret": "other"}) as server, connected(server) as client:
        unrelated = client.decide(SECRET)
    assert scored.source == unrelated.source == "classifier"
    assert remembered.source == "cache"
    assert remembered.forecasts == scored.forecasts


def test_when_valkey_dies_every_request_still_succeeds(tmp_path: Path, valkey: Valkey) -> None:
    (tmp_path / "serve").mkdir()
    settings = {"redis_url": valkey.url, "cache_secret": "shared", "redis_timeout": "0.2"}
    with running(tmp_path / "serve", **settings) as server, connected(server) as client:
        for i in range(20):
            assert client.decide(f"before {i}").source == "classifier"
        valkey.kill()
        for i in range(20):
            assert client.decide(f"after {i}").source == "classifier"
            assert client.decide(f"before {i}").source == "cache"
        assert completed(client, "after the end", RoutingOptions(rung="0"))
        assert client.is_ready()
        valkey.start()
        assert client.decide("after the return").forecasts
        assert server.stop() == 0
        degraded = [line for line in server.lines() if line["event"] == "degraded"]
    assert degraded and {line["dependency"] for line in degraded} == {"cache"}


def test_a_valkey_that_hangs_delays_no_one_for_long(tmp_path: Path, valkey: Valkey) -> None:
    (tmp_path / "serve").mkdir()
    settings = {"redis_url": valkey.url, "cache_secret": "shared", "redis_timeout": "0.05"}
    with running(tmp_path / "serve", **settings) as server, connected(server) as client:
        client.decide("a first")
        valkey.pause()
        started = time.monotonic()
        for i in range(10):
            assert client.decide(f"paused {i}").forecasts
        assert time.monotonic() - started < 10
        valkey.resume()


def test_prompt_text_never_enters_valkey(tmp_path: Path, valkey: Valkey) -> None:
    (tmp_path / "serve").mkdir()
    settings = {"redis_url": valkey.url, "cache_secret": "shared", "redis_timeout": "1"}
    with running(tmp_path / "serve", **settings) as server, connected(server) as client:
        client.decide(SECRET)
        assert server.stop() == 0
    with socket.create_connection(("127.0.0.1", valkey.port), timeout=10) as connection:
        connection.sendall(b"KEYS *\r\n")
        keys = connection.recv(1 << 16)
    assert re.match(rb"\*1\r\n", keys)
    assert b"multiplication" not in keys and b"987654321" not in keys


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_every_acknowledged_outcome_survives_kills_under_load(tmp_path: Path, kills: int) -> None:
    acknowledged: list[str] = []
    for _ in range(kills):
        with running(tmp_path) as server, connected(server) as client:
            client.wait_until_ready()
            killer = threading.Timer(0.15, server.process.kill)
            with contextlib.suppress(ClientError):
                for i in range(10_000):
                    decision_id = client.decide(f"{i} + {i} =").decision_id
                    client.report_outcome(decision_id, correct=1.0, label_source="verifier")
                    acknowledged.append(decision_id)
                    if i == 1:
                        killer.start()
            killer.join()
    kept = [row["decision_id"] for row in outcomes(tmp_path / "var/outcomes.sqlite") if row["correct"] == 1.0]
    assert len(acknowledged) > kills
    assert set(acknowledged) <= set(kept)
    assert len(kept) == len(set(kept)) <= len(acknowledged) + kills
