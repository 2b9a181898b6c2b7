"""Whose turn it is: tokens under way within a capacity, and a short queue that is fair between its users.

Start-time fair queueing (Goyal, Vin, Chen 1996) over tokens in place of bytes: whoever has had least, by weight, is
next, so that a flood delays only itself. Nobody waits in vain: where the wait would outlast the patience, it is refused
before it begins. The wait follows from Little's law: tokens leave at capacity / mean time that a request takes.
"""

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import exp

from router.errors import Overloaded

MEMORY = 0.05
"""Weight of the newest request in the mean time that one takes."""

SHORTEST_RETRY = 0.05
SMOOTHED_SECONDS = 2.0
"""Pressure is told as a mean over about that long, so that a burst is no overload."""


@dataclass(order=True, slots=True)
class _Waiting:
    start: float
    number: int
    user: str = field(compare=False)
    tokens: float = field(compare=False)
    turn: "asyncio.Future[None]" = field(compare=False)


class FairQueue:
    """Lets requests in while their tokens fit.

    Args:
        capacity: tokens under way at once. A larger request counts as so many, and runs alone.
        patience: seconds that anyone may wait.
    """

    def __init__(self, capacity: float, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._patience = patience
        self._clock = clock
        self._heap: list[_Waiting] = []
        self._numbers = 0
        self._virtual = 0.0
        self._finish: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._waiting: dict[str, float] = {}
        self._seconds = 0.0
        self._running = 0
        self._pressure, self._since = 0.0, clock()
        self.under_way = 0.0

    @property
    def queued(self) -> float:
        """Tokens that wait."""
        return sum(self._waiting.values())

    @property
    def pressure(self) -> float:
        """Tokens under way and waiting, as a share of the capacity: the mean of the last seconds."""
        self._settle()
        return self._pressure

    def refuse_in_vain(self, user: str, weight: float, tokens: float = 0.0, patience: float | None = None) -> None:
        """Raises Overloaded where a request would wait longer than it may."""
        wait = self.wait(user, weight, tokens)
        if wait > min(self._patience, self._patience if patience is None else patience):
            raise Overloaded("queue", "no capacity is left", max(wait - self._patience, SHORTEST_RETRY))

    def wait(self, user: str, weight: float, tokens: float) -> float:
        """Seconds that one more request would wait, about; 0 while there is room, or nothing is known."""
        ahead = self._waiting.get(user, 0.0)
        if not ahead and self._fits(tokens):
            return 0.0
        weights = weight + sum(self._weights[name] for name in self._waiting if name != user)
        return (ahead + tokens) * self._seconds / self._capacity * weights / weight

    @asynccontextmanager
    async def turn(self, user: str, weight: float, tokens: float, patience: float | None = None) -> AsyncIterator[None]:
        """Held while the request runs; waits for room, at most `patience` seconds. Raises Overloaded."""
        tokens = min(max(tokens, 1.0), self._capacity)
        if self._heap or not self._fits(tokens):
            self.refuse_in_vain(user, weight, tokens, patience)
            await self._wait(user, weight, tokens, patience)
        else:
            self._enter(tokens)
        began = self._clock()
        try:
            yield
        finally:
            took = self._clock() - began
            self._seconds += (took - self._seconds) * (MEMORY if self._seconds else 1.0)
            self._leave(tokens)
            self._next()

    async def _wait(self, user: str, weight: float, tokens: float, patience: float | None) -> None:
        start = max(self._virtual, self._finish.get(user, 0.0))
        self._finish[user] = start + tokens / weight
        self._numbers += 1
        mine = _Waiting(start, self._numbers, user, tokens, asyncio.get_running_loop().create_future())
        heapq.heappush(self._heap, mine)
        self._weights[user] = weight
        self._settle()
        self._waiting[user] = self._waiting.get(user, 0.0) + tokens
        try:
            async with asyncio.timeout(min(self._patience, self._patience if patience is None else patience)):
                await mine.turn
        except BaseException as error:
            if mine.turn.cancelled():
                self._left(mine)
            else:  # it was let in as it gave up
                self._leave(tokens)
            self._next()
            if isinstance(error, TimeoutError):
                raise Overloaded("wait", "no capacity came free in time", self._patience) from error
            raise

    def _next(self) -> None:
        """Let in as many as fit, in the order of their starts."""
        while self._heap and (self._heap[0].turn.done() or self._fits(self._heap[0].tokens)):
            head = heapq.heappop(self._heap)
            if head.turn.done():  # it has given up
                continue
            self._virtual = head.start
            self._left(head)
            self._enter(head.tokens)
            head.turn.set_result(None)
        if not self._heap:
            self._finish.clear()
            self._virtual = 0.0

    def _fits(self, tokens: float) -> bool:
        return self.under_way + tokens <= self._capacity or not self._running

    def _left(self, one: _Waiting) -> None:
        """It waits no more."""
        self._settle()
        self._waiting[one.user] -= one.tokens
        if self._waiting[one.user] < 1e-6:
            del self._waiting[one.user]

    def _enter(self, tokens: float) -> None:
        self._settle()
        self._running += 1
        self.under_way += tokens

    def _leave(self, tokens: float) -> None:
        self._settle()
        self._running -= 1
        self.under_way = self.under_way - tokens if self._running else 0.0  # no rest of rounding stays

    def _settle(self) -> None:
        """Take what was true since the last change into the mean."""
        now = self._clock()
        load = (self.under_way + self.queued) / self._capacity
        self._pressure = load + (self._pressure - load) * exp((self._since - now) / SMOOTHED_SECONDS)
        self._since = now
