"""Quotas that several replicas share, in Redis; while it is away each replica holds tenants within them by itself."""

import asyncio
from math import isinf
from typing import Any

from router.admission.memory_quotas import MINUTE, STREAM_SECONDS, MemoryQuotas, seconds
from router.domain import Quota
from router.errors import QuotaError
from router.events import Degraded
from router.ports import Observer
from router.redis.calls import RedisCalls
from router.redis.client import AnyRedis

LEASE_SECONDS = 30
"""A replica that dies holds its streams for that long."""

TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local cost, streams, lease = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
if streams >= 0 and redis.call('ZCARD', KEYS[2]) >= streams then return tostring(tonumber(ARGV[6])) end
local spent = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + cost
if spent - now > tonumber(ARGV[5]) then return tostring(spent - now - tonumber(ARGV[5])) end
redis.call('SET', KEYS[1], string.format('%.6f', spent), 'PX', math.ceil((spent - now) * 1000) + 1000)
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[4]), lease)
redis.call('EXPIRE', KEYS[2], ARGV[4])
return '0'
"""
GIVE_BACK = """
if redis.call('ZREM', KEYS[2], ARGV[2]) == 0 then return end
local spent = redis.call('GET', KEYS[1])
if spent then redis.call('SET', KEYS[1], string.format('%.6f', tonumber(spent) - tonumber(ARGV[1])), 'KEEPTTL') end
"""
RENEW = """
local time = redis.call('TIME')
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', time[1] + tonumber(ARGV[1]), ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class RedisQuotas:
    """The same bucket and the same leases for all replicas, in one round trip each.

    Args:
        near: decides while Redis is away.
    """

    def __init__(self, redis: AnyRedis, timeout: float, near: MemoryQuotas, observer: Observer) -> None:
        self._redis: Any = redis
        self._bounded = RedisCalls(timeout, QuotaError)
        self._near = near
        self._observer = observer
        self._leases: dict[str, set[str]] = {}
        self.breaker = self._bounded.breaker

    async def take(self, tenant: str, quota: Quota, lease: str, tokens: float) -> float:
        """Use up tokens and a stream; seconds to wait where there are none, else 0."""
        streams = -1 if isinf(quota.streams) else quota.streams
        cost = seconds(quota, tokens)
        try:
            wait = float(
                await self._bounded(
                    self._redis.eval(
                        TAKE, 2, *_keys(tenant), cost, streams, lease, LEASE_SECONDS, MINUTE, STREAM_SECONDS
                    )
                )
            )
        except QuotaError as error:
            self._observer(Degraded("quotas", str(error)))
            return await self._near.take(tenant, quota, lease, tokens)
        if not wait:
            self._leases.setdefault(tenant, set()).add(lease)
        return wait

    async def give_back(self, tenant: str, quota: Quota, lease: str, unused: float) -> None:
        """End a lease, and put right what was not used; where Redis is away the lease ends by itself."""
        await self._near.give_back(tenant, quota, lease, unused)
        if lease not in (mine := self._leases.get(tenant, set())):
            return
        mine.discard(lease)
        refund = unused * MINUTE / quota.tokens_per_minute
        try:
            await self._bounded(self._redis.eval(GIVE_BACK, 2, *_keys(tenant), refund, lease))
        except QuotaError as error:
            self._observer(Degraded("quotas", str(error)))

    async def renew(self) -> None:
        """Keep the leases under way; runs until cancelled."""
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            for tenant, leases in list(self._leases.items()):
                try:
                    if leases:
                        await self._bounded(self._redis.eval(RENEW, 1, _keys(tenant)[1], LEASE_SECONDS, *leases))
                except QuotaError as error:
                    self._observer(Degraded("quotas", str(error)))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _keys(tenant: str) -> tuple[str, str]:
    """In braces what a cluster hashes: both lie on one node, as a script needs."""
    return f"budget_router:{{{tenant}}}:tokens", f"budget_router:{{{tenant}}}:streams"
