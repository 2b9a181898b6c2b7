"""Quotas of one process: the embedded default."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from router.domain import Quota

MINUTE = 60.0
STREAM_SECONDS = 0.1
"""When to try again where too many streams are under way; nobody knows when one ends."""


@dataclass
class _Taken:
    """Attributes: `spent_at`: when the bucket would be full again; leases under way."""

    spent_at: float = 0.0
    leases: set[str] = field(default_factory=set)


class MemoryQuotas:
    """A bucket of one minute's tokens for each tenant, refilled all the time (GCRA, ATM Forum 1996)."""

    breaker = None
    """Nothing here can fail."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken: dict[str, _Taken] = {}

    async def take(self, tenant: str, quota: Quota, lease: str, tokens: float) -> float:
        """Use up tokens and a stream; seconds to wait where there are none, else 0."""
        now, taken = self._clock(), self._taken.setdefault(tenant, _Taken())
        if len(taken.leases) >= quota.streams:
            return STREAM_SECONDS
        spent_at = max(taken.spent_at, now) + seconds(quota, tokens)
        if spent_at - now > MINUTE:
            return spent_at - now - MINUTE
        taken.spent_at = spent_at
        taken.leases.add(lease)
        return 0.0

    async def give_back(self, tenant: str, quota: Quota, lease: str, unused: float) -> None:
        """End a lease, and put right what was not used; nothing where the lease is another's."""
        taken = self._taken.get(tenant)
        if taken is not None and lease in taken.leases:
            taken.leases.discard(lease)
            taken.spent_at -= unused * MINUTE / quota.tokens_per_minute


def seconds(quota: Quota, tokens: float) -> float:
    """How long a quota takes to refill so many tokens; more than a minute's worth count as a minute's."""
    return 0.0 if quota.tokens_per_minute == inf else min(tokens * MINUTE / quota.tokens_per_minute, MINUTE)
