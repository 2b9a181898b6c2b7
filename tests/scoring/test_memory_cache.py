"""The cache in process keeps what is used, within its size, and fairly between tenants."""

import os
import tracemalloc

from router.domain import Score
from router.scoring.cache_key import KEY_BYTES, TENANT_BYTES
from router.scoring.memory_cache import ENTRY_BYTES, MemoryCache
from router.scoring.packed import packed_bytes
from tests.support.fakes import RISING


def keys_of(tenant: str, prompts: int) -> list[bytes]:
    return [tenant.encode().ljust(TENANT_BYTES) + b"%d" % i for i in range(prompts)]


async def kept(cache: MemoryCache, keys: list[bytes]) -> int:
    return sum(score is not None for score in await cache.get_many(keys))


async def test_it_never_holds_more_than_its_entries() -> None:
    cache = MemoryCache(3, 1 << 20)
    keys = keys_of("a", 10)
    for key in keys:
        await cache.put_many({key: RISING})
    assert await kept(cache, keys) == 3


async def test_it_never_holds_more_than_its_size() -> None:
    cache, keys = MemoryCache(100_000, 1 << 20), keys_of("a", 10_000)
    await cache.put_many(dict.fromkeys(keys, RISING))
    assert 2_000 < await kept(cache, keys) <= (1 << 20) // 440


async def test_an_entry_takes_no_more_memory_than_it_counts_for() -> None:
    cache, entries = MemoryCache(1 << 20, 1 << 30), 11_000  # just after a table has grown, so it is at its emptiest
    tracemalloc.start()
    try:
        for number in range(entries):
            score = Score(*[tuple(number + rung / 7 for rung in range(6))] * 5)
            await cache.put_many({bytes(TENANT_BYTES) + os.urandom(KEY_BYTES - TENANT_BYTES): score})
        taken = tracemalloc.get_traced_memory()[0] / entries
    finally:
        tracemalloc.stop()
    assert taken <= 1.1 * (ENTRY_BYTES + packed_bytes(6))


async def test_the_least_recently_used_score_goes_first() -> None:
    cache, (a, b, c) = MemoryCache(2, 1 << 20), keys_of("a", 3)
    await cache.put_many({a: RISING, b: RISING})
    await cache.get_many([a])
    await cache.put_many({c: RISING})
    assert await cache.get_many([a, b, c]) == [RISING, None, RISING]


async def test_more_scores_at_once_than_fit_are_no_error() -> None:
    cache, keys = MemoryCache(2, 1 << 20), keys_of("a", 5)
    await cache.put_many(dict.fromkeys(keys, RISING))
    assert await kept(cache, keys) == 2


async def test_a_flood_of_one_tenant_drives_out_its_own_scores_alone() -> None:
    cache = MemoryCache(100, 1 << 20)
    mine, theirs = keys_of("quiet", 50), keys_of("flood", 1_000)
    await cache.put_many(dict.fromkeys(mine, RISING))
    for key in theirs:
        await cache.put_many({key: RISING})
    assert await kept(cache, mine) == 50
    assert await kept(cache, theirs) == 50
    await cache.flush()
    assert await kept(cache, mine + theirs) == 0
