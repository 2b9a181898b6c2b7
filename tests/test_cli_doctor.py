"""`budget-router doctor` as an operator types it, in front of simulated engines."""

import asyncio
import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from router.cli import main
from router.serving.examination import ABOUT
from tests.conftest import another_bundle
from tests.support.ports import free_port
from tests.support.simulators import ENGINES, MODEL, Simulator, simulated
from tests.support.sockets import Raw, listening

Run = Callable[..., Awaitable[tuple[int, str, str]]]
KINDS = tuple(ENGINES)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("BUDGET_ROUTER_")]:
        monkeypatch.delenv(name)

    async def ran(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["budget-router", "doctor", *arguments])
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main)  # it has an event loop of its own
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    return ran


def written() -> list[str]:
    """The lines of router.env."""
    return Path("router.env").read_text().splitlines() if Path("router.env").exists() else []


def put(name: str, text: str) -> None:
    """Write a file."""
    Path(name).write_text(text)


def pocket(text: str) -> bool:
    """True where the embedded model was examined."""
    return "budget 64" in text and "native: budget 64" not in text


@pytest.mark.parametrize("kind", KINDS)
async def test_an_address_is_enough_and_the_next_command_leads_on(kind: str, run: Run) -> None:
    async with simulated(kind) as engine:
        code, out, _ = await run("--url", f"{engine.url}/v1", "--json")
        found = json.loads(out)
        assert code == 1 and [f["check"] for f in found["findings"] if f["needed"] and not f["passed"]] == [ABOUT]
        assert found["settings"]["BUDGET_ROUTER_BACKEND"] == kind
        assert found["settings"]["BUDGET_ROUTER_BACKEND_URL"] == engine.url
        assert found["settings"]["BUDGET_ROUTER_BACKEND_MODEL"] == MODEL
        assert float(found["settings"]["BUDGET_ROUTER_TOKEN_SECONDS"]) > 0
        assert found["fingerprint"].endswith(f"/{found['settings']['BUDGET_ROUTER_BACKEND_ENFORCEMENT']}")
        assert found["steps"] is True
        (step,) = found["next"]
        code, out, _ = await run(*shlex.split(step)[2:])
    assert code == 1 and len(written()) == len(found["settings"])
    assert re.search("^ok +steps within a thought +a rule may stop a thought$", out, re.M)
    assert "Next:\nset -a; . ./router.env; set +a\nbudget-router serve --learn observe\n\n" in out
    assert f"budget-train collect --backend {kind}" in out and "make setup" in out
    assert "--ladder 0,32,128,512 " in out, "as the window has 2,048 tokens"


async def test_that_no_rule_can_stop_a_thought_is_said_with_the_reason_and_fails_nothing(run: Run) -> None:
    async with simulated("vllm") as engine:
        engine.shorter = 2
        _, out, _ = await run("--url", engine.url, "--json")
    found = json.loads(out)
    [steps] = [one for one in found["findings"] if one["check"] == "steps within a thought"]
    assert (found["steps"], steps["passed"], steps["needed"]) == (False, False, False)
    assert "thinks 6" in steps["seen"] and "BACKEND_ENFORCEMENT=two_phase" in steps["seen"]


async def test_with_a_bundle_about_the_engine_the_next_command_is_serve(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with simulated("vllm") as engine:
        _, out, _ = await run("--url", engine.url, "--json")
        own = another_bundle(tmp_path / "own", "the engine", backend_fingerprint=json.loads(out)["fingerprint"])
        monkeypatch.setenv("BUDGET_ROUTER_ARTIFACT", str(own))
        code, out, _ = await run("--url", engine.url, "--write", "router.env")
        assert code == 0 and out.endswith("Next:\nset -a; . ./router.env; set +a\nbudget-router serve\n")
        # As `set -a; . ./router.env; set +a` does.
        for line in written():
            monkeypatch.setenv(*line.split("=", 1))
        code, out, _ = await run()
    assert code == 0 and not pocket(out) and out.endswith("Next:\nbudget-router serve\n")


async def test_an_engine_in_the_environment_is_never_taken_for_the_embedded_model(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with simulated("sglang") as engine:
        monkeypatch.setenv("BUDGET_ROUTER_BACKEND_URL", engine.url)
        code, out, _ = await run()
        assert code == 1 and "sglang-1.0" in out and not pocket(out)
        # An address that nobody uses, as in docker-compose.yml.
        monkeypatch.setenv("BUDGET_ROUTER_BACKEND", "pocket")
        code, out, _ = await run()
        assert code == 0 and pocket(out) and not engine.bodies[0][0].startswith("pocket")
        code, out, _ = await run("--model", MODEL)
    assert code == 1 and "sglang-1.0" in out and not pocket(out)


Change = Callable[[Simulator], None]


def _named(simulator: Simulator) -> None:
    simulator.models = ["mine", "yours"]


def _without_version(simulator: Simulator) -> None:
    simulator.statuses = {"/version": 404}


def _without_list(simulator: Simulator) -> None:
    simulator.statuses = {"/v1/models": 404}


def _loading(simulator: Simulator) -> None:
    simulator.statuses = {"/v1/models": 503}


def _locked(simulator: Simulator) -> None:
    simulator.key = "sesame"


def _ignoring(simulator: Simulator) -> None:
    simulator.faults.ignores_budget = simulator.faults.no_tokens = True


def _as_it_is(simulator: Simulator) -> None:
    pass


CAUSES: list[tuple[Change, tuple[str, ...], str]] = [
    (_named, ("--model", MODEL), "it serves mine, yours; not tiny"),
    (_without_version, (), "it has no /version (HTTP 404), which every vllm has"),
    (_without_list, (), "it has no /v1/models (HTTP 404); the URL must be the one below which /v1/models answers"),
    (_loading, (), "HTTP 503; it may still be loading its model"),
    (_locked, (), "it refuses the key, or wants one (HTTP 401); give it one with --key-file"),
    (_ignoring, (), "no way to hold budgets works: see above; does the engine run with --reasoning-parser P?"),
    (_ignoring, (), "it has no /tokenize (HTTP 404)"),
    (_as_it_is, ("--backend", "llama_cpp"), "it says that it is vllm, not llama_cpp"),
]


@pytest.mark.parametrize(("change", "arguments", "said"), CAUSES, ids=[said[:30] for _, _, said in CAUSES])
async def test_each_cause_has_a_sentence_of_its_own(
    change: Change, arguments: tuple[str, ...], said: str, run: Run
) -> None:
    async with simulated("vllm") as engine:
        change(engine)
        code, out, err = await run("--url", engine.url, *arguments, "--write", "router.env")
    assert (code, err) == (1, "") and said in out and "FAILS" in out
    assert "Nothing is written to router.env" in out and not written()
    assert f"Mend what FAILS above, then type:\nbudget-router doctor --url {engine.url}" in out
    assert "--model tiny" not in out and "--backend llama_cpp" not in out and out.endswith(" --write router.env\n")


async def test_an_address_at_which_no_engine_is(run: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, out, _ = await run("--url", url)
    assert code == 1 and f"FAILS  engine at {url}  it cannot be reached: nothing listens at its port" in out
    async with simulated("vllm") as engine:
        code, out, _ = await run("--url", engine.url.replace("http:", "https:"))
    assert code == 1 and "it does not speak TLS; is it http:// rather than https://?" in out
    async with listening(Raw(b"SSH-2.0-OpenSSH_9.6\r\n")) as other:
        code, out, _ = await run("--url", other.url)
    assert code == 1 and "its answer is not HTTP" in out


async def test_a_key_is_used_and_written_and_never_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame\n")
    async with simulated("vllm") as engine:
        engine.key = "sesame"
        code, out, _ = await run("--url", engine.url, "--key-file", "key", "--write", "router.env")
    assert code == 1 and "BUDGET_ROUTER_BACKEND_KEY=***" in out and "sesame" not in out
    assert "BUDGET_ROUTER_BACKEND_KEY=sesame" in written()
    assert stat.S_IMODE((tmp_path / "router.env").stat().st_mode) == 0o600


async def test_a_file_is_not_replaced_unless_that_is_meant(run: Run, tmp_path: Path) -> None:
    (tmp_path / "router.env").write_text("MINE=1\nBUDGET_ROUTER_BACKEND=sglang\n")
    async with simulated("vllm") as engine:
        code, out, err = await run("--url", engine.url, "--write", "router.env")
        assert (code, out, len(err.splitlines())) == (2, "", 1) and "--force" in err and not engine.bodies
        code, _, _ = await run("--url", engine.url, "--write", "router.env", "--force")
    lines = written()
    assert code == 1 and lines[:2] == ["MINE=1", "BUDGET_ROUTER_BACKEND=vllm"] and len(lines) > 4


@pytest.mark.parametrize(
    ("file", "content", "said"), [("gone/router.env", None, "No such file"), ("latin", b"# caf\xe9\n", "is not UTF-8")]
)
async def test_a_file_that_cannot_be_written_is_refused_before_the_checks(
    file: str, content: bytes | None, said: str, run: Run, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / file).write_bytes(content)
    async with simulated("vllm") as engine:
        code, out, err = await run("--url", engine.url, "--write", file, "--force")
        assert (code, out, err.count("\n")) == (2, "", 1) and said in err


async def test_another_address_is_another_engine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulated("sglang") as old, simulated("vllm") as new:
        old.key = "sesame"
        settings = {"BACKEND": "sglang", "BACKEND_URL": f"{old.url},http://127.0.0.1:9", "BACKEND_MODEL": "gone"}
        for name, value in (settings | {"BACKEND_KEY": "sesame", "BACKEND_ENFORCEMENT": "two_phase"}).items():
            monkeypatch.setenv(f"BUDGET_ROUTER_{name}", value)
        code, out, _ = await run("--url", new.url, "--json")
        found = json.loads(out)
        assert found["settings"]["BUDGET_ROUTER_BACKEND"] == "vllm"
        assert found["settings"]["BUDGET_ROUTER_BACKEND_MODEL"] == MODEL
        assert found["settings"]["BUDGET_ROUTER_BACKEND_ENFORCEMENT"] == "native"
        assert "BUDGET_ROUTER_BACKEND_KEY" not in found["settings"]
        code, out, _ = await run("--url", f" {old.url}/v1/", "--json")
    assert code == 1 and "it serves tiny; not gone" in out  # one of the environment's replicas, with its key


async def test_what_is_only_taken_for_a_hosted_model_is_said(run: Run) -> None:
    async with simulated("vllm") as engine:
        engine.owner, engine.statuses = "gateway", {"/version": 404}
        code, out, _ = await run("--url", engine.url)
        assert code == 1 and "name it with --backend if it is none" in out and "/hint" in out
        _, out, _ = await run("--url", engine.url, "--backend", "openai_effort", "--write", "router.env")
    assert "taken for" not in out and "--ladder low,medium,high" in out


async def test_what_the_engine_leaves_open_is_asked_for_in_one_line(run: Run) -> None:
    async with simulated("vllm") as engine:
        engine.models = ["mine", "yours"]
        code, _, err = await run("--url", engine.url)
        line = "budget-router: the engine serves mine, yours; name one of them with --model\n"
        assert (code, err) == (2, line)
        engine.owner, engine.statuses = "", {"/version": 500}
        code, _, err = await run("--url", engine.url, "--model", "mine")
    assert code == 2 and err.count("\n") == 1 and "name it with --backend" in err


async def test_every_replica_is_examined(run: Run) -> None:
    async with simulated("vllm") as one, simulated("vllm") as other:
        other.version = "2.0"
        code, out, _ = await run("--url", f"{one.url},{other.url}", "--json")
    found: list[dict[str, Any]] = json.loads(out)["findings"]
    seen = {finding["check"]: finding["seen"] for finding in found}
    assert code == 1 and seen[f"engine at {one.url}"] == f"vllm-1.0, serves {MODEL}"
    assert seen[f"engine at {other.url}"] == f"vllm-2.0, serves {MODEL}"
    assert f"{other.url} is vllm-2.0" in seen["replicas are alike"]


async def test_the_exit_codes_are_documented(run: Run) -> None:
    _, out, _ = await run("--help")
    assert all(f"  {code}  " in out for code in (0, 1, 2))


async def test_that_no_engine_is_checked_is_said(run: Run) -> None:
    code, out, _ = await run()
    assert code == 0 and "the embedded pocket reasoner, because BUDGET_ROUTER_BACKEND_URL is not set\n" in out
    put("router.env", "BUDGET_ROUTER_BACKEND_URL=http://127.0.0.1:8000\n")
    _, out, _ = await run()
    assert "router.env is here and not loaded: set -a; . ./router.env; set +a" in out
    assert out.endswith("Next:\nset -a; . ./router.env; set +a\nbudget-router doctor\n")


async def test_a_default_target_without_a_certificate_names_the_ones_that_have_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUDGET_ROUTER_MAX_LOSS", "0.001")
    code, out, _ = await run()
    assert code == 0 and "no certificate for a loss of 0.001" in out
    assert "serve with BUDGET_ROUTER_MAX_LOSS=0.0" in out and "or collect more prompts" in out
    assert "Next:\nBUDGET_ROUTER_MAX_LOSS=0.0" in out and out.endswith(" budget-router serve\n")
