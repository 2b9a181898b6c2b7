"""What a certificate is worth: simulated calibrations, and the laws of the rule it is for."""

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.domain import BudgetLadder, Certificate, MaxLoss, MinQuality, ReasoningBudget, RoutingOptions, Score
from router.routing.policy import LatencyProfile, Policy
from tests.support.synthetic import asked
from training.certification.betting import DELTA, Groups
from training.certification.certify import ALPHAS, MARGINS, QUALITIES, _absolute, certify, loss_target
from training.certification.rules import PRICES, TIE, certified_rungs, choose, losses, price_grid, smallest
from training.certification.sequences import SHARE, THRESHOLDS, Sample, fixed_rungs, learned_prices, predicted_losses
from training.data.outcomes import Outcomes
from training.prediction import Prediction

SIMULATIONS = 300
SLACK = 3 * (DELTA * (1 - DELTA) / SIMULATIONS) ** 0.5
"""Three standard errors of a share of DELTA."""

RUNGS = 3

Matrix = NDArray[np.float64]
tables = st.lists(st.lists(st.floats(0, 1), min_size=RUNGS, max_size=RUNGS), min_size=1, max_size=20).map(np.array)
prices = st.floats(0, 1)
COST = np.array([[0.0, 1.0, 4.0]])


def outcomes_of(correct: Matrix, groups: list[str] | None = None) -> Outcomes:
    """Outcomes on a ladder as wide as they are."""
    names = [str(i) for i in range(len(correct))]
    ladder = BudgetLadder(tuple(ReasoningBudget(str(i), i) for i in range(correct.shape[1])))
    tokens = np.tile(np.arange(correct.shape[1], dtype=float), (len(correct), 1))
    halves = np.stack([correct, correct])
    return Outcomes(
        "m", ladder, asked(names), names, groups or names, correct, tokens, np.ones(correct.shape, int), halves
    )


def gains_and_losses(loss: float, prompts: int, random: np.random.Generator) -> Matrix:
    """Two rungs, the lower `loss` less right on average; it also wins where the upper one loses."""
    kind = random.choice(3, size=prompts, p=[loss + 0.1, 0.1, 0.8 - loss])
    return np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])[kind]


def predicted(quality: Matrix, cost: Matrix) -> Prediction:
    """Predictions with one forecast of tokens."""
    return Prediction(quality, cost, np.repeat(cost[:, :, None], 3, axis=2))


def lower_always(prompts: int) -> Prediction:
    """Predictions that make every price choose the lower of two rungs."""
    return predicted(np.full((prompts, 2), 0.5), np.tile([0.0, 1.0], (prompts, 1)))


@pytest.mark.slow
def test_a_policy_that_loses_exactly_alpha_is_certified_in_at_most_delta_of_calibrations() -> None:
    random = np.random.default_rng(2)
    certified = 0
    for _ in range(SIMULATIONS):
        outcomes = outcomes_of(gains_and_losses(ALPHAS[-1], 1_000, random))
        certified += bool(certify((outcomes, lower_always(1_000))).relative)
    assert certified / SIMULATIONS <= DELTA + SLACK


def false_promises() -> Iterator[tuple[Outcomes, Matrix]]:
    """Simulations. Predictions say .99, the truth is exactly the quality wanted less nothing: .8 right."""
    random, any_outcomes = np.random.default_rng(3), outcomes_of(np.zeros((1_000, 2)))
    for _ in range(SIMULATIONS):
        correct = np.repeat((random.uniform(size=(1_000, 1)) < 0.8).astype(float), 2, axis=1)
        yield replace(any_outcomes, correct=correct, halves=np.stack([correct, correct])), np.full((1_000, 2), 0.99)


def test_a_false_absolute_promise_is_proved_in_at_most_delta_of_calibrations() -> None:
    proved, groups = 0, Groups([str(i) for i in range(1_000)])
    for outcomes, quality in false_promises():
        proved += any(isinstance(_absolute(outcomes, quality, q, groups), Certificate) for q in QUALITIES if q >= 0.8)
    assert proved / SIMULATIONS <= DELTA + SLACK


@pytest.mark.slow
def test_a_false_absolute_promise_is_certified_in_at_most_delta_of_calibrations() -> None:
    certified = 0
    for outcomes, quality in false_promises():
        proofs = certify((outcomes, predicted(quality, np.tile([0.0, 1.0], (1_000, 1)))))
        certified += any(c.alpha <= 0.2 + 1e-9 for c in proofs.absolute)
    assert certified / SIMULATIONS <= DELTA + SLACK


def test_a_harmful_policy_is_never_certified_and_it_is_said_why() -> None:
    outcomes = outcomes_of(gains_and_losses(0.3, 2_000, np.random.default_rng(3)))
    proofs = certify((outcomes, lower_always(2_000)))
    assert proofs.relative == ()
    for alpha in ALPHAS:
        why = proofs.refused[f"loss of at most {alpha:g}"]
        assert "fixed rungs: p = " in why and "learned prices: p = " in why
        assert all(float(p) > 0.5 for p in re.findall("p = ([0-9.]+) for", why))


def test_a_harmless_policy_is_certified_for_every_alpha_that_data_can_show() -> None:
    outcomes = outcomes_of(np.ones((2_000, 2)))
    proofs = certify((outcomes, lower_always(2_000)))
    assert {0.02, 0.05, 0.1} <= {c.alpha for c in proofs.relative} <= set(ALPHAS)
    assert all(c == Certificate(c.alpha, DELTA, c.alpha, 2_000, rung=0) for c in proofs.relative), "cost 1 is saved"


def test_a_handful_of_prompts_proves_little() -> None:
    proofs = certify((outcomes_of(np.ones((5, 2))), lower_always(5)))
    assert proofs.relative == () and proofs.absolute == ()
    assert proofs.per_prompt == () and len(proofs.refused) == 2 * len(ALPHAS) + len(QUALITIES)


def honest(prompts: int, seed: int) -> Sample:
    """Prompts of all difficulties, and predictions that are right on average."""
    random = np.random.default_rng(seed)
    quality = np.sort(random.uniform(size=(prompts, RUNGS)), axis=1)
    outcomes = outcomes_of((random.uniform(size=(prompts, 1)) < quality).astype(float))
    return outcomes, predicted(quality, np.repeat(COST, prompts, axis=0))


@pytest.mark.parametrize("seed", range(5))
def test_who_accepts_more_loss_gets_no_smaller_a_price(seed: int) -> None:
    certificates = certify(honest(2_000, seed)).relative
    assert certificates
    assert [c.alpha for c in certificates] == sorted(c.alpha for c in certificates)
    assert [c.threshold for c in certificates] == sorted(c.threshold for c in certificates)


@pytest.mark.parametrize("seed", range(5))
def test_certificates_hold_on_fresh_data(seed: int) -> None:
    proofs = certify(honest(2_000, seed))
    fresh, prediction = honest(20_000, seed + 100)
    assert proofs.relative and proofs.absolute
    for c in proofs.relative:
        assert losses(fresh.correct, certified_rungs(c, prediction)).mean() <= c.alpha + 0.01
    for c in proofs.absolute:
        meets = prediction.quality >= c.threshold
        right = fresh.correct[np.arange(len(meets)), meets.argmax(axis=1)][meets.any(axis=1)]
        assert 1 - right.mean() <= c.alpha + 0.02


def test_the_order_of_the_file_changes_nothing() -> None:
    outcomes, prediction = honest(500, 0)
    backwards = np.arange(500)[::-1]
    assert certify((outcomes.take(backwards), prediction.take(backwards))) == certify((outcomes, prediction))


def test_prompts_of_a_group_count_once() -> None:
    """Twenty copies of each prompt prove no more than one."""
    once = outcomes_of(np.ones((100, 2)))
    copies = outcomes_of(np.ones((2_000, 2)), [str(i % 100) for i in range(2_000)])
    one, many = certify((once, lower_always(100))), certify((copies, lower_always(2_000)))
    assert [(c.alpha, c.prompts) for c in one.relative] == [(c.alpha, c.prompts) for c in many.relative]


@given(tables, prices)
def test_the_rule_is_the_one_that_serves(quality: Matrix, price: float) -> None:
    cost = np.repeat(COST, len(quality), axis=0)
    ladder = BudgetLadder(tuple(ReasoningBudget(str(i), i) for i in range(RUNGS)))
    policy = Policy(ladder, (Certificate(0.05, DELTA, price, 1),), LatencyProfile(0, 0, 0))
    tokens = [tuple(COST[0].tolist())] * 4
    served = [policy.choose(Score(tuple(q), *tokens), RoutingOptions(MaxLoss(0.05))).index for q in quality.tolist()]
    assert served == choose(quality, cost, price).tolist()


@given(tables, st.sampled_from(QUALITIES))
def test_the_absolute_rule_is_the_one_that_serves(quality: Matrix, wanted: float) -> None:
    ladder = BudgetLadder(tuple(ReasoningBudget(str(i), i) for i in range(RUNGS)))
    absolute = (Certificate(round(1 - wanted, 6), DELTA, wanted + 0.01, 1),)
    policy = Policy(ladder, (), LatencyProfile(0, 0, 0), absolute)
    for q in quality.tolist():
        choice = policy.choose(Score(tuple(q), *[(None,) * RUNGS] * 4), RoutingOptions(MinQuality(wanted)))
        assert (choice.certificate == absolute[0]) == (max(q) >= wanted + 0.01)
        assert choice.meets_target == (q[choice.index] >= wanted)


@given(tables)
def test_for_free_the_best_rung_is_chosen(quality: Matrix) -> None:
    chosen = choose(quality, np.repeat(COST, len(quality), axis=0), 0.0)
    assert (quality[np.arange(len(quality)), chosen] == quality.max(axis=1)).all()


def test_what_is_learned_is_certified_with_the_smallest_of_rungs_worth_about_the_same() -> None:
    proofs = certify(honest(2_000, 0))
    assert {one.tie for one in proofs.relative if one.rung is None} == {TIE}
    assert all(one.tie == TIE for one in learned_prices(honest(300, 0)).policies)


@given(tables, prices, prices)
def test_a_higher_price_never_chooses_a_dearer_rung(quality: Matrix, one: float, other: float) -> None:
    cost = np.repeat(COST, len(quality), axis=0)
    for tie in (0.0, TIE, 0.3):
        dear, cheap = (choose(quality, cost, price, tie=tie) for price in (max(one, other), min(one, other)))
        assert (dear <= cheap).all()


def test_of_equals_the_cheapest_is_chosen() -> None:
    assert choose(np.full((1, 3), 0.5), np.zeros((1, 3)), 1.0).tolist() == [0]


def test_losses_are_against_the_top_rung() -> None:
    correct = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert losses(correct, np.zeros(3, dtype=np.intp)).tolist() == [1, -1, 0]


def test_policies_go_from_careful_to_daring() -> None:
    assert list(PRICES) == sorted(set(PRICES)) and PRICES[0] == 0
    assert list(MARGINS) == sorted(set(MARGINS), reverse=True) and MARGINS[-1] == 0


def test_prices_are_per_unit_of_cost() -> None:
    assert price_grid(COST * 10) == [price / 40 for price in PRICES]
    assert price_grid(np.zeros((3, 2))) == [0.0] * len(PRICES)


def test_what_is_tested_was_fixed_beforehand() -> None:
    assert (len(PRICES), PRICES[1], PRICES[-1]) == (161, 0.001, 3.0)
    steps = np.diff(np.log(PRICES[1:]))
    assert steps == pytest.approx(steps.mean(), abs=1e-3), "each price is so many times the one before"
    assert list(MARGINS) == [round(0.2 - 0.01 * i, 2) for i in range(21)]
    assert all(0 < alpha < 0.5 for alpha in ALPHAS) and list(ALPHAS) == sorted(ALPHAS)
    assert all(0.5 <= quality < 1 for quality in QUALITIES) and list(QUALITIES) == sorted(QUALITIES)


def test_a_price_is_for_the_mean_cost_of_the_top_rung() -> None:
    assert price_grid(np.array([[0.0, 2.0], [1.0, 4.0]])) == [price / 3 for price in PRICES]


def promised(prompts: int, predicted: float, right: bool = True) -> tuple[Matrix, Matrix]:
    """Correctness and predictions of prompts with two rungs, of which the lower one may be wrong."""
    return np.tile([float(right), 1.0], (prompts, 1)), np.full((prompts, 2), predicted)


def absolute(
    *parts: tuple[Matrix, Matrix], groups: list[str] | None = None
) -> tuple[dict[float, float], dict[str, str]]:
    """Of absolute targets: the certified threshold by quality, and why there is none by target."""
    correct, quality = (np.concatenate(one) for one in zip(*parts, strict=True))
    proofs = certify((outcomes_of(correct, groups), predicted(quality, np.tile([0.0, 1.0], (len(correct), 1)))))
    assert all(
        (c.delta, c.prompts) == (DELTA, len(set(groups or map(str, range(len(correct)))))) for c in proofs.absolute
    )
    return {round(1 - c.alpha, 6): c.threshold for c in proofs.absolute}, proofs.refused


@pytest.mark.parametrize(("wanted", "enough"), [(0.5, 30), (0.7, 30), (0.8, 33), (0.9, 66), (0.95, 135)])
def test_a_promise_is_tested_where_three_times_the_prompts_it_takes_at_best_are_selected(
    wanted: float, enough: int
) -> None:
    target = f"quality of at least {wanted:g}"
    few = enough - 1
    why = f"{few} of {few} calibration prompts are predicted to reach it, {enough} are needed"
    assert absolute(promised(few, 0.999))[1][target] == why
    assert "are needed" not in absolute(promised(enough, 0.999))[1].get(target, "")


def test_a_kept_promise_is_certified_at_the_quality_itself() -> None:
    thresholds, _ = absolute(promised(2_000, 0.96))
    assert thresholds == pytest.approx({wanted: wanted for wanted in QUALITIES})


def test_the_most_careful_promise_is_tested_first_and_a_broken_one_ends_it() -> None:
    sure, unsure = promised(200, 0.999, right=False), promised(5_000, 0.995)
    thresholds, refused = absolute(sure, unsure)
    assert 0.95 not in thresholds and "p = 1.00" in refused["quality of at least 0.95"]
    thresholds, _ = absolute(promised(2_000, 0.76), promised(4_000, 0.72, right=False))
    assert thresholds[0.7] == pytest.approx(0.73), "below .73 the wrong ones are selected, too"


def test_only_the_selected_prompts_of_a_group_count() -> None:
    groups = [str(i) for i in range(2_000)] * 2
    thresholds, _ = absolute(promised(2_000, 0.96), promised(2_000, 0.1, right=False), groups=groups)
    assert thresholds[0.95] == pytest.approx(0.95)


def test_the_smallest_rung_that_loses_little_may_be_the_top_one() -> None:
    quality = np.array([[0.1, 0.6, 0.6], [0.6, 0.58, 0.6], [0.9, 0.1, 0.6], [0.6, 0.6, 0.6]])
    assert smallest(quality, 0.02).tolist() == [1, 0, 0, 0]
    assert smallest(quality, 0.01).tolist() == [1, 0, 0, 0]
    assert smallest(quality, -0.1).tolist() == [2, 2, 0, 2], "it must gain something, or else be the top one"
    assert smallest(quality, 0.02, np.array([True, False, False, True])).tolist() == [2, 0, 0, 2]


def test_losses_that_are_accepted_per_prompt_end_at_the_target() -> None:
    assert THRESHOLDS[0] == -0.2 and list(THRESHOLDS) == sorted(THRESHOLDS)
    assert set(ALPHAS) <= set(THRESHOLDS), "each target itself is tested, and comes last"
    for alpha in ALPHAS:
        sequence = predicted_losses(alpha, honest(100, 0))
        assert sequence.policies[-1].threshold == alpha and sequence.delta == DELTA


@pytest.mark.parametrize("seed", range(3))
def test_certificates_per_prompt_hold_on_fresh_data_and_spend_none_of_the_others_delta(seed: int) -> None:
    proofs = certify(honest(2_000, seed))
    fresh, prediction = honest(20_000, seed + 100)
    assert {0.05, 0.1} <= {c.alpha for c in proofs.per_prompt}
    for c in proofs.per_prompt:
        assert c.threshold <= c.alpha and c.delta == DELTA
        assert losses(fresh.correct, smallest(prediction.quality, c.threshold)).mean() <= c.alpha + 0.01


def test_where_forecasts_are_wrong_a_gain_must_be_predicted() -> None:
    """Every rung is predicted to lose nothing, and the lower one loses .3: what is left is the top rung."""
    correct = gains_and_losses(0.3, 2_000, np.random.default_rng(3))
    proofs = certify((outcomes_of(correct), lower_always(2_000)))
    assert all(c.threshold < 0 for c in proofs.per_prompt)
    promising = predicted(np.tile([1.0, 0.5], (2_000, 1)), np.tile([0.0, 1.0], (2_000, 1)))
    proofs = certify((outcomes_of(correct), promising))
    assert proofs.per_prompt == (), "nothing is left where even a large gain is predicted"
    assert {loss_target(alpha, per_prompt=True) for alpha in ALPHAS} <= set(proofs.refused)


def useless(correct: Matrix) -> Sample:
    """Outcomes, and predictions that know nothing of them."""
    quality = np.random.default_rng(5).uniform(size=correct.shape)
    return outcomes_of(correct), predicted(quality, np.tile(np.arange(correct.shape[1]) * 100.0, (len(correct), 1)))


def level(prompts: int, quality: list[float], seed: int = 0) -> Matrix:
    """Each rung is right as often as `quality` says, on nearly the same prompts."""
    luck = np.random.default_rng(seed).uniform(size=(prompts, 1))
    return np.asarray((luck < quality).astype(float))


def test_a_fixed_rung_is_certified_where_nothing_can_be_learnt() -> None:
    proofs = certify(useless(level(1_000, [0.3, 0.8, 0.8])))
    assert [(c.alpha, c.rung) for c in proofs.relative] == [(alpha, 1) for alpha in ALPHAS]
    assert proofs.relative[3].threshold == pytest.approx(0.05), "a token of mean cost 1 is saved"


def test_fixed_rungs_are_tested_from_the_longest_one_downwards() -> None:
    proofs = certify(useless(level(2_000, [0.9, 0.5, 0.9])))
    assert proofs.relative == (), "the middle rung fails, so the lowest is not looked at"


def test_fixed_rungs_count_the_labels_of_the_fit_split_too() -> None:
    held_out, fitted = useless(level(60, [0.3, 0.8, 0.8])), useless(level(200, [0.3, 0.8, 0.8], seed=1))
    fitted = replace(fitted[0], groups=[f"fit {name}" for name in fitted[0].groups]), fitted[1]
    assert not {c.alpha for c in certify(held_out).relative} & {0.02, 0.05}
    proofs = certify(held_out, fitted)
    assert {(c.alpha, c.rung, c.prompts) for c in proofs.relative} >= {(0.02, 1, 260), (0.05, 1, 260)}


def test_far_prompts_get_the_top_rung_of_a_certified_fixed_rung() -> None:
    prediction = replace(lower_always(3), far=np.array([False, True, False]))
    assert certified_rungs(Certificate(0.02, DELTA, 0.0, 100, rung=0), prediction).tolist() == [0, 1, 0]
    assert certified_rungs(None, prediction, reference=0).tolist() == [0, 1, 0]
    assert certified_rungs(None, prediction).tolist() == [1, 1, 1]


def test_either_sequence_spends_half_of_delta() -> None:
    sample = useless(level(1_000, [0.3, 0.8, 0.8]))
    assert 2 * SHARE == DELTA
    assert [s.name for s in (fixed_rungs(sample), learned_prices(sample))] == ["fixed rungs", "learned prices"]


def test_a_shorter_rung_that_is_right_more_often_is_the_reference() -> None:
    assert certify(useless(level(1_000, [0.3, 0.82, 0.8]))).reference == 1
    assert certify(useless(level(1_000, [0.3, 0.79, 0.8]))).reference is None, "it loses a little"
    assert certify(useless(level(20, [0.3, 0.82, 0.8]))).reference is None, "too few prompts to certify it"
