"""The shared cache with a real server: what is not ours, and a server that is gone, stuck or back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from router.bundle.checks import MOST_RUNGS
from router.circuit_breaker import FAILURES
from router.domain import DecisionSource
from router.errors import CacheError, SettingsError
from router.events import Degraded
from router.redis.calls import LEFT_OUT
from router.redis.client import connect
from router.scoring.redis_cache import EPOCH, FOREIGN, PREFIX, RedisCache
from router.scoring.seal import MOST_BYTES, Seal
from tests.support.fakes import RISING, RecordingObserver, request_of, router_of, score_of
from tests.support.in_time import in_time
from tests.support.valkey import Valkey

TTL = 60
ENTRIES = PREFIX + b"0:"
"""Before the first flush."""
SEAL = Seal(b"secret")
TIMEOUT = 0.25
"""Seconds that a call may take."""


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
async def cache(valkey: Valkey, observer: RecordingObserver) -> AsyncIterator[RedisCache]:
    cache = RedisCache(connect(valkey.url, TIMEOUT), SEAL, observer, TTL, TIMEOUT)
    yield cache
    await cache.close()


@pytest.fixture
async def server(valkey: Valkey) -> AsyncIterator[Redis]:
    """A client that looks behind the cache's back."""
    client = Redis.from_url(valkey.url)
    yield client
    await client.aclose()


async def fails_in_time(call: Awaitable[object]) -> None:
    with pytest.raises(CacheError):
        await in_time(call, TIMEOUT)


async def test_scores_expire(cache: RedisCache, server: Redis) -> None:
    await cache.put_many({b"a": RISING, b"b": RISING})
    for key in (b"a", b"b"):
        assert 0 < await server.ttl(ENTRIES + key) <= TTL


async def test_neither_keys_nor_values_hold_prompt_text(cache: RedisCache, server: Redis) -> None:
    await router_of(cache=cache).decide(request_of("the patient is called Rosencrantz"))
    keys = await server.keys("*")
    assert keys
    assert "Rosencrantz" not in repr([keys, await server.mget(keys)])


async def test_two_replicas_share_their_scores(cache: RedisCache, valkey: Valkey) -> None:
    other = RedisCache(connect(valkey.url, TIMEOUT), SEAL, RecordingObserver(), TTL, TIMEOUT)
    await router_of(cache=cache).decide(request_of())
    assert (await router_of(cache=other).decide(request_of())).source is DecisionSource.CACHE
    await other.close()


@pytest.mark.parametrize(
    "entry",
    [b"", b"0", b"not a score", b'{"quality": [0.5]}', b"\xff" * 40, b"x" * 39, b"x" * 41, b"x" * 240],
)
async def test_a_foreign_entry_is_a_miss(cache: RedisCache, server: Redis, entry: bytes) -> None:
    await server.set(ENTRIES + b"a", entry)
    assert await cache.get_many([b"a"]) == [None]


@pytest.mark.parametrize("cut", [1, 8, 40, 80])
async def test_a_truncated_entry_is_a_miss(cache: RedisCache, server: Redis, cut: int) -> None:
    await server.set(ENTRIES + b"a", SEAL.encode(b"a", RISING)[:-cut])
    assert await cache.get_many([b"a"]) == [None]


async def test_an_entry_of_another_type_is_a_miss(cache: RedisCache, server: Redis) -> None:
    await server.rpush(ENTRIES + b"a", "1", "2")
    await cache.put_many({b"b": RISING})
    assert await cache.get_many([b"a", b"b"]) == [None, RISING]


async def test_a_foreign_entry_is_replaced_by_a_score(cache: RedisCache, server: Redis) -> None:
    await server.set(ENTRIES + b"a", b"not a score")
    await cache.put_many({b"a": RISING})
    assert await cache.get_many([b"a"]) == [RISING]


async def test_a_forged_entry_is_a_miss_and_counted(
    cache: RedisCache, server: Redis, observer: RecordingObserver
) -> None:
    await cache.put_many({b"a": RISING, b"b": RISING})
    await server.set(ENTRIES + b"a", Seal(b"another secret").encode(b"a", RISING))
    assert await cache.get_many([b"a", b"b", b"c"]) == [None, RISING, None]
    assert [(seen.dependency, seen.error[:6]) for seen in observer.of(Degraded)] == [(FOREIGN, "1 of 2")]
    await cache.put_many({b"a": RISING})
    assert await cache.get_many([b"a"]) == [RISING]


async def test_an_entry_answers_for_its_own_key_alone(cache: RedisCache, server: Redis) -> None:
    """An attacker cannot give one prompt the score of another, nor the score that an older bundle gave it."""
    await cache.put_many({b"a": RISING})
    await server.set(ENTRIES + b"b", await server.get(ENTRIES + b"a") or b"")
    assert await cache.get_many([b"a", b"b"]) == [RISING, None]


async def test_of_a_huge_entry_little_is_fetched(cache: RedisCache, server: Redis) -> None:
    await server.setrange(ENTRIES + b"a", 20 << 20, b"x")
    await server.setrange(EPOCH, 10 << 20, b"x")
    before = (await server.info("stats"))["total_net_output_bytes"]
    assert await cache.get_many([b"a"]) == [None]
    await cache.epoch()
    assert (await server.info("stats"))["total_net_output_bytes"] - before < 20 * MOST_BYTES


async def test_the_longest_score_is_kept(cache: RedisCache) -> None:
    longest = score_of(*[0.5] * MOST_RUNGS)
    await cache.put_many({b"a": longest})
    assert await cache.get_many([b"a"]) == [longest]


async def test_a_user_without_the_right_to_read_is_an_error_not_a_miss(server: Redis, valkey: Valkey) -> None:
    await server.acl_setuser("router", enabled=True, passwords=["+s3cret"], keys=["*"], commands=["+set"], reset=True)
    cache = RedisCache(
        connect(valkey.url.replace("//", "//router:s3cret@"), TIMEOUT), SEAL, RecordingObserver(), TTL, TIMEOUT
    )
    with pytest.raises(CacheError, match="permission"):
        await cache.get_many([b"a"])
    await cache.close()


async def test_flush_forgets_every_score_and_touches_nothing_else(cache: RedisCache, server: Redis) -> None:
    others = {"session": b"1", "budget_router:other": b"2", "budget_router:score": b"3", "xbudget_router:score:": b"4"}
    await server.mset(others)
    keys = [b"%d" % i for i in range(50)]
    await cache.put_many(dict.fromkeys(keys, RISING))
    await cache.flush()
    assert await cache.get_many(keys) == [None] * 50
    assert await server.mget(list(others)) == list(others.values())
    await cache.put_many({b"0": RISING})
    assert await cache.get_many([b"0"]) == [RISING]


async def test_what_was_flushed_stays_forgotten_for_a_process_that_starts_later(
    cache: RedisCache, valkey: Valkey
) -> None:
    await cache.put_many({b"a": RISING})
    await cache.flush()
    later = RedisCache(connect(valkey.url, TIMEOUT), SEAL, RecordingObserver(), TTL, TIMEOUT)
    assert await later.get_many([b"a"]) == [None]
    await later.close()


async def test_lookups_of_one_turn_ask_once_for_each_key(cache: RedisCache, server: Redis) -> None:
    await cache.put_many({b"%d" % i: score_of(i / 100) for i in range(100)})
    await server.config_resetstat()
    found = await asyncio.gather(*(cache.get_many([b"%d" % (i % 100)]) for i in range(1_000)))
    assert [one.quality for [one] in found if one] == [(i % 100 / 100,) for i in range(1_000)]
    assert (await server.info("commandstats"))["cmdstat_getrange"]["calls"] == 100


async def test_a_caller_who_leaves_does_not_take_the_others_along(cache: RedisCache) -> None:
    await cache.put_many({b"a": RISING})
    first, second = (asyncio.create_task(cache.get_many([b"a"])) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == [RISING]


async def test_a_server_that_fails_is_left_out_and_costs_nothing(cache: RedisCache, valkey: Valkey) -> None:
    valkey.pause()
    for _ in range(FAILURES):
        await fails_in_time(cache.get_many([b"a"]))
    left_out = await in_time(
        asyncio.gather(*(cache.get_many([b"a"]) for _ in range(100)), return_exceptions=True), TIMEOUT
    )
    assert {str(error) for error in left_out} == {LEFT_OUT}


async def test_a_server_that_is_full_still_answers(cache: RedisCache, server: Redis) -> None:
    await cache.put_many({b"a": RISING})
    await server.config_set("maxmemory-policy", "noeviction")
    await server.config_set("maxmemory", "1")
    with pytest.raises(CacheError, match="maxmemory"):
        await cache.put_many({b"b": RISING})
    assert await cache.get_many([b"a", b"b"]) == [RISING, None]


async def test_a_user_with_few_rights_is_enough(server: Redis, valkey: Valkey) -> None:
    rights = ["+getrange", "+set", "-@dangerous"]
    await server.acl_setuser(
        "router", enabled=True, passwords=["+s3cret"], keys=["budget_router:*"], commands=rights, reset=True
    )
    cache = RedisCache(
        connect(valkey.url.replace("//", "//router:s3cret@"), TIMEOUT), SEAL, RecordingObserver(), TTL, TIMEOUT
    )
    await cache.put_many({b"a": RISING})
    assert await cache.get_many([b"a"]) == [RISING]
    await cache.flush()
    assert await cache.get_many([b"a"]) == [None]
    await cache.close()


async def test_a_server_that_was_killed_is_an_error_in_time(cache: RedisCache, valkey: Valkey) -> None:
    await cache.put_many({b"a": RISING})
    valkey.kill()
    await fails_in_time(cache.get_many([b"a"]))
    await fails_in_time(cache.put_many({b"a": RISING}))


async def test_a_server_that_never_was_is_an_error_in_time(cache: RedisCache, valkey: Valkey) -> None:
    valkey.kill()
    await fails_in_time(cache.get_many([b"a"]))


async def test_a_server_that_hangs_is_an_error_in_time(cache: RedisCache, valkey: Valkey) -> None:
    with suppress(CacheError):  # it connects, though it may not answer in time where this machine is busy
        await cache.put_many({b"a": RISING})
    valkey.pause()
    await fails_in_time(cache.get_many([b"a"]))
    await fails_in_time(cache.put_many({b"a": RISING}))


async def test_a_first_connection_that_hangs_is_an_error_in_time(cache: RedisCache, valkey: Valkey) -> None:
    valkey.pause()
    await fails_in_time(cache.get_many([b"a"]))


@pytest.mark.parametrize("seconds", [0.005, 0.02, 0.05, TIMEOUT])
async def test_many_calls_on_a_server_that_hangs_end_together(valkey: Valkey, seconds: float) -> None:
    cache = RedisCache(connect(valkey.url, seconds), SEAL, RecordingObserver(), TTL, seconds)
    valkey.pause()
    gets = [fails_in_time(cache.get_many([b"a"])) for _ in range(35)]
    puts = [fails_in_time(cache.put_many({b"a": RISING})) for _ in range(35)]
    await asyncio.gather(*gets, *puts)
    await cache.close()


async def test_flushing_a_server_that_was_killed_is_an_error(cache: RedisCache, valkey: Valkey) -> None:
    valkey.kill()
    with pytest.raises(CacheError):
        await cache.flush()


async def test_flushing_a_server_that_hangs_is_an_error_in_time(cache: RedisCache, valkey: Valkey) -> None:
    valkey.pause()
    await fails_in_time(cache.flush())


async def test_a_restarted_server_is_used_again(cache: RedisCache, valkey: Valkey) -> None:
    await cache.put_many({b"a": RISING})
    valkey.kill()
    await fails_in_time(cache.get_many([b"a"]))
    valkey.start()
    await asyncio.sleep(0)
    assert await cache.get_many([b"a"]) == [None]
    await cache.put_many({b"a": RISING})
    assert await cache.get_many([b"a"]) == [RISING]


async def test_a_server_that_woke_up_does_not_answer_the_question_before(cache: RedisCache, valkey: Valkey) -> None:
    one, other = score_of(0.1), score_of(0.2)
    await cache.put_many({b"a": one, b"b": other})
    valkey.pause()
    await fails_in_time(cache.get_many([b"a"]))
    valkey.resume()
    assert await cache.get_many([b"b"]) == [other]
    assert await cache.get_many([b"a"]) == [one]


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://127.0.0.1",
        "redis://127.0.0.1:port",
        "redis+cluster://127.0.0.1:port",
        "redis+sentinel://127.0.0.1:26379",
        "redis+abacus://127.0.0.1",
    ],
)
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="Redis URL"):
        RedisCache(connect(url, TIMEOUT), SEAL, RecordingObserver(), TTL, TIMEOUT)
