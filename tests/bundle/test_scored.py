"""What is scored of a conversation: what it asks, and counts of all else."""

from itertools import count as count_up
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bundle import scored
from router.bundle.scored import AROUND, COUNTS, FOLLOWED, REMEMBERED, SHORT, View, view
from router.domain import Message, Prompt, Role, ToolCall
from tests.support.turns import steps_of

HARD = "Prove that every finite integral domain is a field, and say where finiteness is needed."
DOCUMENT = "The committee met on a grey morning, and nobody spoke of the harbour. " * 260
text = st.text(st.characters(exclude_categories=["Cs"]))
messages = st.builds(Message, st.sampled_from(Role), text)


def user(content: str) -> Message:
    return Message(Role.USER, content)


def assistant(content: str) -> Message:
    return Message(Role.ASSISTANT, content)


def seen(*turns: Message) -> View:
    return view(Prompt(turns))


def count(of: View, name: str) -> int:
    return of.counts[COUNTS.index(name)]


@given(text)
def test_a_bare_prompt_is_scored_as_it_stands(said: str) -> None:
    assert view(Prompt.of(said)) == View(
        normalize("NFC", said), (1, 1, *[said.count("```") * (name == "code fences") for name in COUNTS[2:]])
    )


@pytest.mark.parametrize(
    "words",
    [
        "yes, go on",
        "continue",
        "thanks!",
        "why?",
        "Could you please continue with the next part of it, in the same style as before?",
        "Bitte fahren Sie mit dem nächsten Schritt fort, weiter so!",
        "继续",
        "请继续",
        "Why is that?",
        "Thank you, that is all.",
        "да, продолжай",
    ],
)
def test_a_turn_that_asks_for_nothing_new_asks_for_what_came_before(words: str) -> None:
    one = seen(user(HARD), assistant("Let R be such a domain."), user(words))
    assert one.text == f"{HARD}\n{words}"
    assert count(one, "turns that ask for nothing new") == 1


def test_a_turn_that_asks_for_something_is_scored_alone() -> None:
    new = ["Prove Fermat's last theorem.", "Prove that P is NP.", "What causes cancer?", "证明费马大定理"]
    for asks in ("2+2", "What is the capital of the country that you have just named to me?", *new):
        one = seen(user(HARD), assistant("Let R be such a domain."), user(asks))
        assert (one.text, count(one, "turns that ask for nothing new")) == (asks, 0)


def test_only_so_many_turns_are_followed_back() -> None:
    turns = [turn for _ in range(20) for turn in (user("go on"), assistant("..."))]
    one = seen(user(HARD), *turns, user("go on"))
    assert one.text == "\n".join(["go on"] * FOLLOWED)


def test_all_else_is_counted() -> None:
    call = ToolCall("1", "search", "{}")
    one = seen(
        Message(Role.SYSTEM, "Be brief."),
        user("hello there"),
        assistant("```\ncode\n```"),
        user(HARD),
        Message(Role.ASSISTANT, "", (call, call)),
        Message(Role.TOOL, "", tool_call_id="1"),
        Message(Role.TOOL, "Error: connection refused", tool_call_id="1"),
        Message(Role.USER, "", images=("https://x/y.png",)),
        user(f"{DOCUMENT}\n\nNow prove it again, for rings with 4 elements."),
    )
    assert one.text == "Now prove it again, for rings with 4 elements."
    assert dict(zip(COUNTS, one.counts, strict=True)) == {
        "messages": 9,
        "turns of the user": 4,
        "turns of the assistant": 2,
        "instructions": 1,
        "tool results": 2,
        "tool results that failed": 1,
        "empty tool results": 1,
        "tool calls": 2,
        "images": 1,
        "code fences": 2,
        "turns that ask for nothing new": 0,
        "characters of instructions": 9,
        "characters of tool results": 25,
        "characters of other turns": 11 + 12 + len(HARD),
        "characters around the text": len(DOCUMENT) + 2,
        "words around the text": len(DOCUMENT.split()),
        "distinct words around the text": len(set(DOCUMENT.split())),
        "numbers around the text": 0,
        "digits around the text": 0,
        "count of '\\n' around the text": 2,
        "count of '.' around the text": DOCUMENT.count("."),
        "count of '?' around the text": 0,
        "count of ',' around the text": DOCUMENT.count(","),
        "count of ':' around the text": 0,
    }


@given(st.lists(messages, min_size=1, max_size=6))
def test_what_is_not_in_the_text_is_said_to_be_left_out(turns: list[Message]) -> None:
    one = seen(*turns)
    every = sum(len(turn.content) for turn in turns)
    assert 0 <= one.truncated_characters <= every
    assert len(one.counts) == len(COUNTS) and min(one.counts) >= 0
    if len(turns) == 1:
        assert one.truncated_characters == 0


@pytest.mark.parametrize("said", ["x" * 1_025, "请证明" * 400, "1+1=?" * 210])
def test_nothing_is_left_out_of_a_long_turn_that_asks_with_every_character(said: str) -> None:
    one = seen(user(said))
    assert one.text.replace("\n", "") == said
    assert (count(one, "characters around the text"), one.truncated_characters) == (0, 0)


def test_a_puzzle_of_more_clues_has_more_around_its_question() -> None:
    def puzzle(clues: int) -> View:
        told = "\n".join(f"Person {i}: the parent of person {i + 1}, born in {1800 + i}." for i in range(clues))
        return seen(user(f"{told}\nWho is the oldest one that person 3 descends from?"))

    few, many = puzzle(40), puzzle(80)
    assert few.text == many.text
    for name in ("characters around the text", *AROUND):
        more = count(many, name) - count(few, name)
        assert more == 0 if name == "count of '?' around the text" else more > 0


def test_without_a_turn_of_the_user_the_last_one_is_scored() -> None:
    assert seen(Message(Role.SYSTEM, "1"), Message(Role.TOOL, "2 3")).text == "2 3"


def test_a_long_turn_is_read_once_and_callers_cannot_fill_the_memory() -> None:
    long = [user(f"{DOCUMENT}{i}\n\n{HARD}") for i in range(3)]
    first = [seen(one) for one in long]
    fresh = count_up()
    new = steps_of(lambda: seen(user(f"{DOCUMENT}{next(fresh)} of them\n\n{HARD}")))
    assert steps_of(lambda: seen(long[0], assistant("ok"), user("go on"))) < new / 5
    assert [seen(one) for one in long] == first
    for i in range(REMEMBERED):
        seen(user(f"What is {i}?\n" + "x" * 1_100))
    assert len(scored._remembered) == REMEMBERED
    assert [seen(one) for one in long] == first


def test_a_conversation_costs_what_is_new_in_it() -> None:
    """Twenty long turns are counted, not read: a twentieth of what reading them takes."""
    earlier = [turn for i in range(10) for turn in (user(f"{i} {DOCUMENT}"), assistant(DOCUMENT))]
    new = user(f"What is 2 + 2?{' ' * SHORT}")
    assert steps_of(lambda: seen(*earlier, new)) < steps_of(lambda: seen(new)) + 500
