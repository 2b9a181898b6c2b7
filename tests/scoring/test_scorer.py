"""Scores are remembered, and nothing is scored twice at a time."""

import asyncio
from collections.abc import Mapping, Sequence

from router.domain import DecisionSource, Prompt, Score
from router.scoring.cache_key import ScoreKeys
from router.scoring.scorer import Scorer
from tests.support.fakes import LADDER, RISING, DictCache, FakeClassifier, RecordingObserver, request_of


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

    async def score(self, prompts: Sequence[Prompt]) -> list[Score]:
        await asyncio.sleep(0.01)
        return await super().score(prompts)


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
