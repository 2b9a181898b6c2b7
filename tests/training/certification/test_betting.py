"""Tests by betting: what a p-value is worth, and the order of tests and groups."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.certification.betting import DELTA, Groups, betting_p_value, fixed_sequence_test, least_p_value
from training.certification.certify import ALPHAS

SIMULATIONS = 300
SLACK = 3 * (DELTA * (1 - DELTA) / SIMULATIONS) ** 0.5
"""Three standard errors of a share of DELTA."""

Matrix = NDArray[np.float64]


def losses_around(alpha: float, prompts: int, random: np.random.Generator) -> Matrix:
    """Losses whose mean is exactly alpha; a tenth are gains."""
    return random.choice([1.0, -1.0, 0.0], size=prompts, p=[alpha + 0.1, 0.1, 0.8 - alpha])


@pytest.mark.parametrize("variance", [None, 0.0, 0.2, 1.0])
@pytest.mark.parametrize("alpha", [0.02, 0.1])
def test_a_loss_of_exactly_alpha_is_proved_harmless_in_at_most_delta_of_calibrations(
    alpha: float, variance: float | None
) -> None:
    random = np.random.default_rng(1)
    samples = (losses_around(alpha, 1_000, random) for _ in range(SIMULATIONS))
    proved = sum(betting_p_value(one, alpha, variance=variance) <= DELTA for one in samples)
    assert proved / SIMULATIONS <= DELTA + SLACK


def test_a_known_variance_helps_where_values_are_few() -> None:
    random = np.random.default_rng(2)
    draws = [random.choice([1.0, -1.0, 0.0], size=200, p=[0.005, 0.005, 0.99]) for _ in range(SIMULATIONS)]
    proved = [sum(betting_p_value(one, 0.02, 0.05, known) <= 0.05 for one in draws) for known in (None, 0.01)]
    assert proved[1] > 1.1 * proved[0]


def test_the_order_of_groups_knows_their_names_alone() -> None:
    groups = ["a", "b", "c", "d", "e"]
    values = np.arange(5.0)
    means = Groups(groups).means(values).tolist()
    assert means != values.tolist() and sorted(means) == values.tolist()
    backwards = Groups(groups[::-1]).means(values[::-1]).tolist()
    assert backwards == means


def test_group_means_leave_out_groups_without_any() -> None:
    groups = Groups(["a", "a", "b", "c"])
    values, among = np.array([0.0, 1.0, 4.0, 9.0]), np.array([False, True, True, False])
    assert sorted(groups.means(values)) == [0.5, 4.0, 9.0]
    assert sorted(groups.means(values, among)) == [1.0, 4.0]


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=300).map(np.array), st.sampled_from(ALPHAS))
def test_a_p_value_lies_in_0_1(values: Matrix, alpha: float) -> None:
    assert 0 < betting_p_value(values, alpha) <= 1


def test_no_data_proves_nothing() -> None:
    assert betting_p_value(np.array([]), 0.1) == 1.0


@given(st.integers(1, 300), st.sampled_from(ALPHAS))
def test_losing_every_time_proves_nothing(prompts: int, alpha: float) -> None:
    assert betting_p_value(np.ones(prompts), alpha) == 1


@given(st.integers(20, 300), st.sampled_from(ALPHAS))
def test_gaining_every_time_proves_harmlessness(prompts: int, alpha: float) -> None:
    assert betting_p_value(-np.ones(prompts), alpha) < DELTA


def test_more_data_proves_more() -> None:
    values = [betting_p_value(np.zeros(n), 0.05) for n in (10, 100, 1_000, 10_000)]
    assert values == sorted(values, reverse=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_walk_stops_at_the_first_failure(p_values: list[float]) -> None:
    last, why = fixed_sequence_test(iter(p_values), list(range(len(p_values))))
    passed = 0 if last is None else int(last) + 1
    assert all(p <= DELTA for p in p_values[:passed])
    assert passed == len(p_values) or p_values[passed] > DELTA
    assert why


def by_hand(values: list[float], alpha: float) -> float:
    """The p-value as the paper writes it down, one bet after the other."""
    x, bound, n = [(value + 1) / 2 for value in values], (alpha + 1) / 2, len(values)
    capital, most, total, squares = 1.0, 1.0, 0.5, 0.25
    variance = 0.25
    for i, one in enumerate(x, 1):
        bet = min((2 * math.log(1 / 0.1) / (n * variance)) ** 0.5, 0.75 / (1 - bound))
        capital *= 1 + bet * (bound - one)
        most = max(most, capital)
        total += one
        squares += (one - total / (i + 1)) ** 2
        variance = squares / (i + 1)
    return 1 / most


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=200), st.sampled_from([*ALPHAS, 0.5]))
def test_a_p_value_is_that_of_the_paper(values: list[float], alpha: float) -> None:
    assert betting_p_value(np.array(values), alpha) == pytest.approx(by_hand(values, alpha), rel=1e-9)


def test_no_losses_have_a_smaller_p_value_than_the_bound_of_their_best() -> None:
    random = np.random.default_rng(0)
    best = -(random.random(150) < 0.03).astype(float)
    for rate in (0.0, 0.02, 0.1):
        values = np.maximum(best, (random.random(150) < rate) - 1.0 * (best < 0))
        assert least_p_value(best, 0.02) <= betting_p_value(values, 0.02, 0.05)
    assert least_p_value(np.zeros(190), 0.02) > 0.05 > least_p_value(np.zeros(204), 0.02)


def test_a_policy_passes_at_delta_and_fails_above() -> None:
    assert fixed_sequence_test(iter([0.0, 0.1, 0.11, 0.0]), [1, 2, 3, 4])[0] == 2
    assert fixed_sequence_test(iter([0.11]), [1]) == (
        None,
        "p = 0.11 for the most careful policy (at most 0.1 would do)",
    )
    assert fixed_sequence_test(iter([]), []) == (None, "no policy to test")
