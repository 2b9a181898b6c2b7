"""The decision rule: pure functions from predictions and routing options to a rung.

1. Rungs outside floor and ceiling, or too slow for the deadline, are dropped.
2. Relative target: the rung with the largest P(correct) - price * tokens, at the certified price: the Lagrangian
   form of "fewest tokens at no more than this mean loss". Of rungs that are worth about the same it is the smallest.
   Or, where that is what is certified, one rung for everybody.
   Relative target per prompt: the smallest rung whose predicted loss is at most the certified threshold.
   Absolute target: the smallest rung with P(correct) >= the certified threshold.
   Without a certificate for the target: the reference rung, and the reason says so.
   Where a prompt is unlike those that were certified: the longest rung, since no prediction can be relied on.
3. Where none passes, `on_unmet` decides.

The rule of step 2 stands three times, because a request must be decided in microseconds and a table in one array
operation: here, in `training.certification.rules` (`choose`, `smallest`), and with deadlines in
`training.plan.replay.served_rungs`. tests/training/test_decision_rule.py holds the three equal.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from router.digits import ROUNDING
from router.domain import (
    BudgetLadder,
    Certificate,
    Choice,
    MaxLoss,
    MinQuality,
    OnUnmet,
    QualityTarget,
    ReasoningEffort,
    RoutingOptions,
    Score,
)
from router.errors import InvalidRequest, TargetUnmet
from router.routing import reasons
from router.stopping.rules import StoppingCertificate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Number = TypeVar("Number", float, "NDArray[np.float64]")

NEAR_BEST = 0.05
"""`CHEAPEST_NEAR_BEST` accepts a rung whose quality is this close to the best one."""

EFFORT_SHARES: Mapping[ReasoningEffort, float] = {
    ReasoningEffort.NONE: 0,
    ReasoningEffort.MINIMAL: 0.25,
    ReasoningEffort.LOW: 0.5,
    ReasoningEffort.MEDIUM: 0.75,
    ReasoningEffort.HIGH: 1,
    ReasoningEffort.XHIGH: 1,
    ReasoningEffort.MAX: 1,
}
"""How far up the ladder a reasoning effort goes, where no rung has its name."""


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
        per_prompt: certificates for relative targets by each prompt's own forecast.
        suspended: why the certificates no longer count, "" while they do. A suspended policy takes the longest rung.
        reference: position of the rung for targets that are not certified; None = the top rung. It is a shorter one
            where that was right at least as often.
        stopping: certificates of rules that stop within the thought; `router.routing.stopping` chooses among them.
    """

    ladder: BudgetLadder
    certificates: Sequence[Certificate]
    latency: LatencyProfile
    absolute: Sequence[Certificate] = ()
    suspended: str = ""
    reference: int | None = None
    per_prompt: Sequence[Certificate] = ()
    stopping: Sequence[StoppingCertificate] = ()

    @property
    def top(self) -> int:
        """Position of the last rung."""
        return len(self.ladder) - 1

    def within_bounds(self, options: RoutingOptions) -> list[int]:
        """Rungs within floor and ceiling, cheapest first. A named effort passes any floor and fails any ceiling.

        Raises:
            InvalidRequest: no rung is left.
        """
        allowed = range(len(self.ladder) if options.reasoning_effort is None else self.ceiling(options) + 1)
        if not options.min_thinking_tokens and options.max_thinking_tokens is None:
            return list(allowed)
        rungs = [i for i in allowed if _within(self.ladder.rungs[i].tokens, options)]
        if not rungs:
            named = ", ".join(rung.name for rung in self.ladder.rungs)
            without = replace(options, max_thinking_tokens=None)
            reached = any(_within(self.ladder.rungs[i].tokens, without) for i in allowed)
            field = f"options.{'max' if reached else 'min'}_thinking_tokens"
            raise InvalidRequest(field, f"no rung lies within {_bounds(options)} (rungs: {named})")
        return rungs

    def ceiling(self, options: RoutingOptions) -> int:
        """Position of the longest rung within the caller's effort: the rung of its name, or its share of the ladder."""
        effort = options.reasoning_effort
        if effort is None:
            return self.top
        named = self.ladder.index(effort.value)
        return math.ceil(self.top * EFFORT_SHARES[effort]) if named is None else named

    def choose(self, score: Score, options: RoutingOptions) -> Choice:
        """The rung for a score by the rule above, or what `on_unmet` asks for.

        Raises:
            InvalidRequest: floor and ceiling leave no rung.
            TargetUnmet: nothing meets the target and the caller asked to be refused.
        """
        in_time = self.affordable(score, options)
        if not in_time:
            return self._too_late(score, options)
        if self.suspended:
            return self._longest(score, options, in_time, self.suspended)
        if score.far:
            return self._unlike(score, options, in_time)
        target = options.target
        if isinstance(target, MaxLoss) and not target.per_prompt:
            return self._relative(score, options, target, in_time)
        return self._smallest(score, options, target, in_time)

    def foresees(self, target: QualityTarget, score: Score | None, index: int) -> bool:
        """Whether a prompt's own forecast meets the target at a rung.

        The top rung loses nothing against itself, whatever is forecast. Everything else needs a forecast on which one
        can rely.
        """
        if isinstance(target, MaxLoss) and index == self.top:
            return True
        if score is None or score.far or self.suspended:
            return False
        return meets(target, score.quality, index)

    def _choice(
        self, score: Score, options: RoutingOptions, index: int, reason: str, certificate: Certificate | None = None
    ) -> Choice:
        return Choice(index, self.foresees(options.target, score, index), certificate, reason)

    def _too_late(self, score: Score, options: RoutingOptions) -> Choice:
        """The cheapest rung, where every rung allowed breaks the deadline. Raises TargetUnmet."""
        cheapest = self.within_bounds(options)[0]
        why = f"every rung allowed breaks the deadline ({self._late(score, cheapest, options.max_latency)})"
        if options.on_unmet is OnUnmet.REJECT:
            raise TargetUnmet(why)
        return self._choice(score, options, cheapest, f"{why}: the shortest")

    def _unlike(self, score: Score, options: RoutingOptions, in_time: list[int]) -> Choice:
        """The longest rung in time, for a prompt unlike the certified ones. Raises TargetUnmet."""
        if in_time[-1] == self.top and isinstance(options.target, MaxLoss):
            return self._choice(score, options, self.top, f"{reasons.UNLIKE}: the top rung, which loses nothing")
        if options.on_unmet is OnUnmet.REJECT:
            raise TargetUnmet(reasons.UNLIKE + self._lateness(score, options, in_time))
        return self._longest(score, options, in_time, reasons.UNLIKE)

    def affordable(self, score: Score, options: RoutingOptions) -> list[int]:
        """Rungs within bounds that do not break the deadline, cheapest first. Raises InvalidRequest."""
        within, max_latency = self.within_bounds(options), options.max_latency
        return within if max_latency is None else [i for i in within if self._in_time(score, i, max_latency)]

    def _in_time(self, score: Score, index: int, max_latency: float) -> bool:
        seconds = self._seconds(score, index)
        return seconds is not None and seconds <= max_latency

    def surely_in_time(self, index: int, options: RoutingOptions) -> bool:
        """Whether a rung keeps the deadline even where the thought takes all of its tokens."""
        tokens, max_latency = self.ladder.rungs[index].tokens, options.max_latency
        return max_latency is None or (tokens is not None and self.latency.seconds(tokens) <= max_latency)

    def _seconds(self, score: Score, index: int) -> float | None:
        """The time that a rung may take; None where nothing bounds it."""
        p99, cap = score.p99[index], self.ladder.rungs[index].tokens
        most = cap if p99 is None else p99
        return None if most is None else self.latency.seconds(most)

    def _relative(self, score: Score, options: RoutingOptions, target: MaxLoss, rungs: list[int]) -> Choice:
        certificate = self.certificate(target)
        if certificate is None:
            return self._uncertified(score, options, rungs)
        # Over the whole ladder, not the rungs allowed: the certificate is about the policy that chooses freely.
        fixed = certificate.rung
        wanted = self._worth_most(score, certificate) if fixed is None else fixed
        if wanted in rungs:
            top = self.ladder.rungs[self.top].name
            reason = reasons.worth(score, wanted, top, target) if fixed is None else reasons.for_everybody(top)
            return self._choice(score, options, wanted, reason, certificate)
        why = self._excluded(options, wanted)
        longer = next((i for i in rungs if i > wanted), None)
        if longer is None:
            return self._unmet(score, options, rungs, why)
        return self._choice(score, options, longer, f"{why}: {reasons.UNCOVERED}")

    def _worth_most(self, score: Score, certificate: Certificate) -> int:
        known = [mean for mean in score.mean if mean is not None]
        costs = known if len(known) == len(score.quality) else range(len(score.quality))
        worth = [quality - certificate.threshold * cost for quality, cost in zip(score.quality, costs, strict=True)]
        least = max(worth) - certificate.tie
        return next(i for i, value in enumerate(worth) if value >= least)

    def certificate(self, target: QualityTarget) -> Certificate | None:
        """The least strict certificate that still covers the target; None where there is none."""
        room = target.value if isinstance(target, MaxLoss) else 1 - target.value + ROUNDING
        return max((c for c in self._of_kind(target) if c.alpha <= room), key=attrgetter("alpha"), default=None)

    def _of_kind(self, target: QualityTarget) -> Sequence[Certificate]:
        """The certificates for targets of this kind."""
        if isinstance(target, MinQuality):
            return self.absolute
        return self.per_prompt if target.per_prompt else self.certificates

    def _smallest(self, score: Score, options: RoutingOptions, target: QualityTarget, rungs: list[int]) -> Choice:
        """The smallest rung whose forecast passes the certified threshold. Raises TargetUnmet."""
        certificate = self.certificate(target)
        if certificate is None:
            return self._uncertified(score, options, rungs)
        passing = _passing(target, score.quality, certificate.threshold)
        index, rule = next((i for i in rungs if i in passing), None), reasons.passing(target, certificate)
        if index is None:
            return self._unmet(score, options, rungs, f"no rung allowed {rule}")
        if index != passing[0]:
            # A floor that moves the choice up leaves the certified policy, though quality can only be better there.
            return self._choice(score, options, index, f"{self._excluded(options, passing[0])}: {reasons.UNCOVERED}")
        reason = f"the smallest rung that {rule}"
        if index == self.top and isinstance(target, MaxLoss):
            reason = f"no shorter rung {rule}: the top rung, which loses nothing"
        return self._choice(score, options, index, reason, certificate)

    def _uncertified(self, score: Score, options: RoutingOptions, rungs: list[int]) -> Choice:
        """The reference rung, for a target that no certificate covers. Raises TargetUnmet."""
        why = reasons.uncertified(options.target, self._of_kind(options.target))
        best = self.top if self.reference is None else self.reference
        elsewhere = options.on_unmet is not OnUnmet.TOP_RUNG and not self.foresees(options.target, score, best)
        if best not in rungs or elsewhere:
            return self._unmet(score, options, rungs, why)
        name = "the top rung"
        if best != self.top:
            name = f"rung {self.ladder.rungs[best].name}, which was right at least as often as the top rung"
        return self._choice(score, options, best, f"{why}: {name}")

    def _unmet(self, score: Score, options: RoutingOptions, rungs: list[int], why: str) -> Choice:
        if options.on_unmet is OnUnmet.REJECT:
            raise TargetUnmet(why + self._lateness(score, options, rungs))
        if options.on_unmet is OnUnmet.TOP_RUNG:
            return self._longest(score, options, rungs, why)
        best = max(score.quality[i] for i in rungs)
        cheapest = next(i for i in rungs if score.quality[i] >= best - NEAR_BEST)
        return self._choice(score, options, cheapest, f"{why}: the cheapest rung within {NEAR_BEST} of the best")

    def _longest(self, score: Score, options: RoutingOptions, rungs: list[int], why: str) -> Choice:
        """The last of the rungs that are left, and what keeps it from being the top one."""
        longest = "the top rung"
        if rungs[-1] != self.top:
            late = self._lateness(score, options, rungs)
            longest = f"the longest in time{late}" if late else f"the longest within {_ceiling(options)}"
        return self._choice(score, options, rungs[-1], f"{why}: {longest}")

    def _excluded(self, options: RoutingOptions, index: int) -> str:
        """The rung that the target asks for, and why it is not allowed."""
        within, why = self.within_bounds(options), "too slow"
        if index not in within:
            why = "below min_thinking_tokens" if index < within[0] else f"above {_ceiling(options)}"
        return f"the target asks for rung {self.ladder.rungs[index].name}, which is {why}"

    def _lateness(self, score: Score, options: RoutingOptions, rungs: list[int]) -> str:
        """The shortest rung within bounds that the deadline keeps out; "" where there is none. `rungs` are in time."""
        late = next((i for i in self.within_bounds(options) if i not in rungs), None)
        return "" if late is None else f" ({self._late(score, late, options.max_latency)})"

    def _late(self, score: Score, index: int, limit: float | None) -> str:
        return reasons.late(self.ladder.rungs[index].name, self._seconds(score, index), limit or 0.0)


def meets(target: QualityTarget, quality: Sequence[float], index: int) -> bool:
    """Whether a forecast, P(correct) by rung, meets the target at a rung."""
    if isinstance(target, MaxLoss):
        return quality[-1] - quality[index] <= target.value + ROUNDING
    return quality[index] >= target.value


def _passing(target: QualityTarget, quality: Sequence[float], threshold: float) -> list[int]:
    """Rungs whose P(correct) reaches a threshold, or, per prompt, whose predicted loss does not exceed it.

    The top rung loses nothing, so that it is always among the latter.
    """
    if isinstance(target, MinQuality):
        return [i for i, value in enumerate(quality) if value >= threshold]
    *lower, top = quality
    return [*(i for i, value in enumerate(lower) if top - value <= threshold + ROUNDING), len(lower)]


def _ceiling(options: RoutingOptions) -> str:
    """The option that keeps the longest rungs out."""
    return "max_thinking_tokens" if options.max_thinking_tokens is not None else "reasoning_effort"


def _bounds(options: RoutingOptions) -> str:
    """The options that bound the choice, in words."""
    tokens = "min_ and max_thinking_tokens"
    return tokens if options.reasoning_effort is None else f"{tokens} and reasoning_effort"


def _within(tokens: int | None, options: RoutingOptions) -> bool:
    least, most = options.min_thinking_tokens, options.max_thinking_tokens
    if tokens is None:
        return most is None
    return least <= tokens and (most is None or tokens <= most)
