"""One engine of several, its load, and whether it is trusted.

There are two kinds of failures. An engine that cannot be reached is left out after a few failed requests in a row,
from any callers, and immediately when the health check cannot reach it. A failure of an engine that was reached may
be caused by the request: the engine may be unable to answer one prompt, or all prompts of one caller. Such failures
only raise doubts, as does a health check that takes too long. A doubted engine is still asked when no other is left,
so no caller is refused because of another one. With the next health check the router sends a short generation of its
own, which shows whether the engine works. A list of models does not show that, so it clears no doubt.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TypeVar

from router.backends.verified import VerifiedBackend
from router.circuit_breaker import FAILURES, Breaker
from router.domain import Completion, GenerationRequest, Prompt, ReasoningBudget, Sampling
from router.errors import (
    BackendBusy,
    BackendError,
    BackendMisconfigured,
    BackendRefused,
    BackendUnreachable,
    InvalidRequest,
)

T = TypeVar("T")

AWAY_SECONDS, LONGEST_AWAY = 5.0, 300.0
"""Seconds that an engine is left out after it could not be reached: the first time, and at most."""

TRIAL_SECONDS = 10.0
"""Seconds that a doubted engine has for the first event of the router's own generation."""

MISCONFIGURED = {
    "key": "refuses the router's key",
    "model": "does not serve the model",
    "kind": "is of another kind than the settings say",
}
"""What callers may know of an engine about which a setting is wrong. Addresses and names are for the log."""

TRIAL = GenerationRequest(Prompt.of("2 + 2 ="), ReasoningBudget("0", 0), sampling=Sampling(0.0, max_answer_tokens=1))


@dataclass(eq=False)
class Replica:
    """One engine, its load and its recent failures.

    Attributes:
        breaker: leaves the engine out while it cannot be reached, or fails the router's own generation.
        doubts: requests in a row that failed although they reached the engine, and health checks that took too long.
        tokens: predicted tokens in flight.
        streams: requests in flight.
    """

    name: str
    backend: VerifiedBackend
    breaker: Breaker = field(default_factory=lambda: Breaker(AWAY_SECONDS, LONGEST_AWAY))
    doubts: int = 0
    tokens: float = 0.0
    streams: int = 0
    _untrusted: BackendError | None = None
    _checking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def allows(self) -> bool:
        """True if a request may be sent there now."""
        return self.backend.proved and self.breaker.allows()

    @property
    def trusted(self) -> bool:
        """False where it has failed so often that another engine is better asked."""
        return self.doubts < FAILURES

    @property
    def load(self) -> tuple[int, float, int]:
        """What speaks against it: failures in a row, tokens and requests in flight."""
        return self.breaker.failures + self.doubts, self.tokens, self.streams

    @property
    def failure(self) -> str:
        """Why it is left out, as far as the last health check has seen."""
        return str(self._cause or "it fails requests that any engine can answer")

    @property
    def misconfigured(self) -> str:
        """What is wrong with the settings about it, in words of MISCONFIGURED; "" where nothing is."""
        return MISCONFIGURED[self._cause.setting] if isinstance(self._cause, BackendMisconfigured) else ""

    @property
    def _cause(self) -> BackendError | None:
        return self.backend.failure or self._untrusted

    def succeeded(self) -> None:
        """Clear its failures."""
        self.doubts, self._untrusted = 0, None
        self.breaker.succeeded()

    def failed(self, error: BackendError) -> None:
        """Note how a request failed there: once for each request, however often that was tried."""
        if isinstance(error, BackendUnreachable):
            self.breaker.failed()
            return
        if not self.breaker.is_open:  # it was on trial, and was reached: no request's failure keeps it away longer
            self.breaker.succeeded()
        if not isinstance(error, BackendBusy | BackendRefused):
            self.doubts += 1

    async def counted(self, tokens: float, failed: "Failed", events: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """The events that it gives to a request of so many tokens, with its load and its failures counted.

        Raises BackendError.
        """
        self.breaker.started()
        self.tokens += tokens
        self.streams += 1
        try:
            async with aclosing(events):
                async for event in events:
                    if self.doubts or self.breaker.failures or self._untrusted:
                        self.succeeded()  # at the first event: a long answer must not keep it on trial
                    yield replace(event, engine=self.name) if isinstance(event, Completion) else event
        except BackendError as error:
            if self not in failed:
                self.failed(error)
            failed[self] = error
            raise
        finally:
            self.tokens -= tokens
            self.streams -= 1

    async def ready(self) -> bool:
        """True when it can serve requests, which go there again from now on. Where it cannot, it is left out."""
        if self._checking.locked():  # by the health check of another server, whose finding counts for both
            async with self._checking:
                return self.allows
        async with self._checking:
            await self._check()
        return self.allows

    async def _check(self) -> None:
        listed = await self.backend.ready()
        if self.backend.proved and not listed:  # it took too long: a single prompt can keep an engine that busy
            self.doubts += 1
        if not self.backend.proved or not (self.trusted or await self._answers()):
            self.breaker.trip()  # the health check has found out what requests need not find out one by one
        elif listed:
            self.breaker.succeeded()

    async def _answers(self) -> bool:
        """True unless it fails a generation that nobody's prompt can be blamed for."""
        try:
            async with asyncio.timeout(TRIAL_SECONDS), aclosing(self.backend.stream(TRIAL)) as events:
                await anext(events)
        except (BackendBusy, BackendRefused, InvalidRequest):  # words of an engine that works
            pass
        except (BackendError, StopAsyncIteration, TimeoutError) as error:
            self._untrusted = error if isinstance(error, BackendError) else None
            return self.trusted  # true where it has answered others meanwhile
        self.succeeded()
        return True


Failed = dict[Replica, BackendError]
"""Where one request has failed, and how it last did."""
