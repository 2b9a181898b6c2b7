"""Laws of the figures that are reported."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from training.evaluation.metrics import (
    BINS,
    along,
    area,
    bootstrap_interval,
    bootstrap_means,
    calibration_error,
    debiased_calibration_error,
    hull,
    hull_accuracy,
    hull_tokens,
    hulls,
    reliability,
)  # fmt: skip

Vector = NDArray[np.float64]
shares = st.integers(0, 1_000).map(lambda n: n / 1_000)
ladders = st.lists(st.tuples(st.integers(0, 100).map(float), shares), min_size=2, max_size=8).map(np.array)


def sample(prompts: int, seed: int = 0) -> tuple[Vector, Vector]:
    """Predictions, and labels drawn with just these probabilities."""
    random = np.random.default_rng(seed)
    predicted = random.uniform(size=prompts)
    return (random.uniform(size=prompts) < predicted).astype(float), predicted


def test_honest_predictions_are_calibrated() -> None:
    correct, predicted = sample(50_000)
    assert calibration_error(correct, predicted) < 0.01
    assert debiased_calibration_error(correct, predicted) < 0.005


def test_chance_alone_is_taken_off_small_samples() -> None:
    correct, predicted = sample(300)
    assert calibration_error(correct, predicted) > 0.04
    assert debiased_calibration_error(correct, predicted) < 0.03


@pytest.mark.parametrize("samples", [1, 8])
@pytest.mark.parametrize("fixed", [False, True], ids=["each sample by luck", "all samples of a prompt alike"])
def test_what_chance_adds_is_taken_off_whatever_the_number_of_samples(samples: int, fixed: bool) -> None:
    found: dict[float, list[float]] = {0.0: [], 0.1: []}
    for seed in range(20):
        random = np.random.default_rng(seed)
        predicted = random.uniform(0.2, 0.8, size=2_400)
        for lie, values in found.items():
            right = predicted - lie
            luck = random.random((2_400, 1)) if fixed else random.random((2_400, samples))
            correct = np.broadcast_to(luck < right[:, None], (2_400, samples)).mean(axis=1)
            values.append(debiased_calibration_error(correct, predicted))
    assert np.mean(found[0.1]) == pytest.approx(0.1, abs=0.012)
    assert np.mean(found[0.0]) < 0.015, "the plain error is .033 with one sample"


def test_the_debiased_error_is_never_the_larger_one() -> None:
    for seed in range(20):
        correct, predicted = sample(200, seed)
        assert 0 <= debiased_calibration_error(correct, predicted) <= calibration_error(correct, predicted)


@pytest.mark.parametrize("shift", [0.1, 0.2])
def test_a_constant_lie_is_found_in_full(shift: float) -> None:
    correct, predicted = sample(50_000)
    lie = np.clip(predicted * (1 - shift) + shift, 0, 1)
    expected = float((lie - predicted).mean())
    assert calibration_error(correct, lie) == pytest.approx(expected, abs=0.01)


def test_bins_hold_equal_masses() -> None:
    bins = reliability(*sample(1_500))
    assert [n for _, _, n in bins] == [100] * BINS
    assert sum(n for _, _, n in reliability(*sample(7))) == 7


@given(ladders)
def test_the_hull_lies_above_every_point_and_rises(points: Vector) -> None:
    t, a = hull(points[:, 0], points[:, 1])
    assert (np.diff(t) > 0).all() and (np.diff(a) > 0).all()
    slopes = np.diff(a) / np.diff(t)
    assert (np.diff(slopes) <= 1e-6 * np.maximum(1, slopes[:-1])).all()
    for tokens, accuracy in points:
        assert hull_accuracy(points[:, 0], points[:, 1], tokens) >= accuracy - 1e-9


@given(ladders, st.floats(0, 1))
def test_a_mix_never_costs_more_than_the_cheapest_rung_that_is_as_good(points: Vector, wanted: float) -> None:
    tokens = hull_tokens(points[:, 0], points[:, 1], wanted)
    good = points[points[:, 1] >= wanted]
    if len(good):
        assert tokens <= good[:, 0].min() + 1e-9


def test_the_hull_of_a_known_ladder() -> None:
    tokens, accuracy = np.array([0.0, 10.0, 20.0, 40.0]), np.array([0.2, 0.3, 0.8, 0.7])
    assert hull(tokens, accuracy)[0].tolist() == [0.0, 20.0]
    assert hull_tokens(tokens, accuracy, 0.5) == pytest.approx(10.0)
    assert hull_tokens(tokens, accuracy, 0.95) == pytest.approx(20.0), "out of reach: its own best"
    assert hull_accuracy(tokens, accuracy, 10.0) == pytest.approx(0.5)


@given(arrays(float, (3, 4), elements=st.integers(0, 100).map(float)), arrays(float, (3, 4), elements=shares))
def test_mixes_of_many_ladders_at_once_are_those_of_each(tokens: Vector, accuracy: Vector) -> None:
    t, a = hulls(tokens, accuracy)
    costs, shares = along(np.full(3, 0.5), a, t), along(np.full(3, 50.0), t, a)
    for row, (cost, share) in enumerate(zip(costs, shares, strict=True)):
        assert cost == hull_tokens(tokens[row], accuracy[row], 0.5)
        assert share == hull_accuracy(tokens[row], accuracy[row], 50.0)


def test_area_is_the_mean_height_of_the_hull() -> None:
    assert area(np.array([0.0, 10.0]), np.array([0.0, 1.0]), 0, 10) == pytest.approx(0.5)
    assert area(np.array([0.0]), np.array([0.7]), 0, 10) == pytest.approx(0.7)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(60):
        values = random.normal(3.0, 1.0, size=(150, 1))
        means = bootstrap_means([str(i) for i in range(150)], values, draws=400, seed=seed)
        low, high = bootstrap_interval(means[:, 0])
        covered += low <= 3.0 <= high
    assert covered >= 50


def test_copies_in_one_group_do_not_narrow_an_interval() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(100, 1))

    def width(groups: list[str], values: Vector) -> float:
        low, high = bootstrap_interval(bootstrap_means(groups, values, draws=1_000)[:, 0])
        return high - low

    names = [str(i) for i in range(100)]
    assert width(names * 10, np.tile(values, (10, 1))) == pytest.approx(width(names, values), rel=0.1)
