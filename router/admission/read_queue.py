"""Places for messages on their way: so many at once, and a fair order for the calls that wait for a place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeAlias

from router.errors import InvalidRequest, Overloaded

MAX_READS, MESSAGE_SECONDS = 8, 30.0
"""Messages of a tenant that are read at once, and how long one may wait for that and then take to arrive."""

OPEN_SECONDS = 1.0
"""How long a message may take where the service is open to everyone, and others wait."""

Place: TypeAlias = "asyncio.Future[bool]"
"""What a call waits for: True where it gets a place, False where it is given up."""


class Connected(Protocol):
    """A call that has come over a connection."""

    def peer(self) -> str:
        """The connection's name."""
        ...


class FairReads:
    """Places for the messages of tenants. Calls of a tenant that has too many on their way wait; others' do not.

    All callers without credentials count as one tenant; among them a message that does not arrive loses its place to
    one that waits.

    Args:
        max_waiting: calls of a tenant that may wait.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._queues: dict[str | None, ReadQueue] = {}

    def place(self, tenant: str | None, call: Connected) -> AbstractAsyncContextManager[None]:
        """A place, in which the message of a call is read; raises as `ReadQueue.place` does."""
        if (queue := self._queues.get(tenant)) is None:
            hurried = OPEN_SECONDS if tenant is None else MESSAGE_SECONDS
            queue = self._queues[tenant] = ReadQueue(MAX_READS, self._max_waiting, MESSAGE_SECONDS, hurried)
        return queue.place(call)


class ReadQueue:
    """Places for messages that are read at once, and the calls that wait for one.

    The connection with the fewest waiting calls is next, and of its calls the newest: a flood on some connections keeps
    nobody out on another one. Where too many wait, the connection that has most of them loses its oldest.

    Args:
        places: messages that are read at once.
        max_waiting: calls that may wait.
        seconds: longest time that a call may wait, and that its message may then take.
        hurried: the same of a message where others wait.
    """

    def __init__(self, places: int, max_waiting: int, seconds: float, hurried: float) -> None:
        self._free = places
        self._max_waiting = max_waiting
        self._seconds = seconds
        self._hurried = hurried
        self._waiting: dict[str, dict[Place, None]] = {}  # by connection, the oldest first
        self._count = 0
        self._limits: dict[asyncio.Timeout, float] = {}  # of the messages on their way, and when they began

    @asynccontextmanager
    async def place(self, call: Connected) -> AsyncIterator[None]:
        """A place, in which the message is read. Raises Overloaded, or InvalidRequest where the message is late."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(call.peer())
        try:
            async with self._limited():
                yield
        finally:
            self._pass_on()

    @asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        began = asyncio.get_running_loop().time()
        limit = asyncio.timeout_at(began + (self._hurried if self._count else self._seconds))
        self._limits[limit] = began
        try:
            async with limit:
                yield
        except TimeoutError:
            if self._is_hurried(limit):
                raise Overloaded("calls", f"others wait, and the message took {self._hurried:g} s") from None
            raise InvalidRequest("request", f"did not arrive within {self._seconds:g} s") from None
        finally:
            del self._limits[limit]

    async def _wait(self, connection: str) -> None:
        self._hurry_one()
        if self._count >= self._max_waiting:
            self._give_up_one()
        place: Place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(connection, {})[place] = None
        self._count += 1
        try:
            async with asyncio.timeout(self._seconds):
                given = await place
        except TimeoutError:
            self._withdraw(connection, place)
            given = False
        except asyncio.CancelledError:
            self._withdraw(connection, place)
            raise
        if not given:
            raise Overloaded("calls", "too many messages are on their way")

    def _withdraw(self, connection: str, place: Place) -> None:
        """Forget a call that waits no longer; it may have got a place in this very moment."""
        if place in self._waiting.get(connection, ()):
            self._remove(connection, place)
        elif not place.cancelled() and place.result():
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            connection = min(reversed(self._waiting), key=lambda one: len(self._waiting[one]))
            place = next(reversed(self._waiting[connection]))
            self._remove(connection, place)
            if not place.done():  # a call that was just cancelled stands here until it notices
                place.set_result(True)
                return
        self._free += 1

    def _give_up_one(self) -> None:
        connection = max(self._waiting, key=lambda one: len(self._waiting[one]))
        place = next(iter(self._waiting[connection]))
        self._remove(connection, place)
        if not place.done():
            place.set_result(False)

    def _remove(self, connection: str, place: Place) -> None:
        del self._waiting[connection][place]
        self._count -= 1
        if not self._waiting[connection]:
            del self._waiting[connection]

    def _hurry_one(self) -> None:
        """Shorten the limit of the oldest message that has the long one."""
        for limit, began in self._limits.items():
            if not self._is_hurried(limit) and not limit.expired():
                limit.reschedule(began + self._hurried)
                return

    def _is_hurried(self, limit: asyncio.Timeout) -> bool:
        return (limit.when() or 0) < self._limits[limit] + self._seconds
