"""The path of a request, top to bottom: decide, then generate.

Failure policy, all of it:
- cache down: a miss, observed;
- classifier down: the top rung allowed, marked as fallback, observed, never cached;
- outcome log down: the log's own business, it buffers, counts and drops; requests go on;
- backend down: a few tries before the first token, then the next profile, which decides anew by its own bundle, then a
  typed error; after the first token never again;
- no answer at the chosen rung (the thought took all there was): once more at the next rung, counted and told.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, MutableMapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

from router.artifact import Bundle
from router.domain import (
    Broken,
    Choice,
    Completion,
    ContentDelta,
    Decided,
    Decision,
    DecisionSource,
    Degraded,
    Enforcement,
    Generated,
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
    BackendUnavailable,
    FieldError,
    InvalidRequest,
    NotFound,
    TargetUnmet,
)
from router.exploration import certain, propensities
from router.policy import Policy
from router.ports import Backend, Observer, OutcomeLog
from router.scoring import Scored, Scorer

Audit = Callable[[Backend, RouteRequest, Decision, Sampling, str], None]
NO_TOOLS = Tools()
Conversation = tuple[str, str, str]
"""Model, tenant and conversation id."""

SUSPENDED = "the audit has found more loss than was certified"
TRIES = 3
"""Attempts at the backend before the first token."""


@dataclass(frozen=True)
class Profile:
    """One served model: its name, the bundle that scores for it, and the rule that chooses."""

    model: str
    bundle: Bundle
    policy: Policy
    scorer: Scorer
    backend: Backend
    enforcement: Enforcement
    fingerprint: str


class BudgetRouter:
    """Chooses reasoning budgets and has the backend think within them.

    Args:
        profiles: the served models; the first answers, the others where it is down or they are named.
        tenants: names a request may come under.
        log: keeps decisions and outcomes.
        observer: told of everything that happens.
        explored: share of requests that think longer than chosen, to learn from.
        audit: told of every answer, before its completion is passed on.
        pins: rung position by conversation, bounded by its owner.
    """

    def __init__(
        self,
        profiles: Sequence[Profile],
        tenants: frozenset[str],
        log: OutcomeLog,
        observer: Observer,
        pins: MutableMapping[Conversation, int],
        explored: float = 0.0,
        audit: Audit | None = None,
    ) -> None:
        self.profiles = list(profiles)
        self._tenants = tenants
        self._log = log
        self._observer = observer
        self._pins = pins
        self._explored = explored
        self._audit = audit
        self._random = random.Random()

    async def decide(self, request: RouteRequest) -> Decision:
        """Choose a budget for one prompt. Raises InvalidRequest, NotFound, TargetUnmet."""
        return (await self._decide([(self._able(request)[0], request)], lambda index: ""))[0]

    async def decide_batch(self, requests: Sequence[RouteRequest]) -> list[Decision]:
        """Choose a budget for every prompt, in order; errors name the request's index as well as its field."""

        def place(index: int) -> str:
            return f"requests[{index}]."

        routed = []
        for index, request in enumerate(requests):
            with _placed(place(index)):
                routed.append((self._able(request)[0], request))
        return await self._decide(routed, place)

    async def generate(
        self, request: RouteRequest, sampling: Sampling, tools: Tools = NO_TOOLS
    ) -> AsyncGenerator[Decision | GenerationEvent]:
        """The decision, deltas as the backend thinks and answers, one completion.

        Where the backend is down and another profile takes over, its decision follows, in place of the first.

        Raises:
            InvalidRequest, NotFound, TargetUnmet: as `decide`.
            BackendError: the backend failed, and nobody could take over.
        """
        started, down = False, None
        for profile in self._able(request):
            try:
                async with aclosing(self._generate(profile, request, sampling, tools)) as events:
                    async for event in events:
                        started = started or not isinstance(event, Decision)
                        yield event
                return
            except BackendUnavailable as error:
                down = error
                if started:
                    break
            except (FieldError, TargetUnmet):  # what fits the first profile need not fit the next
                if down is None:
                    raise
        if down is not None:
            raise down

    async def ready(self) -> bool:
        """True when some profile's backend can answer; all are asked."""
        return any([await profile.backend.ready() for profile in self.profiles])

    async def report(self, outcome: Outcome) -> None:
        """Attach an outcome to an earlier decision. Raises NotFound, OutcomeLogError."""
        if not await self._log.report(outcome):
            raise NotFound("decision_id", "no such decision")

    def profile(self, model: str) -> Profile:
        """The first profile of that name; "" = any. Raises NotFound."""
        return self._named(model)[0]

    def swap(self, profile: Profile) -> None:
        """Serve a model by another profile from the next request on; those under way keep theirs."""
        self.profiles = [profile if old.model == profile.model else old for old in self.profiles]

    def suspend(self, model: str, version: str) -> None:
        """Believe no certificate of a bundle any more, while it serves: the top rung for everyone."""
        for profile in self.profiles:
            if (profile.model, profile.bundle.version) == (model, version):
                self.swap(replace(profile, policy=replace(profile.policy, suspended=SUSPENDED)))

    def _able(self, request: RouteRequest) -> Sequence[Profile]:
        """The profiles that may answer, best first: the one named, else all. Raises NotFound."""
        if request.tenant not in self._tenants:
            raise NotFound("tenant", "unknown")
        return self._named(request.model)

    def _named(self, model: str) -> Sequence[Profile]:
        named = [profile for profile in self.profiles if model in ("", profile.model)]
        if not named:
            served = ", ".join(profile.model for profile in self.profiles)
            raise NotFound("model", f"not served here; served: {served}")
        return named

    async def _decide(
        self, routed: Sequence[tuple[Profile, RouteRequest]], place: Callable[[int], str]
    ) -> list[Decision]:
        """Look up and compute the scores of all requests together; `place` says where a request stands in the call."""
        began = time.perf_counter()
        fixed = {}
        for index, (profile, request) in enumerate(routed):
            with _placed(place(index)):
                if (choice := self._fixed(profile, request)) is not None:
                    fixed[index] = choice
        scored: dict[int, Scored] = {}
        for profile in {profile.model: profile for profile, _ in routed}.values():
            mine = [i for i, (its, _) in enumerate(routed) if its is profile and i not in fixed]
            scored |= zip(mine, await profile.scorer([routed[i][1] for i in mine]), strict=True)
        decisions = []
        for index, (profile, request) in enumerate(routed):
            with _placed(place(index)):
                if (known := fixed.get(index)) is not None:
                    decisions.append(_decision(profile, request, *known))
                else:
                    decision = _decision(profile, request, *self._chosen(profile, request, scored[index]))
                    decisions.append(self._exploring(profile, request, decision))
        seconds = time.perf_counter() - began
        for (_, request), decision in zip(routed, decisions, strict=True):
            self._log.record(request, decision, None)
            self._observer(Decided(request, decision, seconds))
        return decisions

    def _fixed(self, profile: Profile, request: RouteRequest) -> tuple[Choice, Scored] | None:
        """The choice where the caller named a rung or the conversation has one."""
        policy, options = profile.policy, request.options
        if options.rung is not None:
            index = policy.ladder.index(options.rung)
            if index is None:
                raise NotFound("options.rung", f"not on the ladder: {', '.join(r.name for r in policy.ladder.rungs)}")
            if index not in policy.within_bounds(options):
                raise InvalidRequest("options.rung", "lies outside floor and ceiling")
            choice = Choice(index, index == policy.top, None, "the caller named the rung")
            return choice, Scored(None, DecisionSource.OVERRIDE)
        pinned = self._pins.get(_conversation(profile, request))
        if pinned is None or pinned not in policy.within_bounds(options):
            return None
        return _pinned(profile, pinned)

    def _chosen(self, profile: Profile, request: RouteRequest, scored: Scored) -> tuple[Choice, Scored]:
        """The policy's choice for a score; a conversation keeps its first."""
        policy, options = profile.policy, request.options
        if scored.score is None:
            top = policy.within_bounds(options)[-1]
            return Choice(top, top == policy.top, None, "the classifier failed: the top rung allowed"), scored
        choice = policy.choose(scored.score, options)
        if options.conversation_id:
            kept = self._pins.setdefault(_conversation(profile, request), choice.index)
            if kept != choice.index and kept in policy.within_bounds(options):
                return _pinned(profile, kept)
        return choice, scored

    def _exploring(self, profile: Profile, request: RouteRequest, decision: Decision) -> Decision:
        """The decision, or for some requests one above it; never within a conversation, which keeps its rung."""
        if not self._explored or decision.score is None or request.options.conversation_id:
            return decision
        allowed = profile.policy.affordable(decision.score, request.options)
        chances = propensities(len(decision.ladder), decision.choice.index, allowed, self._explored)
        drawn = self._random.choices(range(len(chances)), chances)[0]
        if drawn == decision.choice.index:
            return replace(decision, propensities=chances)
        choice = Choice(drawn, decision.choice.meets_target, None, "explored: longer than the policy asks for")
        return replace(decision, choice=choice, source=DecisionSource.EXPLORE, propensities=chances)

    async def _generate(
        self, profile: Profile, request: RouteRequest, sampling: Sampling, tools: Tools
    ) -> AsyncGenerator[Decision | GenerationEvent]:
        began = time.perf_counter()
        [decision] = await self._decide([(profile, request)], lambda index: "")
        yield decision
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
                        if self._audit is not None and not tools.offered:
                            self._audit(profile.backend, request, decision, sampling, "".join(answer))
                    yield event
        except BackendError:
            self._observer(Broken(request, decision, "backend"))
            raise
        except (GeneratorExit, asyncio.CancelledError):
            if not isinstance(event, Completion):
                self._observer(Broken(request, decision, "caller"))
            raise

    async def _answer(
        self, profile: Profile, request: RouteRequest, decision: Decision, sampling: Sampling, tools: Tools
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


def _decision(profile: Profile, request: RouteRequest, choice: Choice, by: Scored) -> Decision:
    return Decision(
        uuid4().hex,
        profile.model,
        profile.fingerprint,
        profile.policy.ladder,
        choice,
        request.options.target,
        by.source,
        profile.bundle.version,
        by.score,
        certain(len(profile.policy.ladder), choice.index),
    )


def _conversation(profile: Profile, request: RouteRequest) -> Conversation:
    return profile.model, request.tenant, request.options.conversation_id or ""


def _pinned(profile: Profile, index: int) -> tuple[Choice, Scored]:
    choice = Choice(index, index == profile.policy.top, None, "the conversation keeps its rung")
    return choice, Scored(None, DecisionSource.PINNED)


def _expected_tokens(decision: Decision, index: int) -> float:
    """Thinking tokens forecast at a rung; its cap where there is no forecast."""
    forecast = None if decision.score is None else decision.score.tokens[index]
    return float(decision.ladder.rungs[index].tokens or 0) if forecast is None else forecast.mean


@contextmanager
def _placed(place: str) -> Iterator[None]:
    """Errors about a field say where in the call it stands."""
    try:
        yield
    except FieldError as error:
        raise error.within(place) from error
