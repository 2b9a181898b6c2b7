"""What each use of the same labels may spend of delta, and what happens where each spends all of it."""

import numpy as np
import pytest

from training.certification.betting import DELTA
from training.certification.delta import share, uses_before
from training.certification.sequences import CandidatePolicy, PolicySequence

CHALLENGERS, DRAWS, PROMPTS, ALPHA = 20, 300, 500, 0.05


def test_all_uses_together_spend_no_more_than_delta() -> None:
    shares = [share(use) for use in range(1, 100_000)]
    assert sum(shares) == pytest.approx(1, abs=1e-4) and shares == sorted(shares, reverse=True)


def test_what_was_spent_says_how_often_labels_were_used_before() -> None:
    assert [uses_before(DELTA * share(use)) for use in range(1, 50)] == list(range(49))
    assert uses_before(DELTA) == 0


def certified(random: np.random.Generator, shares: list[float]) -> bool:
    """Whether any challenger is certified of those that lose just too much on the same prompts, one after the other."""
    common = random.random(PROMPTS)
    for part in shares:
        # Challengers resemble each other: two thirds of what they lose is the same.
        own = np.where(random.random(PROMPTS) < 2 / 3, common, random.random(PROMPTS))
        policy = CandidatePolicy((own < ALPHA + 1e-9).astype(float), 0.0, 0.0)
        if not isinstance(PolicySequence("", [policy], delta=DELTA).at(part).proved(ALPHA), str):
            return True
    return False


def test_the_best_of_twenty_challengers_is_false_no_more_often_than_promised() -> None:
    alike, shared = [1.0] * CHALLENGERS, [share(use) for use in range(1, CHALLENGERS + 1)]
    rates = []
    for shares in (alike, shared):
        random = np.random.default_rng(0)
        rates.append(np.mean([certified(random, shares) for _ in range(DRAWS)]))
    assert rates[0] > 2 * DELTA, "all of delta for each"
    assert rates[1] <= DELTA
