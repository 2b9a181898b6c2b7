"""The stage: nothing lost and nothing done twice, whatever ends a run; and labels told apart."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from router.domain import Sampling
from router.errors import BackendUnavailable
from training.cli import cli
from training.collect.questions import Question, held_out_questions
from training.collect.recipes import POCKET, POCKET_ANSWER_TOKENS, parse_ladder
from training.collect.rows import unit_result
from training.collect.run import collect, local, metadata, tally
from training.collect.units import FAILED, Answer, Pocket, Recipe, Unit, UnitResult
from training.data.dataset import from_frame, read, validate
from training.data.schema import ANSWER_KIND, SCHEMA, DatasetError

GREEDY = Sampling(0, POCKET_ANSWER_TOKENS)
RECIPE = Recipe(Pocket(POCKET), "pocket/x", parse_ladder("0,3,16"), 1, GREEDY, 4, nested=True)
SLOW = Recipe(Pocket(POCKET), "pocket/x", parse_ladder("0,3,16"), 1, Sampling(0.5, POCKET_ANSWER_TOKENS, 7), 4)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    """Held-out questions of every family."""
    return held_out_questions(1, 99)[::7]  # 7, since levels come by sixes


class Counting:
    """Runs units in this process and remembers which."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.ran: list[str] = []
        self._left = stop_after

    def __call__(self, units: Iterable[Unit], recipe: Recipe) -> Iterator[list[UnitResult]]:
        for some in local(units, recipe):
            if self._left is not None and len(self.ran) >= self._left:
                raise BackendUnavailable("gone")
            self.ran += [one.key for one in some]
            yield some


def without_time(path: Path) -> list[dict[str, object]]:
    return pl.read_parquet(path).drop("observed_at").to_dicts()


@pytest.mark.parametrize("recipe", [RECIPE, SLOW], ids=["nested", "independent"])
def test_every_rung_of_every_prompt_in_the_schema(recipe: Recipe, questions: list[Question], tmp_path: Path) -> None:
    collect(questions, recipe, tmp_path / "o.parquet", local)
    rows = pl.read_parquet(tmp_path / "o.parquet")
    assert rows.schema == SCHEMA
    assert len(rows) == 3 * len(questions) == rows.select("prompt", "rung").n_unique()
    assert set(rows["trace_id"].is_null()) == {not recipe.nested}
    assert (rows["thinking_tokens"] <= rows["budget_tokens"]).all()
    assert from_frame(rows).ladder == recipe.ladder
    assert [path.name for path in tmp_path.iterdir()] == ["o.parquet"]


def test_a_file_says_how_its_answers_were_compared_if_all_were_alike(questions: list[Question]) -> None:
    others = [replace(one, scorer="choice") for one in questions]
    assert metadata(questions, RECIPE) == {ANSWER_KIND: "verbatim"}
    assert metadata(others, RECIPE) == {ANSWER_KIND: "choice"}
    assert metadata([*questions, *others], RECIPE) == {ANSWER_KIND: ""}


@pytest.mark.parametrize("recipe", [RECIPE, SLOW], ids=["nested", "independent"])
def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(
    recipe: Recipe, questions: list[Question], tmp_path: Path
) -> None:
    first, second = Counting(stop_after=4), Counting()
    with pytest.raises(BackendUnavailable):
        collect(questions, recipe, tmp_path / "o.parquet", first)
    assert not (tmp_path / "o.parquet").exists()
    collect(questions, recipe, tmp_path / "o.parquet", second)
    collect(questions, recipe, tmp_path / "whole.parquet", local)
    assert first.ran and second.ran and not set(first.ran) & set(second.ran)
    assert without_time(tmp_path / "o.parquet") == without_time(tmp_path / "whole.parquet")


@pytest.mark.parametrize("kills", [(20,), pytest.param((1, 50, 120), marks=pytest.mark.slow)], ids=["once", "thrice"])
def test_a_run_killed_at_any_time_loses_at_most_the_line_it_was_writing(kills: tuple[int, ...], tmp_path: Path) -> None:
    out, journal = tmp_path / "o.parquet", tmp_path / "o.parquet.journal"
    arguments = ["collect", "--per-level", "1", "--ladder", "0,4,16", "--temperature", ".3", "--out", str(out)]
    for lines in kills:
        killed_after(lines, [sys.executable, "-m", "training", *arguments], journal)
        kept = [json.loads(line)["unit"] for line in journal.read_bytes().split(b"\n")[1:-1]]
        assert lines - 1 <= len(kept) == len(set(kept))
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    rows = pl.read_parquet(out)
    assert rows.select("prompt_id", "rung", "sample_id").n_unique() == len(rows) == 3 * rows["prompt_id"].n_unique()
    assert validate(out) == []


def killed_after(lines: int, command: list[str], journal: Path) -> None:
    """SIGKILL a run as soon as its journal has this many lines."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.005)
    process.kill()
    process.wait()


def test_a_torn_line_is_done_again_and_a_damaged_one_is_named(questions: list[Question], tmp_path: Path) -> None:
    out, journal = tmp_path / "o.parquet", tmp_path / "o.parquet.journal"
    with pytest.raises(BackendUnavailable):
        collect(questions, RECIPE, out, Counting(stop_after=4))
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    again = Counting()
    collect(questions, RECIPE, out, again)
    assert len(again.ran) == len(questions) - whole.count(b"\n") + 2
    lines = whole.split(b"\n")
    journal.write_bytes(b"\n".join([lines[0], lines[1][:-9], *lines[2:]]))
    with pytest.raises(DatasetError, match=r"o\.parquet\.journal: line 2 is damaged"):
        collect(questions, RECIPE, out, local)


def test_the_journal_of_another_run_is_refused_by_name(questions: list[Question], tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable):
        collect(questions, RECIPE, tmp_path / "o.parquet", Counting(stop_after=1))
    with pytest.raises(DatasetError, match=r"other settings \(nested, sampling\)"):
        collect(questions, SLOW, tmp_path / "o.parquet", local)
    with pytest.raises(DatasetError, match=r"other settings \(questions\)"):
        collect(questions[1:], RECIPE, tmp_path / "o.parquet", local)


def test_two_processes_do_not_share_a_journal(questions: list[Question], tmp_path: Path) -> None:
    def nested(units: Iterable[Unit], recipe: Recipe) -> Iterator[list[UnitResult]]:
        with pytest.raises(DatasetError, match="another process is writing"):
            collect(questions, RECIPE, tmp_path / "o.parquet", local)
        yield from local(units, recipe)

    collect(questions, RECIPE, tmp_path / "o.parquet", nested)


def test_right_wrong_truncated_unparsable_and_failed_answers_are_distinguished() -> None:
    question = Question("2 + 2 =", "4", None, "g", "numeric", {})
    answers = {
        "right": Answer("4", 3, 1, "natural"),
        "wrong": Answer("5", 3, 1, "forced"),
        "truncated": Answer("4", 3, 64, "truncated"),
        "unparsable": Answer("four", 3, 1, "natural"),
        "error": FAILED,
    }
    rows = [
        unit_result(Unit(question, 0, place), [answer], RECIPE).rows[0] for place, answer in enumerate(answers.values())
    ]
    assert [row["finish"] for row in rows] == ["natural", "forced", "truncated", "unparsable", "error"]
    assert [row["correct"] for row in rows] == [1, 0, 0, 0, 0]
    (told,) = tally(pl.LazyFrame(rows))
    assert {name: told[name] for name in answers} == dict.fromkeys(answers, 1)
    assert (told["rung"], told["answers"], told["thinking_tokens"]) == ("0", 5, 3)


def test_prompts_that_have_answers_are_labelled_by_agreement_where_that_is_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    gym = ["--gym", "basic_arithmetic", "--count", "2", "--ladder", "0,16", "--scorer", "agreement"]
    result = CliRunner().invoke(cli, ["collect", *gym, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert set(pl.read_parquet(out)["label_source"]) == {"agreement"}


def test_the_command_says_what_came_of_it(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "2 + 2 =", "answer": "4"}\n{"prompt": "3 + 4 =", "answer": "7"}\n')
    arguments = ["collect", "--prompts", str(prompts), "--ladder", "0,16", "--out", str(tmp_path / "o.parquet")]
    result = CliRunner().invoke(cli, [*arguments, "--scorer", "numeric", "--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["prompts"] == 2
    assert [rung["answers"] for rung in told["rungs"]] == [2, 2]
    assert len(read(tmp_path / "o.parquet")) == 2
