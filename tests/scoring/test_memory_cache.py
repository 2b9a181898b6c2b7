"""The cache in process keeps what is used, within its size."""

from router.scoring.memory_cache import MemoryCache
from tests.support.fakes import RISING


async def test_it_never_holds_more_than_its_size() -> None:
    cache = MemoryCache(3, 1 << 20)
    keys = [b"%d" % i for i in range(10)]
    for key in keys:
        await cache.put_many({key: RISING})
    assert sum(score is not None for score in await cache.get_many(keys)) == 3


async def test_the_least_recently_used_score_goes_first() -> None:
    cache = MemoryCache(2, 1 << 20)
    await cache.put_many({b"a": RISING, b"b": RISING})
    await cache.get_many([b"a"])
    await cache.put_many({b"c": RISING})
    assert await cache.get_many([b"a", b"b", b"c"]) == [RISING, None, RISING]


async def test_more_scores_at_once_than_fit_are_no_error() -> None:
    cache = MemoryCache(2, 1 << 20)
    await cache.put_many({b"%d" % i: RISING for i in range(5)})
    assert sum(score is not None for score in await cache.get_many([b"%d" % i for i in range(5)])) == 2
