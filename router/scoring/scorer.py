"""Scores prompts: from the cache where it has them, from the classifier otherwise."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from router.domain import DecisionSource, Prompt, RouteRequest, Score
from router.errors import CacheError, ClassifierError
from router.events import Degraded
from router.ports import Classifier, Immediate, Observer, ScoreCache
from router.scoring.cache_key import TENANT_BYTES, ScoreKeys
from router.turn import Turn

SCORE_SECONDS, PROMPTS = 1.0, 100
"""Time for a classifier before the request falls back to the top rung, and as much again for every PROMPTS prompts."""

KEY_STEPS = 10
"""Steps of a `Turn` to hash a prompt, beside those for its messages and its text."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A score and where it came from; no score when the classifier failed."""

    score: Score | None
    source: DecisionSource


@dataclass(eq=False)
class Scorer:
    """Scores with one bundle's classifier, and fills the cache. Failures of either are observed, never raised.

    Attributes:
        seconds: time for the classifier, as SCORE_SECONDS.
    """

    classifier: Classifier
    keys: ScoreKeys
    cache: ScoreCache
    observer: Observer
    seconds: float = SCORE_SECONDS
    _under_way: dict[bytes, "asyncio.Future[dict[bytes, Scored]]"] = field(init=False, default_factory=dict)
    """What will hold the scores of prompts that are scored at the moment; empty where their caller leaves."""

    def __post_init__(self) -> None:
        self._at_once = self.classifier.at_once if isinstance(self.classifier, Immediate) else None

    async def score(self, request: RouteRequest) -> Scored:
        """The score of one request."""
        key = self.keys.key(request.tenant, request.prompt)
        found = (await self._remembered([key])).get(key) or await self._immediate(key, request.prompt)
        return found or (await self._classified({key: request.prompt}))[key]

    async def score_batch(self, requests: Sequence[RouteRequest]) -> list[Scored]:
        """One entry per request, in order; requests with the same prompt are scored once."""
        turn, keys = Turn(), []
        for request in requests:
            keys.append(self.keys.key(request.tenant, request.prompt))
            await turn.spend(KEY_STEPS + len(request.prompt.messages) + len(request.prompt.text) // 8)
        scored = await self._remembered(keys)
        missing = {key: r.prompt for key, r in zip(keys, requests, strict=True) if key not in scored}
        if missing:
            scored |= await self._classified(missing)
        return [scored[key] for key in keys]

    async def _remembered(self, keys: list[bytes]) -> dict[bytes, Scored]:
        try:
            found = await self.cache.get_many(keys)
        except CacheError as error:
            self.observer(Degraded("cache", str(error)))
            return {}
        return {k: Scored(s, DecisionSource.CACHE) for k, s in zip(keys, found, strict=True) if s is not None}

    async def _immediate(self, key: bytes, prompt: Prompt) -> Scored | None:
        """The score of a prompt within this turn, which nobody else can ask for meanwhile; None where it takes more."""
        try:
            score = None if self._at_once is None else self._at_once(prompt)
        except ClassifierError as error:
            self.observer(Degraded("classifier", str(error)))
            return _fresh_or_fallback(None)
        if score is None:
            return None
        await self._keep({key: score})
        return _fresh_or_fallback(score)

    async def _classified(self, prompts: Mapping[bytes, Prompt]) -> dict[bytes, Scored]:
        """Scores by key; a prompt that another caller has scored at the moment is not scored twice.

        When that caller leaves before its score is there, one of those who wait for it scores the prompt instead.
        """
        # This caller's own prompts are scored first, before it waits for others: two callers that waited for each other
        # would both hang.
        theirs = {key: self._under_way[key] for key in prompts if key in self._under_way}
        mine = {key: prompt for key, prompt in prompts.items() if key not in theirs}
        scored = await self._lead(mine) if mine else {}
        for key, under_way in theirs.items():
            awaited = (await asyncio.shield(under_way)).get(key)  # others wait for the same future
            scored |= {key: awaited} if awaited is not None else await self._classified({key: prompts[key]})
        return scored

    async def _lead(self, prompts: Mapping[bytes, Prompt]) -> dict[bytes, Scored]:
        """Score prompts and share the scores with other callers of the same; they get none when this caller leaves."""
        promised = asyncio.get_running_loop().create_future()
        self._under_way.update(dict.fromkeys(prompts, promised))
        scored: dict[bytes, Scored] = {}
        try:
            fresh = await self._fresh(prompts)
            scored = {key: _fresh_or_fallback(fresh.get(key)) for key in prompts}
            return scored
        finally:  # also when this caller is cancelled: those who wait must get an answer
            for key in prompts:
                del self._under_way[key]
            promised.set_result(scored)

    async def _fresh(self, prompts: Mapping[bytes, Prompt]) -> dict[bytes, Score]:
        """Scores by key, put into the cache; empty when the classifier failed."""
        patience = self.seconds * (1 + len(prompts) / PROMPTS)
        owner = next(iter(prompts))[:TENANT_BYTES]
        try:
            async with asyncio.timeout(patience):
                scores = dict(zip(prompts, await self.classifier.score(list(prompts.values()), owner), strict=True))
        except (ClassifierError, TimeoutError) as error:  # not cached: the next request tries the classifier again
            self.observer(Degraded("classifier", str(error) or f"it took longer than {patience:g} s"))
            return {}
        await self._keep(scores)
        return scores

    async def _keep(self, scores: Mapping[bytes, Score]) -> None:
        try:
            await self.cache.put_many(scores)
        except CacheError as error:
            self.observer(Degraded("cache", str(error)))


def _fresh_or_fallback(score: Score | None) -> Scored:
    return Scored(score, DecisionSource.FALLBACK if score is None else DecisionSource.CLASSIFIER)
