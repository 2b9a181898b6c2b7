"""A fast level before a shared one: the shared one never delays or fails a request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from router.circuit_breaker import FAILURES
from router.domain import DecisionSource
from router.errors import CacheError
from router.events import Degraded
from router.redis import calls
from router.redis.client import connect
from router.scoring.memory_cache import MemoryCache
from router.scoring.redis_cache import RedisCache
from router.scoring.seal import Seal
from router.scoring.tiered_cache import EPOCH_SECONDS, MAX_WRITES, TieredCache
from tests.support.fakes import RISING, RecordingObserver, request_of, router_of
from tests.support.in_time import in_time
from tests.support.valkey import Valkey

TTL, TIMEOUT = 60, 0.25
PATIENCE = 30.0
"""Seconds that anything in a test may take, on busy cores."""


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
async def far(valkey: Valkey, observer: RecordingObserver) -> AsyncIterator[RedisCache]:
    cache = RedisCache(connect(valkey.url, TIMEOUT), Seal(b"secret"), observer, TTL, TIMEOUT)
    yield cache
    await cache.close()


@pytest.fixture
async def tiered(far: RedisCache, observer: RecordingObserver) -> AsyncIterator[TieredCache]:
    cache = TieredCache(MemoryCache(1_000, 1 << 20), far, observer)
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
    await tiered.put_many({b"a": RISING})
    assert not observer.of(Degraded), "nobody has waited for the server yet"
    assert await tiered.get_many([b"a"]) == [RISING]
    await in_time(tiered.drain(), TIMEOUT)
    assert len(observer.of(Degraded)) == 1


async def test_a_shared_level_that_hangs_delays_a_miss_by_its_timeout(tiered: TieredCache, valkey: Valkey) -> None:
    valkey.pause()
    assert await in_time(tiered.get_many([b"a"]), TIMEOUT) == [None]


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


async def test_a_flush_by_one_process_reaches_the_near_level_of_another(
    tiered: TieredCache, valkey: Valkey, observer: RecordingObserver
) -> None:
    client = connect(valkey.url, TIMEOUT)
    other = TieredCache(
        MemoryCache(1_000, 1 << 20), RedisCache(client, Seal(b"secret"), observer, TTL, TIMEOUT), observer
    )
    watch = asyncio.create_task(other.watch())
    await tiered.put_many({b"a": RISING})
    await tiered.drain()
    assert await other.get_many([b"a"]) == [RISING]
    await asyncio.sleep(0.1)
    await tiered.flush()
    async with asyncio.timeout(PATIENCE):
        while await other.get_many([b"a"]) != [None]:  # noqa: ASYNC110 - nothing tells when it is seen
            await asyncio.sleep(0.01)
    watch.cancel()
    await client.aclose()


async def test_a_watch_survives_a_server_that_is_away(tiered: TieredCache, valkey: Valkey) -> None:
    watch = asyncio.create_task(tiered.watch())
    valkey.kill()
    await asyncio.sleep(EPOCH_SECONDS + 0.2)
    assert not watch.done()
    watch.cancel()


class SlowProxy:
    """Passes bytes on to a server, each way after some seconds."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port = port
        self._seconds = seconds

    async def __aenter__(self) -> str:
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, there]
        await asyncio.gather(self._pass(reader, there), self._pass(there_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                await asyncio.sleep(self._seconds)
                writer.write(data)
                await writer.drain()


async def test_a_slow_server_costs_the_limit_at_most_and_fails_nothing(
    valkey: Valkey, observer: RecordingObserver
) -> None:
    limit, away = 0.02, 3_600  # it is not tried again, however long the requests take
    async with SlowProxy(valkey.port, 0.5) as url:
        client = connect(url, limit)
        cache = TieredCache(
            MemoryCache(10, 1 << 20), RedisCache(client, Seal(b"secret"), observer, TTL, limit, away), observer
        )
        router = router_of(cache=cache, observer=observer)
        for i in range(200):
            decision = await in_time(router.decide(request_of(f"prompt {i}")), limit)
            assert decision.source is DecisionSource.CLASSIFIER
        await cache.drain()
        await client.aclose()
    waited = [degraded for degraded in observer.of(Degraded) if degraded.error != calls.LEFT_OUT]
    assert waited and len(waited) <= 2 * FAILURES, "the breaker lets only a few of them wait"
