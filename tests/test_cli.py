"""The command `budget-router` against a real server: what it prints and its exit codes."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from router.cli import main
from router.cli.commands import cli
from router.cli.display import show_event
from router.client import Checkpoint, ClientError, Content, FailedPrecondition, Reasoning, Unauthenticated
from router.digits import probability
from tests.serving.test_serve import Server, environment, running
from tests.support.ports import free_port

PROMPT = "2 + 2 ="
SPELLING = "Spell this word backward (example: sun -> nus): router"
"""A prompt like those that the shipped bundle was calibrated on."""

COUNTING = "How many 1 bits are there in the binary representation of the number 9401?"
"""One that needs a longer thought."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service on embedded defaults."""
    with running(tmp_path_factory.mktemp("cli")) as server:
        yield server


def ask(server: Server, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--server", server.address], input=stdin)


def told(server: Server, *arguments: str, stdin: str | None = None) -> list[Any]:
    """The JSON lines of a command that must succeed."""
    result = ask(server, *arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result
    return [json.loads(line) for line in result.stdout.splitlines()]


def command(*arguments: str | bytes, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "router", *arguments], input=stdin, capture_output=True, env=environment(), timeout=60
    )


@pytest.fixture
def exit_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command as the console script does; exit code and the lines on standard error."""

    def run(*arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["budget-router", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, capsys.readouterr().err.splitlines()

    return run


def test_decide_tells_machines_everything(server: Server) -> None:
    (decision,) = told(server, "decide", PROMPT)
    assert decision["rung"] in [forecast["rung"] for forecast in decision["forecasts"]]
    for forecast in decision["forecasts"]:
        assert 0 <= forecast["quality"] <= 1
        assert isinstance(forecast["budget_tokens"], int)
        assert forecast["mean_thinking_tokens"] <= forecast["budget_tokens"]
    assert isinstance(decision["meets_target"], bool) and isinstance(decision["certified"], bool)
    assert decision["source"].startswith("DECISION_SOURCE_")
    assert len(decision["model_version"]) == 64
    assert len(decision["decision_id"]) == 32


def test_decide_draws_the_curve_with_the_chosen_rung_marked(server: Server) -> None:
    (decision,) = told(server, "decide", PROMPT)
    result = ask(server, "decide", PROMPT)
    assert result.exit_code == 0
    (marked,) = [line for line in result.stdout.splitlines() if "▶" in line]
    assert marked.split()[1] == decision["rung"]
    for forecast in decision["forecasts"]:
        assert probability(forecast["quality"]) in result.stdout
    assert f"rung {decision['rung']}" in result.stdout


def test_decide_says_how_much_was_not_read(server: Server) -> None:
    document = "The committee met on a grey morning. " * 100
    result = ask(server, "decide", f"{document}\n\n{PROMPT}")
    assert f"{len(document) + 2:,} characters around the question were counted, not read" in result.stdout
    assert "not read" not in ask(server, "decide", PROMPT).stdout


def test_decide_draws_a_decision_without_a_curve(server: Server) -> None:
    result = ask(server, "decide", PROMPT, "--rung", "16")
    assert result.exit_code == 0
    assert "rung 16" in result.stdout


def test_options_reach_the_service(server: Server) -> None:
    assert told(server, "decide", PROMPT, "--rung", "32")[0]["rung"] == "32"
    assert told(server, "decide", PROMPT, "--max-loss", "0")[0]["max_loss"] == 0
    assert told(server, "decide", PROMPT, "--min-quality", "0.25")[0]["min_quality"] == 0.25
    decision = told(server, "decide", PROMPT, "--max-loss", "0.1", "--per-prompt-target")[0]
    assert (decision["max_loss"], decision["per_prompt_target"]) == (0.1, True)
    talk = ("--conversation-id", "talk", "--escalate")
    sources = [told(server, "decide", PROMPT, *talk)[0]["source"].removeprefix("DECISION_SOURCE_") for _ in range(2)]
    assert sources[1] == "PINNED" != sources[0]
    for most, least in (("--max-thinking-tokens", "--min-thinking-tokens"), ("--ceiling", "--floor")):
        assert told(server, "decide", PROMPT, most, "16")[0]["budget_tokens"] <= 16
        assert told(server, "decide", PROMPT, least, "64")[0]["budget_tokens"] >= 64
    assert told(server, "decide", PROMPT, "--reasoning-effort", "none")[0]["budget_tokens"] == 0


def test_a_deadline_that_shrinks_a_budget_is_said(server: Server) -> None:
    free, held = (told(server, "decide", COUNTING, *options)[0] for options in ((), ("--max-latency", "0.05")))
    assert held["budget_tokens"] < free["budget_tokens"] and not held["certified"]
    assert "the longest in time (rung " in held["reason"] and "leaves 0.05 s" in held["reason"]


def test_what_to_do_where_the_target_is_not_met_can_be_said(server: Server) -> None:
    top, near = (
        told(server, "decide", SPELLING, "--min-quality", "1", "--on-unmet", said)[0]
        for said in ("top_rung", "cheapest_near_best")
    )
    assert top["min_quality"] == near["min_quality"] == 1
    assert near["budget_tokens"] < top["budget_tokens"] == 256
    assert told(server, "decide", SPELLING, "--min-quality", "1", "--fail-fast")[0]["rung"] == near["rung"]
    refused = ask(server, "decide", SPELLING, "--min-quality", "1", "--on-unmet", "reject")
    assert isinstance(refused.exception, FailedPrecondition)


def test_a_prompt_comes_from_standard_input(server: Server) -> None:
    given = told(server, "decide", "-", stdin=PROMPT)[0]
    assert given["forecasts"] == told(server, "decide", PROMPT)[0]["forecasts"]


def test_generate_streams_events(server: Server) -> None:
    events = told(server, "generate", PROMPT, "--rung", "16")
    assert "decision" in events[0]
    assert events[-1]["completion"]["thinking_tokens"] <= events[-1]["completion"]["budget_tokens"] == 16
    assert {key for event in events[1:-1] for key in event} <= {"reasoning", "content"}


def test_generate_prints_budget_thought_answer_and_usage(server: Server) -> None:
    events = told(server, "generate", PROMPT, "--rung", "16")
    result = ask(server, "generate", PROMPT, "--rung", "16")
    assert result.exit_code == 0
    assert "rung 16" in result.stdout
    thought, answer = ("".join(e.get(kind, "") for e in events) for kind in ("reasoning", "content"))
    assert f"{thought}\n{answer}\n" in result.stdout
    assert re.search(r"\d+ thinking tokens?, budget 16, ", result.stdout)


def test_a_conversation_is_a_list_of_messages(server: Server, exit_of: Any) -> None:
    turns = [{"role": "developer", "content": "Be brief."}, {"role": "user", "parts": ["2 + 2", "="]}]
    (decision,) = told(server, "decide", "-", "--conversation", stdin=json.dumps(turns))
    assert decision["rung"]
    assert told(server, "explain", json.dumps(turns), "--conversation")[0]["sentences"]
    begun = json.dumps([*turns, {"role": "assistant", "content": "4"}])
    assert "completion" in told(server, "generate", begun, "--conversation")[-1]
    for wrong, said in (("[", "not JSON"), ('{"role": "user"}', "no JSON list"), ('[{"rôle": "user"}]', "messages[0]")):
        code, (line,) = exit_of("decide", wrong, "--conversation", "--server", server.address)
        assert code == 2 and said in line


def test_generate_takes_sampling(server: Server) -> None:
    free = told(server, "generate", PROMPT, "--rung", "16", "--logprobs", "1")
    answer = "".join(event.get("content", "") for event in free)
    tokens = [token for event in free for token in event.get("logprobs", {}).get("tokens", [])]
    assert "".join(token["token"] for token in tokens) == answer and all(len(token["top"]) == 1 for token in tokens)
    cut = told(
        server, "generate", PROMPT, "--rung", "16", "--temperature", "0.5", "--top-k", "1", "--top-p", "0.5",
        "--min-p", "0.5", "--seed", "3", "--max-answer-tokens", "9", "--stop", "no such text", "--stop", answer[-1],
    )  # fmt: skip
    assert "".join(event.get("content", "") for event in cut) == answer[: answer.index(answer[-1])]


def test_what_the_backend_cannot_do_is_one_line_that_names_it(server: Server, exit_of: Any, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    for field, options in {
        "sampling.presence_penalty": ("--presence-penalty", "1"),
        "sampling.frequency_penalty": ("--frequency-penalty", "1"),
        "sampling.repetition_penalty": ("--repetition-penalty", "1.1"),
        "response_format": ("--json-schema", str(schema)),
    }.items():
        code, lines = exit_of("generate", PROMPT, *options, "--server", server.address)
        assert (code, len(lines)) == (2, 1) and f"{field}: the embedded model cannot do this" in lines[0]


def test_people_see_the_id_that_a_report_needs(server: Server) -> None:
    for command in (("decide", PROMPT), ("generate", PROMPT, "--rung", "0"), ("explain", PROMPT)):
        lines = ask(server, *command).stdout.splitlines()
        (shown,) = [line for line in lines if line.startswith("decision ")]
        assert ask(server, "report", shown.split()[1], "--correct", "1").stdout == "reported\n"
        if command[0] != "generate":  # no answer was given that could have been right
            assert "how right" not in "".join(lines)
            continue
        # The last line is the whole command: with the service that was asked.
        program, *typed = shlex.split(lines[-1].partition("? ")[2])
        assert (program, typed[1], typed[-1]) == ("budget-router", shown.split()[1], server.address)
        assert CliRunner().invoke(cli, typed).stdout == "reported\n"


def test_decide_generate_and_explain_give_one_reason_in_the_same_digits(server: Server) -> None:
    for prompt in (PROMPT, SPELLING):
        (decision,) = told(server, "decide", prompt)
        decided, generated, explained = (
            ask(server, *command).stdout
            for command in (("decide", prompt), ("generate", prompt, "--max-loss", "0.02"), ("explain", prompt))
        )
        assert f": {decision['reason']}\n" in decided and f": {decision['reason']}\n" in generated
        assert f"was chosen: {decision['reason']}.\n" in explained
        for forecast in decision["forecasts"]:
            assert f"{forecast['rung']}: {probability(forecast['quality'])} (" in explained


def test_the_answer_may_not_rule_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for event in (Reasoning("\x1b[2J:smile: [red]\tx\n"), Content("\x07\x9b31m:smile: [red]\tx\n")):
        show_event(event, None)
    shown = capsys.readouterr().out
    assert shown == "[2J:smile: [red]\tx\n31m:smile: [red]\tx\n"


@pytest.mark.parametrize(
    ("seen", "shown"),
    [
        (
            Checkpoint("64", 64, "so\n it is 4\x1b[2J", 5, 1, -0.25, True),
            "[rung 64, 64 tokens: answer 'so it is 4[2J', mean log-probability -0.25, the same as at the 1 cut before: "
            "it stops]",
        ),
        (Checkpoint("16", 16, "4", 5, 0, None, False), "[rung 16, 16 tokens: answer '4': it goes on]"),
        (Checkpoint("16", 16, "", 0, 0, None, False), "[rung 16, 16 tokens: no answer came: it goes on]"),
    ],
)
def test_a_look_at_the_answer_is_a_line_of_its_own(
    seen: Checkpoint, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_event(seen, Reasoning("and so on"))
    assert capsys.readouterr().out == f"\n{shown}\n"


def test_health_is_a_word_and_an_exit_code(server: Server) -> None:
    result = ask(server, "health")
    assert (result.exit_code, result.stdout) == (0, "SERVING\n")
    assert told(server, "health") == [{"status": "SERVING"}]


def test_tokens_are_counted_from_zero_up() -> None:
    shown = CliRunner().invoke(cli, ["decide", "--help"]).stdout
    assert "x>=0" in shown and "2147483647" not in shown and "--fail-fast" not in shown


@pytest.mark.parametrize("name", ["plan", "outcomes"])
def test_commands_about_recorded_traffic_are_here_too(name: str) -> None:
    assert name in CliRunner().invoke(cli, ["--help"]).stdout
    assert CliRunner().invoke(cli, [name, "--help"]).exit_code == 0


def test_report_attaches_an_outcome(server: Server) -> None:
    decision_id = told(server, "decide", PROMPT)[0]["decision_id"]
    assert told(server, "report", decision_id, "--correct", "1", "--by", "verifier") == [
        {"decision_id": decision_id, "reported": True}
    ]
    assert ask(server, "report", decision_id, "--correct", "0.5").stdout == "reported\n"


def test_doctor_finds_nothing_wrong_with_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("BUDGET_ROUTER_")]:
        monkeypatch.delenv(name)
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found["findings"]) >= 5
    assert all(finding["passed"] for finding in found["findings"])
    assert found["next"] == ["budget-router serve"] and found["settings"] == {}


def test_doctor_fails_when_the_engine_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for name, value in {"BACKEND": "vllm", "BACKEND_URL": url, "BACKEND_MODEL": "some"}.items():
        monkeypatch.setenv(f"BUDGET_ROUTER_{name}", value)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1
    assert f"FAILS  engine at {url}" in result.stdout and "nothing listens" in result.stdout


def test_doctor_sees_a_redis_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDGET_ROUTER_REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    monkeypatch.setenv("BUDGET_ROUTER_CACHE_SECRET", "x")
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    assert result.exit_code == 1
    assert [f["check"] for f in json.loads(result.stdout)["findings"] if not f["passed"]] == ["Redis"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("decide", " "), "messages[0].content"),
        (("decide", PROMPT, "--rung", "17"), "options.rung"),
        (("decide", PROMPT, "--floor", "100000"), "options.min_thinking_tokens"),
        (("decide", PROMPT, "--min-thinking-tokens", str(2**31)), "options.min_thinking_tokens"),
        (("decide", PROMPT, "--floor", "64", "--ceiling", "32"), "options.min_thinking_tokens"),
        (("generate", PROMPT, "--temperature", "3"), "--temperature"),
        (("generate", PROMPT, "--logprobs", "2"), "--logprobs needs --json"),
        (("generate", PROMPT, "--json-schema", __file__), "is not JSON"),
        (("generate", PROMPT, "--stop", ""), "sampling.stop[0]"),
        (("report", "unknown", "--correct", "1"), "decision_id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_the_caller_got_wrong_is_one_line_and_exit_code_2(
    server: Server, exit_of: Any, arguments: tuple[str, ...], said: str
) -> None:
    code, lines = exit_of(*arguments, "--server", server.address)
    assert code == 2
    (line,) = lines
    assert line.startswith("budget-router: ") and said in line


@pytest.mark.parametrize("command", ["decide", "generate"])
def test_a_target_that_is_not_met_is_no_wrong_input(server: Server, exit_of: Any, command: str) -> None:
    code, lines = exit_of(command, PROMPT, "--min-quality", "1", "--on-unmet", "reject", "--server", server.address)
    assert code == 1
    (line,) = lines
    assert line.startswith("budget-router: ")


def test_both_targets_are_refused_by_name(exit_of: Any) -> None:
    _, lines = exit_of("decide", PROMPT, "--max-loss", "0.1", "--min-quality", "0.5")
    assert "--max-loss" in lines[-1] and "--min-quality" in lines[-1]


def test_success_is_exit_code_0(server: Server, exit_of: Any) -> None:
    assert exit_of("decide", PROMPT, "--server", server.address) == (0, [])


@pytest.mark.parametrize(
    "arguments", [("decide", b"\xff\xfe"), ("decide", b"\xed\xa0\x80")], ids=["bytes", "surrogate"]
)
def test_an_argument_that_is_not_utf8_is_refused(arguments: tuple[str, bytes]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert b"not valid UTF-8" in done.stderr and b"Traceback" not in done.stderr


def test_standard_input_that_is_not_utf8_is_refused() -> None:
    done = command("decide", "-", stdin=b"\xff\xfe")
    assert done.returncode == 2
    assert b"not valid UTF-8" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("decide", "x"), ("generate", "x"), ("report", "x", "--correct", "1")], ids=" ".join
)
def test_no_server_is_one_line_and_exit_code_1(exit_of: Any, arguments: tuple[str, ...]) -> None:
    code, lines = exit_of(*arguments, "--server", f"127.0.0.1:{free_port()}")
    assert code == 1
    (line,) = lines
    assert line.startswith("budget-router: no service at 127.0.0.1:") and "budget-router serve" in line


def test_health_tells_machines_that_nothing_listens() -> None:
    result = CliRunner().invoke(cli, ["health", "--json", "--server", f"127.0.0.1:{free_port()}"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["status"]) == (1, "UNREACHABLE")
    assert found["error"].startswith("no service at 127.0.0.1:")


def test_no_server_prints_nothing_else_either() -> None:
    done = command("decide", "x", "--server", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert done.stdout == b""
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["serve", "decide", "generate", "report", "doctor"])
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert name in result.stdout and len(result.stdout.splitlines()) > 5


def test_remote_errors_reach_main_untouched(server: Server) -> None:
    result = ask(server, "decide", " ")
    assert isinstance(result.exception, ClientError)


def test_python_dash_m_is_the_command(tmp_path: Path) -> None:
    done = command("--help")
    assert done.returncode == 0
    assert b"budget-router serve" in done.stdout


def test_a_new_key_opens_the_service_and_nothing_else_does(tmp_path: Path) -> None:
    made = CliRunner().invoke(cli, ["new-key", "search", "--json"])
    told = json.loads(made.stdout)
    tenants = tmp_path / "tenants.toml"
    tenants.write_text(f'[search]\nkeys = [{{ sha256 = "{told["sha256"]}", expires = {told["expires"]} }}]\n')
    (tmp_path / "key").write_text(told["key"] + "\n")
    with running(tmp_path, tenants=str(tenants)) as server:
        refused = ask(server, "decide", PROMPT)
        assert isinstance(refused.exception, Unauthenticated)
        asked = ask(server, "decide", PROMPT, "--json", "--key-file", str(tmp_path / "key"))
        assert json.loads(asked.stdout)["decision_id"]
        assert server.stop() == 0
        written = server.log.read_text()
        assert told["key"] not in written and told["sha256"] not in written
        assert {line["tenant"] for line in server.lines() if line["event"] == "decided"} == {"search"}


def test_a_new_key_is_shown_once_and_apart_from_what_is_kept() -> None:
    made = CliRunner().invoke(cli, ["new-key", "a team", "--days", "30"])
    (key,) = made.stdout.splitlines()
    assert '["a team"]' in made.stderr and "sha256" in made.stderr and key not in made.stderr
