"""Quotas of one process: the embedded default, and the fallback while Redis is down."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from router.domain import Quota

MINUTE = 60.0
STREAM_SECONDS = 0.1
"""Time to wait while too many streams are under way; it is not known when one of them ends."""


@dataclass
class _Taken:
    """What a tenant holds: `spent_at` is the time at which its bucket would be full again."""

    spent_at: float = 0.0
    leases: set[str] = field(default_factory=set)


class MemoryQuotas:
    """A bucket of one minute's tokens for each tenant, refilled continuously.

    GCRA (ATM Forum 1996) keeps it as a single time, at which the bucket would be full again: to charge tokens is to
    move it forward, and it may lie at most a minute ahead.
    """

    breaker = None
    """None: nothing here can fail."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken: dict[str, _Taken] = {}

    async def take(self, tenant: str, quota: Quota, lease: str, tokens: float) -> float:
        """Charge tokens and a stream to a lease; returns 0, or the seconds to wait where there is no room."""
        now, taken = self._clock(), self._taken.setdefault(tenant, _Taken())
        if len(taken.leases) >= quota.streams:
            return STREAM_SECONDS
        # A time in the past means a full bucket; tokens do not accumulate beyond that.
        spent_at = max(taken.spent_at, now) + seconds(quota, tokens)
        if spent_at - now > MINUTE:
            return spent_at - now - MINUTE
        taken.spent_at = spent_at
        taken.leases.add(lease)
        return 0.0

    async def give_back(self, tenant: str, quota: Quota, lease: str, unused: float) -> None:
        """End a lease and refund unused tokens; a lease that is not known here changes nothing."""
        taken = self._taken.get(tenant)
        if taken is not None and lease in taken.leases:
            taken.leases.discard(lease)
            taken.spent_at -= unused * MINUTE / quota.tokens_per_minute


def seconds(quota: Quota, tokens: float) -> float:
    """Seconds in which a quota refills so many tokens, at most a minute: a larger request needs a full bucket."""
    return 0.0 if quota.tokens_per_minute == inf else min(tokens * MINUTE / quota.tokens_per_minute, MINUTE)
