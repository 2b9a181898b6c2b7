"""An engine whose enforcement was seen to work: by its own means, in two phases, or (where allowed) not at all.

The canary runs before the first request, and again after the engine was unreachable. An engine that comes back with
another version, template or enforcement is not served: the certificates are not about it.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

from router.backends import cutting
from router.backends.canary import Examined
from router.backends.climbing import TwoPhaseClimb
from router.backends.cutting import Steps
from router.backends.request_fields import untaken
from router.backends.two_phase import TwoPhase
from router.domain import Completion, Enforcement, GenerationEvent, GenerationRequest
from router.errors import BackendBusy, BackendError, BackendMisconfigured, BackendTimeout, BackendUnavailable
from router.ports import Backend

Canary = Callable[[Examined], Awaitable[bool]]
"""Runs a few short generations; true if the backend held its budgets in all of them."""

UNSEEN = Steps(obstacle="it is not proved to hold budgets")
HINTED = Steps(obstacle="it holds no budget")
NO_IDS = Steps(obstacle="the engine continues no token ids")


@dataclass(frozen=True, slots=True)
class EnforcementStrategy:
    """One way to enforce budgets.

    Attributes:
        alone: the same without any fallback, for the canary: a fallback would hide that the strategy fails.
    """

    enforcement: Enforcement
    backend: Backend
    alone: Examined


class VerifiedBackend:
    """A backend that uses the first strategy which the canary sees working.

    Args:
        strategies: in order of preference.
        last: the backend to serve where no strategy works, its budgets called hints; None = refuse.
        check: raises BackendError, which says why, unless the engine answers and serves the model.
        identity: names the engine under an enforcement, so that another one in its place is noticed.
        phases: think in steps, where the engine tokenises, and close a thought as an enforcement does.

    Attributes:
        steps: whether its thoughts can be had in steps, and where they are cut then.
        failure: what the last health check has found wrong; None = nothing.
    """

    def __init__(
        self,
        strategies: list[EnforcementStrategy],
        last: Examined | None,
        check: Callable[[], Awaitable[None]],
        identity: Callable[[Enforcement], Awaitable[str]],
        canary: Canary,
        phases: Mapping[Enforcement, TwoPhase] | None = None,
    ) -> None:
        self.strategies = strategies
        self._last = last
        self._check = check
        self._identity = identity
        self._canary = canary
        self._phases = phases or {}
        self._first: str | None = None
        self._chosen: EnforcementStrategy | None = None
        self._proving = asyncio.Lock()
        self.steps = UNSEEN
        self.failure: BackendError | None = None

    @property
    def enforcement(self) -> Enforcement:
        """How budgets are held; HINT until the canary has run."""
        return Enforcement.HINT if self._chosen is None else self._chosen.enforcement

    @property
    def climbs(self) -> bool:
        """Its thoughts can be had in steps."""
        return not self.steps.obstacle

    @property
    def phases(self) -> TwoPhase | None:
        """Two phases that close a thought as it is served; None where the engine continues no token ids."""
        return self._phases.get(self.enforcement) if self.climbs else None

    @property
    def proved(self) -> bool:
        """True while requests are served: the canary has run, and the engine has not gone away since."""
        return self._chosen is not None

    async def prove(self) -> str:
        """Run the canary; returns the fingerprint.

        Raises:
            BackendMisconfigured: its key or its model is wrong.
            BackendUnavailable: it is not up yet.
            BackendError: nothing works.
        """
        async with self._proving:
            return await self._prove()

    async def _prove(self) -> str:
        self._chosen = None  # nothing is served while the canary runs: this may be another engine by now
        try:
            await self._check()
        except BackendMisconfigured:  # it is up, so no wait would change that
            raise
        except BackendError as error:  # it may still be loading the model, so it is worth waiting for
            raise BackendUnavailable(str(error)) from error
        chosen = await self._choose()
        fingerprint = f"{await self._identity(chosen.enforcement)}/{chosen.enforcement.value}"
        # An engine that was upgraded behind our back would be served with certificates that are not about it.
        if self._first not in (None, fingerprint):
            raise BackendError(f"backend: was {self._first}, is {fingerprint} now; restart to serve it")
        self.steps = await self._find_steps(chosen)
        self._first, self._chosen = fingerprint, chosen
        return fingerprint

    async def ready(self) -> bool:
        """True when the engine answers and is the one that was verified; otherwise `failure` says why not."""
        # Two health checks at a time would each run a canary, and the second would take away what the first has proved.
        async with self._proving:
            try:
                await self._check()
                if self._chosen is None:
                    await self._prove()
            except BackendBusy as error:  # it is there, and nothing says that it is another one
                self.failure = None if self.proved else error
                return self.proved
            except BackendTimeout as error:  # likewise, but it cannot be used for now
                self.failure = error
                return False
            except BackendError as error:
                self.failure = error
                self._chosen = None  # so that the canary runs again when it is back
                return False
            self.failure = None
        return True

    def stream(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent]:
        """The events of the chosen strategy. Raises InvalidRequest, BackendError."""
        if self._chosen is None:
            raise BackendUnavailable("backend: it is not proved to hold budgets")
        events = self._chosen.backend.stream(request)
        return _as_hint(events) if self._chosen.enforcement is Enforcement.HINT else events

    def climb(self, request: GenerationRequest) -> TwoPhaseClimb | None:
        """A thought that is had step by step; None where two phases do not take the request, as with tools."""
        if self.phases is None or untaken(request, self.phases.taken) is not None:
            return None
        return TwoPhaseClimb(self.phases, request, self.steps.early)

    async def _find_steps(self, chosen: EnforcementStrategy) -> Steps:
        phases = self._phases.get(chosen.enforcement)  # none for hints: nothing that they promise was seen to hold
        if phases is None:
            return HINTED if self._phases else NO_IDS
        try:
            await phases.check_ready()
        except BackendError as error:
            return Steps(obstacle=f"{NO_IDS.obstacle}: {error}")
        return Steps() if chosen.enforcement is Enforcement.TWO_PHASE else await cutting.fit(chosen.alone, phases)

    async def _choose(self) -> EnforcementStrategy:
        for strategy in self.strategies:
            if await self._canary(strategy.alone):
                return strategy
        if self._last is None:
            raise BackendError("backend: no way to hold budgets works here; `budget-router doctor` says why")
        return EnforcementStrategy(Enforcement.HINT, self._last, self._last)


async def _as_hint(events: AsyncGenerator[GenerationEvent]) -> AsyncGenerator[GenerationEvent]:
    """The same events; the completion claims no enforcement that no canary has seen."""
    async with aclosing(events):
        async for event in events:
            yield replace(event, enforcement=Enforcement.HINT) if isinstance(event, Completion) else event


def digest(*renderings: list[int]) -> str:
    """A short digest of token ids: equal where template and tokenizer render a conversation alike."""
    return hashlib.sha256(repr(renderings).encode()).hexdigest()[:8]
