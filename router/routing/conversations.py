"""Conversations keep their budget, and go up where they must.

- The first turn that is decided by a score pins its rung, and the first writer wins, in one process or several.
- A later turn gets the pinned rung; where the caller's bounds leave it out, the nearest one that they allow; then
  the pin stays for turns that it fits.
- A later turn of a user is scored as well, unless the conversation has the longest rung allowed. Where it is unlike the
  calibration prompts the conversation goes up to that rung, or its rule no longer ends the thought: unsure goes up.
  Within a tool loop nothing is scored.
- With `escalate` it goes up one rung after a step that went wrong; `rounds` says when. Each round counts once, also
  where no longer rung was allowed.
- Who goes up keeps the longer rung. Where replicas could not see each other, the longer of their pins stands.

What a turn gets is a function of the pin, the request and its score, so replicas that share their pins decide alike.
"""

from collections.abc import Collection
from dataclasses import replace

from router.domain import (
    Completion,
    Conversation,
    Decision,
    FinishReason,
    Pinned,
    PinnedTurn,
    Role,
    RouteRequest,
    Score,
)
from router.errors import InvalidRequest, TargetUnmet
from router.ports import Pins
from router.routing import reasons
from router.routing.chooser import Chooser
from router.routing.escalation import nearest, step
from router.routing.served_model import ServedModel
from router.scoring.scorer import Scored

CUT = (FinishReason.TRUNCATED, FinishReason.NO_ANSWER)
"""Ends of an answer after which a conversation may go up."""


class ConversationTurn:
    """One turn, from what its conversation is known to keep to a decision.

    Args:
        known: what this process knows the conversation to keep.
        climbs: the thought can be had step by step, so a rule may end it.

    Raises:
        InvalidRequest: the bounds leave no rung.
    """

    def __init__(
        self, chooser: Chooser, served: ServedModel, request: RouteRequest, known: Pinned | None, climbs: bool
    ) -> None:
        self._chooser = chooser
        self._served = served
        self._request = request
        self._climbs = climbs
        self._allowed = served.policy.within_bounds(request.options)
        self._known = self._seen = known
        self._scored: Scored | None = None
        self._chosen: Decision | None = None
        self._refusal: InvalidRequest | TargetUnmet | None = None
        self._plan(known)

    @property
    def needs_score(self) -> bool:
        """Whether the pin alone does not decide."""
        known, last = self._known, self._request.prompt.messages[-1].role
        return known is None or (last is Role.USER and known.length < (self._allowed[-1], True))

    def score(self, scored: Scored) -> None:
        """Take the score of the turn."""
        self._scored = scored
        try:
            self._chosen = self._chooser.chosen(self._served, self._request, scored, climbs=self._climbs)
        except (InvalidRequest, TargetUnmet) as error:  # counts only if the conversation turns out to keep nothing
            self._refusal = error
        self._plan(self._seen)

    @property
    def pinned(self) -> PinnedTurn:
        """What is to be settled."""
        return PinnedTurn(_conversation_of(self._served, self._request), self._seen, self._wanted)

    def take(self, stands: Pinned | None) -> bool:
        """Take what the conversation keeps; true where this turn changes that, so that it is to be settled again."""
        if stands == self._wanted:
            return False
        self._seen = stands
        # This process may know more than what is shared: a Redis that was away, or has lost its memory.
        both = [pinned for pinned in (stands, self._known) if pinned is not None]
        self._plan(max(both, key=lambda pinned: pinned.length, default=None))
        return self._wanted is not None and self._wanted != stands

    def decision(self) -> Decision:
        """The decision. Raises InvalidRequest, TargetUnmet."""
        served, request, pinned = self._served, self._request, self._wanted
        if pinned is None:
            if self._refusal is not None:
                raise self._refusal
            assert self._chosen is not None
            return self._chosen
        if pinned.index not in self._allowed:
            allowed = Pinned(nearest(pinned, self._allowed))
            return self._chooser.kept(served, request, allowed, reason=reasons.NOT_ALLOWED)
        if self._step is not None and self._step.cause is not None:
            return self._chooser.escalated(served, request, self._step, self._score)
        if self._chosen is not None and self._known is None and _pinned_by(self._chosen).length == pinned.length:
            return self._chosen
        return self._chooser.kept(served, request, pinned, climbs=self._climbs)

    def _plan(self, kept: Pinned | None) -> None:
        """Work out what the conversation is to keep after `kept`."""
        self._step = None if kept is None else step(kept, self._served.policy, self._request, self._score)
        self._wanted = self._first() if self._step is None else self._step.pinned

    def _first(self) -> Pinned | None:
        """What a new conversation keeps; nothing where a failure has decided."""
        if self._chosen is None or self._score is None:
            return None
        first = _pinned_by(self._chosen)
        # What went wrong before the first turn here is no reason to go up: the score has chosen with all of it there.
        return step(first, self._served.policy, self._request, None).before

    @property
    def _score(self) -> Score | None:
        return None if self._scored is None else self._scored.score


class Conversations:
    """All conversations.

    Args:
        pins: what each of them keeps.
    """

    def __init__(self, pins: Pins, chooser: Chooser) -> None:
        self._pins = pins
        self._chooser = chooser

    def turn(self, served: ServedModel, request: RouteRequest, *, climbs: bool = False) -> ConversationTurn:
        """A turn of the conversation that the request names. Raises InvalidRequest where the bounds leave no rung."""
        known = self._pins.known(_conversation_of(served, request))
        return ConversationTurn(self._chooser, served, request, known, climbs)

    async def settle(self, turns: Collection[ConversationTurn]) -> None:
        """Agree with all replicas on what is kept; then each turn has its decision."""
        settled = await self._pins.settle([turn.pinned for turn in turns])
        # Where another turn came in between, this one may go up from what that one has left.
        again = [turn for turn, stands in zip(turns, settled, strict=True) if turn.take(stands)]
        if again:
            for turn, stands in zip(again, await self._pins.settle([turn.pinned for turn in again]), strict=True):
                turn.take(stands)

    async def ended(self, served: ServedModel, request: RouteRequest, completion: Completion) -> None:
        """Have a conversation that may go up for it remember an answer that was cut off."""
        options = request.options
        if not (options.escalate and options.conversation_id) or completion.finish not in CUT:
            return
        conversation = _conversation_of(served, request)
        if (kept := self._pins.known(conversation)) is not None:
            await self._pins.settle([PinnedTurn(conversation, kept, replace(kept, cut=True))])


def _conversation_of(served: ServedModel, request: RouteRequest) -> Conversation:
    """The conversation that the request names, at the model that answers it."""
    return Conversation(served.model, request.tenant, request.options.conversation_id or "", served.policy.ladder)


def _pinned_by(decision: Decision) -> Pinned:
    return Pinned(decision.choice.index, decision.choice.stopping is not None)
