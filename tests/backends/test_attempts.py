"""The rule of the second attempt, which serving and collection share."""

from dataclasses import replace

import pytest

from router.backends.attempts import Attempts
from router.domain import (
    Completion,
    ContentDelta,
    CountSource,
    FinishReason,
    GenerationEvent,
    ReasoningDelta,
    RefusalDelta,
    ToolCall,
    ToolCallDelta,
)
from tests.support.fakes import LADDER, completion_of

FIRST, SECOND = completion_of(LADDER.rungs[1]), completion_of(LADDER.rungs[2])


def run(*attempts: list[GenerationEvent]) -> tuple[list[str], Completion]:
    """The rungs asked for, and the completion passed on."""
    following, asked, passed = Attempts(), [], []
    for events, name in zip(attempts, following.over("first", "second"), strict=False):
        asked.append(name)
        passed += [event for event in map(following.take, events) if isinstance(event, Completion)]
    [end] = passed
    assert following.completion == end
    return asked, end


def test_an_answer_that_the_caller_has_begun_may_be_whole() -> None:
    following = Attempts(begun=True)
    asked = [following.take(FIRST) for _ in following.over("first", "second")]
    assert asked == [FIRST] and following.completion == FIRST


@pytest.mark.parametrize(
    "answer",
    [ContentDelta("4"), RefusalDelta("No."), ToolCallDelta(0, ToolCall("", "f", ""))],
    ids=lambda a: type(a).__name__,
)
def test_an_answer_of_any_kind_is_enough(answer: GenerationEvent) -> None:
    assert run([ReasoningDelta("hm"), answer, FIRST]) == (["first"], FIRST)


@pytest.mark.parametrize("finish", [FinishReason.FILTERED, FinishReason.REFUSED, FinishReason.ABORTED])
def test_an_end_that_explains_itself_is_not_tried_again(finish: FinishReason) -> None:
    assert run([replace(FIRST, finish=finish)]) == (["first"], replace(FIRST, finish=finish))


@pytest.mark.parametrize("finish", [FinishReason.NATURAL, FinishReason.FORCED, FinishReason.TRUNCATED])
@pytest.mark.parametrize("nothing", [[], [ReasoningDelta("hm")], [ToolCallDelta(0, ToolCall("", "", ""))]])
def test_nothing_twice_is_no_answer(finish: FinishReason, nothing: list[GenerationEvent]) -> None:
    asked, end = run([*nothing, replace(FIRST, finish=finish)], [replace(SECOND, finish=finish)])
    assert (asked, end.finish, end.attempts) == (["first", "second"], FinishReason.NO_ANSWER, 2)


def test_everything_thought_is_counted_and_a_violation_stays_one() -> None:
    over = replace(FIRST, thinking_tokens=31, count_source=CountSource.ESTIMATE, counts_disagree=True)
    _, end = run([over], [ContentDelta("4"), replace(SECOND, thinking_tokens=30, reported_thinking_tokens=30)])
    assert (end.thinking_tokens, end.budget, end.attempts) == (61, LADDER.rungs[2], 2)
    assert (end.budget_violated, end.counts_disagree, end.reported_thinking_tokens) == (True, True, 30)
    assert (end.count_source, end.finish) == (CountSource.ESTIMATE, FinishReason.NATURAL)


def test_two_thoughts_within_their_budgets_violate_none() -> None:
    first, second = replace(FIRST, thinking_tokens=16), replace(SECOND, thinking_tokens=32)
    _, end = run([first], [ContentDelta("4"), second])
    assert (end.thinking_tokens, end.budget_violated) == (48, False)


UNKNOWN = replace(FIRST, thinking_tokens=None, count_source=CountSource.NONE)
NOTHING = replace(FIRST, thinking_tokens=0, count_source=CountSource.NONE)


@pytest.mark.parametrize(
    ("first", "second", "tokens", "source"),
    [
        (UNKNOWN, SECOND, None, CountSource.NONE),
        (FIRST, UNKNOWN, None, CountSource.NONE),
        (UNKNOWN, UNKNOWN, None, CountSource.NONE),
        (NOTHING, replace(SECOND, thinking_tokens=5, count_source=CountSource.ENGINE), 5, CountSource.ENGINE),
        (NOTHING, NOTHING, 0, CountSource.NONE),
    ],
)
def test_what_is_unknown_of_one_attempt_is_unknown_of_all(
    first: Completion, second: Completion, tokens: int | None, source: CountSource
) -> None:
    _, end = run([first], [ContentDelta("4"), second])
    assert (end.thinking_tokens, end.count_source) == (tokens, source)
