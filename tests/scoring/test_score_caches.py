"""What every score cache promises, on each of them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.domain import Score
from router.redis.client import connect
from router.scoring.memory_cache import MemoryCache
from router.scoring.redis_cache import RedisCache
from router.scoring.seal import Seal
from router.scoring.tiered_cache import TieredCache
from tests.support.fakes import RISING, RecordingObserver, score_of
from tests.support.valkey import Valkey

Cache = MemoryCache | RedisCache | TieredCache
PATIENT = 10.0

number = st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=1e9)
rows = st.lists(
    st.tuples(st.floats(0, 1), *[number] * 4) | st.tuples(st.floats(0, 1), *[st.none()] * 4), min_size=1, max_size=8
)
scores = st.builds(lambda rows, far: Score(*zip(*rows, strict=True), far=far), rows, st.booleans())


@pytest.fixture(params=["memory", "redis", "tiered"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    """Each kind of cache, empty."""
    if request.param == "memory":
        yield MemoryCache(10_000, 1 << 20)
        return
    server: Valkey = request.getfixturevalue("valkey")
    far = RedisCache(connect(server.url, PATIENT), Seal(b"secret"), RecordingObserver(), 60, PATIENT)
    tiered = TieredCache(MemoryCache(10_000, 1 << 20), far, RecordingObserver())
    yield far if request.param == "redis" else tiered
    await tiered.drain()
    await far.close()


async def test_an_unknown_key_is_a_miss(cache: Cache) -> None:
    assert await cache.get_many([b"a", b"b"]) == [None, None]


async def test_what_is_put_is_found(cache: Cache) -> None:
    await cache.put_many({b"a": RISING})
    assert await cache.get_many([b"a"]) == [RISING]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.dictionaries(st.binary(min_size=1, max_size=32), scores, max_size=5))
async def test_every_score_comes_back_as_it_was(cache: Cache, known: dict[bytes, Score]) -> None:
    await cache.put_many(known)
    assert await cache.get_many(list(known)) == list(known.values())


async def test_hits_and_misses_keep_the_order_of_the_keys(cache: Cache) -> None:
    one, other = score_of(0.1), score_of(0.2)
    await cache.put_many({b"a": one, b"b": other})
    assert await cache.get_many([b"b", b"?", b"a", b"b"]) == [other, None, one, other]


async def test_the_last_score_put_wins(cache: Cache) -> None:
    await cache.put_many({b"a": score_of(0.1)})
    await cache.put_many({b"a": score_of(0.2)})
    assert await cache.get_many([b"a"]) == [score_of(0.2)]


async def test_nothing_asked_is_nothing_found(cache: Cache) -> None:
    assert await cache.get_many([]) == []


async def test_nothing_put_is_nothing_done(cache: Cache) -> None:
    await cache.put_many({})
    assert await cache.get_many([b"a"]) == [None]


async def test_flush_forgets_everything(cache: Cache) -> None:
    keys = [b"%d" % i for i in range(2_500)]
    await cache.put_many(dict.fromkeys(keys, RISING))
    await cache.flush()
    assert await cache.get_many(keys) == [None] * len(keys)


async def test_a_flushed_cache_remembers_again(cache: Cache) -> None:
    await cache.flush()
    await cache.put_many({b"a": RISING})
    assert await cache.get_many([b"a"]) == [RISING]


async def test_many_callers_at_once_get_their_own_scores(cache: Cache) -> None:
    known = {b"%d" % i: score_of(i / 100) for i in range(100)}

    async def put_and_get(key: bytes) -> None:
        await cache.put_many({key: known[key]})
        assert await cache.get_many([key]) == [known[key]]

    await asyncio.gather(*map(put_and_get, known))
