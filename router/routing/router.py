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
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from router.admission.controller import Admission, Admitted
from router.admission.tenants import Tenants
from router.domain import (
    Completion,
    Decision,
    GenerationEvent,
    Outcome,
    RouteRequest,
    Sampling,
    ServedEvent,
    Tools,
)
from router.errors import BackendError, BackendRefused, FieldError, NotFound, TargetUnmet
from router.events import Generated, StreamAborted
from router.ports import Backend, Lesson, Lessons, Observer, OutcomeLog, Pins
from router.routing.chooser import Chooser
from router.routing.conversations import Conversations
from router.routing.deciding import Decider
from router.routing.generation import Generation
from router.routing.served_model import ServedModel
from router.routing.served_models import SUSPENDED, ServedModels

Rest = Callable[[], AsyncGenerator[GenerationEvent]]
Audit = Callable[[Backend, RouteRequest, Decision, Sampling, str, int | None, Rest | None], None]
NO_TOOLS = Tools()


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

    Attributes:
        decider: decides about budgets.
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
        self._models = models = ServedModels(served_models, tenants)
        self._conversations = talks = Conversations(pins, chooser)
        self.decider = Decider(models, tenants, admission, chooser, talks, log, observer, lessons)
        self._log = log
        self._observer = observer
        self._admission = admission
        self._audit = audit
        self._lessons = lessons

    async def decide(self, request: RouteRequest) -> Decision:
        """Choose a budget for one prompt. Raises InvalidRequest, NotFound, TargetUnmet."""
        return await self.decider.decide(request)

    async def decide_batch(self, requests: Sequence[RouteRequest]) -> list[Decision]:
        """Choose a budget for every prompt, in order. Errors name the request's index as well as its field."""
        return await self.decider.batch(requests)

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
        candidates, started, failure = self._models.able(request), False, None
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
        teaches = climbs and request.prompt.begun is None
        decision = await self.decider.at(served, request, climbs=climbs, teaches=teaches)
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

    @property
    def served_models(self) -> Sequence[ServedModel]:
        """The models that answer, best first."""
        return self._models.all

    def served_model(self, model: str) -> ServedModel:
        """The first served model of that name; "" stands for any. Raises NotFound."""
        return self._models.named(model)[0]

    def candidates(self, model: str) -> Sequence[ServedModel]:
        """The models that may answer, best first; "" stands for any. Raises NotFound."""
        return self._models.named(model)

    def swap(self, successor: ServedModel) -> None:
        """Serve a model by its successor from the next request on; requests under way keep theirs."""
        self._models.swap(successor)

    def suspend(self, model: str, version: str, why: str = SUSPENDED) -> None:
        """Stop believing the certificates of a bundle while it serves: everyone gets the top rung."""
        self._models.suspend(model, version, why)

    @asynccontextmanager
    async def _let_in(self, generation: Generation) -> AsyncIterator[tuple[Admitted, Lesson | None]]:
        """Room for a generation, and what learns from it. Raises Overloaded."""
        request, lesson = generation.request, self._drawn(generation)
        try:
            async with self._admission.admitted(request, generation.expected_tokens, generation.patience) as admitted:
                yield admitted, lesson
        finally:  # it only queues: the caller waits for nothing that is learned
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
