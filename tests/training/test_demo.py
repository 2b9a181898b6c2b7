"""`make run`: its prompts, its summary, and that it leaves no process behind. The service is tested elsewhere."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from router.client import Decision, RungForecast
from training.data.splits import prompt_id, split_of
from training.demo import PER_FAMILY, Run, prompts, service, summary, table
from training.pocket.tasks import FAMILIES, LADDER, held_out

TOP = LADDER.rungs[-1].name


def run(rung: str, tokens: int, right: bool, source: str = "classifier") -> Run:
    """One generation."""
    forecasts = tuple(RungForecast(one.name, one.tokens, 0.5, 0, 0, 0, 0, False) for one in LADDER.rungs)
    decision = Decision("id", rung, None, 0.5, 0.02, None, True, True, "", source, "", forecasts, None, "pocket", 0)
    return Run(decision, tokens, right, 1.25, 20.0, rung)


def test_prompts_are_unseen_by_the_reasoner_and_by_the_classifier() -> None:
    for item in prompts():
        assert held_out(item.question)
        assert split_of(prompt_id(item.question)) == "test"


def test_prompts_are_distinct_and_of_every_family() -> None:
    asked = prompts()
    assert len({item.question for item in asked}) == len(asked) == PER_FAMILY * len(FAMILIES)
    assert Counter(item.family for item in asked) == {family.name: PER_FAMILY for family in FAMILIES}


def test_prompts_rise_in_difficulty() -> None:
    levels = [item.level for item in prompts()]
    assert levels == sorted(levels) and levels[0] < levels[-1]


def test_prompts_are_always_the_same() -> None:
    assert [item.question for item in prompts()] == [item.question for item in prompts()]


def test_the_summary_compares_with_top_and_the_cheapest_rung_as_accurate() -> None:
    fixed = {
        "0": [run("0", 0, True), run("0", 0, False)],
        "64": [run("64", 30, True), run("64", 40, True)],
        TOP: [run(TOP, 30, True), run(TOP, 200, True)],
    }
    lines = summary([run("0", 0, True), run("64", 40, True)], fixed).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("router") and "100.0% right" in lines[0] and " 40 thinking tokens" in lines[0]
    assert lines[1].startswith(f"always {TOP}") and " 230 thinking tokens" in lines[1]
    assert "equal accuracy (64)" in lines[2] and " 70 thinking tokens" in lines[2]


def test_the_summary_shows_the_text_rule_beside_one_that_stops_within_the_thought() -> None:
    fixed = {TOP: [run(TOP, 30, True)]}
    lines = summary([run("16", 10, True)], fixed, [run("64", 20, True)]).splitlines()
    assert lines[0].startswith("router, stopping within the thought") and " 10 thinking tokens" in lines[0]
    assert lines[1].startswith("router, by the text alone") and " 20 thinking tokens" in lines[1]
    assert len(lines) == 4


def test_the_summary_says_when_no_rung_is_as_accurate() -> None:
    fixed = {TOP: [run(TOP, 30, False)]}
    assert "no fixed rung" in summary([run("0", 0, True)], fixed).splitlines()[-1]


@pytest.mark.parametrize("right", [True, False])
def test_the_table_has_a_row_for_every_prompt(right: bool) -> None:
    asked = prompts()
    first, again = [run("16", 5, right)] * len(asked), [run("16", 5, right, "cache")] * len(asked)
    drawn = table(asked, first, again, [run(TOP, 9, True)] * len(asked))
    assert drawn.row_count == len(asked)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_service_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    """Left alone, it would hold the port, and its pocket reasoner would answer the calls of others."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended, service(0) as (process, _):
        assert process.poll() is None
        signal.raise_signal(number)
    assert ended.value.code == code and process.poll() is not None


def test_an_error_ends_the_service_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="in the middle"), service(0) as (process, _):
        raise RuntimeError("in the middle")
    assert process.poll() is not None and signal.getsignal(signal.SIGTERM) == before
