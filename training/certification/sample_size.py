"""How many prompts a certificate needs, from the test itself: draw losses, bet on them, count how often it is proved.

A certificate is proved on the certify split, and only prompts that lose or gain something there speak against it. So
the number depends on the true loss: where nothing is lost it is smallest, near the target it grows without bound.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np

from training.arrays import Vector
from training.certification.betting import MOST, betting_p_value, without_loss
from training.certification.sequences import SHARE
from training.data.splits import LABELLED, SPLITS

TARGETS = (0.01, 0.02, 0.05, 0.1)
POWER = 0.9
"""How often a true certificate must be proved for a number of prompts to count as enough."""

DRAWS = 200
"""Certify splits that are drawn for each number of prompts."""

PARTS = (0.0, 0.25, 0.5)
"""True losses as parts of the target, in the table of an estimate."""

Draw = Callable[[np.random.Generator, int], Vector]
"""Draws so many losses, each in -1..1."""


@dataclass(frozen=True)
class Needed:
    """Prompts that a target needs.

    Attributes:
        calibration: in the certify split, by true loss (0, a quarter and a half of the target); None = beyond MOST.
        prompts: of a whole file, of which the certify split is a fifth.
    """

    max_loss: float
    true_loss: tuple[float, ...]
    calibration: tuple[int | None, ...]
    prompts: tuple[int | None, ...]


def table(targets: tuple[float, ...] = TARGETS) -> list[Needed]:
    """What each target needs, where answers are lost and none is gained."""
    rows = []
    for alpha in targets:
        lost = tuple(part * alpha for part in PARTS)
        calibration = tuple(needed(alpha, losing(rate)) if rate else without_loss(alpha, SHARE) for rate in lost)
        rows.append(Needed(alpha, lost, calibration, tuple(n and in_file(n) for n in calibration)))
    return rows


def needed(alpha: float, draw: Draw, delta: float = SHARE) -> int | None:
    """Groups of prompts that prove a loss of at most `alpha` in POWER of all draws, to 5 %; None beyond MOST."""
    sizes = np.unique(np.geomspace(without_loss(alpha, delta), MOST, 150).astype(int)).tolist()
    place = bisect_left(sizes, True, key=lambda n: _power(alpha, draw, n, delta) >= POWER)
    return int(sizes[place]) if place < len(sizes) else None


def losing(rate: float) -> Draw:
    """Losses of prompts of which this share loses its answer, and none gains one."""
    return lambda random, n: (random.random(n) < rate).astype(float)


def like(values: Vector) -> Draw:
    """Losses as those that were seen."""
    return lambda random, n: random.choice(values, n)


def in_file_for_a_fixed_rung(labels: int) -> int:
    """Prompts of a file that has about so many outside its test split: all of them count for a fixed rung."""
    return ceil(labels / LABELLED)


def in_file(calibration: int) -> int:
    """Prompts of a file whose certify split has about so many."""
    return ceil(calibration / SPLITS["certify"])


def _power(alpha: float, draw: Draw, n: int, delta: float) -> float:
    random = np.random.default_rng(0)  # the same draws for every size: noise must not make the search go back
    return float(np.mean([betting_p_value(draw(random, n), alpha, delta) <= delta for _ in range(DRAWS)]))
