"""Places for messages on their way: so many at once, and a fair order for the calls that wait for a place."""

import asyncio
from typing import Any, Protocol, TypeAlias

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

    def place(self, tenant: str | None, call: Connected) -> "Reading":
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
        self._reading: dict[Reading, None] = {}  # the oldest first
        self._look: asyncio.TimerHandle | None = None

    def place(self, call: Connected) -> "Reading":
        """A place, in which the message is read. Raises Overloaded, or InvalidRequest where the message is late."""
        return Reading(self, call)

    async def begin(self, reading: "Reading") -> None:
        """Take a place, and let the time of a message begin. Raises Overloaded."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(reading.call.peer())
        reading.task = asyncio.current_task()
        reading.began, reading.is_hurried = asyncio.get_running_loop().time(), bool(self._count)
        reading.due = reading.began + (self._hurried if self._count else self._seconds)
        self._reading[reading] = None
        self._look_at(reading.due)

    def end(self, reading: "Reading") -> None:
        """Give the place to a call that waits."""
        del self._reading[reading]
        self._pass_on()

    def lateness(self, reading: "Reading") -> Overloaded | InvalidRequest:
        """The error of a message that was late."""
        if reading.is_hurried:
            return Overloaded("calls", f"others wait, and the message took {self._hurried:g} s")
        return InvalidRequest("request", f"did not arrive within {self._seconds:g} s")

    def _look_at(self, due: float) -> None:
        """Look for late messages at a time. One timer serves all: one for each would cost more than reading it."""
        if self._look is None or due < self._look.when():
            if self._look is not None:
                self._look.cancel()
            self._look = asyncio.get_running_loop().call_at(due, self._give_up_late)

    def _give_up_late(self) -> None:
        self._look = None
        now = asyncio.get_running_loop().time()
        for reading in self._reading:
            if reading.due <= now and not reading.is_late:
                reading.give_up()
        if on_time := [reading.due for reading in self._reading if not reading.is_late]:
            self._look_at(min(on_time))

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
        """Shorten the time of the oldest message that has the long one."""
        for reading in self._reading:
            if not (reading.is_hurried or reading.is_late):
                reading.is_hurried, reading.due = True, reading.began + self._hurried
                self._look_at(reading.due)
                return


class Reading:
    """A message on its way, in a place of a queue, which late ones lose. A class, since every call makes one.

    Attributes:
        call: the call whose message it is.
        task: reads it, once it has a place.
        began: when it got the place; `due` is when it is late.
        is_hurried: others wait, so it has less time.
        is_late: it was given up.
    """

    __slots__ = ("_queue", "began", "call", "due", "is_hurried", "is_late", "task")

    def __init__(self, queue: ReadQueue, call: Connected) -> None:
        self._queue = queue
        self.call = call
        self.task: asyncio.Task[Any] | None = None
        self.began = self.due = 0.0
        self.is_hurried = self.is_late = False

    async def __aenter__(self) -> None:
        await self._queue.begin(self)

    async def __aexit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self._queue.end(self)
        # More than one: the call itself was cancelled, too.
        if self.is_late and isinstance(error, asyncio.CancelledError) and self.task and not self.task.uncancel():
            raise self._queue.lateness(self) from None

    def give_up(self) -> None:
        """End the reading: the message is late."""
        self.is_late = True
        if self.task is not None:
            self.task.cancel()
