"""`budget-router status`, `learn` and `label` on a learning folder."""

import json
import os
import pty
import select
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from router import files
from router.cli import display, learning_screen
from router.cli.commands import cli
from router.learning import folders, people, status, store
from router.learning.overview import Overview
from router.learning.status import Saving, Status, Target
from tests.learning.test_evidence import evidence
from tests.learning.test_overview import LEARNING, WHOLE
from tests.learning.test_people import kept, losses, written
from tests.serving.test_serve import environment

SECRET = "the planted text"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two pieces of evidence, one of them with its texts."""
    return written(tmp_path / "learning", evidence("d1"), evidence("d2", kept=kept(SECRET)))


def run(*arguments: object, stdin: str = "", token: str = "") -> Result:
    env = {"BUDGET_ROUTER_ADMIN_TOKEN": token, "BUDGET_ROUTER_LEARN_FOLDER": "", "COLUMNS": "200"}
    return CliRunner().invoke(cli, [str(one) for one in arguments], input=stdin, env=env)


def at(folder: Path) -> tuple[str, Path]:
    return "--folder", folder


@pytest.fixture
def screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the screen shows of an overview."""
    monkeypatch.setattr(display.console, "_width", 200)  # it has read COLUMNS when it was made

    def shown(overview: Overview, price: float | None = None) -> str:
        learning_screen.show(overview, price)
        return capsys.readouterr().out

    return shown


def test_status_reads_a_folder(folder: Path) -> None:
    seen = run("status", *at(folder))
    assert seen.exit_code == 0 and "2 pieces of evidence" in seen.stdout and "budget-train learn" in seen.stdout
    (folder / status.FILE).write_text(json.dumps(LEARNING.to_json()))
    told = json.loads(run("status", *at(folder), "--json").stdout)
    assert told["evidence"] == 2 and told["learning"]["reason"] == LEARNING.reason and told["next"] == ""
    assert run("status", *at(folder), token="a token").exit_code == 0, "a folder that is named is read"


@pytest.mark.parametrize(
    "command", [("status",), ("learn", "reset", "--yes"), ("learn", "export", "--out", "e.jsonl"), ("label",)]
)
def test_a_folder_that_is_not_there_is_a_wrong_argument(tmp_path: Path, command: tuple[str, ...]) -> None:
    seen = run(*command, *at(tmp_path / "nowhere"))
    assert seen.exit_code == 2 and "serve --learn observe" in seen.stderr


def test_the_screen_says_what_is_proved_and_what_is_missing(screen: Callable[..., str]) -> None:
    shown = screen(WHOLE, 2.0)
    for part in (
        "acting, certified: rung 256 keeps .02",
        "200 free, 60 judged, 10 reported, 30 wanted",
        "84,120 tokens on learning, worth 0.17",
        "1,000,000 tokens (900,000 to 1,100,000), worth 2.00 (1.80 to 2.20), 25 %",
        "in about 600 requests, 30 minutes",
        "yes, rung 256 for everybody, tested on 250",
        "yes, by prompt, tested on 50",
        "not in sight",
        "4.5 of 33",
        "an audit has alarmed",
        "350 requests: 86.9 % learned, 11.4 % unfinished, 1.7 % busy",
        "3, one of which has 50 % of the evidence",
        "the engine is another one",
    ):
        assert part in shown, part
    assert "worth" not in screen(WHOLE) and "--learn act" not in shown
    assert "come since" not in shown
    assert "UTC; 6 pieces of evidence have come since" in screen(replace(WHOLE, evidence=310))


def test_observing_ends_with_what_acting_would_save(screen: Callable[..., str]) -> None:
    observing = replace(WHOLE, mode="observe", saved=None)
    assert "you would save 31 % (24, 38) at a loss of at most 0.02: run with --learn act" in screen(observing)
    for target in (Target(0.02, wanted=9), Target(0.02, Saving(0.0, 0.0, 0.0, 0.0), 0, 1, 250, 0)):
        nothing = replace(observing, learning=replace(LEARNING, targets=(target,)))
        assert learning_screen.next_step(nothing) == ""


def test_acting_without_enough_at_the_top_says_so(screen: Callable[..., str]) -> None:
    acting = replace(WHOLE, saved=None, learning=replace(LEARNING, state="serving"))
    assert "not known yet" in screen(acting)
    assert "not known yet" not in screen(replace(acting, learning=Status("testing", "", 0.0)))


def test_control_characters_of_a_file_do_not_reach_the_terminal(screen: Callable[..., str]) -> None:
    assert "\x1b" not in screen(
        replace(WHOLE, learning=replace(LEARNING, reason="\x1b[2J[bold]", engine="\x1b]0;x\x07"))
    )


def test_reset_moves_the_evidence_aside_and_keeps_bundles(folder: Path) -> None:
    (folder / "registry").mkdir()
    (folder / "registry" / "current.json").write_text("{}")
    key = store.secret(folder)
    with files.locked(folder / folders.LOCK, make=True):  # as the trainer of a service that runs
        told = json.loads(run("learn", "reset", *at(folder), "--yes", "--json").stdout)
        with pytest.raises(OSError), files.locked(folder / folders.LOCK, 0.0, make=True):
            pass
    aside = Path(told["moved_to"])
    assert aside.parent == folder.parent and len(list(store.read(aside))) == 2
    assert (
        sorted(one.name for one in folder.iterdir()) == [folders.LOCK, "registry", "secret"]
        and store.secret(folder) == key
    )
    written(folder, evidence("d3"))
    assert [one.decision_id for _, one in store.read(folder)] == ["d3"], "a service that runs goes on"


def test_reset_asks_where_somebody_can_answer(folder: Path) -> None:
    for options in ((), ("--json",)):
        seen = run("learn", "reset", *at(folder), *options, stdin="y\n")
        assert seen.exit_code == 2 and "--yes" in seen.stderr
    assert len(list(store.read(folder))) == 2
    assert in_terminal(("learn", "reset", *at(folder)), "n\r")[0] == 1
    assert len(list(store.read(folder))) == 2


@pytest.mark.parametrize("name", ["evidence.jsonl", "evidence.parquet"])
def test_export_writes_each_piece_and_no_text_that_was_not_kept(folder: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out" / name
    told = json.loads(run("learn", "export", *at(folder), "--out", out, "--json").stdout)
    assert told == {"file": str(out), "evidence": 2} and out.stat().st_mode & 0o077 == 0
    rows = (
        pl.read_parquet(out).to_dicts()
        if out.suffix == ".parquet"
        else [*map(json.loads, out.read_text().splitlines())]
    )
    first, second = rows
    assert first["kept"] == "" and SECRET in second["kept"]
    assert first["losses"] == [1, 0, 0] and [rung["name"] for rung in first["ladder"]] == ["0", "512", "default"]
    assert first["inputs"] == [0, 0.25, 0.5, 0.75, 1] and first["decision_id"] == "d1" and first["judged"] == [None] * 3


def test_export_of_nothing_has_all_columns(tmp_path: Path) -> None:
    out = tmp_path / "evidence.parquet"
    assert run("learn", "export", *at(written(tmp_path / "learning")), "--out", out).exit_code == 0
    assert pl.read_parquet(out).height == 0 and "losses" in pl.read_parquet(out).columns
    refused = run("learn", "export", *at(tmp_path / "learning"), "--out", tmp_path / "evidence.csv")
    assert refused.exit_code == 2 and ".parquet or .jsonl" in refused.stderr


def test_label_without_a_terminal_names_the_way(folder: Path) -> None:
    seen = run("label", *at(folder))
    assert seen.exit_code == 2 and "--out FILE" in seen.stderr and "--take FILE" in seen.stderr


def test_label_without_texts_names_the_setting(tmp_path: Path) -> None:
    seen = run("label", *at(written(tmp_path / "learning", evidence())), "--json")
    assert seen.exit_code == 0 and not seen.stdout and "BUDGET_ROUTER_LOG_PROMPTS" in seen.stderr


def test_label_where_nothing_differs_says_so(tmp_path: Path) -> None:
    home = written(tmp_path / "learning", evidence("d1", same=(True, True, True)))
    seen = run("label", *at(home), "--out", tmp_path / "questions.jsonl")
    assert seen.exit_code == 0 and "1 piece of evidence, and nobody need judge one" in seen.stderr


def test_questions_go_out_and_come_back_as_lines(folder: Path, tmp_path: Path) -> None:
    (line,) = run("label", *at(folder), "--json").stdout.splitlines()
    question, lines = json.loads(line), tmp_path / "out" / "questions.jsonl"
    assert json.loads(run("label", *at(folder), "--out", lines, "--json").stdout)["questions"] == 1
    assert lines.read_text() == line + "\n" and lines.stat().st_mode & 0o077 == 0
    assert "may hold replies" in run("label", *at(folder), "--out", lines).stderr
    assert question["prompt"] == SECRET and sorted(question["answers"].values()) == ["4", "four"]
    assert json.loads(run("label", *at(folder), "--take", lines, "--json").stdout)["unanswered"] == 1
    lines.write_text(json.dumps(question | {"right": "both"}) + "\n\n")
    assert json.loads(run("label", *at(folder), "--take", lines, "--json").stdout)["taken"] == 1
    assert losses(folder) == {"d1": (1, 0, 0), "d2": (0, 0, 0)}
    assert json.loads(run("label", *at(folder), "--take", lines, "--json").stdout)["not_open"] == 1
    assert not people.queue(folder).questions


@pytest.mark.parametrize("line", ["{", '{"prompt": 1}', '{"prompt": "a", "answers": {"A": "b"}, "right": "C"}', "\xff"])
def test_a_line_that_is_no_reply_is_named(folder: Path, tmp_path: Path, line: str) -> None:
    lines = tmp_path / "questions.jsonl"
    lines.write_bytes(f"\n{line}".encode("latin-1"))
    seen = run("label", *at(folder), "--take", lines)
    assert "questions.jsonl" in str(seen.exception)


def test_in_a_terminal_one_key_answers(folder: Path) -> None:
    code, shown = in_terminal(("label", *at(folder)), "2")
    assert code == 0 and SECRET in shown and "four" in shown and "1 answer kept" in shown
    assert losses(folder)["d2"] == (0, 0, 0)


def in_terminal(arguments: tuple[object, ...], keys: str) -> tuple[int, str]:
    """The command in a terminal of its own: its exit code, and what it shows."""
    child, terminal = pty.fork()
    if child == 0:
        command = [sys.executable, "-m", "router", *map(str, arguments)]
        os.execve(sys.executable, command, environment())
    shown = b""
    for _ in range(600):
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65_536)
            except OSError:  # the child has ended
                break
        elif b"[q] quit" in shown or b"[y/N]" in shown:
            os.write(terminal, keys.encode())  # once more where it came before the terminal waited for single keys
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode(errors="replace")
