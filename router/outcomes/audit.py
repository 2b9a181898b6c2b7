"""Audits certificates while they serve: a share of the requests also runs at the top rung, and both answers compare.

A certificate says that the mean loss E[Y_top - Y_chosen] is at most alpha. The audit bets capital against that:
W = mean over STAKES of prod(1 + nu (loss - alpha)). While the certificate holds, W is a supermartingale that starts at
1, so that it ever reaches 1 / DELTA with probability at most DELTA (Ville). Once it does, the bundle is suspended.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from router.domain import (
    Completion,
    ContentDelta,
    Decision,
    GenerationEvent,
    GenerationRequest,
    MaxLoss,
    RouteRequest,
    Sampling,
)
from router.errors import RouterError
from router.events import Audited, Degraded, TaskFailed
from router.outcomes.e_process import Ledger
from router.ports import Backend, Observer, Verifier

CLOSE_SECONDS = 5.0
"""Seconds that the last evidence has to reach the disk."""

UNDER_WAY = 8
"""Audits at a time; requests beyond them are not audited."""

Rest = Callable[[], AsyncGenerator[GenerationEvent]]
"""The rest of a thought that a rule has stopped, up to the top rung, and the answer there."""

Alarm = Callable[[str, str], None]
"""Called with the model and the digest of a bundle whose certificate an audit has refuted."""


class TokenBucket:
    """Thinking tokens that audits may use: a bucket that holds `per_hour` tokens and refills within an hour."""

    def __init__(self, per_hour: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = self._left = per_hour
        self._clock = clock
        self._at = clock()

    def take(self, tokens: float) -> bool:
        """Take so many tokens out; False, and nothing is taken, where fewer are left."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._most / 3600)
        self._at = now
        if tokens > self._left:
            return False
        self._left -= tokens
        return True

    def charge(self, tokens: float) -> None:
        """Take out what was used beyond a forecast, also where that is more than is left; negative = give it back."""
        self._left -= tokens


class Auditor:
    """Runs audits in the background.

    Args:
        share: share of the requests to audit, 0..1.
        bucket: limits the thinking tokens of audits.
        verifier: judges the answers.
        ledger: keeps the evidence.
    """

    def __init__(
        self,
        share: float,
        bucket: TokenBucket,
        verifier: Verifier,
        ledger: Ledger,
        observer: Observer,
    ) -> None:
        self._share = share
        self._bucket = bucket
        self._verifier = verifier
        self._ledger = ledger
        self._observer = observer
        self._alarms: list[Alarm] = []
        self._random = random.Random()
        self._tasks: set[asyncio.Task[None]] = set()
        self._saving: asyncio.Task[None] | None = None
        self._unsaved = False

    def on_alarm(self, alarm: Alarm) -> None:
        """Call `alarm` once for each bundle whose certificate an audit refutes."""
        self._alarms.append(alarm)

    def __call__(
        self,
        backend: Backend,
        request: RouteRequest,
        decision: Decision,
        sampling: Sampling,
        answer: str,
        used: int | None,
        rest: Rest | None = None,
    ) -> None:
        """Consider an answered request; never waits. Only decisions under a relative certificate are audited.

        Args:
            used: tokens of the thought, and of its probes; None = unknown.
            rest: goes on with the thought that was stopped, which makes the loss exact; None = nothing was stopped.
        """
        certificate = decision.choice.certificate
        if certificate is None or not isinstance(decision.target, MaxLoss) or self._random.random() >= self._share:
            return
        top = decision.ladder.rungs[-1]
        # The loss is 0 without another run; leaving it out would overestimate the mean.
        if decision.rung == top and rest is None:
            self._bet(decision, certificate.alpha, 0.0, _pair(used, used))
            return
        mean = None if decision.score is None else decision.score.mean[-1]
        tokens = float(top.tokens or 0) if mean is None else mean
        if rest is not None:
            tokens = max(tokens - (used or 0), 0.0)
        if len(self._tasks) < UNDER_WAY and self._bucket.take(tokens):
            # Drawn as the caller's answer was, or the two could not be compared.
            again = GenerationRequest(request.prompt, top, 0, replace(sampling, logprobs=False), tokens)
            events = backend.stream(again) if rest is None else rest()
            task = asyncio.create_task(self._compare(events, request, decision, certificate.alpha, answer, used))
            self._tasks.add(task)  # the event loop itself keeps only weak references
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel the audits under way, and write the evidence so far."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._saving is not None:
            await asyncio.wait([self._saving], timeout=CLOSE_SECONDS)

    async def _compare(
        self,
        events: AsyncGenerator[GenerationEvent],
        request: RouteRequest,
        decision: Decision,
        alpha: float,
        answer: str,
        used: int | None,
    ) -> None:
        try:  # a run that fails gives no label, which cannot make an alarm
            at_top, tokens = await _run(events)
            best, given = await self._verifier.correct(request.prompt, [at_top, answer])
        except RouterError as error:
            self._observer(Degraded("audit", str(error)))
            return
        except Exception as error:  # nobody awaits this task, so the failure would go unseen
            self._observer(TaskFailed("audit", error))
            return
        self._bet(decision, alpha, best - given, _pair(used, tokens))

    def _bet(self, decision: Decision, alpha: float, loss: float, tokens: tuple[int, int] | None) -> None:
        before = self._ledger.alarmed(decision.model_version)
        found = self._ledger.bet(decision.model_version, alpha, loss)
        self._unsaved = True
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save())
        self._observer(Audited(decision.model, alpha, loss, found.wealth, found.alarmed, tokens))
        if found.alarmed and not before:
            for alarm in self._alarms:
                alarm(decision.model, decision.model_version)

    async def _save(self) -> None:
        """Write the ledger until it holds all evidence; bets that arrive meanwhile share the next write."""
        while self._unsaved:
            self._unsaved = False
            try:
                await self._ledger.save()
            except OSError as error:
                self._observer(Degraded("audit", f"its file cannot be written: {error}"))


async def _run(events: AsyncGenerator[GenerationEvent]) -> tuple[str, int | None]:
    """The answer in some events, and its thinking tokens; None where nobody counted them. Raises BackendError."""
    answer, tokens = "", None
    async with aclosing(events):
        async for event in events:
            if isinstance(event, ContentDelta):
                answer += event.text
            elif isinstance(event, Completion):
                tokens = event.thinking_tokens
    return answer, tokens


def _pair(used: int | None, at_top: int | None) -> tuple[int, int] | None:
    return None if used is None or at_top is None else (used, at_top)
