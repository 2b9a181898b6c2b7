"""What a report says: laws of the hull and of calibration."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain import BudgetLadder, Certificate, ReasoningBudget
from training.dataset import Outcomes
from training.evaluate import calibration_error, evaluate, hull_tokens

shares = st.floats(0, 1)
rungs = st.lists(st.tuples(st.floats(0, 1_000), shares), min_size=1, max_size=8)


def hull(points: list[tuple[float, float]], wanted: float) -> float | None:
    tokens, accuracy = np.array(points).T
    return hull_tokens(tokens, accuracy, wanted)


def outcomes_of(correct: list[list[float]], tokens: list[list[float]]) -> Outcomes:
    """Outcomes on a ladder as wide as they are."""
    names = [f"prompt {i}" for i in range(len(correct))]
    ladder = BudgetLadder(tuple(ReasoningBudget(str(2**i), 2**i) for i in range(len(correct[0]))))
    return Outcomes("m", ladder, names, [""] * len(names), names, np.array(correct, float), np.array(tokens, float))


@given(rungs, shares)
def test_the_hull_never_costs_more_than_a_fixed_rung_as_accurate(
    points: list[tuple[float, float]], wanted: float
) -> None:
    least = hull(points, wanted)
    good = [tokens for tokens, accuracy in points if accuracy >= wanted]
    if good:
        assert least is not None and least <= min(good)
    else:
        assert least is None


@given(rungs, shares)
def test_the_hull_never_costs_less_than_the_cheapest_rung(points: list[tuple[float, float]], wanted: float) -> None:
    least = hull(points, wanted)
    assert least is None or least >= min(tokens for tokens, _ in points) - 1e-9


@given(rungs, shares, shares)
def test_more_accuracy_never_costs_less(points: list[tuple[float, float]], one: float, other: float) -> None:
    low, high = hull(points, min(one, other)), hull(points, max(one, other))
    assert high is None or (low is not None and low <= high + 1e-6)


@given(rungs, shares)
def test_the_order_of_the_rungs_does_not_matter(points: list[tuple[float, float]], wanted: float) -> None:
    assert hull(points[::-1], wanted) == pytest.approx(hull(points, wanted))


def test_a_mix_of_two_rungs_is_priced_between_them() -> None:
    assert hull([(0, 0.2), (100, 0.8)], 0.5) == pytest.approx(50)


def test_a_rung_above_the_line_between_others_lowers_the_price() -> None:
    assert hull([(0, 0.2), (20, 0.7), (100, 0.8)], 0.5) == pytest.approx(12)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_perfect_predictions_have_no_calibration_error(correct: list[bool]) -> None:
    values = np.array(correct, float)
    assert calibration_error(values, values) == 0


@given(st.lists(st.tuples(st.booleans(), shares), min_size=1, max_size=200))
def test_calibration_error_lies_in_0_1(pairs: list[tuple[bool, float]]) -> None:
    correct, predicted = np.array(pairs, float).T
    assert 0 <= calibration_error(correct, predicted) <= 1


def test_calibrated_chance_has_little_error_and_overconfidence_much() -> None:
    random = np.random.default_rng(0)
    predicted = random.uniform(size=20_000)
    correct = (random.uniform(size=20_000) < predicted).astype(float)
    assert calibration_error(correct, predicted) < 0.02
    assert calibration_error(correct, np.ones(20_000)) == pytest.approx(0.5, abs=0.02)


def test_always_top_loses_and_saves_nothing() -> None:
    outcomes = outcomes_of([[0, 1], [1, 1], [0, 0], [0, 1]], [[1, 2]] * 4)
    quality = np.array([[0.0, 1.0]] * 4)
    (policy,) = evaluate(outcomes, quality, (Certificate(0.05, 0.1, 0.0, 4),)).policies
    assert (policy.loss, policy.saved_against_top) == (0, 0)
    assert policy.accuracy == 0.75


def test_an_oracle_saves_against_top_and_hull() -> None:
    correct = [[1.0, 1.0]] * 5 + [[0.0, 1.0]] * 5
    report = evaluate(outcomes_of(correct, [[0, 10]] * 10), np.array(correct), (Certificate(0.05, 0.1, 0.0, 10),))
    (policy,) = report.policies
    assert (policy.accuracy, policy.loss) == (1, 0)
    assert policy.saved_against_top == policy.saved_against_hull == 0.5


def test_rungs_are_reported_as_measured() -> None:
    report = evaluate(outcomes_of([[0, 1], [1, 1], [0, 0], [0, 1]], [[1, 4]] * 4), np.full((4, 2), 0.5), ())
    assert [(r.rung, r.accuracy, r.thinking_tokens) for r in report.rungs] == [("1", 0.25, 1.0), ("2", 0.75, 4.0)]
    assert report.never_solved == 0.25
    assert report.prompts == 4
    assert report.policies == []


def test_ranking_of_a_rung_that_is_always_right_is_not_reported() -> None:
    report = evaluate(outcomes_of([[0, 1], [1, 1]], [[1, 4]] * 2), np.array([[0.1, 0.9], [0.8, 0.9]]), ())
    assert [r.auroc for r in report.rungs] == [1.0, None]
