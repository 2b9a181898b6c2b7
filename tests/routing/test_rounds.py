"""Rounds of tool calls: where one is complete, and what went wrong in it."""

import pytest

from router.domain import Escalation, Message, Prompt, Role, ToolCall
from router.routing.rounds import READ_CHARACTERS, Round, last_round
from tests.support.fakes import TOOL_LOOP, called, result

ASK = Message(Role.USER, "what is the weather?")
FAILED, REPEATED = Escalation.TOOL_FAILED, Escalation.REPEATED_CALL


def round_of(*turns: Message) -> Round | None:
    return last_round(Prompt(turns))


def problem(*turns: Message) -> Escalation | None:
    found = round_of(*turns)
    return None if found is None else found.problem


@pytest.mark.parametrize(
    "turns",
    [
        (ASK,),
        (ASK, Message(Role.ASSISTANT, "sunny"), ASK),
        (ASK, called("1"), result("1"), Message(Role.ASSISTANT, "sunny"), ASK),
        (ASK, Message(Role.ASSISTANT, "it is")),
        (result("1"),),
    ],
)
def test_a_step_that_follows_no_call_has_no_round_before_it(turns: tuple[Message, ...]) -> None:
    assert round_of(*turns) is None


def test_a_round_is_open_until_every_call_has_its_result() -> None:
    calls = called("1", "2", "3")
    results = [result("2"), result("1"), result("3")]
    for known in range(3):
        found = round_of(ASK, calls, *results[:known])
        assert found is not None and found.is_open
    complete = round_of(ASK, calls, *results)
    assert complete is not None and not complete.is_open
    assert round_of(ASK, calls, result("1"), result("1"), result("4")) == found, "others do not count"


def test_calls_without_ids_are_counted() -> None:
    first, second = (round_of(ASK, called("", ""), *[result("")] * known) for known in (1, 2))
    assert first is not None and second is not None
    assert (first.is_open, second.is_open) == (True, False)


def test_only_a_complete_round_has_a_problem() -> None:
    assert problem(ASK, called("1", "2"), result("1", failed=True)) is None
    assert problem(ASK, called("1", "2"), result("1", failed=True), result("2")) is FAILED
    assert problem(ASK, called("1", "2"), result("1"), result("2")) is None


def test_nobody_guesses_from_words() -> None:
    assert problem(ASK, called("1"), Message(Role.TOOL, "Error: failed!", tool_call_id="1")) is None


def test_the_same_call_with_the_same_arguments_is_a_repeat() -> None:
    first = (ASK, called("1", arguments='{"a": 1, "b": 2}'), result("1"))
    assert problem(*first, called("2", arguments='{"b":2,"a":1}'), result("2")) is REPEATED
    assert problem(*first, called("2", arguments='{"b":2,"a":3}'), result("2")) is None
    assert problem(*first, called("2", name="another", arguments='{"a": 1, "b": 2}'), result("2")) is None
    assert problem(*first, called("2"), result("2"), called("3", arguments='{"a":1,"b":2}'), result("3")) is REPEATED
    assert problem(*first, ASK, called("2", arguments='{"a": 1, "b": 2}'), result("2")) is None, "a new question"
    assert problem(ASK, called("1", "2"), result("1"), result("2")) is None, "twice in one turn is not again"


@pytest.mark.parametrize("arguments", ["", "not JSON", "[" * 4_000, "9" * 4_000, "x" * (READ_CHARACTERS + 1)])
def test_arguments_of_any_kind_are_compared(arguments: str) -> None:
    first = (ASK, called("1", arguments=arguments), result("1"))
    assert problem(*first, called("2", arguments=arguments), result("2")) is REPEATED


def test_a_round_keeps_its_name_whatever_comes_behind_it() -> None:
    calls = (ASK, called("1", "2"))
    sent = [calls, (*calls, result("1")), (*calls, result("1"), result("2")), (*calls, result("2"), result("1"), ASK)]
    assert len({found.name for turns in sent if (found := round_of(*turns))}) == 1


def test_another_round_has_another_name_also_where_all_calls_have_one_id() -> None:
    names = {found.name for i in range(2, len(TOOL_LOOP) + 1, 2) if (found := round_of(*TOOL_LOOP[:i]))}
    assert len(names) == len(TOOL_LOOP) // 2


def test_a_name_holds_none_of_the_arguments() -> None:
    one, other = (round_of(ASK, called("1", arguments=text)) for text in ("secret", "another secret"))
    assert one is not None and one == other


def test_the_beginning_of_an_answer_belongs_to_the_step_itself() -> None:
    turns = (ASK, called("1"), result("1", failed=True))
    assert round_of(*turns, Message(Role.ASSISTANT, "The")) == round_of(*turns)


def test_calls_are_the_callers_data() -> None:
    strange = Message(Role.ASSISTANT, "", tool_calls=(ToolCall("\0", "\ud800", "\ud800"),))
    assert round_of(ASK, strange) is not None
