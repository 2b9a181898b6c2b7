"""The decision rule: pure functions from predictions and routing options to a rung.

1. Rungs outside floor and ceiling, or too slow for the deadline, are dropped.
2. Relative target: the rung with the largest P(correct) - price * tokens, at the certified price: the Lagrangian
   form of "fewest tokens at no more than this mean loss". Without a certificate: the top rung, and the reason says so.
   Absolute target: the smallest rung with P(correct) >= the certified threshold; without one, >= the target.
   Where a prompt is unlike those that were certified: the longest rung, since no prediction can be relied on.
3. Where none passes, `on_unmet` decides.

The rule of step 2 stands three times, because a request must be decided in microseconds and a table in one array
operation: here, in `training.evaluation.certify.choose`, and with deadlines in `training.plan.replay.served_rungs`.
tests/training/test_decision_rule.py holds the three equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from router.domain import (
    BudgetLadder,
    Certificate,
    Choice,
    MaxLoss,
    MinQuality,
    OnUnmet,
    QualityTarget,
    RoutingOptions,
    Score,
)
from router.errors import InvalidRequest, TargetUnmet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Number = TypeVar("Number", float, "NDArray[np.float64]")

ROUNDING = 1e-9
"""1 - .9 is not .1 in binary."""

NEAR_BEST = 0.05
"""`CHEAPEST_NEAR_BEST` accepts a rung whose quality is this close to the best one."""

UNLIKE = "the prompt is unlike the calibration prompts"


@dataclass(frozen=True, slots=True)
class LatencyProfile:
    """How long a backend takes: seconds to the first token, seconds per token, tokens of a usual answer."""

    first_token: float
    per_token: float
    answer_tokens: float

    def seconds(self, thinking_tokens: Number) -> Number:
        """Latency forecast of a whole reply that thinks for `thinking_tokens`: one number, or an array of them."""
        return self.first_token + self.per_token * (thinking_tokens + self.answer_tokens)


@dataclass(frozen=True, slots=True)
class Policy:
    """The decision rule for one ladder and its certificates, of relative and of absolute targets.

    Attributes:
        suspended: why the certificates no longer count, "" while they do. A suspended policy takes the longest rung.
    """

    ladder: BudgetLadder
    certificates: Sequence[Certificate]
    latency: LatencyProfile
    absolute: Sequence[Certificate] = ()
    suspended: str = ""

    @property
    def top(self) -> int:
        """Position of the last rung."""
        return len(self.ladder) - 1

    def within_bounds(self, options: RoutingOptions) -> list[int]:
        """Rungs within floor and ceiling, cheapest first. A named effort passes any floor and fails any ceiling.

        Raises:
            InvalidRequest: no rung is left.
        """
        if not options.min_thinking_tokens and options.max_thinking_tokens is None:
            return list(range(len(self.ladder)))
        rungs = [i for i, rung in enumerate(self.ladder.rungs) if _within(rung.tokens, options)]
        if not rungs:
            named = ", ".join(rung.name for rung in self.ladder.rungs)
            reached = any(
                _within(rung.tokens, replace(options, max_thinking_tokens=None)) for rung in self.ladder.rungs
            )
            field = f"options.{'max' if reached else 'min'}_thinking_tokens"
            raise InvalidRequest(field, f"no rung lies within min_ and max_thinking_tokens (rungs: {named})")
        return rungs

    def choose(self, score: Score, options: RoutingOptions) -> Choice:
        """The smallest rung that meets the target, or what `on_unmet` asks for.

        Raises:
            InvalidRequest: floor and ceiling leave no rung.
            TargetUnmet: nothing meets the target and the caller asked to be refused.
        """
        in_time = self.affordable(score, options)
        if not in_time:
            cheapest = self.within_bounds(options)[:1]
            return self._unmet(score, options, cheapest, "every rung allowed breaks the deadline")
        if self.suspended:
            longest = in_time[-1]
            return Choice(longest, longest == self.top, None, f"{self.suspended}: the longest that fits")
        if score.far:
            return self._unlike(options, in_time[-1])
        if isinstance(options.target, MaxLoss):
            return self._relative(score, options, options.target, in_time)
        return self._absolute(score, options, options.target, in_time)

    def _unlike(self, options: RoutingOptions, longest: int) -> Choice:
        """The longest rung in time, for a prompt unlike the certified ones. Raises TargetUnmet."""
        if longest == self.top and isinstance(options.target, MaxLoss):
            return Choice(longest, True, None, f"{UNLIKE}: the top rung, which loses nothing")
        if options.on_unmet is OnUnmet.REJECT:
            raise TargetUnmet(UNLIKE)
        return Choice(longest, False, None, f"{UNLIKE}: the longest that fits")

    def affordable(self, score: Score, options: RoutingOptions) -> list[int]:
        """Rungs within bounds that do not break the deadline, cheapest first. Raises InvalidRequest."""
        within, max_latency = self.within_bounds(options), options.max_latency
        return within if max_latency is None else [i for i in within if self._in_time(score, i, max_latency)]

    def _in_time(self, score: Score, index: int, max_latency: float) -> bool:
        p99, cap = score.p99[index], self.ladder.rungs[index].tokens
        most = cap if p99 is None else p99
        return most is not None and self.latency.seconds(most) <= max_latency

    def _relative(self, score: Score, options: RoutingOptions, target: MaxLoss, rungs: list[int]) -> Choice:
        top = self.top
        certificate = self.certificate(target)
        if certificate is None:
            why = f"no certificate for a loss of {target.value:g}"
            if rungs[-1] != top:
                return self._unmet(score, options, rungs, why)
            return Choice(top, True, None, f"{why}: the top rung")
        # Over the whole ladder, not the rungs allowed: the certificate is about the policy that chooses freely.
        wanted = self._worth_most(score, certificate.threshold)
        if wanted in rungs:
            reason = "the longest is worth its tokens"
            if wanted != top:
                gain = score.quality[top] - score.quality[wanted]
                reason = f"thinking longer would gain {gain:.3f} P(correct), too little for its tokens"
            return Choice(wanted, True, certificate, reason)
        dearer = next((i for i in rungs if i > wanted), None)
        if dearer is None:
            return self._unmet(score, options, rungs, f"the target asks for rung {self.ladder.rungs[wanted].name}")
        return Choice(dearer, True, None, "smallest rung within bounds, which the certificate does not cover")

    def _worth_most(self, score: Score, price: float) -> int:
        known = [mean for mean in score.mean if mean is not None]
        costs = known if len(known) == len(score.quality) else range(len(score.quality))
        worth = [quality - price * cost for quality, cost in zip(score.quality, costs, strict=True)]
        return worth.index(max(worth))

    def certificate(self, target: QualityTarget) -> Certificate | None:
        """The least strict certificate that still covers the target; None where there is none."""
        relative = isinstance(target, MaxLoss)
        room = target.value if relative else 1 - target.value + ROUNDING
        usable = [c for c in (self.certificates if relative else self.absolute) if c.alpha <= room]
        return max(usable, key=attrgetter("alpha"), default=None)

    def _absolute(self, score: Score, options: RoutingOptions, target: MinQuality, rungs: list[int]) -> Choice:
        certificate = self.certificate(target)
        wanted = target.value if certificate is None else certificate.threshold
        passing = [i for i, quality in enumerate(score.quality) if quality >= wanted]
        index = next((i for i in rungs if i in passing), None)
        if index is None:
            return self._unmet(score, options, rungs, f"no rung allowed reaches P(correct) {wanted:.3f}")
        # A floor that moves the choice up leaves the certified policy, though quality can only be better there.
        proof = certificate if index == passing[0] else None
        return Choice(index, True, proof, f"smallest rung with P(correct) of at least {wanted:.3f}")

    def _unmet(self, score: Score, options: RoutingOptions, rungs: list[int], why: str) -> Choice:
        if options.on_unmet is OnUnmet.REJECT:
            raise TargetUnmet(why)
        if options.on_unmet is OnUnmet.TOP_RUNG:
            return Choice(rungs[-1], False, None, f"{why}: the longest that fits")
        best = max(score.quality[i] for i in rungs)
        cheapest = next(i for i in rungs if score.quality[i] >= best - NEAR_BEST)
        return Choice(cheapest, False, None, f"{why}: the cheapest rung within {NEAR_BEST} of the best")


def _within(tokens: int | None, options: RoutingOptions) -> bool:
    least, most = options.min_thinking_tokens, options.max_thinking_tokens
    if tokens is None:
        return most is None
    return least <= tokens and (most is None or tokens <= most)
