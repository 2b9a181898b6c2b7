"""A fair queue: tokens under way stay within a capacity, and the rest waits, fairly between users.

The user with the fewest recent tokens, by weight, is next. This is the virtual token counter of Sheng et al. (Fairness
in Serving Large Language Models, OSDI 2024), with counters that decay, so that a flood delays only its own user.

A request that would wait longer than its patience is refused at once. The expected wait follows
from Little's law: tokens leave the service at capacity / mean time of a request. Ahead of a request are the tokens of
its own user, and of others as far as their counters are lower; users with lower counters are also expected to keep
arriving, which takes their share off the pace.
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
"""Weight of the newest request in the mean time of a request."""

DECAY_SECONDS = 10.0
"""Time constant of the decay of the users' counters."""

SMOOTHED_SECONDS = 2.0
"""Time constant of the mean pressure: a burst is not an overload."""

SHORTEST_RETRY = 0.05
LONGEST = 2.0
"""A wait ends after so many times the patience, although it was expected to be shorter."""


@dataclass(eq=False, slots=True)
class _Waiting:
    tokens: float
    turn: "asyncio.Future[None]"


@dataclass(eq=False, slots=True)
class _User:
    """A user of the queue; `had` is its counter at the time `at`."""

    weight: float
    at: float
    had: float = 0.0
    queue: deque[_Waiting] = field(default_factory=deque)

    @property
    def queued(self) -> float:
        """Tokens that wait."""
        return sum(one.tokens for one in self.queue)

    def faded(self, now: float) -> float:
        """The counter at the time `now`."""
        return self.had * exp((self.at - now) / DECAY_SECONDS)


class FairQueue:
    """Lets requests in while their tokens fit.

    Args:
        capacity: tokens under way at once. A larger request counts as so many, and runs alone.
        patience: longest expected wait in seconds; beyond it a request is refused.

    Attributes:
        under_way: tokens of the running requests.
        queued: tokens of the waiting requests.
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
        """Tokens under way and waiting, as a share of the capacity; the mean of the last seconds."""
        self._settle()
        return self._pressure

    def reject_early(self, user: str, weight: float, tokens: float = 0.0, patience: float | None = None) -> None:
        """Refuse a request that would wait longer than it may. Raises Overloaded."""
        wait = self.wait(user, weight, tokens)
        if wait > min(self._patience, inf if patience is None else patience):
            raise Overloaded("queue", "no capacity is left", max(wait - self._patience, SHORTEST_RETRY))

    def wait(self, user: str, weight: float, tokens: float) -> float:
        """Expected wait of one more request in seconds; 0 while there is room, or before any request has ended."""
        mine = self._users.get(user, _User(weight, self._clock()))
        ahead = mine.queued
        if not ahead and self._fits(tokens):
            return 0.0
        now = self._clock()
        had = mine.faded(now)
        others = [(other, other.faded(now)) for other in self._users.values() if other is not mine]
        # Others go first until their counter per weight reaches that of this request's user.
        before = sum(
            min(other.queued, max((had + ahead) / weight * other.weight - theirs, 0.0)) for other, theirs in others
        )
        # Users with lower counters keep arriving meanwhile, and take this share of the pace.
        favoured = sum(theirs for other, theirs in others if theirs / other.weight < had / weight)
        everyone = had + sum(theirs for _, theirs in others)
        pace = self._capacity * (1 - favoured / everyone if favoured else 1.0)
        return (ahead + tokens + before) * self._seconds / pace

    @asynccontextmanager
    async def turn(self, user: str, weight: float, tokens: float, patience: float | None = None) -> AsyncIterator[None]:
        """Wait for room, at most `patience` seconds, and hold it while the request runs. Raises Overloaded."""
        tokens = min(max(tokens, 1.0), self._capacity)
        # A newcomer that fits still queues behind others, or small requests would overtake a large one without end.
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
            # The first request sets the mean: starting from 0 the queue would promise short waits for a long time.
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
            # A timeout or a caller that leaves cancels the future, unless `_next` has set its result just before.
            if one.turn.cancelled():
                self._dequeue(mine, one)
                self._next()
            else:  # let in at the moment it gave up: the room goes back
                self._leave(tokens)
            if isinstance(error, TimeoutError):
                raise Overloaded("wait", "no capacity came free in time", self._patience) from error
            raise

    def _next(self) -> None:
        """Let in as many requests as fit, those of the user with the lowest counter per weight first."""
        now = self._clock()
        while waiting := [user for user in self._users.values() if user.queue]:
            user = min(waiting, key=lambda user: user.faded(now) / user.weight)
            head = user.queue[0]
            # The head waits until it fits; letting a smaller request pass would starve large ones.
            if not self._fits(head.tokens) and not head.turn.done():
                return
            self._dequeue(user, head)
            if head.turn.done():  # its caller gave up and handles that in `_wait`
                continue
            self._enter(user, head.tokens)
            head.turn.set_result(None)

    def _fits(self, tokens: float) -> bool:
        # Alone, any request runs: rounding must not keep one as large as the capacity out.
        return self.under_way + tokens <= self._capacity or not self._running

    def _dequeue(self, user: _User, one: _Waiting) -> None:
        """Take a request out of its queue, unless that has happened already."""
        self._settle()
        if one not in user.queue:
            return
        user.queue.remove(one)
        self.queued = self.queued - one.tokens if any(user.queue for user in self._users.values()) else 0.0

    def _enter(self, user: _User, tokens: float) -> None:
        self._settle()
        # The counter decays from its last change on, so it needs no timer: it is computed when it is read.
        now = self._clock()
        user.had, user.at = user.faded(now) + tokens, now
        self._running += 1
        self.under_way += tokens

    def _leave(self, tokens: float) -> None:
        self._settle()
        self._running -= 1
        # Without running requests the sum is 0; a rounding error that stayed would take room for ever.
        self.under_way = self.under_way - tokens if self._running else 0.0
        self._next()

    def _settle(self) -> None:
        """Bring the mean pressure up to now; the load has been constant since the last call."""
        now = self._clock()
        # The exact solution of an exponential mean for a constant load, so it does not depend on how often it is read.
        load = (self.under_way + self.queued) / self._capacity
        self._pressure = load + (self._pressure - load) * exp((self._since - now) / SMOOTHED_SECONDS)
        self._since = now
