"""Several engines that serve the same model, behind one port.

Of two replicas drawn at random the one with fewer predicted tokens in flight is taken (power of two choices,
Mitzenmacher 2001); a conversation stays with its replica, whose prefix cache holds it. A replica that fails a few times
in a row is left out for a while, then tried with one request at a time.
"""

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count

from router.backends.hedging import hedged
from router.backends.verified import VerifiedBackend
from router.circuit_breaker import Breaker
from router.domain import Enforcement, GenerationEvent, GenerationRequest
from router.errors import BackendError, BackendRefused, BackendUnavailable
from router.events import Degraded
from router.ports import Observer

TRIES = 3
"""Attempts before the first event."""

AWAY_SECONDS, LONGEST_AWAY = 5.0, 300.0
"""Seconds that a replica is left out after it failed: the first time, and at most."""


@dataclass(eq=False)
class Replica:
    """One engine, its load and its recent failures.

    Attributes:
        breaker: leaves the engine out after failures.
        tokens: predicted tokens in flight.
        streams: requests in flight.
    """

    name: str
    backend: VerifiedBackend
    breaker: Breaker = field(default_factory=lambda: Breaker(AWAY_SECONDS, LONGEST_AWAY))
    tokens: float = 0.0
    streams: int = 0


class Replicas:
    """Spreads requests over the replicas of one model, and tries again before the first event.

    Args:
        observer: sees every failure that another try covered up.
        hedge_after: seconds of silence after which a second replica is asked as well; None = never.
    """

    def __init__(self, replicas: Sequence[Replica], observer: Observer, hedge_after: float | None = None) -> None:
        self._replicas = list(replicas)
        self._observer = observer
        self._hedge_after = hedge_after
        self._random = random.Random()

    @property
    def enforcement(self) -> Enforcement:
        """How the replicas hold budgets; `prove` has seen that all do it alike."""
        return self._replicas[0].backend.enforcement

    async def prove(self) -> str:
        """Run every canary; returns the one fingerprint. Raises BackendUnavailable, BackendError."""
        fingerprints = {replica.name: await replica.backend.prove() for replica in self._replicas}
        if len(set(fingerprints.values())) > 1:
            seen = ", ".join(f"{name} is {fingerprint}" for name, fingerprint in fingerprints.items())
            raise BackendError(f"backend: replicas differ: {seen}")
        return next(iter(fingerprints.values()))

    async def ready(self) -> bool:
        """True when at least one replica is ready; the others are left out until they answer."""
        ready = await asyncio.gather(*(replica.backend.ready() for replica in self._replicas))
        for replica, is_ready in zip(self._replicas, ready, strict=True):
            if not is_ready:  # the health check has found out what requests need not find out one by one
                replica.breaker.trip()
        return any(ready)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The chosen replica's events. Raises InvalidRequest, BackendError.

        A replica that cannot be reached costs nothing before its first event, so another try follows, after a
        jittered wait: callers of a replica that went away must not come back all at once.
        """
        for attempt in count(1):
            started = False
            try:
                async with aclosing(self._attempt(request)) as events:
                    async for event in events:
                        started = True
                        yield event
                return
            except BackendUnavailable as error:
                if started or attempt == TRIES:
                    raise
                self._observer(Degraded("backend", str(error)))
                await asyncio.sleep(random.uniform(0, 0.1 * 2**attempt))

    def _attempt(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """One try, hedged where that is wanted. Raises BackendUnavailable."""
        chosen = self._chosen(request, self._replicas)
        if chosen is None:
            raise BackendUnavailable("backend: no replica is available")
        events = self._on(chosen, request)
        if self._hedge_after is None:
            return events
        return hedged(events, lambda: self._elsewhere(chosen, request), self._hedge_after)

    def _elsewhere(self, busy: Replica, request: GenerationRequest) -> AsyncGenerator[GenerationEvent] | None:
        other = self._chosen(request, [replica for replica in self._replicas if replica is not busy])
        return None if other is None else self._on(other, request)

    async def _on(self, replica: Replica, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The events of one replica, with its load and its failures counted."""
        replica.breaker.started()
        replica.tokens += request.expected_tokens
        replica.streams += 1
        try:
            async with aclosing(replica.backend.stream(request)) as events:
                async for event in events:
                    replica.breaker.succeeded()  # at the first event: a long answer must not keep it on trial
                    yield event
        except BackendRefused:  # the request is at fault, not the replica
            raise
        except BackendError:
            replica.breaker.failed()
            raise
        finally:
            replica.tokens -= request.expected_tokens
            replica.streams -= 1

    def _chosen(self, request: GenerationRequest, replicas: Sequence[Replica]) -> Replica | None:
        able = [replica for replica in replicas if replica.breaker.allows()]
        if not able:
            return None
        if request.session is not None:
            return max(able, key=lambda replica: _affinity(request.session, replica.name))
        # Two at random, not the least loaded of all: routers that cannot see each other would all pick the same one.
        drawn = self._random.sample(able, min(2, len(able)))
        return min(drawn, key=lambda replica: (replica.breaker.failures, replica.tokens, replica.streams))


def _affinity(session: str | None, name: str) -> bytes:
    """Rendezvous hashing (Thaler & Ravishankar 1998): when a replica goes, only its own sessions move."""
    return hashlib.sha256(f"{session}\0{name}".encode()).digest()
