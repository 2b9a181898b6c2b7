"""The path of a request, top to bottom: decide, then generate.

Failure policy, all of it:
- cache down: a miss, observed;
- classifier down: the top rung allowed, marked as fallback, observed, never cached;
- outcome log down: the log's own business, it keeps what waits, within bounds, and counts what is lost; requests go on;
- backend down: a few tries before the first token, then the next profile, which decides anew by its own bundle, then a
  typed error; after the first token never again;
- quotas down: each replica holds tenants within them by itself;
- no answer at the chosen rung (the thought took all there was): once more at the next rung, counted and told.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Container, Sequence
from contextlib import aclosing
from dataclasses import replace

from router.admission.controller import Admission
from router.admission.tenants import Tenants
from router.domain import (
    Completion,
    ContentDelta,
    Decision,
    GenerationEvent,
    GenerationRequest,
    Outcome,
    RouteRequest,
    Sampling,
    ToolCallDelta,
    Tools,
)
from router.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    FieldError,
    NotFound,
    TargetUnmet,
)
from router.events import Decided, Degraded, Generated, StreamAborted
from router.ports import Backend, Observer, OutcomeLog
from router.routing.chooser import Chooser
from router.routing.served_model import ServedModel
from router.scoring.scorer import Scored

Audit = Callable[[Backend, RouteRequest, Decision, Sampling, str], None]
NO_TOOLS = Tools()
SUSPENDED = "the audit has found more loss than was certified"
TRIES = 3
"""Attempts at the backend before the first token."""


class BudgetRouter:
    """Chooses reasoning budgets and has the backend think within them.

    Args:
        profiles: the served models; the first answers, the others where it is down or they are named.
        tenants: those that a request may come under.
        log: keeps decisions and outcomes.
        observer: told of everything that happens.
        chooser: picks the rung.
        admission: lets generations in, in predicted tokens.
        audit: told of every answer, before its completion is passed on.
    """

    def __init__(
        self,
        profiles: Sequence[ServedModel],
        tenants: Tenants,
        log: OutcomeLog,
        observer: Observer,
        chooser: Chooser,
        admission: Admission,
        audit: Audit | None = None,
    ) -> None:
        self.served_models = list(profiles)
        self._tenants = tenants
        self._log = log
        self._observer = observer
        self._chooser = chooser
        self._admission = admission
        self._audit = audit

    async def decide(self, request: RouteRequest) -> Decision:
        """Choose a budget for one prompt. Raises InvalidRequest, NotFound, TargetUnmet."""
        return (await self._decide([(self._able(request)[0], self._admission.relaxed(request))], lambda index: ""))[0]

    async def decide_batch(self, requests: Sequence[RouteRequest]) -> list[Decision]:
        """Choose a budget for every prompt, in order; errors name the request's index as well as its field."""

        def place(index: int) -> str:
            return f"requests[{index}]."

        routed: list[tuple[ServedModel, RouteRequest]] = []
        try:
            for request in requests:
                routed.append((self._able(request)[0], self._admission.relaxed(request)))  # noqa: PERF401
        except FieldError as error:
            raise error.within(place(len(routed))) from error
        return await self._decide(routed, place)

    async def generate(
        self, request: RouteRequest, sampling: Sampling, tools: Tools = NO_TOOLS
    ) -> AsyncGenerator[Decision | GenerationEvent]:
        """The decision, deltas as the backend thinks and answers, one completion.

        Where the backend is down and another profile takes over, its decision follows, in place of the first.

        Raises:
            InvalidRequest, NotFound, TargetUnmet: as `decide`.
            Overloaded: there is no room for it; told before the first event.
            BackendError: the backend failed, and nobody could take over.
        """
        profiles, started, down = self._able(request), False, None
        self._admission.reject_early(request.tenant)
        request = self._admission.relaxed(request)
        for profile in profiles:
            try:
                async with aclosing(self._generate(profile, request, sampling, tools)) as events:
                    async for event in events:
                        started = started or not isinstance(event, Decision)
                        yield event
                return
            except BackendRefused:
                raise
            except BackendError as error:
                down = error
                if started:
                    break
            except (FieldError, TargetUnmet):  # what fits the first profile need not fit the next
                if down is None:
                    raise
        if down is not None:
            raise down

    async def health(self) -> dict[str, bool]:
        """Which backends can answer, by model; "" = some of them can."""
        ready = {f"backend/{profile.model}": await profile.backend.ready() for profile in self.served_models}
        return {"": any(ready.values()), **ready}

    async def report(self, outcome: Outcome) -> None:
        """Attach an outcome to an earlier decision. Raises NotFound, OutcomeLogError."""
        if not await self._log.report(outcome):
            raise NotFound("decision_id", "no such decision")

    def served_model(self, model: str) -> ServedModel:
        """The first profile of that name; "" = any. Raises NotFound."""
        return self._named(model)[0]

    def swap(self, profile: ServedModel) -> None:
        """Serve a model by another profile from the next request on; those under way keep theirs."""
        self.served_models = [profile if old.model == profile.model else old for old in self.served_models]

    def suspend(self, model: str, version: str) -> None:
        """Believe no certificate of a bundle any more, while it serves: the top rung for everyone."""
        for profile in self.served_models:
            if (profile.model, profile.bundle.version) == (model, version):
                self.swap(replace(profile, policy=replace(profile.policy, suspended=SUSPENDED)))

    def _able(self, request: RouteRequest) -> Sequence[ServedModel]:
        """The profiles that may answer, best first: the one named, else all. Raises NotFound."""
        if self._tenants.get(request.tenant) is None:
            raise NotFound("tenant", "unknown")
        return self._named(request.model)

    def _named(self, model: str) -> Sequence[ServedModel]:
        named = [profile for profile in self.served_models if model in ("", profile.model)]
        if not named:
            served = ", ".join(profile.model for profile in self.served_models)
            raise NotFound("model", f"not served here; served: {served}")
        return named

    async def _decide(
        self, routed: Sequence[tuple[ServedModel, RouteRequest]], place: Callable[[int], str]
    ) -> list[Decision]:
        """Look up and compute the scores of all requests together; `place` says where a request stands in the call."""
        began = time.perf_counter()
        decisions: dict[int, Decision] = {}
        index = 0
        try:
            for index, (profile, request) in enumerate(routed):
                if (fixed := self._chooser.fixed(profile, request)) is not None:
                    decisions[index] = fixed
            for index, scored in (await self._scores(routed, decisions)).items():
                decisions[index] = self._chooser.chosen(*routed[index], scored)
        except FieldError as error:
            raise error.within(place(index)) from error
        seconds = time.perf_counter() - began
        for index, (_, request) in enumerate(routed):
            self._log.record(request, decisions[index], None)
            self._observer(Decided(request, decisions[index], seconds))
        return [decisions[index] for index in range(len(routed))]

    async def _scores(
        self, routed: Sequence[tuple[ServedModel, RouteRequest]], decided: Container[int]
    ) -> dict[int, Scored]:
        """Scores by place of the requests that are not decided yet, those of a profile together."""
        scored: dict[int, Scored] = {}
        for profile in {profile.model: profile for profile, _ in routed}.values():
            mine = [i for i, (its, _) in enumerate(routed) if its is profile and i not in decided]
            scored |= zip(mine, await profile.scorer([routed[i][1] for i in mine]), strict=True)
        return dict(sorted(scored.items()))

    async def _generate(
        self, profile: ServedModel, request: RouteRequest, sampling: Sampling, tools: Tools
    ) -> AsyncGenerator[Decision | GenerationEvent]:
        began = time.perf_counter()
        [decision] = await self._decide([(profile, request)], lambda index: "")
        thinking, latency = _expected_tokens(decision, decision.choice.index), profile.policy.latency
        patience = _patience(request, latency.seconds(thinking) + time.perf_counter() - began)
        tokens = thinking + latency.answer_tokens
        async with self._admission.admitted(request, tokens, patience) as admitted:
            yield decision
            async with aclosing(self._answered(profile, request, decision, sampling, tools, began)) as events:
                async for event in events:
                    admitted.used = tokens  # as long as nobody has counted
                    if isinstance(event, Completion) and event.thinking_tokens is not None:
                        admitted.used = event.thinking_tokens + (event.answer_tokens or 0)
                    yield event

    async def _answered(
        self,
        profile: ServedModel,
        request: RouteRequest,
        decision: Decision,
        sampling: Sampling,
        tools: Tools,
        began: float,
    ) -> AsyncGenerator[GenerationEvent]:
        """The answer, logged, observed, and perhaps audited."""
        first_token = event = None
        answer: list[str] = []
        try:
            async with aclosing(self._answer(profile, request, decision, sampling, tools)) as events:
                async for event in events:
                    first_token = first_token or time.perf_counter() - began
                    if isinstance(event, ContentDelta):
                        answer.append(event.text)
                    if isinstance(event, Completion):
                        self._log.record(request, decision, event)
                        self._observer(Generated(request, decision, event, first_token, time.perf_counter() - began))
                        if self._audit is not None and not tools.offered and not self._admission.level:
                            self._audit(profile.backend, request, decision, sampling, "".join(answer))
                    yield event
        except BackendError:
            self._observer(StreamAborted(request, decision, "backend"))
            raise
        except (GeneratorExit, asyncio.CancelledError):
            if not isinstance(event, Completion):
                self._observer(StreamAborted(request, decision, "caller"))
            raise

    async def _answer(
        self, profile: ServedModel, request: RouteRequest, decision: Decision, sampling: Sampling, tools: Tools
    ) -> AsyncGenerator[GenerationEvent]:
        """The chosen rung's stream; where it ends without an answer, once more at the next rung allowed."""
        rungs = decision.ladder.rungs
        allowed = [i for i in profile.policy.within_bounds(request.options) if i > decision.choice.index]
        attempts = [decision.choice.index, *allowed[:1]]
        for attempt, index in enumerate(attempts, 1):
            conversation, floor = request.options.conversation_id, request.options.floor
            session = None if not conversation else f"{request.tenant}/{conversation}"
            tokens = _expected_tokens(decision, index)
            wanted = GenerationRequest(request.prompt, rungs[index], floor, sampling, tokens, session, tools)
            answered = attempt == len(attempts)
            async with aclosing(self._stream(profile.backend, wanted)) as events:
                async for event in events:
                    answered = answered or isinstance(event, ContentDelta | ToolCallDelta)
                    if not isinstance(event, Completion):
                        yield event
                    elif answered:
                        yield replace(event, attempts=attempt)
            if answered:
                return

    async def _stream(self, backend: Backend, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The backend's stream, tried again with jittered waits as long as nothing has come of it."""
        for attempt in range(1, TRIES + 1):
            started = False
            try:
                async with aclosing(backend.stream(request)) as events:
                    async for event in events:
                        started = True
                        yield event
                return
            except BackendUnavailable as error:
                if started or attempt == TRIES:
                    raise
                self._observer(Degraded("backend", str(error)))
                await asyncio.sleep(random.uniform(0, 0.1 * 2**attempt))


def _expected_tokens(decision: Decision, index: int) -> float:
    """Thinking tokens forecast at a rung; its cap where there is no forecast."""
    mean = None if decision.score is None else decision.score.mean[index]
    return float(decision.ladder.rungs[index].tokens or 0) if mean is None else mean


def _patience(request: RouteRequest, needed: float) -> float | None:
    """Seconds that a request may wait and still be answered in the time its caller has."""
    longest = request.options.max_latency
    return None if longest is None else max(longest - needed, 0.0)
