"""Every sub-command of both commands with every kind of wrong input: one line, exit code 2, and nothing waits."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from router import cli as budget_router
from tests.serving.test_serve import Server, environment, running
from training import __main__ as budget_train

Run = Callable[..., tuple[int, list[str]]]
MAINS: dict[str, Callable[[], NoReturn]] = {"budget-router": budget_router.main, "budget-train": budget_train.main}
UNREADABLE = [] if os.geteuid() == 0 else ["unreadable"]  # root reads everything
FILES = ["missing", "folder", "fifo", "empty", "binary", "", *UNREADABLE]
FOLDERS = ["missing", "folder", "fifo", "text"]
NUMBERS = ["nan", "inf", "-inf", "-1", "1e999", "much", ""]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command as its console script does, among wrong files; exit code and the lines on standard error."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("BUDGET_ROUTER_")]:
        monkeypatch.delenv(name)
    Path("folder").mkdir()
    os.mkfifo("fifo")
    Path("empty").touch()
    Path("binary").write_bytes(bytes(range(256)) * 8)
    Path("text").write_text("text\n")
    Path("unreadable").touch(0)

    def ran(name: str, *arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as ended:
            MAINS[name]()
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().err.splitlines()

    return ran


def require_one_line(ran: tuple[int, list[str]], name: str) -> str:
    code, lines = ran
    assert (code, len(lines)) == (2, 1), lines
    assert lines[0].startswith(f"{name}: ")
    return lines[0]


def each(name: str, commands: list[str], values: list[str]) -> list[Any]:
    """Cases: each command with each value in place of its `_`."""
    return [
        pytest.param(name, tuple(value if word == "_" else word for word in command.split()), id=f"{command}: {value}")
        for command in commands
        for value in values
    ]


CASES = [
    *each("budget-router", [
        "decide x --key-file _", "decide x --ca _", "decide x --cert _ --cert-key text",
        "decide x --cert text --cert-key _", "outcomes export --out new --log _", "plan --outcomes _",
    ], FILES),
    *each("budget-train", [
        "fit --outcomes _ --out new", "evaluate --artifact folder --outcomes _",
        "certify --artifact folder --dry-run --outcomes _", "label --artifact folder --out new --outcomes _",
        "label --outcomes text --take _", "collect --out new --prompts _",
        "retrain --registry folder --log text --gold _",
        "retrain --registry folder --gold text --log _", "plan --outcomes _",
    ], FILES),
    *each("budget-train", ["validate _"], ["missing", "folder", "fifo", "", *UNREADABLE]),
    *each("budget-train", [
        "evaluate --outcomes text --artifact _", "plan --outcomes text --artifact _", "promote _ --registry new",
        "rollback --registry _", "retrain --gold text --log text --registry _",
    ], FOLDERS),
    *each("budget-train", ["fit --outcomes text --out _", "promote folder --registry _"], ["text", "fifo", "text/new"]),
    *each("budget-train", [
        "collect --out _", "outcomes export --log text --out _", "plan --outcomes text --plot _",
    ], ["folder", "fifo", "text/new"]),
    *each("budget-router", [
        "decide x --max-loss _", "decide x --min-quality _", "decide x --floor _", "decide x --ceiling _",
        "generate x --temperature _", "explain x --max-loss _", "report x --correct _", "new-key --days _",
        "decide x --max-latency _",
        "serve --workers _", "plan --outcomes text --deadline _", "plan --outcomes text --first-token _",
        "plan --outcomes text --per-token _", "plan --outcomes text --answer-tokens _",
        "plan --outcomes text --concurrency _",
    ], NUMBERS),
    *each("budget-train", [
        "collect --out new --samples _", "collect --out new --temperature _", "collect --out new --timeout _",
        "collect --out new --concurrency _", "collect --out new --count _", "collect --out new --per-level _",
        "collect --out new --max-answer-tokens _", "collect --estimate --token-ms _", "collect --estimate --price-in _",
        "collect --estimate --thought-tokens _", "retrain --registry folder --log text --gold text --max-loss _",
    ], NUMBERS),
    *each("budget-router", ["decide x --max-loss _", "report x --correct _"], ["1.5", "1e300"]),
    *each("budget-router", ["new-key --days _", "serve --workers _", "decide x --floor _"], ["99999999999999999999"]),
    *each("budget-router", [f"{command} --server _" for command in ("decide x", "generate x", "health")], [
        "", "nonsense", "localhost", "localhost:", "localhost:port", "localhost:0", "localhost:99999", ":1", "://",
        "http://localhost:1", "a b:1", "::1:1",
    ]),
    *each("budget-router", ["serve --listen _", "serve --metrics-listen _"], [
        "nonsense", "localhost", "localhost:", "localhost:port", "localhost:99999", "localhost:-1", "localhost:²",
    ]),
    *each("budget-router", [
        "decide x _ 1 _ 2",
    ], ["--max-loss", "--min-quality", "--floor", "--ceiling", "--rung", "--server", "--key-file"]),
    *each("budget-router", [
        "_", "report x --correct 1 --by _", "decide x --on-unmet _", "outcomes _", "doctor --backend _",
        "new-key a _",
    ], ["nobody"]),
    *each("budget-router", ["new-key _"], ["", "a\nb", "\udcff", "a" * 129]),
    *each("budget-router", [
        "decide", "generate", "report", "report x", "explain", "explain x --id y", "plan", "outcomes export",
        "decide x --max-loss .1 --min-quality .5", "decide x --fail-fast --on-unmet reject",
        "decide x --cert text", "decide x --ca text --plaintext", "decide x --server", "decide x --nothing",
        "doctor --backend vllm", "doctor --url nonsense", "doctor --model m", "doctor --backend pocket --url http://a",
        "doctor --write text", "doctor --write folder", "doctor --write fifo", "doctor --key-file empty",
        "doctor --force", "doctor --key-file text",
        "plan --outcomes text --outcomes text", "outcomes export --out a --out b --log text", "work", "work x",
        "work 0 --listen 127.0.0.1:0 --workers 1 --control 9999",
    ], ["-"]),
    *each("budget-train", [
        "nothing", "collect", "validate", "fit", "fit --out o", "fit --outcomes text", "evaluate", "promote",
        "rollback", "promote folder", "retrain", "fit --outcomes text --outcomes text --out o",
        "collect --out a --out b", "retrain --gold text --gold text --log text --registry folder",
        "fit --outcomes text --out o --form nobody",
        "fit --outcomes text --out o --precision int8", "collect --out o --gym nobody",
        "collect --out o --scorer nobody", "collect --out o --gym a --prompts text",
        "collect --out o --per-level 1 --samples 2",
        "collect --out o --token-ms 3", "collect --estimate --ladder 0,unlimited",
        "fit --outcomes text --out o --fingerprint-from nonsense", "fit --outcomes text --out o --first-token 1",
        "fit --outcomes text --out o --backend vllm", "validate text --backend vllm", "validate text --key-file text",
        "collect --out o --per-level 1 --model missing",
        "collect --out o --per-level 1 --model m --ladder 0,16 --url nonsense",
    ], ["-"]),
    *each("budget-train", ["collect --out o --per-level 1 --ladder _"], [
        "", "nonsense", "-5,3", "5,3", "5,5", "5", "nan",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_wrong_input_is_one_line_and_exit_code_2(run: Run, name: str, arguments: tuple[str, ...]) -> None:
    require_one_line(run(name, *arguments), name)


def test_an_engine_that_is_down_is_no_wrong_input(run: Run) -> None:
    code, lines = run("budget-train", "collect", "--out", "o", "--url", "http://127.0.0.1:1")
    assert (code, lines) == (1, ["budget-train: backend: it cannot be reached: nothing listens at its port"])


def test_an_engine_that_is_down_is_one_line_and_exit_code_1(run: Run) -> None:
    engine = ("--url", "http://127.0.0.1:1", "--model", "m", "--ladder", "0,16")
    code, lines = run("budget-train", "collect", "--out", "o", "--per-level", "1", *engine)
    assert code == 1 and len(lines) == 1 and "backend: it cannot be reached" in lines[0]


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1", "redis+sentinel://127.0.0.1:1/s"]
)
def test_a_redis_that_is_down_is_no_wrong_input(run: Run, url: str) -> None:
    code, lines = run("budget-router", "outcomes", "export", "--out", "o", "--log", url)
    assert code == 1 and len(lines) == 1 and "Redis: " in lines[0], lines


def started(*arguments: str, **variables: str) -> "subprocess.Popen[bytes]":
    """A command as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment() | variables,
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service on embedded defaults."""
    with running(tmp_path_factory.mktemp("wrong")) as server:
        yield server


@pytest.mark.parametrize(
    "arguments",
    [
        ("router", "--help"),
        ("router", "new-key", "--json"),
        ("router", "decide", "2 + 2 ="),
        ("router", "decide", "2 + 2 =", "--json"),
        ("router", "generate", "2 + 2 ="),
        ("router", "generate", "2 + 2 =", "--json"),
        ("training", "--help"),
    ],
    ids=" ".join,
)
def test_output_that_nobody_reads_ends_the_command_silently(server: Server, arguments: tuple[str, ...]) -> None:
    calls = ("--server", server.address) if arguments[1] in ("decide", "generate") else ()
    with started(*arguments, *calls) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


@pytest.mark.parametrize("arguments", [("new-key", "--json"), ("--help",)], ids=" ".join)
def test_where_output_is_closed_nothing_is_said(arguments: tuple[str, ...]) -> None:
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "router", *arguments]
    done = subprocess.run(closed, stderr=subprocess.PIPE, env=environment(), timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children heed Ctrl-C, also where a shell has started this run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_call_silently() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with started("router", "decide", "x", "--server", address) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                assert process.communicate(timeout=60) == (b"", b"\n")
    assert process.returncode == 130


def test_a_proxy_does_not_stand_before_a_service_on_this_machine(server: Server) -> None:
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY"), "http://127.0.0.1:1")
    with started("router", "health", "--server", server.address, **proxies) as process:
        assert process.communicate(timeout=60) == (b"SERVING\n", b"")


def test_a_wrong_key_is_one_line_and_exit_code_2(run: Run, tmp_path: Path) -> None:
    Path("tenants.toml").write_text(f'[one]\nkeys = [{{ sha256 = "{"0" * 64}" }}]\n')
    with running(tmp_path, tenants="tenants.toml") as closed:
        for key in ((), ("--key-file", "text")):
            line = require_one_line(
                run("budget-router", "decide", "x", "--server", closed.address, *key), "budget-router"
            )
            assert "key" in line
