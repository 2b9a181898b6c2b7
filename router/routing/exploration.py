"""Sometimes think longer than the policy asks for, to learn what that would have brought. Pure functions.

Upward only: a caller may get a better answer than the policy promises, never a worse one. Every rung that may be
explored has at least LEAST probability, so that estimates from the log have bounded weights.
"""

from collections.abc import Sequence
from functools import lru_cache

LEAST = 0.01
"""The smallest propensity of a rung that is explored at all."""

Propensities = tuple[float, ...]


@lru_cache(1024)
def certain(rungs: int, index: int) -> Propensities:
    """All probability on one rung."""
    return tuple(float(i == index) for i in range(rungs))


def unstopped(rungs: int, index: int, share: float) -> Propensities:
    """The probability of every rung [rungs] where a rule may stop thoughts on the way to `index`, all but a `share`."""
    return tuple(share if i == index else 0.0 for i in range(rungs))


def propensities(rungs: int, chosen: int, allowed: Sequence[int], share: float) -> Propensities:
    """The probability of every rung [rungs] if `share` of the requests explores above `chosen` among `allowed`.

    No explored rung has less than LEAST, even if `share` would give it less.
    """
    above = [i for i in allowed if i > chosen]
    if not above or share == 0:
        return certain(rungs, chosen)
    each = max(share / len(above), LEAST)
    return tuple(each if i in above else 1 - each * len(above) if i == chosen else 0.0 for i in range(rungs))
