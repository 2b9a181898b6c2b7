"""A fast level before a shared one: the shared one never delays or fails a request."""

import time
from collections.abc import AsyncIterator

import pytest

from router.adapters.memory_cache import MemoryCache
from router.adapters.redis_cache import RedisCache
from router.adapters.tiered_cache import MAX_WRITES, TieredCache
from router.domain import DecisionSource, Degraded
from router.errors import CacheError
from tests.conftest import Valkey
from tests.fakes import RISING, RecordingObserver, request_of, router_of

TTL, TIMEOUT, SLACK = 60, 0.25, 1.0


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
async def far(valkey: Valkey) -> AsyncIterator[RedisCache]:
    cache = RedisCache.connect(valkey.url, TTL, TIMEOUT)
    yield cache
    await cache.close()


@pytest.fixture
async def tiered(far: RedisCache, observer: RecordingObserver) -> AsyncIterator[TieredCache]:
    cache = TieredCache(MemoryCache(1_000), far, observer)
    yield cache
    await cache.drain()


async def test_writes_reach_the_shared_level(tiered: TieredCache, far: RedisCache) -> None:
    await tiered.put_many({b"a": RISING})
    await tiered.drain()
    assert await far.get_many([b"a"]) == [RISING]


async def test_a_score_of_the_shared_level_is_kept_near(tiered: TieredCache, far: RedisCache, valkey: Valkey) -> None:
    await far.put_many({b"a": RISING})
    assert await tiered.get_many([b"a"]) == [RISING]
    valkey.kill()
    assert await tiered.get_many([b"a"]) == [RISING]


async def test_scores_of_both_levels_come_in_order(tiered: TieredCache, far: RedisCache) -> None:
    await far.put_many({b"far": RISING})
    await tiered.put_many({b"near": RISING})
    assert await tiered.get_many([b"?", b"far", b"near", b"far"]) == [None, RISING, RISING, RISING]


async def test_a_shared_level_that_is_down_is_a_miss_and_observed(
    tiered: TieredCache, observer: RecordingObserver, valkey: Valkey
) -> None:
    valkey.kill()
    await tiered.put_many({b"a": RISING})
    assert await tiered.get_many([b"a", b"b"]) == [RISING, None]
    assert [d.dependency for d in observer.of(Degraded)] != []
    assert {d.dependency for d in observer.of(Degraded)} == {"cache"}


async def test_a_shared_level_that_hangs_does_not_delay_a_write(
    tiered: TieredCache, observer: RecordingObserver, valkey: Valkey
) -> None:
    valkey.pause()
    started = time.perf_counter()
    await tiered.put_many({b"a": RISING})
    assert time.perf_counter() - started < TIMEOUT
    assert await tiered.get_many([b"a"]) == [RISING]
    await tiered.drain()
    assert time.perf_counter() - started < TIMEOUT + SLACK
    assert len(observer.of(Degraded)) == 1


async def test_a_shared_level_that_hangs_delays_a_miss_by_its_timeout(tiered: TieredCache, valkey: Valkey) -> None:
    valkey.pause()
    started = time.perf_counter()
    assert await tiered.get_many([b"a"]) == [None]
    assert time.perf_counter() - started < TIMEOUT + SLACK


async def test_writes_do_not_pile_up_before_a_server_that_hangs(
    tiered: TieredCache, observer: RecordingObserver, valkey: Valkey
) -> None:
    valkey.pause()
    for i in range(MAX_WRITES + 5):
        await tiered.put_many({b"%d" % i: RISING})
    assert [d.error for d in observer.of(Degraded)] == [f"{MAX_WRITES} writes under way: one dropped"] * 5
    assert await tiered.get_many([b"%d" % (MAX_WRITES + 4)]) == [RISING]


async def test_a_restarted_shared_level_is_filled_again(tiered: TieredCache, far: RedisCache, valkey: Valkey) -> None:
    valkey.kill()
    await tiered.put_many({b"a": RISING})
    await tiered.drain()
    valkey.start()
    await tiered.put_many({b"b": RISING})
    await tiered.drain()
    assert await far.get_many([b"a", b"b"]) == [None, RISING]


async def test_no_write_outlives_a_flush(tiered: TieredCache, far: RedisCache) -> None:
    for i in range(20):
        await tiered.put_many({b"%d" % i: RISING})
    await tiered.flush()
    await tiered.drain()
    assert await far.get_many([b"%d" % i for i in range(20)]) == [None] * 20


async def test_a_flush_that_fails_says_so_and_still_forgets_here(tiered: TieredCache, valkey: Valkey) -> None:
    await tiered.put_many({b"a": RISING})
    await tiered.drain()
    valkey.kill()
    with pytest.raises(CacheError):
        await tiered.flush()
    assert await tiered.get_many([b"a"]) == [None]


async def test_requests_go_on_while_the_server_is_killed_and_restarted(tiered: TieredCache, valkey: Valkey) -> None:
    router = router_of(cache=tiered)
    await router.decide(request_of("before"))
    valkey.kill()
    assert (await router.decide(request_of("during"))).source is DecisionSource.CLASSIFIER
    assert (await router.decide(request_of("before"))).source is DecisionSource.CACHE
    valkey.start()
    assert (await router.decide(request_of("during"))).source is DecisionSource.CACHE
