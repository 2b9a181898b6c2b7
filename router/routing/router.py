"""The path of a request, top to bottom: decide, then generate.

Failure policy, all of it:
- cache down: a miss, observed;
- classifier down: the top rung allowed, marked as fallback, observed, never cached;
- outcome log down: the log keeps what waits, within bounds, and counts what it loses; requests go on;
- what learns fails: nobody waits for it, and what it does not know counts as lost;
- backend down: `Replicas` tries again before the first token; then the next served model decides by its own bundle;
  then the caller gets a typed error. After the first token nothing is tried again;
- a look at the answer fails within a thought: it is no evidence, and the thought goes on, observed;
- pins down: each replica of this service knows the conversations that it has seen;
- quotas down: each replica of this service holds tenants within their quotas by itself;
- no answer at the chosen rung (the thought took all the tokens): one more attempt at the next rung, counted, and the
  completion says so.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from router.admission.controller import Admission, Admitted
from router.admission.tenants import Tenants
from router.domain import (
    Completion,
    Decision,
    DecisionSource,
    GenerationEvent,
    Outcome,
    RouteRequest,
    Sampling,
    ServedEvent,
    Tools,
)
from router.errors import BackendError, BackendRefused, FieldError, NotFound, TargetUnmet
from router.events import Decided, Generated, StreamAborted
from router.ports import Backend, Lesson, Lessons, Observer, OutcomeLog, Pins
from router.routing.chooser import Chooser, new_id
from router.routing.conversations import Conversations, ConversationTurn
from router.routing.generation import Generation
from router.routing.served_model import ServedModel
from router.scoring.scorer import Scored
from router.turn import Turn

Rest = Callable[[], AsyncGenerator[GenerationEvent]]
Audit = Callable[[Backend, RouteRequest, Decision, Sampling, str, int | None, Rest | None], None]
Circumstances = tuple[int, ...]
NO_TOOLS = Tools()
STEPS_TO_ROUTE, STEPS_TO_CHOOSE, STEPS_TO_RECORD = 10, 20, 40
"""Steps of a `Turn` for each prompt of a batch."""

SUSPENDED = "the audit has found more loss than was certified"
REFUTED = "evidence that came after the bundle shows more loss than was certified"


class BudgetRouter:
    """Chooses reasoning budgets and has the backend think within them.

    Args:
        served_models: the first one answers; the others answer where it is down, or where they are named.
        tenants: the tenants that a request may name.
        log: keeps decisions and outcomes.
        observer: sees everything that happens.
        chooser: picks the rung.
        pins: what conversations keep.
        admission: lets generations in, counted in predicted tokens.
        audit: gets every answer just before its completion is passed on.
        lessons: learns from answers at the top rung, once their callers have them.
    """

    def __init__(
        self,
        served_models: Sequence[ServedModel],
        tenants: Tenants,
        log: OutcomeLog,
        observer: Observer,
        chooser: Chooser,
        pins: Pins,
        admission: Admission,
        audit: Audit | None = None,
        lessons: Lessons | None = None,
    ) -> None:
        self.served_models = list(served_models)
        self._tenants = tenants
        self._log = log
        self._observer = observer
        self._chooser = chooser
        self._conversations = Conversations(pins, chooser)
        self._admission = admission
        self._audit = audit
        self._lessons = lessons
        self._swaps = 0

    @property
    def circumstances(self) -> Circumstances:
        """How often bundles, tenants and scores were replaced: while nothing of it is, `repeats` holds."""
        return self._swaps, self._tenants.changes, self.served_models[0].scorer.cache.flushes

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

    def decide_again(self, request: RouteRequest, decision: Decision) -> Decision:
        """The decision of an equal request once more, under an id of its own."""
        began = time.perf_counter()
        again = decision.renewed(new_id())
        self._decided(request, again, time.perf_counter() - began)
        return again

    async def decide(self, request: RouteRequest) -> Decision:
        """Choose a budget for one prompt. Raises InvalidRequest, NotFound, TargetUnmet."""
        served = self._able(request)[0]
        return await self._decide(served, self._admission.relaxed(request))

    async def decide_batch(self, requests: Sequence[RouteRequest]) -> list[Decision]:
        """Choose a budget for every prompt, in order. Errors name the request's index as well as its field."""
        began, index, turn = time.perf_counter(), 0, Turn()
        routed: list[tuple[ServedModel, RouteRequest]] = []
        decisions: dict[int, Decision] = {}
        turns: dict[int, ConversationTurn] = {}
        try:
            for index, request in enumerate(requests):
                served, relaxed = self._able(request)[0], self._admission.relaxed(request)
                routed.append((served, relaxed))
                if (fixed := self._chooser.fixed(served, relaxed)) is not None:
                    decisions[index] = fixed
                elif relaxed.options.conversation_id:
                    turns[index] = self._conversations.turn(served, relaxed)
                await turn.spend(STEPS_TO_ROUTE)
            pinned = {index for index, talk in turns.items() if not talk.needs_score}
            for index, scored in (await self._scores(routed, decisions.keys() | pinned)).items():
                if index in turns:
                    turns[index].score(scored)
                else:
                    decisions[index] = self._chooser.chosen(*routed[index], scored)
                await turn.spend(STEPS_TO_CHOOSE)
            if turns:  # in the order of the requests: the first of a new conversation decides for the others
                await self._conversations.settle(turns.values())
            for index, talk in turns.items():
                decisions[index] = talk.decision()
        except FieldError as error:
            raise error.within(f"requests[{index}].") from error
        seconds = time.perf_counter() - began
        for index, (_, request) in enumerate(routed):
            self._decided(request, decisions[index], seconds)
            await turn.spend(STEPS_TO_RECORD)
        return [decisions[index] for index in range(len(routed))]

    async def generate(
        self, request: RouteRequest, sampling: Sampling, tools: Tools = NO_TOOLS
    ) -> AsyncGenerator[Decision | ServedEvent]:
        """The decision, deltas as the backend thinks and answers, one completion.

        Where the backend is down and another served model takes over, its decision follows, in place of the first.

        Raises:
            InvalidRequest, NotFound, TargetUnmet: as `decide`.
            Overloaded: there is no room for it; raised before the first event.
            BackendError: the backend failed, and no other model could take over.
        """
        candidates, started, failure = self._able(request), False, None
        self._admission.reject_early(request.tenant)  # before scoring: a flood must not cost the classifier's time
        request = self._admission.relaxed(request)
        for served in candidates:
            try:
                async with aclosing(self._run(served, request, sampling, tools)) as events:
                    async for event in events:
                        started = started or not isinstance(event, Decision)
                        yield event
                return
            except BackendRefused:  # the request is at fault; the next model would refuse it, too
                raise
            except BackendError as error:
                failure = error
                if started:  # the caller has half an answer; another model would begin a second one
                    break
            except (FieldError, TargetUnmet):  # a request that fits the first model need not fit the next
                if failure is None:
                    raise
        if failure is not None:
            raise failure

    async def _run(
        self, served: ServedModel, request: RouteRequest, sampling: Sampling, tools: Tools
    ) -> AsyncGenerator[Decision | ServedEvent]:
        """One generation at one model: decided, admitted, streamed, and recorded however it ends."""
        began = time.perf_counter()
        climbs = served.climbs and _in_steps(request, sampling, tools)
        decision = await self._decide(served, request, climbs=climbs, teaches=climbs and request.prompt.begun is None)
        generation = Generation(served, request, decision, sampling, tools, began)
        async with self._let_in(generation) as (admitted, lesson):
            yield decision
            try:
                for asked in generation.attempts():
                    async with aclosing(generation.events(asked, self._observer)) as events:
                        async for event in events:
                            if (passed := generation.take(event)) is None:
                                continue
                            admitted.used = generation.used_tokens
                            if lesson is not None:
                                lesson.take(passed)
                            if type(passed) is Completion:  # first, as the caller may leave once it has it
                                self._completed(generation, passed)
                                await self._conversations.ended(served, request, passed)
                            yield passed
            except BackendError:
                self._observer(StreamAborted(request, decision, "backend"))
                raise
            except (GeneratorExit, asyncio.CancelledError):
                if generation.completion is None:
                    self._observer(StreamAborted(request, decision, "caller"))
                raise

    async def health(self) -> dict[str, bool]:
        """Which backends can answer, by model; "" is true where at least one can."""
        ready = {f"backend/{served.model}": await served.backend.ready() for served in self.served_models}
        return {"": any(ready.values()), **ready}

    async def report(self, outcome: Outcome) -> None:
        """Attach an outcome to an earlier decision. Raises NotFound, OutcomeLogError."""
        if not await self._log.report(outcome):
            raise NotFound("decision_id", "no such decision")
        if self._lessons is not None:
            self._lessons.report(outcome)

    def completed(
        self, request: RouteRequest, decision: Decision, completion: Completion, seconds: tuple[float, float] | None
    ) -> None:
        """Record how an earlier decision's generation ended, here or where others carry the answer.

        Args:
            seconds: from the decision to the first event of the answer and to its end; None = not known, so that the
                log alone learns of it.
        """
        self._log.record(request, decision, completion)
        if seconds is not None:
            self._observer(Generated(request, decision, completion, *seconds))

    def served_model(self, model: str) -> ServedModel:
        """The first served model of that name; "" stands for any. Raises NotFound."""
        return self._named(model)[0]

    def candidates(self, model: str) -> Sequence[ServedModel]:
        """The models that may answer, best first; "" stands for any. Raises NotFound."""
        return self._named(model)

    def swap(self, successor: ServedModel) -> None:
        """Serve a model by its successor from the next request on; requests under way keep theirs."""
        self.served_models = [successor if old.model == successor.model else old for old in self.served_models]
        self._swaps += 1

    def suspend(self, model: str, version: str, why: str = SUSPENDED) -> None:
        """Stop believing the certificates of a bundle while it serves: everyone gets the top rung."""
        for served in self.served_models:
            if (served.model, served.bundle.version) == (model, version):
                self.swap(replace(served, policy=replace(served.policy, suspended=why)))

    def _able(self, request: RouteRequest) -> Sequence[ServedModel]:
        """The models that may answer, best first: the one named, else all. Raises NotFound."""
        if self._tenants.get(request.tenant) is None:
            raise NotFound("tenant", "unknown")
        return self._named(request.model)

    def _named(self, model: str) -> Sequence[ServedModel]:
        named = [served for served in self.served_models if model in ("", served.model)]
        if not named:
            names = ", ".join(served.model for served in self.served_models)
            raise NotFound("model", f"not served here; served: {names}")
        return named

    async def _decide(
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

    async def _scores(
        self, routed: Sequence[tuple[ServedModel, RouteRequest]], decided: Container[int]
    ) -> dict[int, Scored]:
        """Scores by position of the requests that are not decided yet; those of one model are scored together."""
        scored: dict[int, Scored] = {}
        for model in {served.model: served for served, _ in routed}.values():
            mine = [i for i, (served, _) in enumerate(routed) if served is model and i not in decided]
            scored |= zip(mine, await model.scorer.score_batch([routed[i][1] for i in mine]), strict=True)
        return dict(sorted(scored.items()))

    def _decided(self, request: RouteRequest, decision: Decision, seconds: float) -> None:
        self._log.record(request, decision, None)
        self._observer(Decided(request.tenant, decision, seconds))

    @asynccontextmanager
    async def _let_in(self, generation: Generation) -> AsyncIterator[tuple[Admitted, Lesson | None]]:
        """Room for a generation, and what learns from it. Raises Overloaded."""
        request, lesson = generation.request, self._drawn(generation)
        try:
            async with self._admission.admitted(request, generation.expected_tokens, generation.patience) as admitted:
                yield admitted, lesson
        finally:  # after the last event: the caller waits for nothing that is learned
            if lesson is not None:
                lesson.end(busy=self._admission.busy)

    def _drawn(self, generation: Generation) -> Lesson | None:
        if self._lessons is None or not generation.comparable:
            return None
        served = generation.served
        return self._lessons.drawn(served.backend, generation.request, generation.decision, generation.sampling)

    def _completed(self, generation: Generation, completion: Completion) -> None:
        """The one place where the log, the observers and the audit learn of an answer."""
        request, decision, seconds = generation.request, generation.decision, generation.seconds
        self.completed(request, decision, completion, (generation.first_token_seconds, seconds))
        # An audit runs the top rung as well: not under pressure.
        if self._audit is not None and generation.comparable and not self._admission.level:
            spent = completion.spent_thinking
            backend, sampling, answer = generation.served.backend, generation.sampling, generation.answer
            self._audit(backend, request, decision, sampling, answer, spent, generation.rest)


def _in_steps(request: RouteRequest, sampling: Sampling, tools: Tools) -> bool:
    """Whether a thought may be had step by step.

    Tool calls cannot be probed, images are no token ids, and an engine's own fields belong to its chat API.

    Rules are certified on free answers, whose first tokens a probe shows. Those of JSON are names and brackets, behind
    which its value comes too late. A stop string only cuts the end off an answer, so probes carry it.
    """
    if tools.offered or sampling.passed:
        return False
    return request.prompt.images is None and sampling.response_format is None
