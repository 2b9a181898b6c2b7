"""Admission of generations by their predicted tokens: early refusals, quotas, a fair queue, and brownout.

Brownout: under pressure the quality targets relax, step by step, as far as their tenant allows. The service loses
quality before it refuses requests, and every reply says how much.
"""

import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

from router.admission.fair_queue import FairQueue
from router.admission.tenants import Tenant, Tenants
from router.domain import UNLIMITED, MaxLoss, MinQuality, QualityTarget, Quota, RouteRequest
from router.errors import Overloaded
from router.events import RequestShed
from router.ports import Observer, Quotas

STEPS = (0.85, 1.0, 1.15)
"""Pressures from which targets relax by a third, two thirds, and all of what their tenant allows."""

LEAST_QUALITY = 0.01
QUOTA = "the tenant's quota is used up"
REMEMBERED_SECONDS = 1.0
"""Longest time for which a refused quota is answered without another look at it."""


@dataclass
class Admitted:
    """A request that was let in; the code that runs it sets the number of tokens `used`."""

    used: float


class Admission:
    """Lets requests in.

    Args:
        tenants: weights, quotas and relaxations.
        queue: keeps the running requests within capacity.
        quotas: keep each tenant within its own limits, across replicas.
        observer: sees every refusal.
    """

    def __init__(
        self,
        tenants: Tenants,
        queue: FairQueue,
        quotas: Quotas,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tenants = tenants
        self._queue = queue
        self._quotas = quotas
        self._observer = observer
        self._clock = clock
        self._refused: dict[str, float] = {}

    @property
    def level(self) -> int:
        """The brownout step that the pressure calls for, 0 (none) to 3."""
        return bisect_right(STEPS, self._queue.pressure)

    @property
    def busy(self) -> bool:
        """Requests wait for room, or targets relax for want of it: nothing runs beside them."""
        return bool(self.level or self._queue.queued)

    def relaxed(self, request: RouteRequest) -> RouteRequest:
        """The request with its target relaxed as far as the pressure asks for and the tenant allows."""
        room = self._tenant(request.tenant).relax
        if not room or not (level := self.level):
            return request
        by = room * level / len(STEPS)
        options = replace(request.options, target=_relaxed(request.options.target, by), target_relaxation=by)
        return replace(request, options=options)

    def reject_early(self, tenant: str) -> None:
        """Refuse, before any scoring, a request that would be refused later anyway. Raises Overloaded."""
        with self._observed(tenant):
            if (wait := self._refused.get(tenant, 0.0) - self._clock()) > 0:
                raise Overloaded("quota", QUOTA, wait)
            self._queue.reject_early(tenant, self._tenant(tenant).weight)

    @asynccontextmanager
    async def admitted(
        self, request: RouteRequest, tokens: float, patience: float | None = None
    ) -> AsyncIterator[Admitted]:
        """Wait for room for a request of so many predicted tokens, at most `patience` seconds, and hold it.

        Raises:
            Overloaded: the request is not let in; its quota is not charged.
        """
        name, tenant, admitted = request.tenant, self._tenant(request.tenant), Admitted(0.0)
        with self._observed(name):
            async with (  # the quota first: a request beyond it must not take a place in the queue
                self._within(name, tenant.quota, tokens, admitted),
                self._queue.turn(name, tenant.weight, tokens, patience),
            ):
                yield admitted

    @asynccontextmanager
    async def _within(self, name: str, quota: Quota, tokens: float, admitted: Admitted) -> AsyncIterator[None]:
        """Charge a tenant's quota while the request runs, and correct the charge at its end. Raises Overloaded."""
        if quota == UNLIMITED:
            yield
            return
        lease = uuid4().hex  # unique across replicas, as the leases of all of them share a set
        if wait := await self._quotas.take(name, quota, lease, tokens):
            # A flood over its quota must not cost a round trip to Redis for every refusal.
            self._refused[name] = self._clock() + min(wait, REMEMBERED_SECONDS)
            raise Overloaded("quota", QUOTA, wait)
        try:
            yield
        finally:
            await self._quotas.give_back(name, quota, lease, tokens - admitted.used)

    @contextmanager
    def _observed(self, tenant: str) -> Iterator[None]:
        try:
            yield
        except Overloaded as error:
            self._observer(RequestShed(tenant, error.cause))
            raise

    def _tenant(self, name: str) -> Tenant:
        return self._tenants.get(name) or Tenant()


def _relaxed(target: QualityTarget, by: float) -> QualityTarget:
    if isinstance(target, MaxLoss):
        return replace(target, value=min(target.value + by, 1.0))
    return MinQuality(max(target.value - by, LEAST_QUALITY))
