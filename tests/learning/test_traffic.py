"""What was served and saved, counted by several processes in one file."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from router.domain import Completion, Decision, DecisionSource
from router.errors import OutcomeFileError
from router.events import Decided, Generated, Taught
from router.learning import traffic
from router.learning.tally import FEWEST, Tally, ended
from router.learning.traffic import LessonCount, Served, Traffic
from tests.support.fakes import LADDER, TENANT, completion_of, decision_of, request_of

TOP = len(LADDER) - 1


def served(index: int, chance: float, source: DecisionSource = DecisionSource.CLASSIFIER) -> Decision:
    one = decision_of()
    chances = (*(0.0 for _ in range(TOP)), chance)
    return replace(one, source=source, choice=replace(one.choice, index=index), propensities=chances)


def thought(tokens: int | None) -> Completion:
    return completion_of(thinking_tokens=tokens)


def generated(decision: Decision, tokens: int | None) -> Generated:
    return Generated(request_of(), decision, thought(tokens), 0.1, 0.2)


def simulated(seed: int, requests: int = 600, share: float = 0.1) -> tuple[Tally, float]:
    """Requests of which some think long, and what really was saved."""
    draw, sums, saved = random.Random(seed), Tally(), 0.0
    for _ in range(requests):
        top = draw.expovariate(1 / 400)
        chosen, shorter = draw.random() < 0.3, min(top, 100.0)  # the policy itself sends three in ten to the top
        explored = chosen or draw.random() < share
        decision = served(TOP if explored else 1, 1.0 if chosen else share)
        used = round(top if explored else shorter)
        sums += ended(decision, used)
        saved += round(top) - used
    return sums, saved


def test_what_was_saved_lies_in_its_interval() -> None:
    found = [(sums.saved, saved) for sums, saved in map(simulated, range(40))]
    covered = [found.low <= saved <= found.high for found, saved in found if found is not None]
    assert len(covered) == 40 and sum(covered) >= 34
    first = found[0][0]
    assert first is not None and first.requests == 600 and first.low < first.tokens < first.high < first.top


def test_too_few_at_the_top_by_chance_say_nothing() -> None:
    sums = Tally()
    for _ in range(FEWEST - 1):
        sums += ended(served(TOP, 0.05), 300)
    assert sums.saved is None
    assert (sums + ended(served(TOP, 0.05), 300)).saved is not None


@pytest.mark.parametrize("source", [DecisionSource.ENGINE_DEFAULT, DecisionSource.PINNED, DecisionSource.OVERRIDE])
def test_what_the_policy_did_not_choose_has_saved_nothing(source: DecisionSource) -> None:
    assert ended(served(1, 0.5, source), 300) == Tally()
    assert ended(served(1, 0.0), 300) == Tally(), "the top rung had no chance"


async def test_processes_share_a_file_and_lose_nothing_when_it_cannot_be_written(tmp_path: Path) -> None:
    folder, decision = tmp_path / "learning", served(1, 0.05)
    assert traffic.read(folder) == Served()
    one, two = Traffic(folder, "observe"), Traffic(folder, "act")
    for counting in (one, two):
        counting(Decided(TENANT, decision, 0.1))
        counting(generated(decision, 100))
        counting(generated(decision, None))
        counting(Taught("m", "d", "learned", 4))
    folder.write_text("in the way")
    with pytest.raises(OutcomeFileError):
        await one.write()
    folder.unlink()
    await asyncio.gather(one.write(), two.write())
    await one.write()
    found = traffic.read(folder)
    assert found.lessons == (LessonCount("learned", 2),)
    assert found.sums == {decision.model_version: Tally(requests=2, ended=2, tokens=200)}


async def test_nothing_is_written_while_nothing_is_served(tmp_path: Path) -> None:
    counting = Traffic(tmp_path, "observe")
    await counting.write()
    assert traffic.read(tmp_path) == Served("observe"), "the mode, at the start"
    before = (tmp_path / traffic.FILE).stat()
    await counting.write()
    assert (tmp_path / traffic.FILE).stat() == before
    again = Traffic(tmp_path, "act")
    await again.write()
    assert traffic.read(tmp_path) == Served("act")


async def test_it_goes_on_after_the_folder_was_moved_aside(tmp_path: Path) -> None:
    counting = Traffic(tmp_path / "learning", "act")
    await counting.write()
    (tmp_path / "learning").rename(tmp_path / "aside")
    await counting.write()
    assert traffic.read(tmp_path / "learning") == Served("act")
    (tmp_path / "learning").rename(tmp_path / "aside again")
    counting(Decided(TENANT, decision_of(), 0.1))
    await counting.write()
    found = traffic.read(tmp_path / "learning")
    assert found.mode == "act" and [one.requests for one in found.sums.values()] == [1]


def test_a_file_that_has_just_been_made_has_no_sums(tmp_path: Path) -> None:
    (tmp_path / traffic.FILE).touch()
    assert traffic.read(tmp_path) == Served()


def test_another_file_is_named_in_an_error(tmp_path: Path) -> None:
    (tmp_path / traffic.FILE).write_text("not a database, though it is long enough to be one " * 30)
    with pytest.raises(OutcomeFileError, match=traffic.FILE):
        traffic.read(tmp_path)
