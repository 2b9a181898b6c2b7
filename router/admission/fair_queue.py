"""Whose turn it is: tokens under way within a capacity, and a short queue that is fair between its users.

Whoever has had the fewest tokens lately, by weight, is next: the virtual token counter of Sheng et al. (Fairness in
Serving Large Language Models, OSDI 2024), with counters that fade, so that a flood delays only itself. Nobody waits in
vain: where the wait would outlast the patience, it is refused before it begins. The wait follows from Little's law:
tokens leave at capacity / mean time that a request takes, those of users who have had less go first, and who has had
less lately will go on coming.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import exp, inf

from router.errors import Overloaded

EWMA_ALPHA = 0.05
"""Weight of the newest request in the mean time that one takes."""

DECAY_SECONDS = 10.0
"""Time constant with which the tokens that a user has had are forgotten."""

SMOOTHED_SECONDS = 2.0
"""Pressure is told as a mean over about that long, so that a burst is no overload."""

SHORTEST_RETRY = 0.05
LONGEST = 2.0
"""Patiences after which a wait ends that was expected to be shorter."""


@dataclass(eq=False, slots=True)
class _Waiting:
    tokens: float
    turn: "asyncio.Future[None]"


@dataclass(eq=False, slots=True)
class _User:
    """Attributes: `had`: tokens had by the time `at`, fading."""

    weight: float
    at: float
    had: float = 0.0
    queue: deque[_Waiting] = field(default_factory=deque)

    @property
    def queued(self) -> float:
        return sum(one.tokens for one in self.queue)

    def faded(self, now: float) -> float:
        return self.had * exp((self.at - now) / DECAY_SECONDS)


class FairQueue:
    """Lets requests in while their tokens fit.

    Args:
        capacity: tokens under way at once. A larger request counts as so many, and runs alone.
        patience: seconds that anyone may be expected to wait.
    """

    def __init__(self, capacity: float, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._patience = patience
        self._clock = clock
        self._users: dict[str, _User] = {}
        self._seconds = 0.0
        self._running = 0
        self._pressure, self._since = 0.0, clock()
        self.under_way = 0.0
        self.queued = 0.0

    @property
    def pressure(self) -> float:
        """Tokens under way and waiting, as a share of the capacity: the mean of the last seconds."""
        self._settle()
        return self._pressure

    def reject_early(self, user: str, weight: float, tokens: float = 0.0, patience: float | None = None) -> None:
        """Raises Overloaded where a request would wait longer than it may."""
        wait = self.wait(user, weight, tokens)
        if wait > min(self._patience, inf if patience is None else patience):
            raise Overloaded("queue", "no capacity is left", max(wait - self._patience, SHORTEST_RETRY))

    def wait(self, user: str, weight: float, tokens: float) -> float:
        """Seconds that one more request would wait, about; 0 while there is room, or nothing is known."""
        mine = self._users.get(user, _User(weight, self._clock()))
        ahead = mine.queued
        if not ahead and self._fits(tokens):
            return 0.0
        now = self._clock()
        had = mine.faded(now)
        others = [(other, other.faded(now)) for other in self._users.values() if other is not mine]
        before = sum(
            min(other.queued, max((had + ahead) / weight * other.weight - theirs, 0.0)) for other, theirs in others
        )
        favoured = sum(theirs for other, theirs in others if theirs / other.weight < had / weight)
        everyone = had + sum(theirs for _, theirs in others)
        pace = self._capacity * (1 - favoured / everyone if favoured else 1.0)
        return (ahead + tokens + before) * self._seconds / pace

    @asynccontextmanager
    async def turn(self, user: str, weight: float, tokens: float, patience: float | None = None) -> AsyncIterator[None]:
        """Held while the request runs; waits for room, at most `patience` seconds. Raises Overloaded."""
        tokens = min(max(tokens, 1.0), self._capacity)
        waits = bool(self.queued) or not self._fits(tokens)
        if waits:
            self.reject_early(user, weight, tokens, patience)
        mine = self._users.setdefault(user, _User(weight, self._clock()))
        mine.weight = weight
        if waits:
            await self._wait(mine, tokens, patience)
        else:
            self._enter(mine, tokens)
        began = self._clock()
        try:
            yield
        finally:
            took = self._clock() - began
            self._seconds += (took - self._seconds) * (EWMA_ALPHA if self._seconds else 1.0)
            self._leave(tokens)

    async def _wait(self, mine: _User, tokens: float, patience: float | None) -> None:
        one = _Waiting(tokens, asyncio.get_running_loop().create_future())
        self._settle()
        mine.queue.append(one)
        self.queued += tokens
        try:
            async with asyncio.timeout(min(self._patience * LONGEST, inf if patience is None else patience)):
                await one.turn
        except BaseException as error:
            if one.turn.cancelled():
                self._dequeue(mine, one)
                self._next()
            else:  # it was let in as it gave up
                self._leave(tokens)
            if isinstance(error, TimeoutError):
                raise Overloaded("wait", "no capacity came free in time", self._patience) from error
            raise

    def _next(self) -> None:
        """Let in as many as fit, whoever has had least first."""
        now = self._clock()
        while waiting := [user for user in self._users.values() if user.queue]:
            user = min(waiting, key=lambda user: user.faded(now) / user.weight)
            head = user.queue[0]
            if not self._fits(head.tokens) and not head.turn.done():
                return
            self._dequeue(user, head)
            if not head.turn.done():  # else it has given up, and will say so
                self._enter(user, head.tokens)
                head.turn.set_result(None)

    def _fits(self, tokens: float) -> bool:
        return self.under_way + tokens <= self._capacity or not self._running

    def _dequeue(self, user: _User, one: _Waiting) -> None:
        """It waits no more."""
        self._settle()
        if one not in user.queue:
            return
        user.queue.remove(one)
        self.queued = self.queued - one.tokens if any(user.queue for user in self._users.values()) else 0.0

    def _enter(self, user: _User, tokens: float) -> None:
        self._settle()
        now = self._clock()
        user.had, user.at = user.faded(now) + tokens, now
        self._running += 1
        self.under_way += tokens

    def _leave(self, tokens: float) -> None:
        self._settle()
        self._running -= 1
        self.under_way = self.under_way - tokens if self._running else 0.0  # no rest of rounding stays
        self._next()

    def _settle(self) -> None:
        """Take what was true since the last change into the mean."""
        now = self._clock()
        load = (self.under_way + self.queued) / self._capacity
        self._pressure = load + (self._pressure - load) * exp((self._since - now) / SMOOTHED_SECONDS)
        self._since = now
