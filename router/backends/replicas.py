"""Several engines that serve the same model, behind one port.

Of two replicas drawn at random the one with fewer predicted tokens in flight is taken (power of two choices,
Mitzenmacher 2001); a conversation stays with its replica, whose prefix cache holds it. `replica.py` says when a replica
is left out. Another try goes to a replica that has not failed the request yet, if there is one.
"""

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import count
from typing import TypeVar

from router.backends.hedging import hedged
from router.backends.replica import Failed, Replica
from router.backends.replica_climb import ReplicaClimb
from router.backends.urls import host_and_port
from router.domain import Enforcement, GenerationEvent, GenerationRequest
from router.errors import BackendBusy, BackendError, BackendRefused, BackendTimeout, BackendUnavailable
from router.events import Degraded, EngineBack, EngineLost
from router.ports import Observer

TRIES = 3
"""Attempts before the first event."""

T = TypeVar("T")


class Replicas:
    """Spreads requests over the replicas of one model, and tries again before the first event.

    Args:
        observer: sees every failure that another try covered up, and engines that are lost or back.
        hedge_after: seconds of silence after which a second replica is asked as well; None = never.
    """

    def __init__(self, replicas: Sequence[Replica], observer: Observer, hedge_after: float | None = None) -> None:
        self._replicas = list(replicas)
        self._observer = observer
        self._hedge_after = hedge_after
        self._random = random.Random()
        self._lost: dict[Replica, str] = {}

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
        return any(await asyncio.gather(*(self._looked_at(replica) for replica in self._replicas)))

    async def _looked_at(self, replica: Replica) -> bool:
        """Whether a replica is ready. That it is lost is reported once for each cause, that it is back, once."""
        ready = await replica.ready()
        if ready and self._lost.pop(replica, None) is not None:
            self._observer(EngineBack(replica.name))
        # An engine that came back without its key is no longer one that nobody can reach.
        elif not ready and self._lost.get(replica) != replica.failure:
            self._lost[replica] = replica.failure
            self._observer(EngineLost(replica.name, replica.failure))
        return ready

    def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The chosen replica's events. Raises InvalidRequest, BackendError."""
        failed: Failed = {}
        return self._tried(failed, partial(self._next, request, failed), lambda: self._attempt(request, failed))

    def place(self, session: str | None) -> str | None:
        """HOST:PORT of the replica that would answer next; None where none may be asked."""
        chosen = self._chosen(session, self._replicas)
        return None if chosen is None else host_and_port(chosen.name)

    @property
    def climbs(self) -> bool:
        """All replicas that serve can have a thought step by step."""
        return not self.obstacle

    @property
    def obstacle(self) -> str:
        """Why one of the replicas that serve cannot have a thought step by step; "" = all can."""
        proved = [one.backend for one in self._replicas if one.backend.proved]
        return next((one.steps.obstacle for one in proved if not one.climbs), "")

    def climb(self, request: GenerationRequest) -> ReplicaClimb | None:
        """A thought that is had step by step, at one replica; None where one of them cannot do it."""
        proved = [one.backend for one in self._replicas if one.backend.proved]
        if any(one.climb(request) is None for one in proved):
            return None
        return ReplicaClimb(request, self._next, self._tried, self._none_left)

    async def _tried(
        self, failed: Failed, left: Callable[[], Replica | None], attempt: Callable[[], AsyncGenerator[T]]
    ) -> AsyncGenerator[T]:
        """The events of an attempt; of further ones where it fails before its first event. Raises BackendError.

        A replica that fails costs nothing before its first event, so another try follows, after a jittered wait:
        callers of a replica that went away must not come back all at once. One that has no room, or answers nonsense,
        is not tried again; another one is. After a refusal or a long silence nobody else would do better.
        """
        for tried in count(1):
            started = False
            try:
                async with aclosing(attempt()) as events:
                    async for event in events:
                        started = True
                        yield event
                return
            except BackendError as error:
                if started or isinstance(error, BackendRefused | BackendTimeout):
                    raise
                if tried == TRIES or left() is None:
                    raise _least_busy(failed) or error from None
                self._observer(Degraded("backend", str(error)))
                await asyncio.sleep(random.uniform(0, 0.1 * 2**tried))

    def _attempt(self, request: GenerationRequest, failed: Failed) -> AsyncGenerator[GenerationEvent]:
        """One try, hedged where that is wanted. Raises BackendUnavailable where no replica is left."""
        chosen = self._next(request, failed)
        if chosen is None:
            raise BackendUnavailable(f"backend: {self._none_left()}")
        events = self._on(chosen, request, failed)
        if self._hedge_after is None:
            return events
        return hedged(events, lambda: self._elsewhere(chosen, request, failed), self._hedge_after)

    def _none_left(self) -> str:
        """That no engine may be asked now. Their addresses are for the log, not for callers."""
        wrong = next((replica.misconfigured for replica in self._replicas if replica.misconfigured), "")
        if len(self._replicas) == 1:
            why = wrong or "cannot be reached, or is being checked"
            return f"the engine {why}; the router tries it again by itself"
        why = f"be used, and one of them {wrong}" if wrong else "be reached"
        return f"none of the {len(self._replicas)} engines can {why}; the router tries them again by itself"

    def _next(self, request: GenerationRequest, failed: Failed) -> Replica | None:
        """A replica that has not failed the request, else one that may answer it yet; None where there is none."""
        untried = self._chosen(request.session, self._near(request, failed))
        again = [replica for replica, error in failed.items() if isinstance(error, BackendUnavailable)]
        return untried or self._chosen(request.session, again)

    def _near(self, request: GenerationRequest, failed: Failed) -> list[Replica]:
        """The replica that has the prefix of a request, where it may be asked; else all that have not failed it."""
        untried = [replica for replica in self._replicas if replica not in failed]
        near = [one for one in untried if one.name == request.engine and one.allows and one.trusted]
        return near or untried

    def _elsewhere(
        self, busy: Replica, request: GenerationRequest, failed: Failed
    ) -> AsyncGenerator[GenerationEvent] | None:
        others = [replica for replica in self._replicas if replica is not busy and replica not in failed]
        other = self._chosen(request.session, others)
        return None if other is None else self._on(other, request, failed)

    def _on(self, replica: Replica, request: GenerationRequest, failed: Failed) -> AsyncGenerator[GenerationEvent]:
        return replica.counted(request.expected_tokens, failed, replica.backend.stream(request))

    def _chosen(self, session: str | None, replicas: Sequence[Replica]) -> Replica | None:
        able = [replica for replica in replicas if replica.allows]
        # The last ones that are left are asked, doubted or not: nobody is refused for what another one asked.
        able = [replica for replica in able if replica.trusted] or able
        if not able:
            return None
        if session is not None:
            return max(able, key=lambda replica: _affinity(session, replica.name))
        # Two at random, not the least loaded of all: routers that cannot see each other would all pick the same one.
        drawn = self._random.sample(able, min(2, len(able)))
        return min(drawn, key=lambda replica: replica.load)


def _least_busy(failed: Failed) -> BackendBusy | None:
    """The refusal for want of room that ends soonest."""
    busy = [error for error in failed.values() if isinstance(error, BackendBusy)]
    return min(busy, key=lambda error: error.retry_after, default=None)


def _affinity(session: str, name: str) -> bytes:
    """Rendezvous hashing (Thaler & Ravishankar 1998): when a replica goes, only its own sessions move."""
    return hashlib.sha256(f"{session}\0{name}".encode()).digest()
