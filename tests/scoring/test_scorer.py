"""Scores are remembered, and nothing is scored twice at a time."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from router.domain import DecisionSource, Prompt, Score
from router.events import Degraded
from router.scoring.cache_key import ScoreKeys
from router.scoring.scorer import Scored, Scorer
from tests.support.clock import loop_clock, settled
from tests.support.fakes import LADDER, RISING, DictCache, FakeClassifier, RecordingObserver, request_of, score_of


class SlowCache(DictCache):
    """Takes a moment to say that it knows nothing yet."""

    async def get_many(self, keys: Sequence[bytes]) -> list[Score | None]:
        await asyncio.sleep(0.01)
        return await super().get_many(keys)

    async def put_many(self, scores: Mapping[bytes, Score]) -> None:
        await asyncio.sleep(0.01)
        await super().put_many(scores)


class SlowClassifier(FakeClassifier):
    """Takes a moment."""

    async def score(self, prompts: Sequence[Prompt], owner: bytes = b"") -> list[Score]:
        await asyncio.sleep(0.01)
        return await super().score(prompts, owner)


def scorer_of(classifier: FakeClassifier) -> Scorer:
    return Scorer(classifier, ScoreKeys(b"secret", "v", LADDER), SlowCache(), RecordingObserver())


async def test_a_thousand_identical_misses_cause_one_inference() -> None:
    classifier = SlowClassifier()
    scorer = scorer_of(classifier)
    scored = await asyncio.gather(*(scorer.score_batch([request_of()]) for _ in range(1_000)))
    assert [len(asked) for asked in classifier.asked] == [1]
    assert all(one.score == RISING for [one] in scored)
    assert not scorer._under_way


async def test_only_what_is_new_is_scored_beside_what_is_under_way() -> None:
    classifier = SlowClassifier()
    scorer = scorer_of(classifier)
    first = asyncio.create_task(scorer.score_batch([request_of("a"), request_of("b")]))
    await asyncio.sleep(0)
    await scorer.score_batch([request_of("b"), request_of("c"), request_of("a")])
    await first
    assert [[prompt.text for prompt in asked] for asked in classifier.asked] == [["a", "b"], ["c"]]


async def test_when_the_one_who_scores_leaves_those_who_wait_go_on() -> None:
    classifier = SlowClassifier()
    scorer = scorer_of(classifier)
    leader = asyncio.create_task(scorer.score_batch([request_of()]))
    await asyncio.sleep(0)
    followers = [asyncio.create_task(scorer.score_batch([request_of()])) for _ in range(10)]
    await asyncio.sleep(0.005)
    leader.cancel()
    scored = await asyncio.gather(*followers)
    assert all(one.score == RISING for [one] in scored)
    assert len(classifier.asked) == 1
    assert not scorer._under_way


async def test_a_failure_is_shared_and_not_remembered() -> None:
    classifier = SlowClassifier(failing=True)
    scorer = scorer_of(classifier)
    scored = await asyncio.gather(*(scorer.score_batch([request_of()]) for _ in range(10)))
    assert {one.source for [one] in scored} == {DecisionSource.FALLBACK}
    assert len(classifier.asked) == 1
    classifier.failing = False
    [again] = await scorer.score_batch([request_of()])
    assert again.source is DecisionSource.CLASSIFIER


def plain(classifier: FakeClassifier, cache: DictCache, observer: RecordingObserver) -> Scorer:
    return Scorer(classifier, ScoreKeys(b"secret", "v", LADDER), cache, observer)


async def test_what_is_remembered_is_not_scored_again() -> None:
    classifier = FakeClassifier(lambda prompt: score_of(len(prompt.text) / 10))
    scorer = plain(classifier, DictCache(), RecordingObserver())
    first = await scorer.score_batch([request_of("a"), request_of("bb")])
    assert first == [Scored(score_of(0.1), DecisionSource.CLASSIFIER), Scored(score_of(0.2), DecisionSource.CLASSIFIER)]
    again = await scorer.score_batch([request_of("bb"), request_of("ccc"), request_of("a"), request_of("bb")])
    assert [one.score for one in again] == [score_of(0.2), score_of(0.3), score_of(0.1), score_of(0.2)]
    fresh, known = DecisionSource.CLASSIFIER, DecisionSource.CACHE
    assert [one.source for one in again] == [known, fresh, known, known]
    assert [[prompt.text for prompt in asked] for asked in classifier.asked] == [["a", "bb"], ["ccc"]]
    assert await scorer.score_batch([]) == []
    assert (await scorer.score(request_of("ccc"))) == Scored(score_of(0.3), known)
    assert (await scorer.score(request_of("a", tenant="another"))).source is fresh, "tenants share nothing"


async def test_a_cache_that_fails_is_observed_and_done_without() -> None:
    observer, cache = RecordingObserver(), DictCache(failing=True)
    scored = await plain(FakeClassifier(), cache, observer).score(request_of())
    assert scored == Scored(RISING, DecisionSource.CLASSIFIER)
    assert [record.dependency for record in observer.of(Degraded)] == ["cache", "cache"], "as it is read and written"


async def test_another_classifier_shares_keys_and_cache() -> None:
    cache, observer, other = DictCache(), RecordingObserver(), FakeClassifier(score_of(0.1))
    scorer = plain(FakeClassifier(), cache, observer)
    await scorer.score_batch([request_of("a")])
    exchanged = replace(scorer, classifier=other)
    assert exchanged.classifier is other
    scored = await exchanged.score_batch([request_of("a"), request_of("b")])
    assert [one.score for one in scored] == [RISING, score_of(0.1)]
    assert len(other.asked) == 1 and len(cache.scores) == 2


class HungClassifier(FakeClassifier):
    """Never answers."""

    async def score(self, prompts: Sequence[Prompt], owner: bytes = b"") -> list[Score]:
        await asyncio.Event().wait()
        return []


@pytest.mark.parametrize(("prompts", "patience"), [(1, 1.01), (100, 2.0), (250, 3.5)])
async def test_a_classifier_has_a_second_and_one_more_for_every_hundred_prompts(
    monkeypatch: pytest.MonkeyPatch, prompts: int, patience: float
) -> None:
    observer, clock = RecordingObserver(), loop_clock(monkeypatch)
    scorer = plain(HungClassifier(), DictCache(), observer)
    scoring = asyncio.create_task(scorer.score_batch([request_of(str(i)) for i in range(prompts)]))
    await settled()
    clock.now += patience - 0.005
    await settled()
    assert not scoring.done()
    clock.now += 0.01
    assert await scoring == [Scored(None, DecisionSource.FALLBACK)] * prompts
    assert observer.records == [Degraded("classifier", f"it took longer than {patience:g} s")]


async def test_what_the_classifier_says_of_its_failure_is_observed() -> None:
    observer = RecordingObserver()
    await plain(FakeClassifier(failing=True), DictCache(), observer).score(request_of())
    assert observer.records == [Degraded("classifier", "the classifier was told to fail")]
