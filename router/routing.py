"""The path of a request, top to bottom: decide, then generate.

Failure policy, all of it:
- cache down: a miss, observed;
- classifier down: the top rung allowed, marked as fallback, observed, never cached;
- outcome log down: the log's own business, it buffers, counts and drops; requests go on;
- backend down: a few tries before the first token, then a typed error; after the first token never again;
- no answer at the chosen rung (the thought took all there was): once more at the next rung, counted and told.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

from router.cache_key import ScoreKeys
from router.domain import (
    Broken,
    Choice,
    Completion,
    ContentDelta,
    Decided,
    Decision,
    DecisionSource,
    Degraded,
    Generated,
    GenerationEvent,
    GenerationRequest,
    Outcome,
    Prompt,
    RouteRequest,
    Sampling,
    Score,
)
from router.errors import (
    BackendError,
    BackendUnavailable,
    CacheError,
    ClassifierError,
    FieldError,
    InvalidRequest,
    NotFound,
)
from router.policy import Policy
from router.ports import Backend, Classifier, Observer, OutcomeLog, ScoreCache

TRIES = 3
"""Attempts at the backend before the first token."""


@dataclass(frozen=True)
class Profile:
    """One served model: its name, the bundle that scores for it, and the rule that chooses."""

    model: str
    version: str
    policy: Policy
    classifier: Classifier
    keys: ScoreKeys
    backend: Backend


@dataclass(frozen=True, slots=True)
class Scored:
    """A score and where it came from; no score when the classifier failed."""

    score: Score | None
    source: DecisionSource


class BudgetRouter:
    """Chooses reasoning budgets and has the backend think within them.

    Args:
        profile: the served model.
        tenants: names a request may come under.
        cache: remembered scores.
        log: keeps decisions and outcomes.
        observer: told of everything that happens.
        pins: rung position by (tenant, conversation id), bounded by its owner.
    """

    def __init__(
        self,
        profile: Profile,
        tenants: frozenset[str],
        cache: ScoreCache,
        log: OutcomeLog,
        observer: Observer,
        pins: MutableMapping[tuple[str, str], int],
    ) -> None:
        self.profile = profile
        self._tenants = tenants
        self._cache = cache
        self._log = log
        self._observer = observer
        self._pins = pins

    async def decide(self, request: RouteRequest) -> Decision:
        """Choose a budget for one prompt. Raises InvalidRequest, NotFound, TargetUnmet."""
        return (await self._decide([request], lambda index: ""))[0]

    async def decide_batch(self, requests: Sequence[RouteRequest]) -> list[Decision]:
        """Choose a budget for every prompt, in order; errors name the request's index as well as its field."""
        return await self._decide(requests, lambda index: f"requests[{index}].")

    async def _decide(self, requests: Sequence[RouteRequest], place: Callable[[int], str]) -> list[Decision]:
        """Look up and compute the scores of all requests together; `place` says where a request stands in the call."""
        started = time.perf_counter()
        fixed = {}
        for index, request in enumerate(requests):
            with _placed(place(index)):
                self._check_names(request)
                if (choice := self._fixed(request)) is not None:
                    fixed[index] = choice
        to_score = [i for i in range(len(requests)) if i not in fixed]
        scored = dict(zip(to_score, await self._scores([requests[i] for i in to_score]), strict=True))
        decisions = []
        for index, request in enumerate(requests):
            with _placed(place(index)):
                known = fixed.get(index)
                decided = (
                    self._decide_scored(request, scored[index]) if known is None else self._decision(request, *known)
                )
                decisions.append(decided)
        seconds = time.perf_counter() - started
        for request, decision in zip(requests, decisions, strict=True):
            self._log.record(request.tenant, decision, None)
            self._observer(Decided(request, decision, seconds))
        return decisions

    async def generate(self, request: RouteRequest, sampling: Sampling) -> AsyncGenerator[Decision | GenerationEvent]:
        """The decision, deltas as the backend thinks and answers, one completion.

        Raises:
            BackendError: the backend failed.
        """
        started = time.perf_counter()
        decision = await self.decide(request)
        yield decision
        first_token = event = None
        try:
            async with aclosing(self._answer(request, decision, sampling)) as events:
                async for event in events:
                    first_token = first_token or time.perf_counter() - started
                    if isinstance(event, Completion):
                        self._log.record(request.tenant, decision, event)
                        self._observer(Generated(request, decision, event, first_token, time.perf_counter() - started))
                    yield event
        except BackendError:
            self._observer(Broken(request, decision, "backend"))
            raise
        except (GeneratorExit, asyncio.CancelledError):
            if not isinstance(event, Completion):
                self._observer(Broken(request, decision, "caller"))
            raise

    async def report(self, outcome: Outcome) -> None:
        """Attach an outcome to an earlier decision. Raises NotFound, OutcomeLogError."""
        if not await self._log.report(outcome):
            raise NotFound("decision_id", "no such decision")

    def _check_names(self, request: RouteRequest) -> None:
        if request.model not in ("", self.profile.model):
            raise NotFound("model", f"not served here; served: {self.profile.model}")
        if request.tenant not in self._tenants:
            raise NotFound("tenant", "unknown")

    def _fixed(self, request: RouteRequest) -> tuple[Choice, Scored] | None:
        """The choice where the caller named a rung or the conversation has one."""
        policy, options = self.profile.policy, request.options
        top = len(policy.ladder) - 1
        if options.rung is not None:
            index = policy.ladder.index(options.rung)
            if index is None:
                raise NotFound("options.rung", f"not on the ladder: {', '.join(r.name for r in policy.ladder.rungs)}")
            if index not in policy.within_bounds(options):
                raise InvalidRequest("options.rung", "lies outside floor and ceiling")
            choice = Choice(index, index == top, None, "the caller named the rung")
            return choice, Scored(None, DecisionSource.OVERRIDE)
        pinned = self._pins.get((request.tenant, options.conversation_id or ""))
        if pinned is None or pinned not in policy.within_bounds(options):
            return None
        choice = Choice(pinned, pinned == top, None, "the conversation keeps its rung")
        return choice, Scored(None, DecisionSource.PINNED)

    def _decide_scored(self, request: RouteRequest, scored: Scored) -> Decision:
        policy, options = self.profile.policy, request.options
        if scored.score is None:
            top = policy.within_bounds(options)[-1]
            choice = Choice(top, top == len(policy.ladder) - 1, None, "the classifier failed: the top rung allowed")
        else:
            choice = policy.choose(scored.score, options)
            if options.conversation_id:
                self._pins.setdefault((request.tenant, options.conversation_id), choice.index)
        return self._decision(request, choice, scored)

    def _decision(self, request: RouteRequest, choice: Choice, scored: Scored) -> Decision:
        ladder, target, version = self.profile.policy.ladder, request.options.target, self.profile.version
        return Decision(uuid4().hex, ladder, choice, target, scored.source, version, scored.score)

    async def _scores(self, requests: Sequence[RouteRequest]) -> list[Scored]:
        """Remembered scores, and fresh ones for the rest."""
        keys = [self.profile.keys.key(r.tenant, r.prompt) for r in requests]
        remembered = await self._remembered(keys)
        missing = {k: r.prompt for k, r, score in zip(keys, requests, remembered, strict=True) if score is None}
        fresh = await self._fresh(missing) if missing else {}
        return [
            self._scored(fresh.get(key)) if score is None else Scored(score, DecisionSource.CACHE)
            for key, score in zip(keys, remembered, strict=True)
        ]

    @staticmethod
    def _scored(score: Score | None) -> Scored:
        return Scored(score, DecisionSource.FALLBACK if score is None else DecisionSource.CLASSIFIER)

    async def _remembered(self, keys: list[bytes]) -> Sequence[Score | None]:
        try:
            return await self._cache.get_many(keys)
        except CacheError as error:
            self._observer(Degraded("cache", str(error)))
            return [None] * len(keys)

    async def _fresh(self, prompts: Mapping[bytes, Prompt]) -> dict[bytes, Score]:
        """Scores by key, remembered for next time; empty when the classifier failed."""
        try:
            scores = dict(zip(prompts, await self.profile.classifier.score(list(prompts.values())), strict=True))
        except ClassifierError as error:
            self._observer(Degraded("classifier", str(error)))
            return {}
        try:
            await self._cache.put_many(scores)
        except CacheError as error:
            self._observer(Degraded("cache", str(error)))
        return scores

    async def _answer(
        self, request: RouteRequest, decision: Decision, sampling: Sampling
    ) -> AsyncGenerator[GenerationEvent]:
        """The chosen rung's stream; where it ends without an answer, once more at the next rung allowed."""
        rungs = decision.ladder.rungs
        allowed = [i for i in self.profile.policy.within_bounds(request.options) if i > decision.choice.index]
        attempts = [decision.choice.index, *allowed[:1]]
        for attempt, index in enumerate(attempts, 1):
            conversation, floor = request.options.conversation_id, request.options.floor
            session = None if conversation is None else f"{request.tenant}/{conversation}"
            tokens = _expected_tokens(decision, index)
            wanted = GenerationRequest(request.prompt, rungs[index], floor, sampling, tokens, session)
            answered = attempt == len(attempts)
            async with aclosing(self._stream(wanted)) as events:
                async for event in events:
                    answered = answered or isinstance(event, ContentDelta)
                    if not isinstance(event, Completion):
                        yield event
                    elif answered:
                        yield replace(event, attempts=attempt)
            if answered:
                return

    async def _stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The backend's stream, tried again with jittered waits as long as nothing has come of it."""
        for attempt in range(1, TRIES + 1):
            started = False
            try:
                async with aclosing(self.profile.backend.stream(request)) as events:
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
    forecast = None if decision.score is None else decision.score.tokens[index]
    return float(decision.ladder.rungs[index].tokens or 0) if forecast is None else forecast.mean


@contextmanager
def _placed(place: str) -> Iterator[None]:
    """Errors about a field say where in the call it stands."""
    try:
        yield
    except FieldError as error:
        raise error.within(place) from error
