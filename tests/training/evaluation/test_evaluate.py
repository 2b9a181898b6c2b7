"""Savings and losses that can be worked out by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from router.domain import Certificate
from tests.support.synthetic import asked, world
from training.certification.betting import DELTA
from training.data.outcomes import Outcomes
from training.evaluation.evaluate import evaluate, gap_closed, oracles
from training.evaluation.policies import best_fixed, cheapest_cascade, compare, policy, policy_report, reported
from training.evaluation.spending import Rates, Unit
from training.prediction import Prediction

Matrix = NDArray[np.float64]


def test_savings_of_a_known_choice() -> None:
    outcomes, _ = world(200)
    outcomes = replace(outcomes, correct=np.tile([0.0, 1.0, 1.0], (200, 1)))
    report = policy_report(outcomes, np.ones(200, dtype=np.intp), "middle", 0.02, None)
    assert (report.accuracy, report.loss, report.thinking_tokens) == (1.0, 0.0, 10.0)
    assert report.saved_against_top == pytest.approx(0.75)
    assert report.saved_against_hull == pytest.approx(0.0), "the middle rung lies on the hull"
    assert report.rungs == [0.0, 1.0, 0.0]


def test_always_top_saves_nothing_and_loses_nothing() -> None:
    outcomes, _ = world(300)
    report = policy_report(outcomes, np.full(300, 2), "top", 0.02, None)
    assert (report.loss, report.saved_against_top) == (0.0, 0.0)
    assert report.loss_interval == (0.0, 0.0)


def test_an_interval_holds_its_estimate() -> None:
    outcomes, prediction = world(500)
    report = compare("router", (outcomes, prediction), world(500, seed=1), 0.1).policy
    for value, bounds in (
        (report.loss, report.loss_interval),
        (report.saved_against_top, report.top_interval),
        (report.saved_against_hull, report.hull_interval),
    ):
        assert value is not None and bounds is not None
        assert bounds[0] <= value <= bounds[1]


def test_honest_predictions_beat_the_hull_and_close_part_of_the_gap() -> None:
    test, prediction = world(3_000, seed=1)
    method = compare("router", world(2_000), (test, prediction), 0.1)
    assert method.policy.thinking_tokens is not None
    assert method.policy.hull_interval is not None and method.policy.hull_interval[0] > 0
    assert method.area_gain is not None and method.area_gain > 0.01
    closed = gap_closed(test, method.policy, oracles(test)[0])
    assert closed is not None and closed > 0.1


def test_blind_predictions_do_not_beat_the_hull() -> None:
    (certify, _), (test, _) = world(2_000), world(3_000, seed=1)

    def blind(outcomes: Outcomes) -> Prediction:
        _, known = world(len(outcomes))
        mean = certify.correct.mean(axis=0)
        return replace(known, quality=np.tile(mean, (len(outcomes), 1)))

    policy = compare("blind", (certify, blind(certify)), (test, blind(test)), 0.1).policy
    assert policy.saved_against_hull == pytest.approx(0, abs=0.02)


def test_the_split_half_oracle_is_no_luckier_than_hindsight() -> None:
    outcomes, _ = world(2_000)
    oracle, hindsight = oracles(outcomes)
    assert max(a for _, a in oracle) < max(a for _, a in hindsight)


def test_unknown_tokens_leave_savings_unknown() -> None:
    outcomes, prediction = world(300)
    unknown = np.full(outcomes.thinking_tokens.shape, np.nan)
    outcomes = replace(outcomes, thinking_tokens=unknown)
    prediction = replace(prediction, mean_tokens=unknown)
    report = evaluate(outcomes, prediction, (Certificate(0.02, DELTA, 0.01, 300),))
    (own,) = report.policies
    assert own.saved_against_top is None and own.thinking_tokens is None
    assert report.oracle == [] and report.gap_closed is None and report.frontier == [] and report.savings == []
    assert all(rung.coverage is None and rung.thinking_tokens is None for rung in report.rungs)


def test_a_report_has_every_rung_target_and_family() -> None:
    outcomes, prediction = world(500)
    report = evaluate(outcomes, prediction, (Certificate(0.02, DELTA, 0.001, 9),), (Certificate(0.2, DELTA, 0.8, 9),))
    assert [rung.rung for rung in report.rungs] == ["0", "10", "40"]
    assert sorted(row["task"] for row in report.tasks) == ["easy", "hard"]
    assert all(rung.coverage == [1.0] * 3 and rung.calibration_error < 0.2 for rung in report.rungs)
    (absolute,) = report.absolute
    assert absolute.right is not None and absolute.right > 0.7 and 0 < absolute.selected < 1


@pytest.mark.parametrize(
    ("alphas", "wanted"), [((0.01, 0.02, 0.1), 0.02), ((0.01,), 0.01), ((0.1, 0.05), 0.05), ((), None)]
)
def test_a_report_is_about_the_policy_of_requests_without_a_target_or_else_the_strictest(
    alphas: tuple[float, ...], wanted: float | None
) -> None:
    outcomes, prediction = world(20)
    one = policy(outcomes, prediction, 0.5, Certificate(0.5, DELTA, 0.01, 20))
    unproved = replace(one, alpha=0.02, threshold=None)
    found = reported([unproved, *(replace(one, alpha=alpha) for alpha in alphas)])
    assert (found and found.alpha) == wanted


def test_savings_and_tasks_are_those_of_the_policy_that_is_reported() -> None:
    outcomes, prediction = world(300)
    report = evaluate(outcomes, prediction, (Certificate(0.05, DELTA, 0.004, 300),))
    (own,) = report.policies
    assert (report.default, report.reported) == (0.02, 0.05)
    (saving,) = report.savings
    assert (saving.saved_against_top, saving.top_interval) == (own.saved_against_top, own.top_interval)
    assert (saving.saved_against_hull, saving.hull_interval) == (own.saved_against_hull, own.hull_interval)
    # Tasks are about the same policy: their losses add up to its own, the largest first.
    losses = [row["loss"] for row in report.tasks]
    total = sum(row["loss"] * row["prompts"] for row in report.tasks) / report.prompts
    assert losses == sorted(losses, reverse=True) and total == pytest.approx(own.loss)
    assert all(row["loss_interval"][0] <= row["loss"] <= row["loss_interval"][1] for row in report.tasks)


def test_without_a_certificate_there_is_no_saving_and_no_loss() -> None:
    report = evaluate(*world(100), ())
    assert (report.reported, report.savings, report.mistakes) == (None, [], [])
    assert {(row["loss"], row["saved_against_top"]) for row in report.tasks} == {(0.0, 0.0)}


def test_savings_in_time_and_money_count_what_does_not_shrink() -> None:
    outcomes, prediction = world(300)
    units = [Unit("tokens"), Unit("seconds", 1, 0.5, 0.1), Unit("money", 1_000, 40e-6, 2e-6)]
    report = evaluate(outcomes, prediction, (Certificate(0.02, DELTA, 0.01, 300),), units=units)
    tokens, seconds, money = report.savings
    assert tokens.top == 40 and seconds.top == pytest.approx(4.5) and money.top == pytest.approx(0.12)
    assert seconds.spent == pytest.approx(0.5 + 0.1 * tokens.spent)
    assert seconds.saved_against_top == pytest.approx(0.1 * (40 - tokens.spent) / 4.5)
    assert money.saved_against_top == pytest.approx(tokens.saved_against_top / 1.5)
    assert money.top_interval[0] == pytest.approx(tokens.top_interval[0] / 1.5)


def test_answers_count_where_their_tokens_are_recorded() -> None:
    outcomes, prediction = world(300)
    totals = outcomes.thinking_tokens + np.array(
        [30.0, 20.0, 10.0]
    )  # what is cut from the thought lengthens the answer
    outcomes = replace(outcomes, total_tokens=totals)
    tokenizer = b""
    units = Rates(price_out=2).units(tokenizer, outcomes)
    report = evaluate(outcomes, prediction, (Certificate(0.02, DELTA, 0.01, 300),), units=units)
    thinking, every, money = report.savings
    assert [one.unit.kind for one in report.savings] == ["tokens", "all tokens", "money"]
    assert (thinking.top, every.top) == (40, 50) and money.top == pytest.approx(50 * 2e-6 * 1_000)
    assert every.spent > thinking.spent + 10 and every.saved_against_top < thinking.saved_against_top
    assert money.saved_against_top == pytest.approx(every.saved_against_top)
    point = next(one for one in report.frontier if one.certified is not None)
    assert point.total_tokens == pytest.approx(every.spent)


def test_accuracy_is_stated_above_the_best_mix_of_as_many_tokens() -> None:
    outcomes, _ = world(200)
    outcomes = replace(outcomes, correct=np.tile([0.0, 1.0, 1.0], (200, 1)))
    for rung in range(3):
        report = policy_report(outcomes, np.full(200, rung), "one", 0.02, None)
        assert report.above_hull == 0 and report.above_interval == (0, 0)
    best = np.where(np.arange(200) % 2, 0, 1)
    better = replace(outcomes, correct=np.where((np.arange(200) % 2 == 1)[:, None], [1.0, 1, 1], [0.0, 1, 1]))
    report = policy_report(better, best, "knows", 0.02, None)
    assert report.above_hull == pytest.approx(0.25), "right everywhere at 5 tokens, where a mix is right in .75"
    assert report.above_interval is not None and report.above_interval[0] > 0.15


def test_rates_that_are_unknown_give_no_unit() -> None:
    tokenizer = (Path(__file__).parents[3] / "router/models/pocket/tokenizer.json").read_bytes()
    outcomes = replace(world(1)[0], prompts=asked(["2 + 2 ="]))
    kinds = [[u.kind for u in rates.units(tokenizer, outcomes)] for rates in (Rates(), Rates(0.1, 0.2, 1, 2))]
    assert kinds == [["tokens"], ["tokens", "seconds", "money"]]
    assert Rates(price_out=2).units(tokenizer, outcomes)[1] == Unit("money", 1_000, 0.0, 2e-6)
    assert Rates(price_in=1, price_out=2).units(tokenizer, outcomes)[1].fixed > 0


def test_the_frontier_has_the_point_of_every_target_and_gets_cheaper() -> None:
    outcomes, prediction = world(500)
    certificates = (Certificate(0.01, DELTA, 0.001, 9), Certificate(0.02, DELTA, 0.004, 9))
    report = evaluate(outcomes, prediction, (*certificates, Certificate(0.1, DELTA, 0.004, 9)))
    points = [point for point in report.frontier if point.certified is not None]
    assert [point.certified for point in points] == [0.01, 0.02], "of equal prices the strictest target counts"
    for point, own in zip(points, report.policies, strict=False):
        assert (point.accuracy, point.thinking_tokens) == (own.accuracy, own.thinking_tokens)
        assert point.saved_against_hull == pytest.approx(own.saved_against_hull)
        assert own.top_interval is not None
        assert point.loss_interval == pytest.approx(own.loss_interval)
        assert point.top_interval == pytest.approx(own.top_interval)
    spent = [point.thinking_tokens for point in report.frontier]
    assert spent == sorted(spent, reverse=True) and 10 < len(spent) < 40


def test_mistakes_are_the_surest_of_the_lost() -> None:
    outcomes, prediction = world(500)
    report = evaluate(outcomes, prediction, (Certificate(0.02, DELTA, 1.0, 500),))
    lost = [row["top"] - row["correct"] for row in report.mistakes]
    assert len(lost) == 10 and min(lost) > 0 and lost == sorted(lost, reverse=True)


def test_the_best_fixed_rung_is_chosen_on_the_other_split() -> None:
    certify, test = world(500)[0], world(500, seed=1)[0]
    certify = replace(certify, correct=np.tile([0.2, 0.99, 1.0], (500, 1)))
    assert best_fixed(certify, test).rungs == [0.0, 1.0, 0.0]


def test_a_cascade_pays_for_its_first_attempt() -> None:
    report = cheapest_cascade(world(2_000), world(2_000, seed=1), 0.1)
    assert report.thinking_tokens is not None and 0 < report.thinking_tokens <= 50
