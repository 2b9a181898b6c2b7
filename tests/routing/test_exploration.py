"""Exploration goes upward, gives everything it explores a fair chance, and adds up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.routing.exploration import LEAST, certain, propensities


@st.composite
def situations(draw: st.DrawFn) -> tuple[int, int, list[int], float]:
    rungs = draw(st.integers(1, 12))
    chosen = draw(st.integers(0, rungs - 1))
    allowed = draw(st.sets(st.integers(0, rungs - 1)))
    return rungs, chosen, sorted(allowed | {chosen}), draw(st.floats(0, 0.5))


@given(situations())
def test_propensities_are_a_distribution_over_the_choice_and_what_is_above(
    situation: tuple[int, int, list[int], float],
) -> None:
    rungs, chosen, allowed, share = situation
    chances = propensities(rungs, chosen, allowed, share)
    assert len(chances) == rungs
    assert sum(chances) == pytest.approx(1)
    for i, chance in enumerate(chances):
        if i < chosen or i not in allowed:
            assert chance == 0
        elif i > chosen and share > 0:
            assert chance >= LEAST
    assert chances[chosen] >= 0.5 or share > 0.5 - 12 * LEAST


def test_without_a_share_nothing_is_explored() -> None:
    assert propensities(3, 1, [0, 1, 2], 0.0) == (0.0, 1.0, 0.0) == certain(3, 1)


def test_the_share_is_spread_evenly() -> None:
    assert propensities(4, 1, [1, 2, 3], 0.2) == (0.0, 0.8, 0.1, 0.1)


def test_a_small_share_grows_to_the_least_of_each() -> None:
    assert propensities(4, 0, [0, 1, 2, 3], 0.001) == pytest.approx((0.97, LEAST, LEAST, LEAST))
