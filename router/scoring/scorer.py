"""Scores of prompts: remembered ones, and fresh ones for the rest."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router.domain import (
    DecisionSource,
    Prompt,
    RouteRequest,
    Score,
)
from router.errors import CacheError, ClassifierError
from router.events import Degraded
from router.ports import Classifier, Observer, ScoreCache
from router.scoring.cache_key import ScoreKeys

SCORE_SECONDS, PROMPTS = 1.0, 100
"""What a classifier may take before the top rung is safer, and once more for every so many prompts."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A score and where it came from; no score when the classifier failed."""

    score: Score | None
    source: DecisionSource


class Scorer:
    """Scores with one bundle's classifier, and remembers. What fails is observed and done without."""

    def __init__(self, classifier: Classifier, keys: ScoreKeys, cache: ScoreCache, observer: Observer) -> None:
        self.classifier = classifier
        self._keys = keys
        self._cache = cache
        self._observer = observer
        self._under_way: dict[bytes, asyncio.Future[Scored | None]] = {}

    def classified_by(self, classifier: Classifier) -> "Scorer":
        """The same keys and cache with another classifier."""
        return Scorer(classifier, self._keys, self._cache, self._observer)

    async def score(self, request: RouteRequest) -> Scored:
        """The score of one request."""
        key = self._keys.key(request.tenant, request.prompt)
        found = await self._remembered([key])
        if key not in found:
            found = await self._classified({key: request.prompt})
        return found[key]

    async def score_batch(self, requests: Sequence[RouteRequest]) -> list[Scored]:
        """One entry per request, in order; requests with the same prompt are scored once."""
        keys = [self._keys.key(r.tenant, r.prompt) for r in requests]
        scored = await self._remembered(keys)
        missing = {key: r.prompt for key, r in zip(keys, requests, strict=True) if key not in scored}
        if missing:
            scored |= await self._classified(missing)
        return [scored[key] for key in keys]

    async def _remembered(self, keys: list[bytes]) -> dict[bytes, Scored]:
        try:
            found = await self._cache.get_many(keys)
        except CacheError as error:
            self._observer(Degraded("cache", str(error)))
            return {}
        return {k: Scored(s, DecisionSource.CACHE) for k, s in zip(keys, found, strict=True) if s is not None}

    async def _classified(self, prompts: Mapping[bytes, Prompt]) -> dict[bytes, Scored]:
        """What is being scored already is waited for; what its caller has left is scored here."""
        theirs = {key: self._under_way[key] for key in prompts if key in self._under_way}
        mine = {key: prompt for key, prompt in prompts.items() if key not in theirs}
        scored = await self._lead(mine) if mine else {}
        for key, under_way in theirs.items():
            awaited = await asyncio.shield(under_way)
            scored |= {key: awaited} if awaited is not None else await self._classified({key: prompts[key]})
        return scored

    async def _lead(self, prompts: Mapping[bytes, Prompt]) -> dict[bytes, Scored]:
        """Score prompts, and tell those who wait for the same; None tells them that this caller has left."""
        promised = {key: asyncio.get_running_loop().create_future() for key in prompts}
        self._under_way.update(promised)
        scored: dict[bytes, Scored] = {}
        try:
            fresh = await self._fresh(prompts)
            scored = {key: _fresh_or_fallback(fresh.get(key)) for key in prompts}
            return scored
        finally:
            for key, future in promised.items():
                del self._under_way[key]
                future.set_result(scored.get(key))

    async def _fresh(self, prompts: Mapping[bytes, Prompt]) -> dict[bytes, Score]:
        """Scores by key, remembered for next time; empty when the classifier failed."""
        patience = SCORE_SECONDS * (1 + len(prompts) / PROMPTS)
        try:
            async with asyncio.timeout(patience):
                scores = dict(zip(prompts, await self.classifier.score(list(prompts.values())), strict=True))
        except (ClassifierError, TimeoutError) as error:
            self._observer(Degraded("classifier", str(error) or f"it took longer than {patience:g} s"))
            return {}
        try:
            await self._cache.put_many(scores)
        except CacheError as error:
            self._observer(Degraded("cache", str(error)))
        return scores


def _fresh_or_fallback(score: Score | None) -> Scored:
    return Scored(score, DecisionSource.FALLBACK if score is None else DecisionSource.CLASSIFIER)
