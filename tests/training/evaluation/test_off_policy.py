"""Estimates from logs against the truth of a simulated world."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.labels import FEWEST
from training.evaluation.off_policy import Gain, LoggedAnswers, gain

CAPS = np.array([0.0, 16.0, 64.0, np.inf])
PRICE = 0.002
RUNS = 200


class World:
    """Prompts with a thought length; an answer is right with a probability that falls where the thought is cut."""

    def __init__(self, seed: int, n: int) -> None:
        self.random = np.random.default_rng(seed)
        self.ease = self.random.uniform(0, 1, n)
        self.length = np.maximum(1, np.round(self.random.gamma(2.0, 20.0 * (1.5 - self.ease))))
        cut = self.length[:, None] > CAPS
        self.p = np.clip(0.95 - 0.6 * cut * (1 - self.ease[:, None]), 0, 1)
        self.wholly = self.random.uniform(size=n) < 0.95
        draws = self.random.uniform(size=(n, len(CAPS)))
        self.correct = np.where(cut, draws < self.p, self.wholly[:, None]).astype(float)

    def utility(self, rungs: NDArray[np.intp]) -> NDArray[np.float64]:
        rows = np.arange(len(rungs))
        return np.asarray(self.correct[rows, rungs] - PRICE * np.minimum(self.length, CAPS[rungs]))

    def logged(self, propensities: NDArray[np.float64]) -> LoggedAnswers:
        n = len(self.ease)
        rung = (self.random.uniform(size=(n, 1)) > propensities.cumsum(axis=1)).sum(axis=1)
        natural = np.where(self.length <= CAPS[rung], self.length, np.nan)
        groups = [str(i) for i in range(n)]
        return LoggedAnswers(rung, propensities, self.correct[np.arange(n), rung], natural, groups, CAPS)

    def model(self, bias: float = 0.0) -> NDArray[np.float64]:
        """Knows how easy a prompt is, not how long its thought will be, and is wrong by `bias`."""
        guess = 40.0 * (1.5 - self.ease)[:, None]
        return np.asarray(
            0.95 - 0.5 * (1 - self.ease[:, None]) * (guess > CAPS) - PRICE * np.minimum(guess, CAPS) + bias
        )


def policies(world: World) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """A new policy, the old one, and the old one's exploration of everything."""
    old = np.full(len(world.ease), 2)
    new = np.where(world.ease > 0.6, 1, np.where(world.ease > 0.2, 2, 3))
    propensities = np.full((len(old), len(CAPS)), 0.05)
    propensities[np.arange(len(old)), old] = 0.85
    return new, old, propensities


def estimated(seed: int, n: int = 4_000, bias: float = 0.0) -> tuple[Gain, float]:
    world = World(seed, n)
    new, old, propensities = policies(world)
    truth = float((world.utility(new) - world.utility(old)).mean())
    return gain(world.logged(propensities), world.model(bias), PRICE, new, old), truth


@pytest.fixture(scope="module")
def runs() -> list[tuple[Gain, float]]:
    return [estimated(seed) for seed in range(RUNS)]


def test_the_doubly_robust_interval_covers_the_truth(runs: list[tuple[Gain, float]]) -> None:
    """At the effective sample that promotion asks for; the truth is that of a world of 200,000 prompts."""
    assert np.median([found.effective for found, _ in runs]) > FEWEST
    world = World(10_000, 200_000)
    new, old, _ = policies(world)
    truth = float((world.utility(new) - world.utility(old)).mean())
    covered = sum(found.dr.low <= truth <= found.dr.high for found, _ in runs)
    above = sum(found.dr.low > truth for found, _ in runs)
    assert covered >= 0.90 * RUNS, covered
    assert above <= 0.05 * RUNS, "the lower bound is too high too often"


@pytest.mark.parametrize("name", ["ips", "snips", "dr", "switch"])
def test_every_estimator_is_right_on_average(runs: list[tuple[Gain, float]], name: str) -> None:
    errors = np.array([getattr(found, name).value - truth for found, truth in runs])
    allowed = 0.01 if name == "switch" else 3 * errors.std() / np.sqrt(RUNS) + 1e-3
    assert abs(errors.mean()) < allowed


def test_a_model_helps_and_a_wrong_one_does_no_harm(runs: list[tuple[Gain, float]]) -> None:
    by_dr = np.std([found.dr.value - truth for found, truth in runs])
    by_ips = np.std([found.ips.value - truth for found, truth in runs])
    assert by_dr < by_ips
    wrong = np.array([found.dr.value - truth for found, truth in (estimated(seed, bias=0.5) for seed in range(RUNS))])
    assert abs(wrong.mean()) < 3 * wrong.std() / np.sqrt(RUNS) + 1e-3


def test_the_explored_share_of_thoughts_that_a_rule_could_stop_stands_for_all_of_them() -> None:
    """Hard prompts come with a rule, which is left in place for nine in ten: their answers are not in the log."""
    errors = []
    for seed in range(RUNS):
        world = World(seed, 2_000)
        hard, rows = world.ease < 0.4, np.arange(2_000)
        new, old = np.full(2_000, 2), np.full(2_000, 3)
        propensities = np.full((2_000, len(CAPS)), 0.25)
        propensities[hard] = (0.0, 0.0, 0.0, 0.1)
        logged = world.logged(np.where(hard[:, None], (0.0, 0.0, 0.0, 1.0), propensities))
        kept = ~hard | (world.random.uniform(size=2_000) < 0.1)
        mine = LoggedAnswers(
            logged.rung[kept],
            propensities[kept],
            logged.correct[kept],
            logged.length[kept],
            [str(i) for i in rows[kept]],
            CAPS,
        )
        truth = float((world.utility(new) - world.utility(old)).mean())
        model = np.column_stack([world.utility(np.full(2_000, rung)) for rung in range(len(CAPS))])
        found = gain(mine, model[kept], PRICE, new[kept], old[kept])
        errors.append((found.dr.value - truth, found.dr.low <= truth <= found.dr.high))
        assert found.resting_on_model == pytest.approx(
            np.average(hard[kept] & (world.length[kept] > 64), weights=mine.weights)
        )
    deviations = np.array([error for error, _ in errors])
    assert abs(deviations.mean()) < 3 * deviations.std() / np.sqrt(RUNS) + 1e-3
    assert sum(covered for _, covered in errors) >= 0.9 * RUNS


def test_a_decision_that_a_rule_was_kept_from_weighs_by_its_share() -> None:
    chances = np.array([[0.0, 0.0, 0.2], [0.0, 1.0, 0.0]])
    top = np.array([2, 1])
    logged = LoggedAnswers(
        top, chances, np.ones(2), np.array([np.nan, np.nan]), ["a", "b"], np.array([0.0, 10.0, 100.0])
    )
    assert logged.chances(top).tolist() == [1.0, 1.0]
    assert logged.weights == pytest.approx([5 / 3, 1 / 3])
    model = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = gain(logged, model, 0.0, top, np.zeros(2, dtype=np.intp))
    assert found.dr.value == pytest.approx(1.0), "an answer counts once, however small the share"


def test_thoughts_that_ended_by_themselves_reveal_other_rungs() -> None:
    caps, ones = np.array([0.0, 10.0, 100.0]), np.array([1.0, 1.0])
    chances = np.array([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]])
    logged = LoggedAnswers(np.array([2, 1]), chances, ones, np.array([8.0, np.nan]), ["a", "b"], caps)
    middle = np.array([1, 1])
    assert logged.revealed(middle).tolist() == [True, True]
    assert logged.chances(middle).tolist() == [0.8, 0.3]
    assert logged.tokens(middle).tolist() == [8.0, 10.0]
    lowest = np.array([0, 0])
    assert logged.revealed(lowest).tolist() == [False, False]
    assert logged.chances(lowest).tolist() == [0.2, 0.2]


def test_what_had_no_chance_rests_on_the_model() -> None:
    world = World(0, 500)
    new, old, _ = policies(world)
    certain = np.zeros((500, len(CAPS)))
    certain[np.arange(500), old] = 1.0
    found = gain(world.logged(certain), world.model(), PRICE, new, old)
    assert 0 < found.resting_on_model < 1
    assert found.effective <= 500


def test_a_policy_gains_nothing_over_itself() -> None:
    world = World(0, 500)
    _, old, propensities = policies(world)
    found = gain(world.logged(propensities), world.model(), PRICE, old, old)
    assert (found.dr.value, found.dr.low, found.dr.high) == (0, 0, 0)


def test_a_thought_of_just_the_cap_ended_by_itself() -> None:
    caps = np.array([0.0, 10.0, 100.0])
    logged = LoggedAnswers(np.array([2]), np.array([[0.2, 0.3, 0.5]]), np.ones(1), np.array([10.0]), ["a"], caps)
    middle = np.array([1])
    assert logged.revealed(middle).tolist() == [True]
    assert logged.chances(middle).tolist() == [0.8]
    lower = LoggedAnswers(np.array([1]), np.array([[0.2, 0.3, 0.5]]), np.ones(1), np.array([10.0]), ["a"], caps)
    assert lower.revealed(np.array([2])).tolist() == [True]


def by_hand(logged: LoggedAnswers, model: NDArray[np.float64], wanted: NDArray[np.intp]) -> NDArray[np.float64]:
    """Columns w u, w, DR and SWITCH as the definitions have them, row by row."""
    rows = []
    for i, rung in enumerate(wanted):
        length, ran = logged.length[i], logged.rung[i]
        natural = not np.isnan(length) and length <= logged.caps[rung]
        reveal = [b for b in range(len(logged.caps)) if b == rung or (natural and length <= logged.caps[b])]
        seen = ran in reveal
        w = 1 / sum(logged.propensities[i, b] for b in reveal) if seen else 0.0
        tokens = length if natural else logged.caps[rung]
        u = logged.correct[i] - PRICE * tokens if seen else 0.0
        q = model[i, rung]
        dr = q + w * (u - q)
        rows.append([w * u, w, dr, dr if w <= 20 else q])
    return np.array(rows)


@pytest.mark.parametrize("seed", range(5))
def test_every_estimate_is_that_of_its_definition(seed: int) -> None:
    world = World(seed, 300)
    new, old, _ = policies(world)
    propensities = world.random.dirichlet([0.3, 0.3, 1.0, 1.0], 300)
    logged, model = world.logged(propensities), world.model()
    found = gain(logged, model, PRICE, new, old)
    a, b = by_hand(logged, model, new), by_hand(logged, model, old)
    ips, _, dr, switch = (a - b).mean(axis=0)
    snips = a[:, 0].sum() / a[:, 1].sum() - b[:, 0].sum() / b[:, 1].sum()
    effective = min(one[:, 1].sum() ** 2 / (one[:, 1] ** 2).sum() for one in (a, b))
    seen = (found.ips.value, found.snips.value, found.dr.value, found.switch.value, found.effective)
    assert seen == pytest.approx((ips, snips, dr, switch, effective))
    assert found.resting_on_model == 0
    linear = [(one[:, 0] - one[:, 0].sum() / one[:, 1].sum() * one[:, 1]) / one[:, 1].mean() for one in (a, b)]
    width = 2 * 1.96 * float(np.std(linear[0] - linear[1])) / 300**0.5
    assert found.snips.high - found.snips.low == pytest.approx(width), "the spread of a ratio, to first order"


def certain(correct: list[float], groups: list[str] | None = None) -> Gain:
    """The gain of a rung that was always run over one whose utility the model gives as 0."""
    n = len(correct)
    zeros = np.zeros(n, dtype=np.intp)
    cut = np.full(n, np.nan)
    logged = LoggedAnswers(
        zeros, np.tile([1.0, 0.0], (n, 1)), np.array(correct), cut, groups or list(map(str, range(n))), np.zeros(2)
    )
    return gain(logged, np.zeros((n, 2)), PRICE, zeros, zeros + 1)


def test_an_interval_is_1_96_standard_errors_wide_and_shifted_by_skewness() -> None:
    even = certain([0.0, 1.0, 0.0, 1.0])
    assert (even.dr.value, even.dr.low, even.dr.high) == pytest.approx((0.5, 0.5 - 0.49, 0.5 + 0.49))
    skewed = certain([0.0, 0.0, 0.0, 1.0]).dr  # spread .433, skewness 1.155
    spread, skewness = (3 / 16) ** 0.5, 2 / 3**0.5
    shift = skewness * (2 * 1.96**2 + 1) / 24 * spread
    assert skewed.high - skewed.low == pytest.approx(1.96 * spread)
    assert (skewed.low + skewed.high) / 2 - skewed.value == pytest.approx(shift)
    assert certain([0.5] * 4).dr == certain([0.5] * 8).dr, "what does not vary has no interval"


def test_what_varies_is_the_group() -> None:
    ungrouped, grouped = certain([0.0, 1.0] * 4), certain([0.0, 1.0] * 4, list("aabbccdd"))
    assert grouped.dr.value == grouped.dr.low == grouped.dr.high == ungrouped.dr.value == 0.5
    doubled = certain([0.0, 0.0, 1.0, 1.0] * 2, list("aabbccdd"))
    assert (doubled.dr.low, doubled.dr.high) == pytest.approx((0.5 - 0.49, 0.5 + 0.49)), "as four, not as eight"


def test_a_weight_of_20_is_the_last_that_switch_believes() -> None:
    for chance, expected in ((0.05, 20.0), (0.04, 0.0)):
        propensities = np.array([[chance, 1 - chance]])
        logged = LoggedAnswers(np.array([0]), propensities, np.ones(1), np.array([np.nan]), ["a"], np.array([0.0, 0.0]))
        found = gain(logged, np.zeros((1, 2)), PRICE, np.array([0]), np.array([1]))
        assert found.switch.value == pytest.approx(expected)
        assert found.dr.value == pytest.approx(1 / chance)


def test_what_either_policy_cannot_see_rests_on_the_model() -> None:
    found = certain([1.0] * 4)
    assert (found.resting_on_model, found.effective) == (1.0, 0.0)
    assert found.ips.value == found.snips.value == found.dr.value == 1.0
