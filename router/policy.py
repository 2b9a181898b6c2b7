"""The decision rule: pure functions from predictions and wishes to a rung.

1. Rungs outside floor and ceiling, or too slow for the deadline, are dropped.
2. Relative target: the smallest rung whose predicted loss passes the certified threshold.
   Absolute target: the smallest rung with P(correct) >= target.
3. Where none passes, `on_unmet` decides.
4. Without a certificate for a relative target: the top rung, and it is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from router.domain import BudgetLadder, Certificate, Choice, MaxLoss, MinQuality, OnUnmet, Options, Score
from router.errors import InvalidRequest, TargetUnmet

NEAR_BEST = 0.05
"""`CHEAPEST_NEAR_BEST` accepts a rung whose quality is this close to the best one."""


@dataclass(frozen=True, slots=True)
class LatencyProfile:
    """How long a backend takes: seconds to the first token, seconds per token, tokens of a usual answer."""

    first_token: float
    per_token: float
    answer_tokens: float

    def seconds(self, thinking_tokens: float) -> float:
        """Latency forecast of a whole reply that thinks for `thinking_tokens`."""
        return self.first_token + self.per_token * (thinking_tokens + self.answer_tokens)


@dataclass(frozen=True, slots=True)
class Policy:
    """The decision rule for one ladder and its certificates."""

    ladder: BudgetLadder
    certificates: Sequence[Certificate]
    latency: LatencyProfile

    def within_bounds(self, options: Options) -> list[int]:
        """Rungs within floor and ceiling, cheapest first; one without a number is within any floor and no ceiling.

        Raises:
            InvalidRequest: no rung is left.
        """
        rungs = [i for i, rung in enumerate(self.ladder.rungs) if _within(rung.tokens, options)]
        if not rungs:
            named = ", ".join(rung.name for rung in self.ladder.rungs)
            raise InvalidRequest(
                "options.max_thinking_tokens", f"no rung lies within floor and ceiling (rungs: {named})"
            )
        return rungs

    def choose(self, score: Score, options: Options) -> Choice:
        """The smallest rung that meets the target, or what `on_unmet` asks for.

        Raises:
            InvalidRequest: floor and ceiling leave no rung.
            TargetUnmet: nothing meets the target and the caller asked to be refused.
        """
        allowed = self.within_bounds(options)
        in_time = [i for i in allowed if self._in_time(score, i, options.max_latency)]
        if not in_time:
            return self._unmet(score, options, allowed[:1], "every rung allowed breaks the deadline")
        if isinstance(options.target, MaxLoss):
            return self._relative(score, options, options.target, in_time)
        return self._absolute(score, options, options.target, in_time)

    def _in_time(self, score: Score, index: int, max_latency: float | None) -> bool:
        return max_latency is None or self.latency.seconds(score.tokens[index].p99) <= max_latency

    def _relative(self, score: Score, options: Options, target: MaxLoss, rungs: list[int]) -> Choice:
        top = len(self.ladder) - 1
        certificate = self.certificate(target)
        if certificate is None:
            why = f"no certificate for a loss of {target.value:g}"
            if rungs[-1] != top:
                return self._unmet(score, options, rungs, why)
            return Choice(top, True, None, f"{why}: the top rung")
        passing = [i for i in range(top + 1) if score.quality[top] - score.quality[i] <= certificate.threshold]
        index = next((i for i in rungs if i in passing), None)
        if index is None:
            return self._unmet(score, options, rungs, f"every rung allowed loses more than {certificate.threshold:.3f}")
        reason = f"smallest rung with a predicted loss of at most {certificate.threshold:.3f}"
        if index == passing[0]:
            return Choice(index, True, certificate, reason)
        return Choice(index, True, None, f"{reason}, within bounds that the certificate does not cover")

    def certificate(self, target: MaxLoss) -> Certificate | None:
        """The certificate with the largest alpha that is not above the target."""
        usable = [c for c in self.certificates if c.alpha <= target.value]
        return max(usable, key=lambda c: c.alpha, default=None)

    def _absolute(self, score: Score, options: Options, target: MinQuality, rungs: list[int]) -> Choice:
        wanted = target.value
        for index in rungs:
            if score.quality[index] >= wanted:
                return Choice(index, True, None, f"smallest rung with P(correct) of at least {wanted:.3f}")
        return self._unmet(score, options, rungs, f"no rung allowed reaches P(correct) {wanted:.3f}")

    def _unmet(self, score: Score, options: Options, rungs: list[int], why: str) -> Choice:
        if options.on_unmet is OnUnmet.REJECT:
            raise TargetUnmet(why)
        if options.on_unmet is OnUnmet.TOP_RUNG:
            return Choice(rungs[-1], False, None, f"{why}: the longest that fits")
        best = max(score.quality[i] for i in rungs)
        cheapest = next(i for i in rungs if score.quality[i] >= best - NEAR_BEST)
        return Choice(cheapest, False, None, f"{why}: the cheapest rung within {NEAR_BEST} of the best")


def _within(tokens: int | None, options: Options) -> bool:
    if tokens is None:
        return options.ceiling is None
    return options.floor <= tokens and (options.ceiling is None or tokens <= options.ceiling)
