"""Decisions: a request's rung, chosen from its score and from what its conversation keeps, and recorded."""

import time
from collections.abc import Sequence

from router.admission.controller import Admission
from router.admission.tenants import Tenants
from router.domain import Decision, DecisionSource, RouteRequest
from router.events import Decided
from router.ports import Lessons, Observer, OutcomeLog
from router.routing.batch import Batch
from router.routing.chooser import Chooser, new_id
from router.routing.conversations import Conversations
from router.routing.served_model import ServedModel
from router.routing.served_models import ServedModels
from router.turn import Turn

Circumstances = tuple[int, ...]
"""Numbers that grow while what decides changes."""

STEPS_TO_RECORD = 40
"""Steps of a `Turn` for each decision of a batch."""


class Decider:
    """Decides about requests, at one of the served models.

    Args:
        admission: relaxes targets under pressure.
        log: keeps decisions.
        lessons: learns from some of the requests that are decided about.
    """

    def __init__(
        self,
        models: ServedModels,
        tenants: Tenants,
        admission: Admission,
        chooser: Chooser,
        conversations: Conversations,
        log: OutcomeLog,
        observer: Observer,
        lessons: Lessons | None = None,
    ) -> None:
        self._models = models
        self._tenants = tenants
        self._admission = admission
        self._chooser = chooser
        self._conversations = conversations
        self._log = log
        self._observer = observer
        self._lessons = lessons

    @property
    def circumstances(self) -> Circumstances:
        """How often bundles, tenants and scores were replaced: while nothing of it is, `repeats` holds."""
        return self._models.swaps, self._tenants.changes, self._models.all[0].scorer.cache.flushes

    def repeats(self, request: RouteRequest, decision: Decision) -> bool:
        """Whether the same request gets the same decision again: neither chance, other turns nor pressure has a say."""
        tenant = self._tenants.get(request.tenant)
        return (
            decision.source is DecisionSource.CACHE
            and request.options.conversation_id is None
            and tenant is not None
            and not tenant.relax
            and not self._chooser.draws
        )

    def again(self, request: RouteRequest, decision: Decision) -> Decision:
        """The decision of an equal request once more, under an id of its own."""
        began = time.perf_counter()
        again = decision.renewed(new_id())
        self._decided(request, again, time.perf_counter() - began)
        return again

    async def decide(self, request: RouteRequest) -> Decision:
        """Choose a budget for one prompt. Raises InvalidRequest, NotFound, TargetUnmet."""
        served = self._models.able(request)[0]
        return await self.at(served, self._admission.relaxed(request))

    async def batch(self, requests: Sequence[RouteRequest]) -> list[Decision]:
        """Choose a budget for every prompt, in order. Errors name the request's index as well as its field."""
        began, turn = time.perf_counter(), Turn()
        decided = await Batch(self._models, self._admission, self._chooser, self._conversations).decide(requests)
        seconds = time.perf_counter() - began
        for request, decision in decided:
            self._decided(request, decision, seconds)
            await turn.spend(STEPS_TO_RECORD)
        return [decision for _, decision in decided]

    async def at(
        self, served: ServedModel, request: RouteRequest, *, climbs: bool = False, teaches: bool = False
    ) -> Decision:
        """The decision of one model for one request, recorded.

        Args:
            climbs: as for `Chooser.chosen`.
            teaches: the thought can be cut, and the answers behind cuts compared with its own.
        """
        began = time.perf_counter()
        decision = self._chooser.fixed(served, request)
        if decision is None and request.options.conversation_id:
            decision = await self._continued(served, request, climbs)
        elif decision is None:
            scored = await served.scorer.score(request)
            decision = self._chooser.chosen(served, request, scored, climbs=climbs)
        if teaches and self._lessons is not None and self._lessons.has_room(served.model):
            decision = self._chooser.taught(served, request, decision)
        self._decided(request, decision, time.perf_counter() - began)
        return decision

    async def _continued(self, served: ServedModel, request: RouteRequest, climbs: bool) -> Decision:
        """The decision for a turn of a conversation. Raises InvalidRequest, TargetUnmet."""
        turn = self._conversations.turn(served, request, climbs=climbs)
        if turn.needs_score:
            turn.score(await served.scorer.score(request))
        await self._conversations.settle([turn])
        return turn.decision()

    def _decided(self, request: RouteRequest, decision: Decision, seconds: float) -> None:
        self._log.record(request, decision, None)
        self._observer(Decided(request.tenant, decision, seconds))
