"""The trainer that goes on while evidence comes in, and its command."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from router import files
from router.learning import folders
from router.learning.folders import LOCK
from router.learning.status import Status
from router.learning.store import EvidenceFile
from tests.training.learning.conftest import PROMPTS, Learned, learning, taught
from training.cli import cli
from training.learning import alone
from training.learning.alone import POLL_SECONDS, rest, with_parent
from training.learning.follow import follow
from training.learning.look import Learning


class Pauses:
    """Counts pauses instead of waiting, and lets something happen in some of them."""

    def __init__(self, most: int) -> None:
        self.seconds: list[float] = []
        self._most = most

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)

    def going(self) -> bool:
        return len(self.seconds) < self._most


def test_it_looks_again_only_when_there_is_more(tmp_path: Path) -> None:
    pauses = Pauses(4)
    states = follow(learning(tmp_path), pauses.going, pauses)
    assert next(states).evidence.pieces == 0
    taught(tmp_path, 0, 3)
    assert next(states).evidence.pieces == 3
    assert list(states) == [] and len(pauses.seconds) == 4
    assert min(pauses.seconds) >= POLL_SECONDS


def test_a_look_that_has_to_wait_for_a_processor_rests_no_longer_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.learning.follow.REST", 100)
    pauses, look = Pauses(4), Learning.look

    def slow(trainer: Learning) -> Status:
        time.sleep(0.5)
        return look(trainer)

    monkeypatch.setattr(Learning, "look", slow)
    states = follow(learning(tmp_path), pauses.going, pauses)
    assert next(states).evidence.pieces == 0
    taught(tmp_path, 0, 3)
    assert next(states).evidence.pieces == 3 and sum(pauses.seconds) < 50


def test_what_is_refuted_while_the_trainer_rests_is_learned_anew_at_once(
    learned: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.learning.follow.REST", 1e9)
    folder = Path(shutil.copytree(learned.folder, tmp_path / "learning"))
    pauses = Pauses(40)
    trainer = learning(folder, act=True, audit=folder / "audit.json")
    states = follow(trainer, pauses.going, lambda seconds: pauses(min(seconds, POLL_SECONDS)))
    version = next(states).model_version
    alarm = {version: {"0.02": {"alpha": 0.02, "labels": 40, "capital": [100.0, 1.0]}}}
    (folder / "audit.json").write_text(json.dumps(alarm))
    assert version[:12] in next(states).began and len(pauses.seconds) < 5
    assert list(states) == [], "it rests again"


def test_a_folder_that_is_reset_while_the_trainer_rests_is_looked_at_at_once(
    learned: Learned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.learning.follow.LONGEST_REST", 1e9)
    monkeypatch.setattr("training.learning.follow.REST", 1e9)
    folder = Path(shutil.copytree(learned.folder, tmp_path / "learning"))
    pauses = Pauses(40)
    states = follow(learning(folder), pauses.going, lambda seconds: pauses(min(seconds, POLL_SECONDS)))
    assert next(states).evidence.pieces == PROMPTS
    folders.reset(folder)
    taught(folder, 0, 3)
    assert next(states).evidence.pieces == 3 and len(pauses.seconds) < 5
    assert list(states) == [], "it rests again"


def test_what_fails_is_said_and_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pauses, trainer = Pauses(3), learning(tmp_path)
    (tmp_path / "evidence.sqlite").write_text("no database at all, but long enough to look like one")
    assert list(follow(trainer, pauses.going, pauses)) == []
    assert capsys.readouterr().err.count("learn: ") == 1  # not at every pause


def test_it_ends_with_the_process_that_started_it() -> None:
    assert with_parent(0)() and with_parent(os.getppid())() and not with_parent(os.getpid())()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone kills a process with its parent")
def test_it_is_killed_with_the_process_that_started_it() -> None:
    waits = "killed_with(os.getppid()); print('begun', flush=True); time.sleep(60); print('left over')"
    trainer = f"import os, time; from training.learning.alone import killed_with; {waits}"
    service = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {trainer!r}])"
    with subprocess.Popen([sys.executable, "-c", service], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.kill()
        assert process.stdout.read() == ""  # once nobody holds it any more


def test_a_rest_ends_when_it_does_not_go_on() -> None:
    rest(lambda: True, 0.01)
    rest(lambda: False, 1e9)


def test_the_command_prints_a_status(learned: Learned, tmp_path: Path) -> None:
    EvidenceFile(tmp_path).close()
    done = CliRunner().invoke(cli, ["learn", "--folder", str(tmp_path), "--json"])
    assert done.exit_code == 0 and Status.from_json(done.output).state == "waiting"
    assert json.loads((tmp_path / "status.json").read_text()) == json.loads(done.output)
    copied = shutil.copytree(learned.folder, tmp_path / "learned")
    shown = CliRunner().invoke(cli, ["learn", "--folder", str(copied), "--act", "--max-loss", "0.02"])
    assert "of the thinking tokens saved at a loss of at most 0.02" in shown.output


def test_one_trainer_at_a_time_works_on_a_folder(tmp_path: Path) -> None:
    with files.locked(tmp_path / LOCK, make=True):
        done = CliRunner().invoke(cli, ["learn", "--folder", str(tmp_path)])
    assert isinstance(done.exception, OSError) and "another process" in str(done.exception)


def test_a_second_trainer_that_follows_waits_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alone, "BUSY_SECONDS", 0.0)
    monkeypatch.setattr(alone, "POLL_SECONDS", 0.01)
    first, asked = ExitStack(), 0

    def going() -> bool:
        nonlocal asked
        asked += 1
        if asked == 9:
            first.close()
        return True

    first.enter_context(files.locked(tmp_path / LOCK, make=True))
    with alone.alone(tmp_path, going):
        assert asked >= 9 and capsys.readouterr().err.count("another trainer works on") == 1


def test_a_trainer_that_waits_ends_with_its_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "BUSY_SECONDS", 0.0)
    with files.locked(tmp_path / LOCK, make=True), pytest.raises(OSError, match="another process"):
        alone.alone(tmp_path, lambda: False).__enter__()
