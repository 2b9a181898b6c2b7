"""What a certificate is worth: simulated calibrations, and the laws of the rule it is for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.domain import BudgetLadder, Certificate, MaxLoss, Options, ReasoningBudget, Score, TokenForecast
from router.policy import LatencyProfile, Policy
from training.certify import ALPHAS, DELTA, THRESHOLDS, betting_p_value, certify, choose, losses
from training.dataset import Outcomes

SIMULATIONS = 300
SLACK = 3 * (DELTA * (1 - DELTA) / SIMULATIONS) ** 0.5
"""Three standard errors of a share of DELTA."""

Matrix = NDArray[np.float64]
qualities = st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=20).map(np.array)
thresholds = st.sampled_from(THRESHOLDS)


def outcomes_of(correct: Matrix) -> Outcomes:
    """Outcomes on a ladder as wide as they are."""
    names = [str(i) for i in range(len(correct))]
    ladder = BudgetLadder(tuple(ReasoningBudget(str(i), i) for i in range(correct.shape[1])))
    return Outcomes("m", ladder, names, names, names, correct, np.zeros(correct.shape))


def gains_and_losses(loss: float, prompts: int, random: np.random.Generator) -> Matrix:
    """Two rungs, the lower `loss` less right on average; it also wins where the upper one loses."""
    kind = random.choice(3, size=prompts, p=[loss + 0.1, 0.1, 0.8 - loss])
    return np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])[kind]


@pytest.mark.parametrize("alpha", [0.02, 0.1])
def test_a_loss_of_exactly_alpha_is_proved_harmless_in_at_most_delta_of_calibrations(alpha: float) -> None:
    random = np.random.default_rng(1)
    samples = (gains_and_losses(alpha, 1_000, random) for _ in range(SIMULATIONS))
    proved = sum(betting_p_value(one[:, 1] - one[:, 0], alpha) <= DELTA for one in samples)
    assert proved / SIMULATIONS <= DELTA + SLACK


def test_a_policy_that_loses_exactly_alpha_is_certified_in_at_most_delta_of_calibrations() -> None:
    random = np.random.default_rng(2)
    alpha, lower_always = ALPHAS[-1], np.full((1_000, 2), 0.5)
    certified = 0
    for seed in range(SIMULATIONS):
        outcomes = outcomes_of(gains_and_losses(alpha, 1_000, random))
        certified += bool(certify(outcomes, lower_always, seed))
    assert certified / SIMULATIONS <= DELTA + SLACK


def test_a_harmful_policy_is_never_certified() -> None:
    outcomes = outcomes_of(gains_and_losses(0.3, 2_000, np.random.default_rng(3)))
    assert certify(outcomes, np.full((2_000, 2), 0.5)) == ()


def test_a_harmless_policy_is_certified_for_every_alpha_that_data_can_show() -> None:
    outcomes = outcomes_of(np.ones((2_000, 2)))
    certificates = certify(outcomes, np.full((2_000, 2), 0.5))
    assert {0.02, 0.05, 0.1} <= {c.alpha for c in certificates} <= set(ALPHAS)
    assert all(c == Certificate(c.alpha, DELTA, THRESHOLDS[-1], 2_000) for c in certificates)


def test_a_handful_of_prompts_proves_little() -> None:
    outcomes = outcomes_of(np.ones((5, 2)))
    assert certify(outcomes, np.full((5, 2), 0.5)) == ()


def honest(prompts: int, seed: int) -> tuple[Outcomes, Matrix]:
    """Prompts of all difficulties, and predictions that are right on average."""
    random = np.random.default_rng(seed)
    quality = np.sort(random.uniform(size=(prompts, 3)), axis=1)
    return outcomes_of((random.uniform(size=(prompts, 1)) < quality).astype(float)), quality


@pytest.mark.parametrize("seed", range(5))
def test_who_accepts_more_loss_gets_no_smaller_a_threshold(seed: int) -> None:
    certificates = certify(*honest(2_000, seed))
    assert certificates
    assert [c.alpha for c in certificates] == sorted(c.alpha for c in certificates)
    assert [c.threshold for c in certificates] == sorted(c.threshold for c in certificates)


@pytest.mark.parametrize("seed", range(5))
def test_certified_thresholds_hold_on_fresh_data(seed: int) -> None:
    certificates = certify(*honest(2_000, seed))
    fresh, quality = honest(20_000, seed + 100)
    broken = [c for c in certificates if losses(fresh.correct, quality, c.threshold).mean() > c.alpha + 0.01]
    assert broken == []


def test_the_same_seed_gives_the_same_certificates() -> None:
    assert certify(*honest(500, 0), seed=3) == certify(*honest(500, 0), seed=3)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=300).map(np.array), st.sampled_from(ALPHAS))
def test_a_p_value_lies_in_0_1(values: Matrix, alpha: float) -> None:
    assert 0 < betting_p_value(values, alpha) <= 1


@given(st.integers(1, 300), st.sampled_from(ALPHAS))
def test_losing_every_time_proves_nothing(prompts: int, alpha: float) -> None:
    assert betting_p_value(np.ones(prompts), alpha) == 1


@given(st.integers(20, 300), st.sampled_from(ALPHAS))
def test_gaining_every_time_proves_harmlessness(prompts: int, alpha: float) -> None:
    assert betting_p_value(-np.ones(prompts), alpha) < DELTA


def test_more_data_proves_more() -> None:
    values = [betting_p_value(np.zeros(n), 0.05) for n in (10, 100, 1_000, 10_000)]
    assert values == sorted(values, reverse=True)


@given(qualities, thresholds)
def test_the_rule_is_the_one_that_serves(quality: Matrix, threshold: float) -> None:
    ladder = BudgetLadder(tuple(ReasoningBudget(str(i), i) for i in range(3)))
    policy = Policy(ladder, (Certificate(0.05, DELTA, threshold, 1),), LatencyProfile(0, 0, 0))
    served = [
        policy.choose(Score(tuple(one), (TokenForecast(0, 0, 0, 0),) * 3), Options(MaxLoss(0.05))).index
        for one in quality.tolist()
    ]
    assert served == choose(quality, threshold).tolist()


@given(qualities, thresholds)
def test_the_top_rung_always_passes(quality: Matrix, threshold: float) -> None:
    rows, chosen = np.arange(len(quality)), choose(quality, threshold)
    assert (quality[:, -1] - quality[rows, chosen] <= threshold).all()


@given(qualities, thresholds, thresholds)
def test_a_more_daring_threshold_never_chooses_a_higher_rung(quality: Matrix, one: float, other: float) -> None:
    assert (choose(quality, max(one, other)) <= choose(quality, min(one, other))).all()


def test_losses_are_against_the_top_rung() -> None:
    correct = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert losses(correct, np.full((3, 2), 0.5), 0.0).tolist() == [1, -1, 0]


def test_thresholds_go_from_careful_to_daring() -> None:
    assert list(THRESHOLDS) == sorted(set(THRESHOLDS)) and THRESHOLDS[0] == 0
