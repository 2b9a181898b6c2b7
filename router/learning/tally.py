"""Sums over what was served, and what the top rung would have taken in its place.

Some requests get the top rung by chance alone, and their chances are known. Weighted by these, they say what the top
rung would have taken for all. What was saved is therefore measured, and not forecast.
"""

import math
from dataclasses import dataclass, fields
from operator import add, attrgetter

from router.domain import CHOSEN, Decision

FEWEST = 20
"""Requests at the top rung by chance, below which nothing is said about what was saved."""

Z = 1.96


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over what one bundle decided.

    Attributes:
        requests: decisions.
        ended: generations whose top rung had a chance, and whose thinking tokens are known.
        tokens: thinking tokens of these.
        drawn: those at the top rung whose chance was less than 1.
        weights: sum of 1 / chance over all at the top rung.
        weighted: sum of tokens / chance.
        spread, spread_tokens, spread_squares: sums of w (w - 1), times 1, tokens and squared tokens, of w = 1 / chance.
    """

    requests: int = 0
    ended: int = 0
    tokens: float = 0.0
    drawn: int = 0
    weights: float = 0.0
    weighted: float = 0.0
    spread: float = 0.0
    spread_tokens: float = 0.0
    spread_squares: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*map(add, values(self), values(other)))

    @property
    def saved(self) -> "Saved | None":
        """What was saved against the top rung; None where too few were at the top rung by chance."""
        if self.drawn < FEWEST:
            return None
        mean = self.weighted / self.weights
        top = self.ended * mean
        variance = self.spread_squares - 2 * mean * self.spread_tokens + mean * mean * self.spread
        error = Z * self.ended * math.sqrt(max(0.0, variance)) / self.weights
        saved = top - self.tokens
        return Saved(saved, saved - error, saved + error, top, self.ended, self.drawn)


@dataclass(frozen=True, slots=True)
class Saved:
    """Thinking tokens that were saved, with a 95 % interval.

    Attributes:
        top: what the top rung would have taken.
        requests: that are counted.
        drawn: requests among them that got the top rung by chance, which say what it takes.
    """

    tokens: float
    low: float
    high: float
    top: float
    requests: int
    drawn: int


def ended(decision: Decision, tokens: int) -> Tally:
    """What a generation adds."""
    chance = decision.propensities[-1] if decision.source in CHOSEN else 0.0
    if chance <= 0:
        return Tally()
    if decision.choice.index < len(decision.ladder) - 1 or decision.choice.stopping is not None:
        return Tally(ended=1, tokens=tokens)
    weight = 1 / min(chance, 1.0)
    spread = weight * (weight - 1)
    return Tally(
        0, 1, tokens, int(spread > 0), weight, weight * tokens, spread, spread * tokens, spread * tokens * tokens
    )


NAMES = tuple(field.name for field in fields(Tally))
"""Names of the sums."""

values = attrgetter(*NAMES)  # `astuple` copies deeply, which takes ten times as long
