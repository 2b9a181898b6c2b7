"""Every way of scoring: right, wrong and unparsable answers, and references that cannot be scored against."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.collect.scorers import SCORERS, UNPARSED, Grade
from training.pocket import gym

RIGHT, WRONG = Grade(1.0), Grade(0.0)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("Paris", RIGHT), ("  paRIS\n", RIGHT), ("London", WRONG), ("", UNPARSED), (" \n", UNPARSED)],
)
def test_exact(answer: str, verdict: Grade) -> None:
    assert SCORERS["exact"](answer, "Paris", {}) == verdict


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("so it is 42.", "42", RIGHT),
        ("first 41, then 42", "42", RIGHT),
        ("first 42, then 41", "42", WRONG),
        ("1,234.50", "1234.5", RIGHT),
        ("\N{MINUS SIGN}3/4", "-0.75", RIGHT),
        ("2e3", "2000", RIGHT),
        ("42.0000001", "42", WRONG),
        ("0.3333333", "1/3", RIGHT),
        ("0.333", "1/3", WRONG),
        ("I do not know", "42", UNPARSED),
        ("", "42", UNPARSED),
        ("1/0", "42", UNPARSED),
    ],
)
def test_numeric(answer: str, reference: str, verdict: Grade) -> None:
    assert SCORERS["numeric"](answer, reference, {}) == verdict


def test_numeric_takes_a_tolerance() -> None:
    assert SCORERS["numeric"]("101", "100", {"tolerance": 0.02}) == RIGHT
    assert SCORERS["numeric"]("103", "100", {"tolerance": 0.02}) == WRONG


def test_numeric_wants_a_number_in_the_reference() -> None:
    with pytest.raises(ValueError, match="no number"):
        SCORERS["numeric"]("4", "four", {})


@given(st.integers(-(10**12), 10**12))
def test_every_whole_number_is_itself(number: int) -> None:
    assert SCORERS["numeric"](f"it is {number:,}", str(number), {}) == RIGHT
    assert SCORERS["numeric"](f"it is {number + 1:,}", str(number), {}) == WRONG


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        (r"$\frac{1}{2}$", "0.5", RIGHT),
        (r"so \boxed{x^2 + 2x + 1}", "$(x+1)^2$", RIGHT),
        (r"\boxed{7}", r"\boxed{8}", WRONG),
        ("", "8", UNPARSED),
        ("no idea", "8", UNPARSED),
    ],
)
def test_math(answer: str, reference: str, verdict: Grade) -> None:
    assert SCORERS["math"](answer, reference, {}) == verdict


def test_reasoning_gym_is_its_own_verifier() -> None:
    (entry,) = gym.generate("chain_sum", 1, 3)
    metadata: dict[str, Any] = {"dataset": "chain_sum", "entry": entry}
    assert SCORERS["reasoning-gym"](entry["answer"], "", metadata) == RIGHT
    assert SCORERS["reasoning-gym"](str(int(entry["answer"]) + 1), "", metadata) == WRONG
    assert SCORERS["reasoning-gym"](" ", "", metadata) == UNPARSED


def test_reasoning_gym_wants_its_entry() -> None:
    with pytest.raises(KeyError):
        SCORERS["reasoning-gym"]("4", "4", {})
