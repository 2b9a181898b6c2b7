"""What each use of the same labels may spend of delta."""

from math import pi

from training.certification.betting import DELTA


def share(use: int) -> float:
    """The share of delta that the n-th use of a set of labels may spend, from 1 on: 6 / (pi n)^2.

    The sum over all n is 1 (Euler), so by the union bound delta is the chance that any certificate is false that was
    ever tested on these labels, however many there are and whichever is served (alpha spending, Foster & Stine 2008).
    Without it, the best of twenty challengers that lose a little too much is certified far more often than delta.
    """
    return 6 / (pi * use) ** 2


def uses_before(delta: float) -> int:
    """How often labels were used before the test that spent a delta."""
    return round(6**0.5 / pi / (delta / DELTA) ** 0.5) - 1 if delta < DELTA else 0
