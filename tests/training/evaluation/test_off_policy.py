"""Estimates from logs against the truth of a simulated world."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.off_policy import Gain, LoggedAnswers, gain
from training.retrain import FEWEST

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
