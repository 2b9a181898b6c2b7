"""One contract for quotas in a process and in Redis, and what happens where Redis is away."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from router.admission.memory_quotas import MemoryQuotas
from router.admission.redis_quotas import LEASE_SECONDS, RedisQuotas
from router.domain import Quota
from router.events import Degraded
from router.ports import Quotas
from router.redis.client import connect
from tests.support.fakes import RecordingObserver
from tests.support.valkey import Valkey

PATIENT = 5.0


def shared(
    valkey: Valkey, observer: RecordingObserver, timeout: float = PATIENT, lease_seconds: int = LEASE_SECONDS
) -> RedisQuotas:
    """The quotas of one replica."""
    return RedisQuotas(connect(valkey.url, timeout), timeout, MemoryQuotas(), observer, lease_seconds)


@pytest.fixture(params=["memory", "redis"])
async def quotas(request: pytest.FixtureRequest) -> AsyncIterator[Quotas]:
    """Either kind."""
    if request.param == "memory":
        yield MemoryQuotas()
        return
    observer = RecordingObserver()
    redis = shared(request.getfixturevalue("valkey"), observer)
    yield redis
    assert not observer.records
    await redis.close()


async def test_a_minutes_tokens_may_go_at_once_and_then_come_back_slowly(quotas: Quotas) -> None:
    quota = Quota(tokens_per_minute=6_000)
    assert await quotas.take("a", quota, "1", 5_900) == 0
    wait = await quotas.take("a", quota, "2", 130)
    assert 0.2 < wait <= 0.3
    assert await quotas.take("b", quota, "3", 6_000) == 0
    await asyncio.sleep(wait + 0.01)
    assert await quotas.take("a", quota, "4", 130) == 0


async def test_a_request_beyond_a_minutes_tokens_counts_as_a_minutes(quotas: Quotas) -> None:
    quota = Quota(tokens_per_minute=100)
    assert await quotas.take("a", quota, "1", 1_000_000) == 0
    assert 59 < await quotas.take("a", quota, "2", 1_000_000) <= 60


async def test_what_is_not_used_comes_back_once(quotas: Quotas) -> None:
    quota = Quota(tokens_per_minute=100)
    assert await quotas.take("a", quota, "1", 100) == 0
    for _ in range(3):
        await quotas.give_back("a", quota, "1", 50)
    assert await quotas.take("a", quota, "2", 50) == 0
    assert await quotas.take("a", quota, "3", 20) > 5
    await quotas.give_back("a", quota, "unknown", 100)
    await quotas.give_back("nobody", quota, "unknown", 100)
    assert await quotas.take("a", quota, "4", 20) > 5


async def test_streams_are_counted(quotas: Quotas) -> None:
    quota = Quota(streams=2)
    assert await quotas.take("a", quota, "1", 1) == 0
    assert await quotas.take("a", quota, "2", 1) == 0
    assert await quotas.take("a", quota, "3", 1) > 0
    assert await quotas.take("b", quota, "4", 1) == 0
    await quotas.give_back("a", quota, "1", 0)
    assert await quotas.take("a", quota, "3", 1) == 0


async def test_replicas_share_them(valkey: Valkey) -> None:
    observer, quota = RecordingObserver(), Quota(tokens_per_minute=100, streams=3)
    first, second = shared(valkey, observer), shared(valkey, observer)
    taken = [await one.take("a", quota, str(i), 10) for i, one in enumerate((first, second, first))]
    assert taken == [0, 0, 0]
    assert await second.take("a", quota, "3", 10) > 0
    await first.give_back("a", quota, "0", 0)
    assert await second.take("a", quota, "4", 70) == 0
    await first.give_back("a", quota, "2", 0)
    assert await second.take("a", quota, "5", 10) > 5, "the tokens of all of them"
    await first.close()
    await second.close()
    assert not observer.records


async def test_where_redis_is_away_each_replica_counts_by_itself(valkey: Valkey) -> None:
    observer, quota = RecordingObserver(), Quota(streams=1)
    quotas = shared(valkey, observer, 0.1)
    assert await quotas.take("a", quota, "1", 1) == 0
    valkey.kill()
    assert await quotas.take("a", quota, "2", 1) == 0, "its own count begins"
    assert await quotas.take("a", quota, "3", 1) > 0
    await quotas.give_back("a", quota, "2", 0)
    await quotas.give_back("a", quota, "1", 0)
    assert await quotas.take("a", quota, "4", 1) == 0
    assert {record.dependency for record in observer.of(Degraded)} == {"quotas"}
    await quotas.close()


async def test_leases_end_unless_they_are_renewed(valkey: Valkey) -> None:
    observer, quota = RecordingObserver(), Quota(streams=1)
    dead, alive = (shared(valkey, observer, lease_seconds=3) for _ in range(2))
    assert await dead.take("dead", quota, "1", 1) == 0
    assert await alive.take("alive", quota, "1", 1) == 0
    renewing = asyncio.create_task(alive.renew())
    await asyncio.sleep(3.6)
    found = [await alive.take("dead", quota, "2", 1), await dead.take("alive", quota, "2", 1)]
    renewing.cancel()
    await dead.close()
    await alive.close()
    assert found[0] == 0 < found[1]
