"""A call of Redis ends at its limit, on the clock of the loop: however busy the machine is."""

import asyncio

import pytest

from router.circuit_breaker import FAILURES
from router.errors import CacheError
from router.redis.calls import LEFT_OUT, RedisCalls
from router.redis.client import connect
from tests.support.clock import loop_clock, settled
from tests.support.ports import free_port

LIMIT = 0.02


async def hanging() -> str:
    await asyncio.Event().wait()
    return "never"


async def test_a_call_that_hangs_is_an_error_at_its_limit_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = RedisCalls(LIMIT, CacheError)
    clock = loop_clock(monkeypatch)
    call = asyncio.create_task(calls(hanging()))
    await settled()
    clock.now += 0.99 * LIMIT
    await settled()
    assert not call.done()
    clock.now += 0.02 * LIMIT
    await settled()
    with pytest.raises(CacheError, match="longer than 20 ms"):
        await call
    assert calls.breaker.failures == 1


async def test_after_a_few_failures_no_call_is_made() -> None:
    calls = RedisCalls(LIMIT, CacheError)
    for _ in range(FAILURES):
        calls.breaker.failed()
    with pytest.raises(CacheError, match=LEFT_OUT):
        await calls(hanging())


async def test_an_answer_in_time_is_passed_on() -> None:
    async def answer() -> str:
        return "here"

    calls = RedisCalls(LIMIT, CacheError)
    calls.breaker.failed()
    assert await calls(answer()) == "here"
    assert calls.breaker.failures == 0


@pytest.mark.parametrize("kind", ["", "+cluster", "+sentinel"])
async def test_whatever_kind_of_redis_is_down_the_error_is_ours(kind: str) -> None:
    """A cluster without a node that can be reached raises an error that is no RedisError."""
    redis = connect(f"redis{kind}://127.0.0.1:{free_port()}/{'0' if kind != '+sentinel' else 'service'}", 1)
    calls = RedisCalls(5, CacheError)
    with pytest.raises(CacheError, match=r"^Redis: "):
        await calls(redis.get("key"))
    assert calls.breaker.failures == 1
    await redis.aclose()
