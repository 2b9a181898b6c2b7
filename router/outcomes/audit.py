"""Watches a certificate while it serves: a share of the requests is also run at the top rung, and compared.

The certificate says that the mean loss E[Y_top - Y_chosen] is at most alpha. Against that hypothesis capital is bet:
W = mean over STAKES of prod(1 + nu (loss - alpha)). While it holds W is a supermartingale that starts at 1, so that it
ever reaches 1 / DELTA with probability at most DELTA (Ville). Once it does, the bundle is not believed any more.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing

from router.domain import (
    ContentDelta,
    Decision,
    GenerationRequest,
    MaxLoss,
    RouteRequest,
    Sampling,
)
from router.errors import RouterError
from router.events import Audited, Degraded
from router.outcomes.e_process import Ledger
from router.ports import Backend, Observer, Verifier

UNDER_WAY = 8
"""Audits at a time; more are passed over."""


class TokenBucket:
    """Thinking tokens that audits may take: a bucket that `per_hour` refills, and that holds no more than that."""

    def __init__(self, per_hour: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = self._left = per_hour
        self._clock = clock
        self._at = clock()

    def take(self, tokens: float) -> bool:
        """True where that many were left; they are gone then."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._most / 3600)
        self._at = now
        if tokens > self._left:
            return False
        self._left -= tokens
        return True


class Auditor:
    """Runs audits in the background.

    Args:
        share: of the requests, 0..1.
        bucket: thinking tokens that audits may take.
        verifier: says how right an answer is.
        suspend: told of the bundle (model, digest) that is not believed any more.
    """

    def __init__(
        self,
        share: float,
        bucket: TokenBucket,
        verifier: Verifier,
        ledger: Ledger,
        observer: Observer,
        suspend: Callable[[str, str], None],
    ) -> None:
        self._share = share
        self._bucket = bucket
        self._verifier = verifier
        self._ledger = ledger
        self._observer = observer
        self._suspend = suspend
        self._random = random.Random()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(
        self, backend: Backend, request: RouteRequest, decision: Decision, sampling: Sampling, answer: str
    ) -> None:
        """Consider an answered request; never waits. Only what a relative certificate vouches for is audited."""
        certificate = decision.choice.certificate
        if certificate is None or not isinstance(decision.target, MaxLoss) or self._random.random() >= self._share:
            return
        top = decision.ladder.rungs[-1]
        if decision.rung == top:
            self._bet(decision, certificate.alpha, 0.0)
            return
        mean = None if decision.score is None else decision.score.mean[-1]
        tokens = float(top.tokens or 0) if mean is None else mean
        if len(self._tasks) < UNDER_WAY and self._bucket.take(tokens):
            again = GenerationRequest(request.prompt, top, 0, sampling, tokens)
            task = asyncio.create_task(self._compare(backend, again, decision, certificate.alpha, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _compare(
        self, backend: Backend, again: GenerationRequest, decision: Decision, alpha: float, answer: str
    ) -> None:
        try:
            async with aclosing(backend.stream(again)) as events:
                at_top = "".join([event.text async for event in events if isinstance(event, ContentDelta)])
            best, given = await self._verifier.correct(again.prompt, [at_top, answer])
        except RouterError as error:
            self._observer(Degraded("audit", str(error)))
            return
        self._bet(decision, alpha, best - given)

    def _bet(self, decision: Decision, alpha: float, loss: float) -> None:
        before = self._ledger.alarmed(decision.model_version)
        try:
            self._ledger.bet(decision.model_version, alpha, loss)
        except OSError as error:
            self._observer(Degraded("audit", f"its file can not be written: {error}"))
        found = self._ledger.process(decision.model_version, alpha)
        self._observer(Audited(decision.model, alpha, loss, found.wealth, found.alarmed))
        if found.alarmed and not before:
            self._suspend(decision.model, decision.model_version)
