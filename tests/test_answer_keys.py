"""Keys of answers: what is equal, what is not, and that no text takes long or gives a key that no file can hold."""

from fractions import Fraction
from time import process_time
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.answer_keys import KINDS, LONGEST, answer_key, last_number
from training.collect.agreement import AGREEMENT, agrees
from training.collect.scorers import KEYS, SCORERS

MANY = 20_000


@pytest.mark.parametrize(
    ("kind", "text", "key"),
    [
        ("text", " The\n END ", "the end"),
        ("text", "\N{IDEOGRAPHIC SPACE}", None),
        ("verbatim", "Ab ", "Ab "),
        ("verbatim", " \n", None),
        ("numeric", "first 41, then 42.", "42"),
        ("numeric", "1,234.50", "2469/2"),
        ("numeric", "\N{MINUS SIGN}3 / 4", "-3/4"),
        ("numeric", "2e3", "2000"),
        ("numeric", "7-3", "3"),
        ("numeric", "1/0", None),
        ("numeric", "no number", None),
        ("numeric", "9" * 5_000, None),
        ("numeric", "\N{ARABIC-INDIC DIGIT THREE}", "3"),
        ("math", r"so \boxed{x^2 + 2x}", "x^2+2x"),
        ("math", r"$\dfrac{1}{2}$", "1/2"),
        ("math", "0.5", "1/2"),
        ("math", r"\boxed{1} or \boxed{2}", "1;2"),
        ("math", r"\boxed{\text{a {b}}}.", r"\text{a{b}}"),
        ("math", r"\left(1, 2\right)", "(1, 2)"),
        ("math", r"\boxed{}", None),
        ("math", r"\boxed{1", r"\boxed{1"),
        ("choice", "(b)", "B"),
        ("choice", "B) because A is wrong", "B"),
        ("choice", "A cat sat. The answer is (C).", "C"),
        ("choice", "**Answer: D**", "D"),
        ("choice", r"hence \boxed{\text{E}}", "E"),
        ("choice", "\u7b54\u6848\u662fB", "B"),
        ("choice", "I think that A is wrong, B it is", "B"),
        ("choice", "The answer is a matter of taste", None),
        ("choice", "A big dog", None),
    ],
)
def test_the_key_of_an_answer(kind: str, text: str, key: str | None) -> None:
    assert answer_key(text, kind) == key


@pytest.mark.parametrize(("one", "other"), [("1,234", "1, 234"), ("12", "1 2"), ("x", "X"), (r"\{1\}", "1")])
def test_expressions_that_differ_have_different_keys(one: str, other: str) -> None:
    assert answer_key(one, "math") != answer_key(other, "math")


@given(st.text() | st.text("0123456789,.e/- "))
def test_every_text_has_a_bounded_key_of_every_kind_that_a_file_can_hold(text: str) -> None:
    keys = [answer_key(text, kind) for kind in KINDS]
    assert all(key is None or 0 < len(key) <= LONGEST for key in keys)
    assert pl.Series(keys).to_list() == keys


def test_what_no_file_can_hold_is_a_digest_and_no_answer_passes_for_one() -> None:
    long, half = answer_key("x" * 1_000, "text"), answer_key("\ud800", "text")
    assert long is not None and half is not None and long != half and long != answer_key("x" * 1_001, "text")
    assert answer_key(long, "text") != long


@given(st.integers(-(10**30), 10**30))
def test_every_whole_number_is_itself(number: int) -> None:
    assert last_number(f"it is {number:,}") == Fraction(number)


@pytest.mark.parametrize(
    "piece",
    [",234", "1", " ", "1/ ", "\\boxed{", "\\boxed{}", "{", "\\", "(A", "answer is ", "A ", "1e1", ".1", "$ ", "- ",
     "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}", "\u0345\u0301", "\ud800"],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_takes_long(kind: str, piece: str) -> None:
    start = process_time()
    answer_key("1" + piece * MANY, kind)
    assert process_time() - start < 5  # a quadratic search takes minutes


@pytest.mark.parametrize(
    ("scorer", "answers", "reference", "metadata"),
    [
        ("exact", ["Paris", " paRIS "], "PARIS", {}),
        ("numeric", ["so 0.3333333", "0.33333330"], "1/3", {}),
        ("numeric", ["101", "+101.0"], "100", {"tolerance": 0.02}),
        ("math", [r"\boxed{\frac{1}{2}}", r"it is \boxed{ \dfrac{1}{2} }"], "0.5", {}),
        ("choice", ["(B)", "answer: B"], "B", {}),
    ],
)
def test_a_scorer_grades_answers_of_one_key_alike(
    scorer: str, answers: list[str], reference: str, metadata: dict[str, Any]
) -> None:
    assert len({answer_key(answer, KEYS[scorer]) for answer in answers}) == 1
    assert [SCORERS[scorer](answer, reference, metadata).correct for answer in answers] == [1.0, 1.0]


def test_every_scorer_has_a_kind_and_agreement_takes_equal_keys() -> None:
    assert set(KEYS) == set(SCORERS) and set(KEYS.values()) == set(KINDS)
    assert all(agrees("(B) 4", "B: 4", name).correct == (name in {"agreement-choice", "agreement-numeric"})
               for name in AGREEMENT if name != "agreement-math")  # fmt: skip
