"""Picks the rung of a request: the one its caller named, the policy's, or one to learn from.

What a conversation keeps is worked out in `conversations`, and made a decision here.

A bundle that is not about the engine decides nothing: then the engine's own default is served. The names of its rungs
still stand for their caps, which a caller may ask for.
"""

import random
import time
from dataclasses import replace

from router.bundle.scored import truncated_characters
from router.domain import (
    CHOSEN,
    DEFAULT_RUNG,
    TEACHES,
    BudgetLadder,
    Choice,
    Decision,
    DecisionSource,
    OnUnmet,
    Pinned,
    ReasoningBudget,
    RouteRequest,
    RoutingOptions,
    Score,
)
from router.errors import InvalidRequest, NotFound, TargetUnmet
from router.routing import reasons, stopping
from router.routing.escalation import Step
from router.routing.exploration import certain, propensities, unstopped
from router.routing.policy import Policy
from router.routing.served_model import ServedModel
from router.scoring.scorer import Scored

_IDS = random.Random()  # unguessable ids would cost a system call each; only a decision's own tenant may ask about it
_RANDOM_BITS = 80


class Chooser:
    """Chooses by the policy of a served model.

    Args:
        explored: share of requests that think longer than the policy asks for, to learn from them.
        teaching: share of requests that get the top rung whatever the policy asks for, so that its answers and those
            behind cuts of its thoughts are about all of them.
    """

    def __init__(self, explored: float = 0.0, teaching: float = 0.0) -> None:
        self._explored = explored
        self._teaching = teaching
        self._random = random.Random()

    @property
    def draws(self) -> bool:
        """Chance has a say in decisions."""
        return bool(self._explored or self._teaching)

    def fixed(self, served: ServedModel, request: RouteRequest) -> Decision | None:
        """The decision that needs neither score nor pin: a named rung, or the engine's own default; else None.

        Raises:
            InvalidRequest, NotFound: the named rung is out of bounds, or not on the ladder.
            TargetUnmet: nothing can be predicted, and the caller asked to be refused.
        """
        policy, options = served.policy, request.options
        if options.rung is not None:
            index = policy.ladder.index(options.rung)
            if index is None:
                raise NotFound("options.rung", f"not on the ladder: {', '.join(r.name for r in policy.ladder.rungs)}")
            if index not in policy.within_bounds(options):
                raise InvalidRequest("options.rung", "is outside min_ and max_thinking_tokens, or reasoning_effort")
            return _decision(served, request, _named(served, options, index), Scored(None, DecisionSource.OVERRIDE))
        if served.foreign:
            return _engine_default(served, request)
        return None

    def chosen(
        self,
        served: ServedModel,
        request: RouteRequest,
        scored: Scored,
        *,
        climbs: bool = False,
    ) -> Decision:
        """The decision for a score. A conversation is not explored. Raises InvalidRequest, TargetUnmet.

        Args:
            climbs: the thought can be had step by step, so a rule may end it.
        """
        policy, options = served.policy, request.options
        if scored.score is None:
            # Unsure goes up: a failure of ours must cost tokens, not answers.
            top = policy.within_bounds(options)[-1]
            meets = policy.foresees(options.target, None, top)
            choice = Choice(top, meets, None, "the classifier failed: the longest rung allowed")
            return _decision(served, request, choice, scored)
        if policy.stopping:
            choice = stopping.choose(policy, scored.score, options, climbs=climbs)
        else:
            choice = policy.choose(scored.score, options)
        decision = _decision(served, request, choice, scored)
        if options.conversation_id or not self._explored:
            return decision
        return self._explored_from(decision, policy, policy.affordable(scored.score, options))

    def taught(self, served: ServedModel, request: RouteRequest, decision: Decision) -> Decision:
        """The decision, or for a share of those that a score has made the top rung, whatever was decided.

        A conversation has pinned what was decided before, and so its later turns get that.
        """
        policy, options = served.policy, request.options
        if not self._teaching or decision.source not in CHOSEN or decision.score is None or _hurried(options):
            return decision
        if policy.top not in policy.affordable(decision.score, options):
            return decision
        share, top = self._teaching, policy.top
        chances = tuple((1 - share) * p + share * (i == top) for i, p in enumerate(decision.propensities))
        decision = replace(decision, propensities=chances)
        if self._random.random() >= share:
            return decision
        choice = Choice(top, policy.foresees(decision.target, decision.score, top), None, TEACHES)
        return replace(decision, choice=choice, source=DecisionSource.EXPLORE)

    def kept(
        self,
        served: ServedModel,
        request: RouteRequest,
        pinned: Pinned,
        *,
        climbs: bool = False,
        reason: str = reasons.KEEPS_RUNG,
    ) -> Decision:
        """The decision for a conversation that keeps what is pinned; `climbs` as for `chosen`."""
        policy, options = served.policy, request.options
        meets = policy.foresees(options.target, None, pinned.index)
        choice = Choice(pinned.index, meets, None, reason)
        rule = stopping.applicable(policy, None, options) if climbs and pinned.stops else None
        if rule is not None:
            places = rule.checkpoints(len(policy.ladder))
            choice = replace(choice, reason=reasons.KEEPS_RULE, stopping=rule, checkpoints=places)
        return _decision(served, request, choice, Scored(None, DecisionSource.PINNED))

    def escalated(
        self,
        served: ServedModel,
        request: RouteRequest,
        step: Step,
        score: Score | None,
    ) -> Decision:
        """The decision for a conversation that goes up with this turn."""
        policy, index = served.policy, step.pinned.index
        assert step.cause is not None
        meets = policy.foresees(request.options.target, score, index)
        choice = Choice(index, meets, None, reasons.went_up(step.cause, step.before, policy.ladder))
        decision = _decision(served, request, choice, Scored(score, DecisionSource.ESCALATED))
        return replace(decision, escalation=step.cause)

    def _explored_from(self, decision: Decision, policy: Policy, allowed: list[int]) -> Decision:
        """The decision, or for a share of the requests a longer rung, or a thought that no rule ends."""
        if decision.choice.stopping is not None:
            return self._unstopped(decision)
        chances = propensities(len(decision.ladder), decision.choice.index, allowed, self._explored)
        (drawn,) = self._random.choices(range(len(chances)), chances)
        if drawn == decision.choice.index:
            return replace(decision, propensities=chances)
        meets = policy.foresees(decision.target, decision.score, drawn)
        choice = Choice(drawn, meets, None, "explored: longer than the policy asks for")
        return replace(decision, choice=choice, source=DecisionSource.EXPLORE, propensities=chances)

    def _unstopped(self, decision: Decision) -> Decision:
        """The decision, or for a share of the requests the top rung without a rule that stops on the way there."""
        chances = unstopped(len(decision.ladder), decision.choice.index, self._explored)
        if self._random.random() >= self._explored:
            return replace(decision, propensities=chances)
        choice = Choice(decision.choice.index, True, None, "explored: no rule ends the thought")
        return replace(decision, choice=choice, source=DecisionSource.EXPLORE, propensities=chances)


def _hurried(options: RoutingOptions) -> bool:
    """The caller names a deadline or a floor, so the top rung would not be the engine's own thought."""
    return bool(options.min_thinking_tokens) or (options.max_latency is not None and not options.latency_of_call)


def _named(served: ServedModel, options: RoutingOptions, index: int) -> Choice:
    """The rung that the caller named. Of an engine that the bundle is not about no rung is known to meet a target."""
    if served.foreign:
        return Choice(index, False, None, f"the caller named the rung; {served.foreign_in_short}")
    return Choice(index, served.policy.foresees(options.target, None, index), None, "the caller named the rung")


def _engine_default(served: ServedModel, request: RouteRequest) -> Decision:
    """What the engine does by itself, within the caller's bounds: the only rung of a ladder of its own."""
    options = request.options
    if options.on_unmet is OnUnmet.REJECT:
        raise TargetUnmet(f"nothing is known about any target: {served.foreign_in_short}")
    reason = f"the engine's own default: {served.foreign_in_short}"
    if options.max_latency is not None and not options.latency_of_call:  # a client's own time-out asks for no forecast
        reason += "; no deadline can be predicted"
    ladder = BudgetLadder((_default_rung(served.policy, options),))
    scored = Scored(None, DecisionSource.ENGINE_DEFAULT)
    return _decision(served, request, Choice(0, False, None, reason), scored, ladder)


def _default_rung(policy: Policy, options: RoutingOptions) -> ReasoningBudget:
    """The engine's default within the caller's bounds; an effort without a number goes to the engine by its name."""
    most = options.max_thinking_tokens
    effort = policy.ladder.rungs[policy.ceiling(options)]
    if options.reasoning_effort is None or effort == policy.ladder.rungs[-1]:
        return ReasoningBudget(DEFAULT_RUNG, most)
    if effort.tokens is None:
        return effort
    return ReasoningBudget(DEFAULT_RUNG, effort.tokens if most is None else min(most, effort.tokens))


def new_id() -> str:
    """Milliseconds, then random bits, as in a ULID: an index appends growing ids instead of spreading them."""
    return f"{time.time_ns() // 1_000_000 << _RANDOM_BITS | _IDS.getrandbits(_RANDOM_BITS):032x}"


def _decision(
    served: ServedModel, request: RouteRequest, choice: Choice, scored: Scored, ladder: BudgetLadder | None = None
) -> Decision:
    """A new decision; `ladder` replaces the served one."""
    ladder = ladder or served.policy.ladder
    rungs, index = len(ladder), choice.index
    return Decision(
        new_id(),
        served.model,
        served.fingerprint,
        ladder,
        choice,
        request.options.target,
        scored.source,
        served.bundle.version,
        scored.score,
        certain(rungs, index) if choice.stopping is None else unstopped(rungs, index, 0.0),
        request.options.target_relaxation,
        truncated_characters=0 if scored.score is None else truncated_characters(request.prompt),
    )
