"""Numbers as people read them: the digits never contradict the values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.digits import ROUNDING, bound, counted, gain, probability, verb

values = st.floats(0, 1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.000"), (1.0, "1.000"), (0.9997, "0.999"), (0.57, "0.570"), (0.8996, "0.899"), (0.9, "0.900")],
)
def test_a_probability_has_three_digits_and_is_rounded_down(value: float, shown: str) -> None:
    assert probability(value) == shown


@given(values, values)
def test_what_misses_a_bound_is_never_shown_at_it(value: float, least: float) -> None:
    assert float(probability(value)) <= value + ROUNDING
    if abs(value - least) > 1e-6:
        assert (float(probability(value, least)) >= least) == (value >= least)


@given(values, values, values)
def test_a_gain_is_shown_on_its_side_of_the_bound(more: float, less: float, limit: float) -> None:
    shown = gain(more, less, limit)
    if more <= less:
        assert shown == "nothing"
    elif not shown.startswith("less than") and abs(more - less - limit) > 1e-6:
        assert (float(shown) > limit + ROUNDING) == (more - less > limit + ROUNDING)


@pytest.mark.parametrize(
    ("more", "less", "limit", "shown"),
    [
        (0.9936, 0.9728, 0.02, "0.021"),  # the difference of .993 and .972, as they are shown
        (0.9204, 0.9, 0.02, "0.0204"),  # .020 would not be more than .02
        (0.92, 0.9, 0.02, "0.020"),
        (0.9002, 0.9, 0.02, "less than 0.001"),
        (0.9, 0.902, 0.02, "nothing"),
        (0.520000005, 0.5, 0.02, "0.02"),  # no digits would show it
    ],
)
def test_a_gain_is_the_difference_of_what_is_shown(more: float, less: float, limit: float, shown: str) -> None:
    assert gain(more, less, limit) == shown


def test_a_bound_has_as_many_digits_as_it_needs() -> None:
    assert [bound(value) for value in (0.9, 0.97, 0.9005)] == ["0.900", "0.970", "0.9005"]


@pytest.mark.parametrize(("number", "shown"), [(0, "0 prompts fall"), (1, "1 prompt falls"), (2, "2 prompts fall")])
def test_a_count_its_noun_and_its_verb_agree(number: int, shown: str) -> None:
    assert f"{counted(number, 'prompt')} {verb(number, 'falls', 'fall')}" == shown


def test_a_large_count_is_grouped() -> None:
    assert counted(1_000, "prompt") == "1,000 prompts"
