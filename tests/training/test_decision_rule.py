"""The decision rule stands three times; random curves, ties and missing token counts hold the three equal.

The rule of targets per prompt stands twice, since no plan asks for it.
"""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from router.bundle import manifest
from router.bundle.manifest import QUANTILES
from router.digits import ROUNDING
from router.domain import BudgetLadder, Certificate, MaxLoss, OnUnmet, Prompt, ReasoningBudget, RoutingOptions, Score
from router.routing.policy import LatencyProfile, Policy
from tests.conftest import MODELS
from tests.support.synthetic import OUTCOMES
from training.arrays import Matrix, Rungs
from training.certification.rules import choose, smallest
from training.model import inference
from training.plan.replay import served_rungs
from training.prediction import Prediction

RUNGS = 4
LADDER = BudgetLadder(
    (ReasoningBudget("none", 0), *(ReasoningBudget(str(n), n) for n in (10, 50)), ReasoningBudget("all", None))
)
CAPS = np.array([0, 10, 50, np.inf])
LATENCY = LatencyProfile(first_token=0.5, per_token=0.1, answer_tokens=5)

# Eighths and halves are exact in binary, so that equal worths are equal in every order of the arithmetic.
qualities = st.integers(0, 8).map(lambda eighths: eighths / 8) | st.floats(0, 1)
counts = st.integers(0, 8).map(float) | st.floats(0, 100)
prices = st.sampled_from((0.0, 0.125, 0.0625, 0.5)) | st.floats(0, 1)
ties = st.sampled_from((0.0, 0.125, 0.5)) | st.floats(0, 1)
deadlines = st.none() | st.floats(0.1, 20)


@st.composite
def predictions(draw: st.DrawFn) -> Prediction:
    """Curves of 1 to 6 prompts; rungs whose tokens are not recorded lack them for every prompt, as in a bundle."""
    prompts = draw(st.integers(1, 6))

    def table(cells: st.SearchStrategy[float]) -> Matrix:
        return np.array(
            draw(st.lists(st.lists(cells, min_size=RUNGS, max_size=RUNGS), min_size=prompts, max_size=prompts))
        )

    absent = np.where(draw(st.lists(st.booleans(), min_size=RUNGS, max_size=RUNGS)), np.nan, 0.0)
    mean = table(counts) + (absent if draw(st.booleans()) else 0.0)
    quantiles = np.repeat((mean * 2)[:, :, None], len(QUANTILES), axis=2)
    far = draw(st.none() | st.lists(st.booleans(), min_size=prompts, max_size=prompts).map(np.array))
    return Prediction(table(qualities), mean, quantiles, far)


def score_of(prediction: Prediction, row: int) -> Score:
    """What a classifier would answer for one prompt: None where training has NaN."""
    mean = tuple(None if np.isnan(value) else float(value) for value in prediction.mean_tokens[row])
    quantiles = (
        tuple(None if np.isnan(value) else float(value) for value in prediction.token_quantiles[row, :, i])
        for i in range(len(QUANTILES))
    )
    far = prediction.far is not None and bool(prediction.far[row])
    return Score(tuple(prediction.quality[row].tolist()), mean, *quantiles, far=far)


def decided(prediction: Prediction, price: float, deadline: float | None, tie: float = 0.0) -> list[int]:
    """The rungs that serving decides, one request at a time."""
    policy = Policy(LADDER, (Certificate(0.02, 0.1, price, 100, tie=tie),), LATENCY)
    options = RoutingOptions(MaxLoss(0.02), max_latency=deadline, on_unmet=OnUnmet.TOP_RUNG)
    return [policy.choose(score_of(prediction, row), options).index for row in range(len(prediction.quality))]


def decided_per_prompt(prediction: Prediction, threshold: float) -> list[int]:
    """The rungs that serving decides where the target must hold by each prompt's own forecast."""
    policy = Policy(LADDER, (), LATENCY, per_prompt=(Certificate(0.3, 0.1, threshold, 100),))
    options = RoutingOptions(MaxLoss(0.3, per_prompt=True))
    return [policy.choose(score_of(prediction, row), options).index for row in range(len(prediction.quality))]


def replayed(prediction: Prediction, price: float, deadline: float | None, tie: float = 0.0) -> Rungs:
    """The rungs of a plan for the same table."""
    p99 = prediction.token_quantiles[:, :, QUANTILES.index(0.99)]
    most = np.where(np.isnan(p99), CAPS, p99)
    in_time = np.ones(most.shape, bool) if deadline is None else LATENCY.seconds(most) <= deadline
    return served_rungs(prediction, Certificate(0.02, 0.1, price, 100, tie=tie), in_time)


@given(predictions(), prices, ties)
def test_without_a_deadline_all_three_choose_the_same_rungs(prediction: Prediction, price: float, tie: float) -> None:
    table = choose(prediction.quality, prediction.cost, price, prediction.far, tie).tolist()
    assert table == decided(prediction, price, None, tie) == replayed(prediction, price, None, tie).tolist()


@given(predictions(), st.sampled_from((-0.125, 0.0, 0.125, 0.25)) | st.floats(-1, 0.3))
def test_per_prompt_both_choose_the_same_rungs(prediction: Prediction, threshold: float) -> None:
    table = smallest(prediction.quality, threshold, prediction.far).tolist()
    assert table == decided_per_prompt(prediction, threshold)


def test_over_500_real_prompts_the_plain_rule_meets_its_target_by_each_ones_forecast() -> None:
    """Where the default rule has an average to spend, it misses the target for some of them, and says so."""
    bundle = manifest.load(MODELS / "pocket-router")
    prompts = [Prompt.of(text) for text in pl.read_parquet(OUTCOMES)["prompt"].unique(maintain_order=True).head(500)]
    prediction = inference.predict(bundle, prompts)
    about = bundle.manifest
    policy = Policy(about.ladder, about.certificates, LATENCY, per_prompt=about.per_prompt)
    missed = 0
    for score in (score_of(prediction, row) for row in range(len(prompts))):
        plain = policy.choose(score, RoutingOptions(MaxLoss(0.02, per_prompt=True)))
        lost = [score.quality[-1] - quality for quality in score.quality]
        expected = policy.top if score.far else next(i for i, loss in enumerate(lost) if loss <= 0.02 + ROUNDING)
        assert (plain.index, plain.meets_target) == (expected, True)
        assert (plain.certificate is None) == score.far
        kept = "no shorter rung is predicted to" if expected == policy.top else "the smallest rung that is predicted to"
        assert plain.reason.startswith("the prompt is unlike" if score.far else f"{kept} lose at most 0.02")
        average = policy.choose(score, RoutingOptions(MaxLoss(0.02)))
        assert average.meets_target == (average.index == policy.top or lost[average.index] <= 0.02 + ROUNDING)
        missed += not average.meets_target
    assert missed > 0


@given(predictions(), prices, deadlines)
def test_under_a_deadline_a_plan_serves_as_the_service_does(
    prediction: Prediction, price: float, deadline: float | None
) -> None:
    assert replayed(prediction, price, deadline).tolist() == decided(prediction, price, deadline)


def test_of_rungs_that_are_worth_about_the_same_all_three_take_the_smallest() -> None:
    quality, mean = np.array([[0.5, 0.8992, 0.8995, 0.9]]), np.array([[0.0, 10.0, 20.0, 30.0]])
    prediction = Prediction(quality, mean, np.repeat(mean[:, :, None], len(QUANTILES), axis=2))
    for tie, wanted in ((0.0, 3), (0.0006, 2), (0.001, 1), (0.5, 0)):
        assert choose(quality, prediction.cost, 0.0, tie=tie).tolist() == [wanted]
        assert decided(prediction, 0.0, None, tie) == replayed(prediction, 0.0, None, tie).tolist() == [wanted]


def test_of_equal_worth_all_three_take_the_cheapest() -> None:
    flat = np.full((1, RUNGS), 0.5)
    prediction = Prediction(flat, flat, np.repeat(flat[:, :, None], len(QUANTILES), axis=2))
    assert choose(prediction.quality, prediction.cost, 0.25).tolist() == [0]
    assert decided(prediction, 0.25, None) == replayed(prediction, 0.25, None).tolist() == [0]


def test_one_missing_token_count_makes_positions_the_cost_in_all_three() -> None:
    quality, mean = np.array([[0.5, 0.75, 1.0, 1.0]]), np.array([[0.0, 0.0, np.nan, 0.0]])
    prediction = Prediction(quality, mean, np.repeat(mean[:, :, None], len(QUANTILES), axis=2))
    assert choose(quality, prediction.cost, 0.25).tolist() == [0]
    assert decided(prediction, 0.25, None) == replayed(prediction, 0.25, None).tolist() == [0]
