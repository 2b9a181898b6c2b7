"""Thoughts within content, however they are cut into deltas; and cues within thoughts."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.backends.markers import AnswerReader, CueReader, Markers
from router.domain import ContentDelta, ReasoningDelta

PIECES = ["<think>", "</think>", "<", "</th", "so ", "`</think>`", "\n", " ", "\u200b", "42", "\N{GRINNING FACE}"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def split(text: str, cuts: list[int], hold: int) -> tuple[str, str, int]:
    """Thought, answer and leaked characters of a content that comes in pieces."""
    reader = AnswerReader(Markers(), hold)
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    said = [event for first, last in pairwise(places) if last > first for event in reader.read(text[first:last])]
    said += reader.rest()
    assert all(event.text for event in said)
    thought = "".join(event.text for event in said if isinstance(event, ReasoningDelta))
    answer = "".join(event.text for event in said if isinstance(event, ContentDelta))
    return thought, answer, reader.leaked


@given(TEXTS, st.lists(st.integers(0, 1000), max_size=20), st.sampled_from([0, 5, 20, 4096]))
@example("`</think>`</think></think>", [9], 0)  # the quote before a marker that is complete is out of sight
def test_however_content_is_cut_the_same_comes_out(text: str, cuts: list[int], hold: int) -> None:
    assert split(text, cuts, hold) == split(text, [], hold)


@given(TEXTS, st.sampled_from([0, 5, 4096]))
def test_nothing_is_lost_but_markers_and_blanks(text: str, hold: int) -> None:
    thought, answer, _ = split(text, [], hold)

    def bare(text: str) -> str:
        return "".join("".join(text.replace("<think>", "").replace("</think>", "").split()).split("\u200b"))

    assert bare(thought + answer) == bare(text)


@pytest.mark.parametrize(
    ("text", "hold", "thought", "answer"),
    [
        ("42", 0, "", "42"),
        ("\n\n42", 0, "", "\n\n42"),
        ("\n\n", 4096, "", ""),
        ("<think>so</think>42", 0, "so", "42"),
        (" \n<think>so</think>\n42", 0, "so", "\n42"),
        ("<think>so", 0, "so", ""),
        ("<think></think>", 0, "", ""),
        ("</think>42", 0, "", "42"),
        ("so</think>42", 4096, "so", "42"),
        ("so</think>42", 1, "", "so</think>42"),
        ("so</think>42", 0, "", "so</think>42"),
        ("<think>a</think><think>b</think>42", 0, "ab", "42"),
        ("Use <think> and </think>.", 4096, "", "Use <think> and </think>."),
        ("Use `</think>`.", 4096, "", "Use `</think>`."),
        ("<thin", 4096, "", "<thin"),
    ],
)
def test_a_marker_at_the_start_is_one_and_elsewhere_it_is_text(text: str, hold: int, thought: str, answer: str) -> None:
    assert split(text, [], hold)[:2] == (thought, answer)


def test_a_thought_that_was_passed_on_as_an_answer_is_found_out() -> None:
    assert split("let me see</think>42", [], 0)[2] == len("let me see")
    assert split("x" * 5000 + "</think>42", [7, 5003], 4096)[2] == 5000
    assert split("`</think>` and <think> </think>", [], 0)[2] == 0


def test_once_thoughts_come_as_such_nothing_waits_and_markers_are_text() -> None:
    reader = AnswerReader(Markers(), 4096)
    reader.trust()
    assert reader.read("a") == [ContentDelta("a")]
    assert reader.read("b</think>c") == [ContentDelta("b</think>c")]
    assert reader.leaked == 0


def test_models_without_markers_have_none() -> None:
    reader = AnswerReader(Markers("", ""), 4096)
    assert reader.read("<think>so</think>42") == [ContentDelta("<think>so</think>42")]


@given(st.lists(st.sampled_from(["Time", " is up.", "\n", "so ", "x"]), max_size=10).map("".join), st.integers(1, 5))
def test_a_cue_is_taken_out_wherever_it_is_cut(text: str, size: int) -> None:
    def read(size: int) -> tuple[str, bool]:
        reader = CueReader("Time is up.")
        pieces = [reader.read(text[i : i + size]) for i in range(0, len(text), size)]
        return "".join(pieces) + reader.rest(), reader.said

    assert read(size) == read(1000)
    assert read(1)[1] is ("\nTime is up." in text)
