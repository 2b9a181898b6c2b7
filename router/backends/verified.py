"""An engine whose enforcement has been seen to work: by its own means, in two phases, or (where allowed) not at all.

The canary runs before the first request, and again when the engine has been away. An engine that comes back as another
one, by version, template or what it enforces, is not served: certificates would no longer be about it.
"""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from router.domain import Completion, Enforcement, GenerationEvent, GenerationRequest
from router.errors import BackendError, BackendUnavailable
from router.ports import Backend

Canary = Callable[[Backend], Awaitable[bool]]
"""True where a backend was seen to hold its budgets."""


@dataclass(frozen=True, slots=True)
class EnforcementStrategy:
    """One way to enforce budgets.

    Attributes:
        alone: the same for the canary, without help that would hide that it does not work.
    """

    enforcement: Enforcement
    backend: Backend
    alone: Backend


class VerifiedBackend:
    """The first of several ways that a canary finds working.

    Args:
        ways: in order of preference.
        last: what is served, unproved and told as a hint, where none works; None refuses.
        alive: does the engine answer, and serve the model?
        identity: what tells one engine from another.
    """

    def __init__(
        self,
        ways: list[EnforcementStrategy],
        last: Backend | None,
        alive: Callable[[], Awaitable[bool]],
        identity: Callable[[], Awaitable[str]],
        canary: Canary,
    ) -> None:
        self.ways = ways
        self._last = last
        self._alive = alive
        self._identity = identity
        self._canary = canary
        self._first: str | None = None
        self._chosen: EnforcementStrategy | None = None

    @property
    def enforcement(self) -> Enforcement:
        """How budgets are held; HINT before the canary has run."""
        return Enforcement.HINT if self._chosen is None else self._chosen.enforcement

    async def prove(self) -> str:
        """Run the canary; returns the fingerprint. Raises BackendUnavailable, or BackendError where nothing works."""
        self._chosen = None
        if not await self._alive():
            raise BackendUnavailable("backend: it does not answer, or does not serve the model")
        chosen = await self._choose()
        fingerprint = f"{await self._identity()}/{chosen.enforcement.value}"
        if self._first not in (None, fingerprint):
            raise BackendError(f"backend: was {self._first}, is {fingerprint} now; restart to serve it")
        self._first, self._chosen = fingerprint, chosen
        return fingerprint

    async def ready(self) -> bool:
        """True when the engine answers, and is the one that was proved."""
        if not await self._alive():
            self._chosen = None
            return False
        if self._chosen is None:
            try:
                await self.prove()
            except BackendError:
                return False
        return True

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """As the chosen way streams. Raises InvalidRequest, BackendError."""
        if self._chosen is None:
            raise BackendUnavailable("backend: it is not proved to hold budgets")
        way = self._chosen
        async with aclosing(way.backend.stream(request)) as events:
            async for event in events:
                if isinstance(event, Completion) and way.enforcement is Enforcement.HINT:
                    yield replace(event, enforcement=Enforcement.HINT)
                else:
                    yield event

    async def _choose(self) -> EnforcementStrategy:
        for way in self.ways:
            if await self._canary(way.alone):
                return way
        if self._last is None:
            raise BackendError("backend: no way to hold budgets works here; `budget-router doctor` says why")
        return EnforcementStrategy(Enforcement.HINT, self._last, self._last)


def digest(*renderings: list[int]) -> str:
    """A short digest of a conversation as an engine's template and tokenizer make it."""
    return hashlib.sha256(repr(renderings).encode()).hexdigest()[:8]
