"""Tests by betting: how often they are wrong, whenever one looks, and how soon they are done."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.arrays import Matrix
from training.certification.betting import DELTA
from training.certification.delta import share
from training.certification.sequences import SHARE
from training.learning.wealth import groups_wanted, log_wealth, proved

ALPHA, STREAMS, GROUPS = 0.02, 400, 700
LOOKS = range(50, GROUPS + 1, 50)
bounds = arrays(float, (12, 2), elements=st.floats(0, 1))


def drawn(random: np.random.Generator, *rates: float) -> Matrix:
    """Losses [groups, policies] of 0 and 1 at these rates."""
    return np.asarray(random.random((GROUPS, len(rates))) < np.array(rates), float)


def seen_at(random: np.random.Generator, losses: Matrix) -> list[Matrix]:
    """What is known at each look: some answers that lost nothing count as lost until a report comes, long after."""
    disputed = np.where(random.random(losses.shape) < 0.02, random.integers(0, GROUPS, losses.shape), 0)
    places = np.arange(GROUPS)[:, None]
    return [np.maximum(losses, places + disputed > look)[:look] for look in LOOKS]


def test_a_policy_that_loses_too_much_hardly_ever_passes_whenever_one_looks() -> None:
    random, wrong = np.random.default_rng(0), 0
    for _ in range(STREAMS):
        known = seen_at(random, drawn(random, 0.004, 0.021, 0.05))
        wrong += any(proved(one, ALPHA, DELTA).passed > 1 for one in known)
    assert wrong / STREAMS <= DELTA


def of_rounds(random: np.random.Generator, reused: bool) -> bool:
    """True if any of three rounds certifies: each tries the policy that looked best of a hundred that lose too much."""
    losses = drawn(random, *[0.022] * 100)
    for number, fitted in enumerate((100, 200, 400), 1):
        best = int(losses[:fitted].mean(axis=0).argmin())
        tests = losses[0 if reused else fitted :, [best]]
        if proved(tests, ALPHA, SHARE * share(number)).passed:
            return True
    return False


def test_rounds_that_test_what_came_after_them_keep_delta_and_others_would_not() -> None:
    random = np.random.default_rng(1)
    assert np.mean([of_rounds(random, reused=False) for _ in range(STREAMS)]) <= SHARE
    assert np.mean([of_rounds(random, reused=True) for _ in range(STREAMS)]) > DELTA


@given(bounds, bounds)
def test_a_bound_that_falls_never_lowers_the_capital(one: Matrix, other: Matrix) -> None:
    assert (log_wealth(np.minimum(one, other), ALPHA) >= log_wealth(one, ALPHA) - 1e-12).all()


@given(st.floats(0, 0.9))
def test_no_loss_costs_all_of_the_capital(misses: float) -> None:
    most = 1 / (1 - misses)
    assert np.isfinite(log_wealth(np.full((50, 1), most), ALPHA, most)).all()


@pytest.mark.parametrize(("rate", "most"), [(0.0, 240), (0.0025, 420), (0.005, 700)])
def test_little_loss_is_proved_soon(rate: float, most: int) -> None:
    random = np.random.default_rng(2)
    passed = [proved(drawn(random, rate)[:most], ALPHA, 0.03).passed for _ in range(100)]
    assert np.mean(passed) >= 0.5


def test_how_many_groups_are_wanted_is_what_a_test_takes() -> None:
    wanted = groups_wanted(np.zeros(10), ALPHA, SHARE)
    assert wanted is not None
    passes = [n for n in range(100, 400) if proved(np.zeros((n, 1)), ALPHA, SHARE).passed]
    assert wanted == passes[0]
    assert groups_wanted(np.full(10, 0.03), ALPHA, SHARE) is None


def test_a_policy_waits_for_those_before_it() -> None:
    losses = np.zeros((500, 3))
    losses[:, 1] = 0.5
    assert proved(losses, ALPHA, SHARE).passed == 1
