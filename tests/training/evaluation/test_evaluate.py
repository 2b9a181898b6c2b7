"""Savings and losses that can be worked out by hand, and the re-split experiment on a known truth."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from router.domain import BudgetLadder, Certificate, ReasoningBudget
from training.data.dataset import Outcomes
from training.evaluation.certify import DELTA
from training.evaluation.evaluate import evaluate, family, gap_closed, oracles
from training.evaluation.policies import best_fixed, cheapest_cascade, compare, policy_report
from training.evaluation.violation import resplit
from training.prediction import Prediction

Matrix = NDArray[np.float64]
TOKENS = np.array([0.0, 10.0, 40.0])


def world(prompts: int, seed: int = 0) -> tuple[Outcomes, Prediction]:
    """Three rungs, honest predictions, twenty samples a prompt."""
    random = np.random.default_rng(seed)
    quality = np.sort(random.beta(0.6, 0.4, size=(prompts, 3)), axis=1)
    halves = np.stack([random.binomial(10, quality) / 10 for _ in range(2)])
    names = [f"prompt {seed} {i}" for i in range(prompts)]
    tasks = [f"{'easy' if q > 0.5 else 'hard'}/{i % 2}" for i, q in enumerate(quality[:, 0])]
    tokens = np.tile(TOKENS, (prompts, 1))
    ladder = BudgetLadder(tuple(ReasoningBudget(f"{t:g}", int(t)) for t in TOKENS))
    samples = np.full(quality.shape, 20)
    outcomes = Outcomes("m", ladder, names, tasks, names, halves.mean(axis=0), tokens, samples, halves)
    return outcomes, Prediction(quality, tokens, np.repeat(tokens[:, :, None], 3, axis=2))


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
    (policy,) = report.policies
    assert policy.saved_against_top is None and policy.thinking_tokens is None
    assert report.oracle == [] and report.gap_closed is None
    assert all(rung.coverage is None and rung.thinking_tokens is None for rung in report.rungs)


def test_a_report_has_every_rung_target_and_family() -> None:
    outcomes, prediction = world(500)
    report = evaluate(outcomes, prediction, (Certificate(0.02, DELTA, 0.001, 9),), (Certificate(0.2, DELTA, 0.8, 9),))
    assert [rung.rung for rung in report.rungs] == ["0", "10", "40"]
    assert [row["task"] for row in report.tasks] == ["easy", "hard"]
    assert all(rung.coverage == [1.0] * 3 and rung.calibration_error < 0.2 for rung in report.rungs)
    (absolute,) = report.absolute
    assert absolute.right is not None and absolute.right > 0.7 and 0 < absolute.selected < 1


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


def test_a_family_is_what_stands_before_the_last_slash() -> None:
    assert [family(task) for task in ("sums/3", "a/b/c", "plain", "")] == ["sums", "a/b", "plain", ""]


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_certificates_are_violated_no_more_often_than_promised(alpha: float) -> None:
    pool, prediction = world(3_000)
    found = resplit(pool, prediction, alpha, resplits=200)
    assert found.violated <= DELTA + 3 * (DELTA * (1 - DELTA) / 200) ** 0.5
    assert found.certify == 1_000 and found.uncertified < 1
    assert found.utilisation is not None and 0 < found.utilisation <= 1.05


def test_lying_predictions_are_never_certified() -> None:
    pool, prediction = world(2_000)
    lying = replace(prediction, quality=prediction.quality[:, ::-1].copy())
    found = resplit(pool, lying, 0.02, resplits=50)
    assert found.uncertified == 1.0 and found.violated == 0.0
