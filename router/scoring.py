"""Scores of prompts: remembered ones, and fresh ones for the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router.cache_key import ScoreKeys
from router.domain import DecisionSource, Degraded, Prompt, RouteRequest, Score
from router.errors import CacheError, ClassifierError
from router.ports import Classifier, Observer, ScoreCache


@dataclass(frozen=True, slots=True)
class Scored:
    """A score and where it came from; no score when the classifier failed."""

    score: Score | None
    source: DecisionSource


class Scorer:
    """Scores with one bundle's classifier, and remembers. What fails is observed and done without."""

    def __init__(self, classifier: Classifier, keys: ScoreKeys, cache: ScoreCache, observer: Observer) -> None:
        self._classifier = classifier
        self._keys = keys
        self._cache = cache
        self._observer = observer

    async def __call__(self, requests: Sequence[RouteRequest]) -> list[Scored]:
        """One entry per request, in order; equal prompts of a tenant are scored once."""
        keys = [self._keys.key(r.tenant, r.prompt) for r in requests]
        remembered = await self._remembered(keys)
        missing = {k: r.prompt for k, r, score in zip(keys, requests, remembered, strict=True) if score is None}
        fresh = await self._fresh(missing) if missing else {}
        return [
            _scored(fresh.get(key)) if score is None else Scored(score, DecisionSource.CACHE)
            for key, score in zip(keys, remembered, strict=True)
        ]

    async def _remembered(self, keys: list[bytes]) -> Sequence[Score | None]:
        try:
            return await self._cache.get_many(keys)
        except CacheError as error:
            self._observer(Degraded("cache", str(error)))
            return [None] * len(keys)

    async def _fresh(self, prompts: Mapping[bytes, Prompt]) -> dict[bytes, Score]:
        """Scores by key, remembered for next time; empty when the classifier failed."""
        try:
            scores = dict(zip(prompts, await self._classifier.score(list(prompts.values())), strict=True))
        except ClassifierError as error:
            self._observer(Degraded("classifier", str(error)))
            return {}
        try:
            await self._cache.put_many(scores)
        except CacheError as error:
            self._observer(Degraded("cache", str(error)))
        return scores


def _scored(score: Score | None) -> Scored:
    return Scored(score, DecisionSource.FALLBACK if score is None else DecisionSource.CLASSIFIER)
