"""Quotas that several replicas share, in Redis; while Redis is down each replica enforces them by itself.

Each operation is one Lua script, since Redis runs a script as a whole: no other replica can take tokens between the
look at the bucket and the charge. Time is the server's own, since the replicas' clocks differ.
"""

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
"""Lifetime of a lease that is not renewed: a replica that dies holds its streams for so long."""

# KEYS: bucket, leases. ARGV: seconds' worth of tokens, most streams (-1 = any), lease, its lifetime, bucket, retry.
# The bucket is a single number, the time at which it would be full again (GCRA); it expires once it is full.
# Leases are a sorted set by their end, so that those of dead replicas can be removed first.
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
# KEYS: bucket, leases. ARGV: seconds' worth of tokens to refund, lease. An expired lease gets no refund.
GIVE_BACK = """
if redis.call('ZREM', KEYS[2], ARGV[2]) == 0 then return end
local spent = redis.call('GET', KEYS[1])
if spent then redis.call('SET', KEYS[1], string.format('%.6f', tonumber(spent) - tonumber(ARGV[1])), 'KEEPTTL') end
"""
# KEYS: leases. ARGV: lifetime, leases. XX: only those that still exist, so that none comes back after its end.
RENEW = """
local time = redis.call('TIME')
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', time[1] + tonumber(ARGV[1]), ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class RedisQuotas:
    """One bucket and one set of leases per tenant for all replicas; each operation is one round trip.

    Args:
        timeout: seconds for a call.
        near: decides while Redis is down.
        lease_seconds: lifetime of a lease that is not renewed.
    """

    def __init__(
        self,
        redis: AnyRedis,
        timeout: float,
        near: MemoryQuotas,
        observer: Observer,
        lease_seconds: int = LEASE_SECONDS,
    ) -> None:
        self._redis: Any = redis
        self._bounded = RedisCalls(timeout, QuotaError)
        self._near = near
        self._lease_seconds = lease_seconds
        self._observer = observer
        self._leases: dict[str, set[str]] = {}
        self.breaker = self._bounded.breaker

    async def take(self, tenant: str, quota: Quota, lease: str, tokens: float) -> float:
        """Charge tokens and a stream to a lease; returns 0, or the seconds to wait where there is no room."""
        streams = -1 if isinf(quota.streams) else quota.streams
        arguments = seconds(quota, tokens), streams, lease, self._lease_seconds, MINUTE, STREAM_SECONDS
        try:
            wait = float(await self._bounded(self._redis.eval(TAKE, 2, *_keys(tenant), *arguments)))
        except QuotaError as error:
            self._observer(Degraded("quotas", str(error)))
            return await self._near.take(tenant, quota, lease, tokens)
        if not wait:  # only leases that Redis granted are renewed and given back there
            self._leases.setdefault(tenant, set()).add(lease)
        return wait

    async def give_back(self, tenant: str, quota: Quota, lease: str, unused: float) -> None:
        """End a lease and refund unused tokens; while Redis is down the lease expires by itself."""
        # The lease may be a local one, from a moment when Redis was down; both know which leases are theirs.
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
        """Keep the leases of this replica alive. Runs until cancelled."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            for tenant, leases in list(self._leases.items()):  # a copy: requests come and go while this waits
                try:
                    if leases:
                        await self._bounded(self._redis.eval(RENEW, 1, _keys(tenant)[1], self._lease_seconds, *leases))
                except QuotaError as error:
                    self._observer(Degraded("quotas", str(error)))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _keys(tenant: str) -> tuple[str, str]:
    """Keys of a tenant's bucket and leases. A cluster hashes the part in braces, so both lie on one node."""
    return f"budget_router:{{{tenant}}}:tokens", f"budget_router:{{{tenant}}}:streams"
