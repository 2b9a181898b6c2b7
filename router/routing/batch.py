"""Decisions about many requests at once: those of one model are scored together."""

from collections.abc import Sequence

from router.admission.controller import Admission
from router.domain import Decision, RouteRequest
from router.errors import FieldError
from router.routing.chooser import Chooser
from router.routing.conversations import Conversations, ConversationTurn
from router.routing.served_model import ServedModel
from router.routing.served_models import ServedModels
from router.scoring.scorer import Scored
from router.turn import Turn

STEPS_TO_ROUTE, STEPS_TO_CHOOSE = 10, 20
"""Steps of a `Turn` for each prompt of a batch."""


class Batch:
    """Requests on their way to decisions, by position."""

    def __init__(
        self, models: ServedModels, admission: Admission, chooser: Chooser, conversations: Conversations
    ) -> None:
        self._models = models
        self._admission = admission
        self._chooser = chooser
        self._conversations = conversations
        self._routed: list[tuple[ServedModel, RouteRequest]] = []
        self._decisions: dict[int, Decision] = {}
        self._turns: dict[int, ConversationTurn] = {}
        self._at = 0  # the index of the request at hand
        self._turn = Turn()

    async def decide(self, requests: Sequence[RouteRequest]) -> list[tuple[RouteRequest, Decision]]:
        """Each request as it was decided about, and its decision, in order.

        Raises InvalidRequest, NotFound, TargetUnmet; errors of fields name the request's index as well.
        """
        try:
            await self._route(requests)
            await self._choose()
            await self._settle()
        except FieldError as error:
            raise error.within(f"requests[{self._at}].") from error
        return [(request, self._decisions[index]) for index, (_, request) in enumerate(self._routed)]

    async def _route(self, requests: Sequence[RouteRequest]) -> None:
        """Find a model for each, and decide where no score has a say."""
        for index, request in enumerate(requests):
            self._at = index
            served, relaxed = self._models.able(request)[0], self._admission.relaxed(request)
            self._routed.append((served, relaxed))
            if (fixed := self._chooser.fixed(served, relaxed)) is not None:
                self._decisions[index] = fixed
            elif relaxed.options.conversation_id:
                self._turns[index] = self._conversations.turn(served, relaxed)
            await self._turn.spend(STEPS_TO_ROUTE)

    async def _choose(self) -> None:
        """Decide by scores; turns of conversations take theirs."""
        for index, scored in (await self._scores()).items():
            self._at = index
            if index in self._turns:
                self._turns[index].score(scored)
            else:
                self._decisions[index] = self._chooser.chosen(*self._routed[index], scored)
            await self._turn.spend(STEPS_TO_CHOOSE)

    async def _scores(self) -> dict[int, Scored]:
        """Scores of the requests that need one, in order."""
        pinned = {index for index, turn in self._turns.items() if not turn.needs_score}
        decided, scored = self._decisions.keys() | pinned, dict[int, Scored]()
        # By identity: a bundle that was swapped in meanwhile has the name of the one before, which some still have.
        for model in {id(served): served for served, _ in self._routed}.values():
            mine = [i for i, (served, _) in enumerate(self._routed) if served is model and i not in decided]
            scored |= zip(mine, await model.scorer.score_batch([self._routed[i][1] for i in mine]), strict=True)
        return dict(sorted(scored.items()))

    async def _settle(self) -> None:
        """Decide about turns, in the order of the requests: the first of a new conversation decides for the others."""
        if self._turns:
            await self._conversations.settle(self._turns.values())
        for index, turn in self._turns.items():
            self._at = index
            self._decisions[index] = turn.decision()
