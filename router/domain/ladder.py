"""Rungs, ladders, and what is predicted for each rung."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ReasoningBudget:
    """One rung: a cap in thinking tokens, or a named effort without a number (`tokens` is None)."""

    name: str
    tokens: int | None


@dataclass(frozen=True, slots=True)
class BudgetLadder:
    """The rungs a backend can run, cheapest first."""

    rungs: tuple[ReasoningBudget, ...]

    def __len__(self) -> int:
        return len(self.rungs)

    def __hash__(self) -> int:
        return hash((len(self.rungs), self.rungs[-1:]))  # every decision hashes its ladder, so the hash must be cheap

    def index(self, name: str) -> int | None:
        """Position of the rung called `name`, None where there is none."""
        return next((i for i, rung in enumerate(self.rungs) if rung.name == name), None)


DEFAULT_RUNG = "default"
"""Name of the engine's own default, which no ladder holds: the engine thinks as it does where nobody sets a budget."""

Forecast = tuple[float | None, ...]
"""Thinking tokens by rung; None for rungs whose token counts were not recorded in the training data."""


@dataclass(frozen=True, slots=True)
class Score:
    """The classifier's predictions for one prompt, by rung in ladder order.

    Attributes:
        quality: P(correct).
        mean: thinking tokens that a rung is expected to use; p50, p90 and p99 are their quantiles.
        far: the prompt is unlike those that were certified, so no prediction about it can be relied on.
    """

    quality: tuple[float, ...]
    mean: Forecast
    p50: Forecast
    p90: Forecast
    p99: Forecast
    far: bool = field(default=False, kw_only=True)

    @property
    def rungs(self) -> "Iterator[tuple[float, float | None, float | None, float | None, float | None]]":
        """The predictions rung by rung: quality, mean, p50, p90, p99."""
        return zip(self.quality, self.mean, self.p50, self.p90, self.p99, strict=True)
