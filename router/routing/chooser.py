"""Picks the rung of a request: the one its caller named, its conversation's, the policy's, or one to learn from."""

import random
import time
from collections.abc import MutableMapping
from dataclasses import replace

from router.domain import Choice, Decision, DecisionSource, RouteRequest
from router.errors import InvalidRequest, NotFound
from router.routing.exploration import certain, propensities
from router.routing.served_model import ServedModel
from router.scoring.scorer import Scored

Conversation = tuple[str, str, str]
"""Model, tenant and conversation id."""

_IDS = random.Random()  # unguessable ids would cost a system call each; only a decision's own tenant may ask about it
_RANDOM_BITS = 80


class Chooser:
    """Chooses by the policy of a served model.

    Args:
        pins: rung position by conversation; its owner bounds it.
        explored: share of requests that think longer than the policy asks for, to learn from them.
    """

    def __init__(self, pins: MutableMapping[Conversation, int], explored: float = 0.0) -> None:
        self._pins = pins
        self._explored = explored
        self._random = random.Random()

    def fixed(self, served: ServedModel, request: RouteRequest) -> Decision | None:
        """The decision that needs no score: a named or a pinned rung; else None. Raises InvalidRequest, NotFound."""
        policy, options = served.policy, request.options
        if options.rung is not None:
            index = policy.ladder.index(options.rung)
            if index is None:
                raise NotFound("options.rung", f"not on the ladder: {', '.join(r.name for r in policy.ladder.rungs)}")
            if index not in policy.within_bounds(options):
                raise InvalidRequest("options.rung", "lies outside min_thinking_tokens and max_thinking_tokens")
            choice = Choice(index, index == policy.top, None, "the caller named the rung")
            return _decision(served, request, choice, Scored(None, DecisionSource.OVERRIDE))
        if not options.conversation_id:
            return None
        # An engine's prefix cache and a tool loop both suffer when the budget changes within a conversation.
        pinned = self._pins.get(_conversation(served, request))
        if pinned is None or pinned not in policy.within_bounds(options):
            return None
        return _kept(served, request, pinned)

    def chosen(self, served: ServedModel, request: RouteRequest, scored: Scored) -> Decision:
        """The decision for a score. A conversation keeps its first rung. Raises InvalidRequest, TargetUnmet."""
        policy, options = served.policy, request.options
        if scored.score is None:
            # Unsure goes up: a failure of ours must cost tokens, not answers.
            top = policy.within_bounds(options)[-1]
            choice = Choice(top, top == policy.top, None, "the classifier failed: the top rung allowed")
            return _decision(served, request, choice, scored)
        choice = policy.choose(scored.score, options)
        decision = _decision(served, request, choice, scored)
        if not options.conversation_id:
            return self._explored_from(decision, policy.affordable(scored.score, options))
        # Two requests of a new conversation may be scored at once; the one that comes here first pins the rung.
        kept = self._pins.setdefault(_conversation(served, request), choice.index)
        if kept != choice.index and kept in policy.within_bounds(options):
            return _kept(served, request, kept)
        return decision

    def _explored_from(self, decision: Decision, allowed: list[int]) -> Decision:
        """The decision, or for a share of the requests a longer rung."""
        if not self._explored:
            return decision
        chances = propensities(len(decision.ladder), decision.choice.index, allowed, self._explored)
        (drawn,) = self._random.choices(range(len(chances)), chances)
        if drawn == decision.choice.index:
            return replace(decision, propensities=chances)
        choice = Choice(drawn, decision.choice.meets_target, None, "explored: longer than the policy asks for")
        return replace(decision, choice=choice, source=DecisionSource.EXPLORE, propensities=chances)


def _conversation(served: ServedModel, request: RouteRequest) -> Conversation:
    return served.model, request.tenant, request.options.conversation_id or ""


def _kept(served: ServedModel, request: RouteRequest, index: int) -> Decision:
    choice = Choice(index, index == served.policy.top, None, "the conversation keeps its rung")
    return _decision(served, request, choice, Scored(None, DecisionSource.PINNED))


def _new_id() -> str:
    """Milliseconds, then random bits, as in a ULID: an index appends growing ids instead of spreading them."""
    return f"{time.time_ns() // 1_000_000 << _RANDOM_BITS | _IDS.getrandbits(_RANDOM_BITS):032x}"


def _decision(served: ServedModel, request: RouteRequest, choice: Choice, scored: Scored) -> Decision:
    return Decision(
        _new_id(),
        served.model,
        served.fingerprint,
        served.policy.ladder,
        choice,
        request.options.target,
        scored.source,
        served.bundle.version,
        scored.score,
        certain(len(served.policy.ladder), choice.index),
        request.options.target_relaxation,
    )
